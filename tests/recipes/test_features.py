"""features: what the files hold is what is stored, of the right sample, with the right label."""

import itertools
import os
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmcoop.core.games.coalitions import coalition_names
from mmcoop.datasets.loading import load_batches
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.transforms import build_transform
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes import RECIPES, features
from mmcoop.recipes.features import Features
from mmcoop.training.config import make_config

N = 60
IDS = [f"s{i:02d}" for i in range(N)]
LABELS = [("run", "sit", "walk")[i % 3] for i in range(N)]


def table(seed: int, columns: int = 3, **more: Any) -> pd.DataFrame:
    """Random features of `N` samples, `x0`, `x1`, …, after the columns `more`."""
    numbers = np.random.default_rng(seed).normal(5 * seed, 1 + seed, (N, columns))
    return pd.DataFrame({**more, **{f"x{i}": numbers[:, i] for i in range(columns)}})


def write(folder: Path, **tables: pd.DataFrame | np.ndarray) -> Path:
    """Tables as csv and arrays as npy, by the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tables.items():
        if isinstance(content, pd.DataFrame):
            content.to_csv(folder / f"{name}.csv", index=False)
        else:
            np.save(folder / f"{name}.npy", content)
    return folder


def build(source: Path, **options: Any) -> Path:
    """The dataset folder built from `source`, beside it, replacing an earlier one."""
    folder = source.with_name(f"{source.name} built")
    Features(source=source, **options).build(folder, overwrite=True)
    return folder


def samples(folder: Path) -> pd.DataFrame:
    """All samples by id, in the order of the splits: split, name of the class, group, inputs."""
    opened = open_dataset(folder)
    parts = []
    for split in SPLITS:
        part = opened.split(split)
        found = part.table.select(["id", "group"]).to_pandas().assign(split=split)
        found["label"] = [opened.classes[label] for label in part.labels]
        for name in opened.modalities:
            found[name] = list(part.read(name, np.arange(len(part))))
        parts.append(found)
    return pd.concat(parts).set_index("id")


def rejects(folder: Path) -> dict[str, tuple[str, str]]:
    """Reason and detail by id."""
    found = pd.read_parquet(folder / "rejects.parquet")
    assert found.id.is_unique
    return {row.id: (row.reason, row.detail) for row in found.itertuples()}


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stored(found: pd.DataFrame, modality: str) -> np.ndarray:
    return np.stack(found[modality].tolist())


@pytest.fixture
def source(tmp_path) -> Path:
    """Two tables with ids; one of them has the labels."""
    return write(
        tmp_path / "source", acc=table(1, id=IDS, label=LABELS), gyr=table(2, columns=2, id=IDS)
    )


# What it is


def test_it_is_a_recipe_whose_every_option_has_a_help_text():
    assert RECIPES.load("features") is Features
    assert all(field.metadata["help"] for field in fields(Features))
    assert Features(source=Path("x")) == Features(
        source=Path("x"),
        modality=None,
        label=None,
        id_column="id",
        validation=0.1,
        test=0.2,
        seed=0,
        standardize=True,
    )


def test_the_header_says_how_it_was_built(source):
    opened = open_dataset(build(source, seed=3))
    assert (opened.name, opened.recipe) == ("source", "features")
    assert opened.source == f"files of {source}"
    assert opened.classes == ["run", "sit", "walk"]
    assert opened.options == {
        "source": str(source),
        "modality": None,
        "label": None,
        "id_column": "id",
        "validation": 0.1,
        "test": 0.2,
        "seed": 3,
        "standardize": True,
    }
    assert opened.report == {
        "files": {"acc": "acc.csv", "gyr": "gyr.csv"},
        "joined": "by id",
        "labels_from": ["acc.csv: column 'label', 2 of 5"],
    }
    assert opened.columns == {}
    assert opened.rejects == {}
    assert {name: m.shape for name, m in opened.modalities.items()} == {"acc": (3,), "gyr": (2,)}


def test_its_advice_is_settings_that_exist(source):
    advice = open_dataset(build(source)).defaults
    assert make_config(advice["train"], {"method": "sample"}).warmup < advice["train"]["epochs"]
    make_config(advice["train"], advice["enhance"])


def test_the_same_build_gives_the_same_bytes_of_every_file(source, tmp_path):
    first = file_bytes(build(source))
    assert file_bytes(build(source)) == first


# Values


def test_numbers_are_stored_as_they_are_in_float32(source):
    found = samples(build(source))
    for name in ("acc", "gyr"):
        raw = pd.read_csv(source / f"{name}.csv", index_col="id").filter(like="x")
        np.testing.assert_array_equal(
            stored(found, name), raw.loc[found.index].to_numpy().astype(np.float32)
        )


def test_arrays_are_vectors_or_series_by_their_shape(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "eeg": rng.normal(size=(N, 20, 4)),
        "embedding": rng.normal(size=(N, 7)).astype(np.float16),
        "counts": rng.integers(0, 9, (N, 3)),
        "switch": rng.random((N, 2)) < 0.5,
        "heat": rng.normal(size=N).astype(np.float32),
        "turned": np.asfortranarray(rng.normal(size=(N, 5, 2))),
    }
    folder = build(write(tmp_path / "source", labels=np.array(LABELS), **arrays))
    opened, found = open_dataset(folder), samples(folder).sort_index()
    kinds = {n: (m.kind, m.shape, m.dtype, m.encoder) for n, m in opened.modalities.items()}
    assert kinds == {
        "counts": ("vector", (3,), "float32", "mlp"),
        "eeg": ("series", (20, 4), "float32", "conv1d"),
        "embedding": ("vector", (7,), "float32", "mlp"),
        "heat": ("vector", (1,), "float32", "mlp"),
        "switch": ("vector", (2,), "float32", "mlp"),
        "turned": ("series", (5, 2), "float32", "conv1d"),
    }
    for name, array in arrays.items():
        expected = array.astype(np.float32).reshape(N, *opened.modalities[name].shape)
        np.testing.assert_array_equal(stored(found, name), expected)
    assert found.label.tolist() == LABELS


def test_a_table_may_have_a_single_feature(source):
    write(source, heat=table(3, columns=1, id=IDS))
    assert open_dataset(build(source)).modalities["heat"].shape == (1,)


@pytest.mark.parametrize("numbers", [1, 7, 8, 100, 10_000])
def test_rows_of_an_array_come_in_parts_that_are_small(monkeypatch, numbers):
    array, rows = np.random.default_rng(0).normal(size=(40, 2, 4)), np.arange(39, 5, -1)
    monkeypatch.setattr(features, "_CHUNK", numbers)
    parts = list(features._chunks(array, rows))
    assert max(part.size for part in parts) <= max(numbers, 8)
    np.testing.assert_array_equal(np.concatenate(parts), array[rows])


def test_arrays_are_memory_mapped_and_gone_through_in_parts(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    eeg, other = rng.normal(3, 2, (N, 20, 4)), table(1, label=LABELS)
    eeg[[7, 33], 5, 2] = np.nan
    source = write(tmp_path / "source", eeg=eeg, other=other)
    whole = file_bytes(build(source))
    opened = []
    original = np.lib.format.open_memmap
    monkeypatch.setattr(
        np.lib.format, "open_memmap", lambda *a, **k: opened.append(original(*a, **k)) or opened[-1]
    )
    monkeypatch.setattr(features, "_CHUNK", 5 * 80)
    parts = file_bytes(build(source))
    assert [type(array) for array in opened] == [np.memmap]
    for name in whole:
        if name != "dataset.json":
            assert parts[name] == whole[name]
    mean = open_dataset(source.with_name("source built")).modalities["eeg"].mean
    training = samples(build(source)).query("split == 'train'").index.str[-5:].astype(int)
    np.testing.assert_allclose(mean, eeg[training].mean((0, 1)), rtol=1e-12)


def test_every_kind_of_table_gives_the_same_samples(source, tmp_path):
    first = samples(build(source)).sort_index()
    other = tmp_path / "other"
    other.mkdir()
    acc, gyr = (pd.read_csv(source / f"{name}.csv") for name in ("acc", "gyr"))
    acc[::-1].set_index("id").to_parquet(other / "acc.parquet")
    gyr.astype({"x0": "Float64"}).to_parquet(other / "gyr.PARQUET")
    pd.testing.assert_frame_equal(samples(build(other)).sort_index(), first)


def test_spaces_around_the_cells_of_a_table_mean_nothing(source):
    lines = [
        f'{id} , {i}, "{label}, slowly" '
        for i, (id, label) in enumerate(zip(IDS, LABELS, strict=True))
    ]
    lines[3] = f"{IDS[3]}, , sit"
    (source / "mag.csv").write_text("\n".join(['id , x , "kind" ', *lines]))
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"))
    folder = build(source, label="kind")
    found = samples(folder)
    assert rejects(folder) == {"s03": ("not-a-number", "mag, column x")}
    assert found.loc["s07", "label"] == "sit, slowly"
    assert found.loc["s07", "mag"] == [7]


def test_a_bool_and_a_nullable_column_are_numbers(source):
    acc = pd.read_csv(source / "acc.csv").assign(on=[i % 2 == 0 for i in range(N)])
    acc["steps"] = pd.array([i if i else None for i in range(N)], dtype="Int64")
    acc.to_parquet(source / "acc.parquet")
    (source / "acc.csv").unlink()
    folder = build(source)
    assert rejects(folder) == {"s00": ("not-a-number", "acc, column steps")}
    found = samples(folder).sort_index()
    np.testing.assert_array_equal(
        stored(found, "acc")[:, 3:], [[i % 2 == 0, i] for i in range(1, N)]
    )


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e39])
def test_a_row_with_a_number_that_is_none_is_rejected_with_its_column(source, number):
    gyr = pd.read_csv(source / "gyr.csv")
    gyr.loc[gyr.id == "s17", "x1"] = number
    gyr.loc[gyr.id == "s04", ["x0", "x1"]] = number
    write(source, gyr=gyr)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = build(source)
    assert rejects(folder) == {
        "s04": ("not-a-number", "gyr, column x0"),
        "s17": ("not-a-number", "gyr, column x1"),
    }
    assert open_dataset(folder).rejects == {"not-a-number": 2}
    assert set(samples(folder).index) == set(IDS) - {"s04", "s17"}


def test_a_number_that_is_none_in_an_array_is_rejected_with_its_channel(tmp_path):
    series, vector = np.zeros((N, 20, 4)), np.zeros((N, 5), np.float16)
    series[3, 19, 2] = np.nan
    vector[[3, 5], 4] = np.inf
    series[8, 0, 1] = -1e39
    source = write(tmp_path / "source", a=series, b=vector, labels=np.array(LABELS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = build(source)
    assert rejects(folder) == {
        "row-00003": ("not-a-number", "a, channel 2"),
        "row-00005": ("not-a-number", "b, feature 4"),
        "row-00008": ("not-a-number", "a, channel 1"),
    }


# Normalisation


def test_every_feature_is_normalised_by_its_training_samples_alone(source):
    folder = build(source)
    training = samples(folder).query("split == 'train'").index
    for name, modality in open_dataset(folder).modalities.items():
        raw = pd.read_csv(source / f"{name}.csv", index_col="id").filter(like="x").loc[training]
        np.testing.assert_allclose(modality.mean, raw.mean(), rtol=1e-6)
        np.testing.assert_allclose(modality.std, raw.std(ddof=0), rtol=1e-6)


def test_every_channel_of_a_series_is_normalised_over_samples_and_time(tmp_path):
    eeg = np.random.default_rng(0).normal([0, 10, -3], [1, 5, 0.01], (N, 20, 3))
    source = write(tmp_path / "source", eeg=eeg, acc=table(1, label=LABELS))
    folder = build(source)
    modality = open_dataset(folder).modalities["eeg"]
    x = stored(samples(folder).query("split == 'train'"), "eeg").astype(np.float64)
    np.testing.assert_allclose(modality.mean, x.mean((0, 1)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(modality.std, x.std((0, 1)), rtol=1e-6)
    seen = build_transform(modality, training=False)(x).numpy()
    np.testing.assert_allclose(seen.mean((0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std((0, 1)), 1, atol=1e-3)


def test_large_numbers_that_differ_little_are_normalised_precisely(source):
    far = 1e6 + np.random.default_rng(0).normal(0, 2, N)
    folder = build(write(source, gyr=pd.read_csv(source / "gyr.csv").assign(x1=far)))
    modality = open_dataset(folder).modalities["gyr"]
    training = stored(samples(folder).query("split == 'train'"), "gyr")[:, 1].astype(np.float64)
    assert modality.mean[1] == pytest.approx(training.mean(), rel=1e-9)
    assert modality.std[1] == pytest.approx(training.std(), rel=1e-6)


CLOCKS = {
    "epoch seconds": (1_700_000_000, 20),
    "epoch milliseconds": (1_700_000_000_000, 20_000),
    "pressure in mPa": (10_132_500_000, 200),
    "degrees of latitude": (48.8566, 1e-4),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy", "series"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_large_offset_costs_no_digits(tmp_path, clock, kind):
    offset, deviation = CLOCKS[clock]
    times = offset + np.random.default_rng(0).normal(0, deviation, (N, 2))
    source = write(tmp_path / "source", a=table(1, label=LABELS))
    if kind == "csv":
        write(source, t=pd.DataFrame(times, columns=["x", "y"]))
    elif kind == "parquet":
        pd.DataFrame(times, columns=["x", "y"]).to_parquet(source / "t.parquet")
    else:
        write(source, t=times if kind == "npy" else times[:, None].repeat(3, axis=1))
    opened = open_dataset(build(source))
    found = samples(opened.folder)
    rows = found.index.str[-5:].astype(int)
    train = times[rows[found.split == "train"]]
    assert (opened.modalities["t"].dtype, opened.modalities["a"].dtype) == ("float64", "float32")
    np.testing.assert_array_equal(stored(found, "t").reshape(N, -1, 2)[:, -1], times[rows])
    (batch,) = load_batches(opened.split("train"), batch_size=N)
    seen = batch.inputs["t"]
    assert seen.dtype == torch.float32
    expected = (train - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(seen.reshape(len(train), -1, 2)[:, 0], expected, atol=2e-6)


def test_without_standardize_what_float32_cannot_tell_apart_is_refused(source):
    clock = 1_700_000_000 + np.arange(N)
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(x1=clock))
    message = r"gyr\.csv, column x1: numbers about 1\.7e\+09 that differ by .* standardize"
    refused(source, message, standardize=False)
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(x1=np.arange(N)))
    build(source, standardize=False)


def test_a_constant_feature_is_only_centred_and_reported(source):
    write(source, acc=pd.read_csv(source / "acc.csv").assign(still=4.0))
    built = open_dataset(build(source))
    modality = built.modalities["acc"]
    assert (modality.mean[-1], modality.std[-1]) == (4.0, 1.0)
    assert built.report["constant_features"] == {"acc": 1}
    assert built.report["first_constant_features"] == {"acc": ["column still"]}


def test_without_standardize_a_model_sees_the_numbers_themselves(source):
    folder = build(source, standardize=False)
    for modality in open_dataset(folder).modalities.values():
        assert (modality.mean, modality.std) == (0.0, 1.0)
    plain, usual = samples(folder), samples(build(source))
    pd.testing.assert_frame_equal(plain, usual)


# Which rows are one sample


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_joined_by_id_in_any_order(source, seed):
    some = {
        name: pd.read_csv(source / f"{name}.csv").sample(N - 5, random_state=10 * seed + k)
        for k, name in enumerate(("acc", "gyr"))
    }
    some["mag"] = table(7, id=np.random.default_rng(seed).permutation(IDS))
    folder = build(write(source, **some))
    found = samples(folder)
    by_id = [rows.set_index("id").add_prefix(f"{name} ") for name, rows in some.items()]
    expected = by_id[0].join(by_id[1:], how="inner")
    assert set(found.index) == set(expected.index)
    expected = expected.loc[found.index]
    assert found.label.tolist() == expected["acc label"].tolist()
    for name in some:
        numbers = expected.filter(like=f"{name} x").to_numpy()
        np.testing.assert_array_equal(stored(found, name), numbers.astype(np.float32))
    reasons = {id: reason for id, (reason, _) in rejects(folder).items()}
    assert reasons == dict.fromkeys(set(IDS) - set(expected.index), "missing")


def test_a_sample_that_is_missing_anywhere_is_rejected_with_where(source):
    for name, gone in (("acc", ["s01", "s02"]), ("gyr", ["s02", "s03"])):
        rows = pd.read_csv(source / f"{name}.csv").drop(columns="label", errors="ignore")
        write(source, **{name: rows[~rows.id.isin(gone)]})
    labels = pd.DataFrame({"id": IDS, "label": LABELS})
    write(source, labels=labels[labels.id != "s04"])
    folder = build(source)
    assert rejects(folder) == {
        "s01": ("missing", "acc"),
        "s02": ("missing", "acc, gyr"),
        "s03": ("missing", "gyr"),
        "s04": ("missing", "labels.csv"),
    }
    assert set(samples(folder).index) == set(IDS[:1] + IDS[5:])


def test_a_repeated_id_is_rejected_since_nobody_knows_which_row_it_is(source):
    gyr = pd.read_csv(source / "gyr.csv")
    write(source, gyr=pd.concat([gyr[:20], gyr.iloc[[5, 9, 9]], gyr[20:]]))
    folder = build(source)
    found = samples(folder)
    expected = gyr.set_index("id").loc[found.index].to_numpy()
    np.testing.assert_array_equal(stored(found, "gyr"), expected.astype(np.float32))
    assert rejects(folder) == {
        "s05": ("duplicate", "in several rows of gyr"),
        "s09": ("duplicate", "in several rows of gyr"),
    }
    assert set(found.index) == set(IDS) - {"s05", "s09"}


def test_ids_that_are_numbers_are_the_same_in_every_kind_of_file(tmp_path):
    source = write(tmp_path / "source", a=table(1, id=range(N), label=LABELS))
    table(2, id=np.arange(N)[::-1]).to_parquet(source / "b.parquet")
    table(3, id=np.arange(N, dtype=float)).to_parquet(source / "c.parquet")
    folder = build(source)
    found = samples(folder)
    assert rejects(folder) == {}
    assert set(found.index) == {str(i) for i in range(N)}
    b = table(2).to_numpy().astype(np.float32)[::-1]
    np.testing.assert_array_equal(stored(found, "b"), b[found.index.astype(int)])


def test_an_id_or_a_class_may_look_like_a_missing_number(source):
    ids, labels = ["NA", "007", *IDS[2:]], ["None" if x == "sit" else x for x in LABELS]
    write(source, acc=table(1, id=ids, label=labels), gyr=table(2, id=ids[::-1]))
    folder = build(source)
    assert open_dataset(folder).classes == ["None", "run", "walk"]
    assert set(samples(folder).index) == set(ids)
    assert rejects(folder) == {}


def test_another_column_may_hold_the_ids(source):
    renamed = {
        name: pd.read_csv(source / f"{name}.csv").rename(columns={"id": "trial"})
        for name in ("acc", "gyr")
    }
    write(source, acc=renamed["acc"], gyr=renamed["gyr"][::-1])
    folder = build(source, id_column="trial")
    assert open_dataset(folder).report["joined"] == "by trial"
    found = samples(folder)
    expected = renamed["gyr"].set_index("trial").loc[found.index].to_numpy()
    np.testing.assert_array_equal(stored(found, "gyr"), expected.astype(np.float32))


def test_rows_without_ids_belong_together_in_their_order(tmp_path):
    a, b = table(1, label=LABELS), np.random.default_rng(2).normal(size=(N, 4))
    folder = build(write(tmp_path / "source", a=a, b=b))
    found = samples(folder).sort_index()
    assert found.index.tolist() == [f"row-{i:05d}" for i in range(N)]
    assert open_dataset(folder).report["joined"] == "row by row"
    assert found.label.tolist() == LABELS
    np.testing.assert_array_equal(stored(found, "a"), a.filter(like="x").astype(np.float32))
    np.testing.assert_array_equal(stored(found, "b"), b.astype(np.float32))


def test_ids_of_some_of_the_files_name_the_rows_of_all(tmp_path):
    a, b = (np.random.default_rng(i).normal(size=(N, 4)) for i in range(2))
    labels = pd.DataFrame({"id": IDS, "label": LABELS})
    labels.loc[3, "id"] = None
    found = samples(build(write(tmp_path / "source", a=a, b=b, labels=labels)))
    assert found.index.sort_values().tolist() == sorted([*IDS[:3], "row-00003", *IDS[4:]])
    np.testing.assert_array_equal(stored(found, "a")[found.index == "s09"][0], a[9].astype("f4"))
    assert found.label.loc["s09"] == LABELS[9]


INDICES = {
    "shuffled": np.random.default_rng(0).permutation(N),
    "a part": np.arange(5, 5 + N),
    "words": np.array(IDS),
}


@pytest.mark.parametrize("kinds", [("csv", "parquet"), ("parquet", "parquet"), ("csv", "csv")])
@pytest.mark.parametrize("which", INDICES)
def test_rows_are_joined_by_the_index_that_pandas_has_written(tmp_path, which, kinds):
    source = write(tmp_path / "source")
    index = pd.Index(INDICES[which])
    for k, (name, kind) in enumerate(zip("ab", kinds, strict=True)):
        frame = table(k, **({} if k else {"label": LABELS})).set_index(index)
        frame = frame.sample(frac=1, random_state=k)
        path = source / f"{name}.{kind}"
        frame.to_csv(path) if kind == "csv" else frame.to_parquet(path)
    folder = build(source)
    found, place = samples(folder), {str(id): k for k, id in enumerate(index)}
    assert open_dataset(folder).report["joined"] == "by index"
    rows = [place[id] for id in found.index]
    for k, name in enumerate("ab"):
        np.testing.assert_array_equal(
            stored(found, name), table(k).to_numpy()[rows].astype(np.float32)
        )
    assert found.label.tolist() == [LABELS[row] for row in rows]


def test_an_index_meets_a_column_of_ids(source):
    gyr = pd.read_csv(source / "gyr.csv", index_col="id")[::-1]
    gyr.rename_axis(None).to_parquet(source / "gyr.parquet")
    (source / "gyr.csv").unlink()
    folder = build(source)
    found = samples(folder)
    np.testing.assert_array_equal(stored(found, "gyr"), gyr.loc[found.index].astype(np.float32))
    assert open_dataset(folder).report["joined"] == "by id, and the index of gyr.parquet"


@pytest.mark.parametrize("other", ["npy", "csv"])
def test_rows_whose_index_is_not_in_order_are_never_taken_row_by_row(tmp_path, other):
    a, b = table(1, label=LABELS), table(2)
    source = write(tmp_path / "source", b=b if other == "csv" else b.to_numpy())
    a.sample(frac=1, random_state=0).to_parquet(source / "a.parquet")
    refused(
        source, rf"a\.parquet says in its index which .*, and .*b\.{other} does not: give every"
    )
    a.to_parquet(source / "a.parquet")
    assert open_dataset(build(source)).report["joined"] == "row by row"


def test_ids_and_classes_are_the_same_however_they_are_spelt(tmp_path):
    ids = [f"prise\u0301 {i}" for i in range(N)]
    labels = ["\u00e9te\u0301" if x == "run" else x for x in LABELS]
    odd = ["e\u0301t\u00e9 " if x == "run" else x for x in LABELS]
    b = table(2, id=[f" pris\u00e9 {i}\u200b" for i in range(N)], label=odd)
    source = write(tmp_path / "source", a=table(1, id=ids, label=labels), b=b[::-1])
    folder = build(source)
    assert open_dataset(folder).classes == ["sit", "walk", "\u00e9t\u00e9"]
    assert set(samples(folder).index) == {f"pris\u00e9 {i}" for i in range(N)}
    assert rejects(folder) == {}


def test_files_are_found_however_their_names_are_spelt(source):
    table(3, id=IDS).to_csv(source / "me\u0301t\u00e9o .csv", index=False)
    folder = build(source, modality=["acc=acc.csv", "sky=m\u00e9te\u0301o .csv"])
    assert list(open_dataset(folder).modalities) == ["acc", "sky"]


# Labels


def test_labels_may_be_in_any_column(source):
    acc = pd.read_csv(source / "acc.csv").rename(columns={"label": "activity"})
    write(source, acc=acc)
    found = samples(build(source, label="activity"))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))
    assert stored(found, "acc").shape == (N, 3)


@pytest.mark.parametrize("name", ["group", "split"])
def test_a_label_may_be_named_like_another_column_that_is_used(source, name):
    acc = pd.read_csv(source / "acc.csv").rename(columns={"label": name})
    found = samples(build(write(source, acc=acc), label=name))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))
    assert found.group.tolist() == found.index.tolist()


def test_ids_may_be_the_groups_and_stand_in_any_place(source):
    acc = pd.read_csv(source / "acc.csv").rename(columns={"id": "group"})
    acc = acc[["x0", "group", "x1", "x2", "label"]]
    gyr = pd.read_csv(source / "gyr.csv").rename(columns={"id": "group"})
    found = samples(build(write(source, acc=acc, gyr=gyr), id_column="group"))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))
    assert found.group.tolist() == found.index.tolist()


def test_last_is_the_last_column_by_position_whatever_its_name(tmp_path):
    a, b = (table(i).assign(x=[i % 3 for i in range(N)]) for i in (1, 2))
    source = write(tmp_path / "source")
    for name, rows in (("a", a), ("b", b)):
        rows.to_csv(source / f"{name}.csv", index=False, header=["0", "last", "2", "0"])
    found = samples(build(source, label="last")).sort_index()
    assert found.label.tolist() == [str(i % 3) for i in range(N)]
    np.testing.assert_array_equal(stored(found, "b"), b.iloc[:, :3].astype(np.float32))


def test_last_passes_over_ids_splits_and_groups(source):
    acc = pd.read_csv(source / "acc.csv")
    acc = acc[["x0", "x1", "x2", "label", "id"]].assign(group=IDS)
    gyr = pd.read_csv(source / "gyr.csv").assign(y=LABELS)
    found = samples(build(write(source, acc=acc, gyr=gyr), label="last"))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))
    assert stored(found, "acc").shape == (N, 3)


@pytest.mark.parametrize("column", ["label", "activity"])
def test_labels_may_be_a_table_of_their_own(source, column):
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"))
    labels = pd.DataFrame({"id": IDS, column: LABELS, "group": IDS}).sample(frac=1, random_state=0)
    labels.to_parquet(source / "labels.parquet")
    folder = build(source)
    assert samples(folder).label.to_dict() == dict(zip(IDS, LABELS, strict=True))
    assert list(open_dataset(folder).modalities) == ["acc", "gyr"]


def test_a_table_of_labels_may_say_more(source):
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"))
    labels = pd.DataFrame({"id": IDS, "age": 30, "activity": LABELS, "note": "none"})
    expected = dict(zip(IDS, LABELS, strict=True))
    write(source, labels=labels)
    assert samples(build(source, label="activity")).label.to_dict() == expected
    write(source, labels=labels[["id", "activity", "age"]].rename(columns={"activity": "label"}))
    assert samples(build(source)).label.to_dict() == expected


def test_a_table_of_labels_may_say_something_else_alone(source):
    acc = pd.read_csv(source / "acc.csv").rename(columns={"label": "activity"})
    write(source, acc=acc, labels=pd.DataFrame({"id": IDS, "age": 30}))
    found = samples(build(source, label="activity"))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))


@pytest.mark.parametrize(
    "labels",
    [np.array(LABELS), np.array(LABELS).astype("S"), np.arange(N) % 3, np.arange(N) % 3 == 0],
)
def test_labels_may_be_an_array(tmp_path, labels):
    source = write(tmp_path / "source", a=table(1), b=table(2), labels=labels)
    found = samples(build(source)).sort_index()
    assert found.label.tolist() == [x.decode() if isinstance(x, bytes) else str(x) for x in labels]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([2, 10, -1], ["-1", "2", "10"]),
        ([1.0, 10.0, 9.0], ["1", "9", "10"]),
        ([0.5, 10.0, 9.25], ["0.5", "9.25", "10"]),
        (["b", "a", "C"], ["C", "a", "b"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        (["é ", " a", "007"], ["007", "a", "é"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_are_sorted_numbers_as_numbers(tmp_path, labels, classes, kind):
    column = [labels[i % 3] for i in range(N)]
    source = write(tmp_path / "source", b=table(2))
    rows = table(1, label=column)
    rows.to_csv(source / "a.csv", index=False) if kind == "csv" else rows.to_parquet(
        source / "a.parquet"
    )
    folder = build(source)
    assert open_dataset(folder).classes == classes
    names = [str(x).strip().removesuffix(".0") for x in column]
    assert samples(folder).sort_index().label.tolist() == names


def test_labels_of_several_files_are_the_same_however_they_are_written(tmp_path):
    numbers = [i % 3 for i in range(N)]
    source = write(
        tmp_path / "source",
        a=table(1, label=numbers),
        b=table(2, label=[float(x) for x in numbers]),
        labels=np.array(numbers),
    )
    assert open_dataset(build(source)).classes == ["0", "1", "2"]


def test_labels_that_disagree_are_refused_with_row_and_files(source):
    gyr = pd.read_csv(source / "gyr.csv").assign(label=LABELS)
    gyr.loc[7, "label"] = "run"
    acc = pd.read_csv(source / "acc.csv")
    write(source, acc=pd.concat([acc[-1:], acc[:-1]]), gyr=gyr[::-1])
    message = (
        r"acc\.csv has the label 'sit' in row 9, but .*gyr\.csv has 'run' in row 53, which is the "
        "same sample: make them agree$"
    )
    refused(source, message)


def test_a_third_file_that_disagrees_is_told_with_the_one_that_spoke_first(source):
    acc, gyr = (pd.read_csv(source / f"{name}.csv") for name in ("acc", "gyr"))
    acc.loc[4, "label"] = None
    mag = table(3, id=IDS, label=LABELS)
    mag.loc[4, "label"] = "swim"
    write(source, acc=acc, gyr=gyr.assign(label=LABELS), mag=mag)
    refused(source, r"gyr\.csv has the label 'sit' in row 5, but .*mag\.csv has 'swim' in row 5")


def test_a_label_is_taken_from_the_file_that_has_it(source):
    acc = pd.read_csv(source / "acc.csv")
    acc.loc[[4, 5], "label"] = None
    acc.loc[5, "x1"] = np.nan
    gyr = pd.read_csv(source / "gyr.csv").assign(label=LABELS)
    gyr.loc[[5, 6], "label"] = None
    write(source, acc=acc)
    (source / "gyr.csv").unlink()
    gyr.to_parquet(source / "gyr.parquet")
    folder = build(source)
    assert rejects(folder) == {"s05": ("unknown-class", "it has no label")}
    expected = {id: label for id, label in zip(IDS, LABELS, strict=True) if id != "s05"}
    assert samples(folder).label.to_dict() == expected


def test_it_is_told_which_columns_of_which_files_the_labels_are_from(tmp_path):
    a, b = table(1, columns=2, activity=LABELS), table(2).assign(activity=LABELS)
    c = table(3, columns=1)
    source = write(tmp_path / "source", a=a, b=b, c=c)
    assert open_dataset(build(source, label="activity")).report["labels_from"] == [
        "a.csv: column 'activity', 1 of 3",
        "b.csv: column 'activity', 4 of 4",
    ]
    write(source, a=table(1), b=table(2), labels=np.array(LABELS))
    assert open_dataset(build(source)).report["labels_from"] == ["labels.npy: the array"]


def test_a_feature_that_is_taken_for_the_label_is_told(tmp_path):
    """Where columns are numbered, a wide table may have one that is called so."""
    digits = [i % 3 for i in range(N)]
    source = write(tmp_path / "source")
    for name, columns in (("narrow", 2), ("wide", 4)):
        numbered = table(columns, columns).assign(pixel=digits, digit=digits)
        header = [*map(str, range(columns + 1)), "0"]
        numbered.to_csv(source / f"{name}.csv", index=False, header=header)
    assert open_dataset(build(source, label="4")).report["labels_from"] == [
        "wide.csv: column '4', 5 of 6"
    ]
    assert open_dataset(build(source, label="last")).report["labels_from"] == [
        "narrow.csv: column '0', 4 of 4",
        "wide.csv: column '0', 6 of 6",
    ]


# Splits


def test_without_a_column_of_splits_every_class_is_cut(source):
    counts = pd.crosstab(*(samples(build(source))[name] for name in ("label", "split")))
    assert counts.to_dict("index") == {
        label: {"train": 14, "validation": 2, "test": 4} for label in ("run", "sit", "walk")
    }


def test_shares_and_seed_decide_the_cut(source):
    usual = samples(build(source)).split.sort_index()
    other = samples(build(source, seed=1)).split.sort_index()
    assert other.value_counts().to_dict() == usual.value_counts().to_dict()
    assert (other != usual).any()
    found = samples(build(source, validation=0.25, test=0.5)).split.value_counts()
    assert found.to_dict() == {"train": 15, "validation": 15, "test": 30}


def test_the_cut_does_not_depend_on_the_order_of_the_rows(source):
    first = samples(build(source)).split.sort_index()
    for name in ("acc", "gyr"):
        write(source, **{name: pd.read_csv(source / f"{name}.csv").sample(frac=1, random_state=1)})
    pd.testing.assert_series_equal(samples(build(source)).split.sort_index(), first)


def test_a_column_of_splits_is_used_under_their_usual_names(source):
    words = [("Train", "dev", "testing")[i // 20] for i in range(N)]
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(split=words))
    found = samples(build(source)).sort_index()
    assert found.split.tolist() == ["train"] * 20 + ["validation"] * 20 + ["test"] * 20
    assert stored(found, "gyr").shape == (N, 2)


def test_validation_is_cut_of_train_where_only_it_is_missing(source):
    words = ["test" if i < 30 else "train" for i in range(N)]
    found = samples(build(write(source, labels=pd.DataFrame({"id": IDS, "split": words}))))
    assert set(found.index[found.split == "test"]) == set(IDS[:30])
    assert found.split.value_counts().to_dict() == {"test": 30, "train": 27, "validation": 3}


def test_no_group_is_in_two_splits(source):
    subject = [f"subject {i // 4}" for i in range(N)]
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(group=subject))
    folder = build(source)
    found = samples(folder)
    assert found.group.to_dict() == dict(zip(IDS, subject, strict=True))
    assert found.groupby("group").split.nunique().max() == 1
    assert open_dataset(folder).leakage == {}
    assert stored(found, "gyr").shape == (N, 2)


def test_a_sample_without_a_group_is_one_of_its_own(source):
    subject = ["ada" if i < 6 else None for i in range(N)]
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(group=subject))
    found = samples(build(source)).sort_index()
    assert found.group.tolist() == ["ada"] * 6 + IDS[6:]
    assert len(set(found.split[:6])) == 1


def test_groups_in_two_given_splits_are_told_as_leakage(source):
    split = [("train", "validation", "test")[i // 20] for i in range(N)]
    gyr = pd.read_csv(source / "gyr.csv").assign(split=split, group=[str(i % 5) for i in range(N)])
    assert open_dataset(build(write(source, gyr=gyr))).leakage == {"train+validation+test": 5}


# Which files


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (["mfeat-fou", "mfeat-fac"], ["fac", "fou"]),
        (["s_1_acc", "s_1_gyr"], ["acc", "gyr"]),
        (["s_1-acc", "s_2-acc"], ["1-acc", "2-acc"]),
        (["acc", "accurate"], ["acc", "accurate"]),
        (["a-", "a-x"], ["a-", "a-x"]),
        (["x-values", "x-other"], ["x-other", "x-values"]),
        (["x-label", "x-acc"], ["x-acc", "x-label"]),
    ],
)
def test_modalities_are_named_after_files_without_what_all_begin_with(tmp_path, stems, names):
    arrays = {stem: np.zeros((N, 2)) for stem in stems}
    source = write(tmp_path / "source", **arrays, labels=np.array(LABELS))
    assert list(open_dataset(build(source)).modalities) == names


def test_other_files_and_hidden_ones_are_passed_over(source):
    (source / "README.md").write_text("about")
    (source / ".acc.csv").write_text("x")
    (source / "more").mkdir()
    (source / "more" / "mag.csv").write_text("x")
    assert list(open_dataset(build(source)).modalities) == ["acc", "gyr"]


def test_files_may_be_chosen_and_named(source):
    write(source / "more", mag=table(3, id=IDS))
    chosen = ["compass=more/mag.csv", "acceleration=acc.csv"]
    folder = build(source, modality=chosen)
    opened = open_dataset(folder)
    assert opened.report["files"] == {"compass": "more/mag.csv", "acceleration": "acc.csv"}
    assert opened.options["modality"] == chosen
    found = samples(folder)
    mag = table(3, id=IDS).set_index("id").loc[found.index]
    np.testing.assert_array_equal(stored(found, "compass"), mag.astype(np.float32))


def test_chosen_files_have_their_labels_beside_them_too(source):
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"), mag=table(3, id=IDS))
    write(source, labels=pd.DataFrame({"id": IDS, "label": LABELS}))
    found = samples(build(source, modality=["a=gyr.csv", "b=mag.csv"]))
    assert found.label.to_dict() == dict(zip(IDS, LABELS, strict=True))


def run(folder: Path, *words: str) -> str:
    """`mmcoop …` as a user runs it, with one thread; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "mmcoop", *words],
        cwd=folder,
        text=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_takes_its_options(source):
    chosen = ["--modality", "a=acc.csv", "--modality", "b=gyr.csv", "--no-standardize"]
    run(source.parent, "build-dataset", "features", "--source", "source", "--seed", "4", *chosen)
    folder = source.parent / "data" / "features"
    assert open_dataset(folder).modalities["b"].std == 1.0
    same = Features(source=source, modality=["a=acc.csv", "b=gyr.csv"], standardize=False, seed=4)
    same.build(source.parent / "same")
    for split in SPLITS:
        (shard,) = folder.glob(f"{split}-*")
        assert shard.read_bytes() == (source.parent / "same" / shard.name).read_bytes()


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_a_file_called_labels_is_a_modality_if_it_is_chosen(source, kind):
    write(source, labels=table(3, id=IDS) if kind == "csv" else table(3).to_numpy())
    found = samples(build(source, modality=["acc=acc.csv", f"soft=labels.{kind}"])).sort_index()
    np.testing.assert_array_equal(stored(found, "soft"), table(3).astype(np.float32))
    assert found.label.tolist() == LABELS


# Refused, with nothing left


def refused(source: Path, message: str, kind: type[Exception] = DataError, **options: Any) -> None:
    with pytest.raises(kind, match=message) as error:
        Features(source=source, **options).build(source.with_name("refused"))
    assert "\n" not in str(error.value)
    assert not list(source.parent.glob("*refused*"))


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "none", "source .*none is not a folder: give the folder of the .csv")


def test_a_file_in_the_place_of_the_folder_is_refused(source):
    refused(source / "acc.csv", r"source .*acc\.csv is not a folder")


def test_a_folder_without_usable_files_is_refused_with_what_it_has(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    refused(folder, r"other has no .csv, .parquet or .npy file; it has: nothing$")
    for name in ("d.txt", "b.mat", "c.xlsx", "a.txt"):
        (folder / name).touch()
    refused(folder, "it has: a.txt, b.mat, c.xlsx$")


def test_one_modality_is_refused(source):
    (source / "gyr.csv").unlink()
    message = r"acc\.csv is the only modality: .* Give every modality a file of its own"
    refused(source, message)
    refused(source, message, modality=["x=acc.csv"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acc.csv", "'acc.csv': write it as NAME=FILE, a file in .csv, .parquet, .npy"),
        ("=acc.csv", "'=acc.csv': write it as NAME=FILE"),
        ("acc=", "'acc=': write it as NAME=FILE"),
        ("acc=acc.txt", "'acc=acc.txt': write it as NAME=FILE"),
        ("acc=/etc/acc.csv", "'acc=/etc/acc.csv': .* is not a path inside the source folder"),
        ("acc=../acc.csv", "'acc=../acc.csv': .* is not a path inside the source folder"),
        ("acc=x/../../acc.csv", "is not a path inside the source folder"),
        ("a+b=acc.csv", "'a.b' cannot name a modality: use letters"),
        ("label=acc.csv", "'label' cannot name a modality: it is that of a column"),
        ("gyr=acc.csv", "modality names repeat: gyr, gyr"),
    ],
)
def test_a_modality_that_cannot_be_meant_is_refused(source, text, message):
    refused(source, message, UsageError, modality=["gyr=gyr.csv", text])


def test_a_modality_without_its_file_is_refused_with_what_is_there(source):
    message = r"modality: there is no file .*mag\.csv: it has: acc.csv, gyr.csv$"
    refused(source, message, modality=["a=acc.csv", "m=mag.csv"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my file.csv", "'my file' cannot name a modality: use letters, .*. Rename the file, or"),
        ("acc.npy", "modality names repeat: acc, acc, gyr. Rename the file, or give modality"),
        ("split.csv", "'split' cannot name a modality: it is that of a column. Rename the file"),
        ("values.csv", "'values' cannot name a modality: torch's modules use it themselves"),
    ],
)
def test_a_file_that_cannot_name_a_modality_is_refused(source, name, message):
    (source / name).touch()
    refused(source, message, UsageError)


@pytest.mark.parametrize("label", [None, "activity"])
def test_no_labels_are_refused(source, label):
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"))
    message = (
        f"there are no labels in .*source: no table has a column '{label or 'label'}'. Name it "
        "with label .* or put them beside in labels.csv, labels.parquet or labels.npy$"
    )
    refused(source, message, label=label)


def test_a_table_of_labels_with_several_columns_needs_a_choice(source):
    write(source, acc=pd.read_csv(source / "acc.csv").drop(columns="label"))
    write(source, labels=pd.DataFrame({"id": IDS, "age": 30, "activity": LABELS}))
    refused(source, "there are no labels")


def test_a_class_too_small_for_three_splits_is_refused(source):
    for few in (1, 2):
        labels = ["rare" if i < few else LABELS[i] for i in range(N)]
        write(source, acc=table(1, id=IDS, label=labels))
        message = f"class 'rare' has {few} samples, too few to be in every split: none is in val"
        refused(source, message)
    write(source, acc=table(1, id=IDS, label=["rare" if i < 3 else LABELS[i] for i in range(N)]))
    assert samples(build(source)).query("label == 'rare'").split.nunique() == 3


def test_a_class_may_be_absent_from_a_test_split_that_is_given_but_not_from_training(source):
    labels = ["rare" if i < 5 else LABELS[i] for i in range(N)]
    write(source, acc=table(1, id=IDS, label=labels))
    gyr = pd.read_csv(source / "gyr.csv")
    write(source, gyr=gyr.assign(split=["train" if i < 40 else "test" for i in range(N)]))
    assert set(samples(build(source)).query("label == 'rare'").split) == {"train", "validation"}
    write(source, gyr=gyr.assign(split=["test" if i < 20 else "train" for i in range(N)]))
    refused(source, "class 'rare' has 5 samples, too few .*: none is in train")


def test_a_single_class_is_refused(source):
    write(source, acc=table(1, id=IDS, label="run"))
    refused(source, "every sample of .*source has the label 'run': there must be two classes")


def test_tables_of_different_length_without_ids_are_refused(source):
    acc = pd.read_csv(source / "acc.csv").drop(columns="id")
    write(source, acc=acc[:-1])
    message = (
        r"acc\.csv has 59 rows and .*gyr\.csv 60: give every table a column 'id', or all the same "
        "rows in the same order, below a row with the columns' names$"
    )
    refused(source, message)


def test_rows_in_order_whose_ids_say_that_they_are_not_are_refused(source):
    gyr = pd.read_csv(source / "gyr.csv")
    write(source, gyr=gyr[::-1], eeg=np.zeros((N, 4)))
    refused(source, r"acc\.csv has the id 's00' in row 1, but .*gyr\.csv has 's59' in row 1")


def test_an_id_column_that_no_table_has_is_refused(tmp_path):
    source = write(tmp_path / "source", a=table(1, label=LABELS), b=table(2))
    refused(source, "no table has the column 'trial' of id_column", id_column="trial")


def test_a_row_without_an_id_is_refused(source):
    gyr = pd.read_csv(source / "gyr.csv")
    gyr.loc[4, "id"] = None
    refused(write(source, gyr=gyr), r"row 5 of .*gyr\.csv has no id: fill it in")


def test_ids_that_never_meet_are_refused(source):
    write(source, gyr=pd.read_csv(source / "gyr.csv").assign(id=[f"t{i}" for i in range(N)]))
    message = r"none of the 120 samples of .*source can be used: 's00', for one, is rejected as"
    refused(source, message + r" missing \(gyr\)$")


def test_a_word_that_is_no_split_is_refused_with_its_file(source):
    gyr = pd.read_csv(source / "gyr.csv").assign(split=["train"] * 59 + ["tset"])
    refused(
        write(source, gyr=gyr), r"the column split of .*gyr\.csv says 'tset': write one of train"
    )


def test_some_samples_without_a_split_are_refused(source):
    gyr = pd.read_csv(source / "gyr.csv").assign(split=["train"] * 30 + ["test"] * 28 + [None] * 2)
    refused(write(source, gyr=gyr), "2 of 60 samples have no split, one of them in group 's58'")


def test_a_file_that_cannot_be_read_is_refused_with_its_name(source):
    (source / "mag.csv").write_text("words")
    refused(source, r"mag\.csv has no rows, or no column of numbers")


@pytest.mark.parametrize("options", [{"validation": 0.0}, {"test": 1.0}, {"validation": 0.9}])
def test_shares_that_cannot_be_meant_are_refused_first(tmp_path, options):
    refused(tmp_path / "none", "validation .* test ", UsageError, **options)


def test_an_existing_folder_is_kept_without_overwrite(source):
    folder = build(source)
    before = file_bytes(folder)
    for other in (source, source / "none"):  # before anything is read
        with pytest.raises(UsageError, match="exists: choose another out, or replace it with"):
            Features(source=other, seed=2).build(folder)
    assert file_bytes(folder) == before


# Six views of 2,000 digits


VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}


@pytest.fixture(scope="module")
def views(shared_data) -> Path:
    folder = shared_data / "uci-multiple-features"
    if not folder.is_dir():
        pytest.skip(f"the six views are not here: no folder {folder}")
    return folder


@pytest.fixture(scope="module")
def six(views, tmp_path_factory) -> Path:
    """A folder with the six views, built by the command line, in data/features."""
    folder = tmp_path_factory.mktemp("six")
    run(folder, "build-dataset", "features", "--source", str(views), "--label", "last")
    return folder


def test_the_six_views_are_stored_as_published(six, views):
    folder = six / "data" / "features"
    opened, found = open_dataset(folder), samples(folder).sort_index()
    assert {name: m.shape for name, m in opened.modalities.items()} == {
        name: (width,) for name, width in VIEWS.items()
    }
    assert opened.classes == list("0123456789")
    assert opened.rejects == {}
    assert found.index.tolist() == [f"row-{i:05d}" for i in range(2000)]
    for name in VIEWS:
        raw = np.loadtxt(views / f"mfeat-{name}.csv", delimiter=",", skiprows=1)
        np.testing.assert_array_equal(stored(found, name), raw[:, :-1].astype(np.float32))
        np.testing.assert_array_equal(found.label.astype(int), raw[:, -1])


def test_the_six_views_are_split_class_by_class(six):
    found = samples(six / "data" / "features")
    counts = pd.crosstab(found.label, found.split)
    assert counts.index.tolist() == list("0123456789")
    assert (counts == {"train": 140, "validation": 20, "test": 40}).all(axis=None)


def test_every_training_feature_of_the_six_views_has_mean_0_and_deviation_1(six):
    opened = open_dataset(six / "data" / "features")
    part = opened.split("train")
    for name, modality in opened.modalities.items():
        seen = build_transform(modality, training=True)(part.read(name, np.arange(len(part))))
        np.testing.assert_allclose(seen.double().mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(seen.double().std(0, unbiased=False), 1, atol=1e-4)


def test_the_six_views_train_and_are_valued_in_all_64_coalitions(six):
    run(six, "train", "--epochs", "1")
    run(six, "valuate", "--out", "scores.parquet")
    run(six, "enhance", "--epochs", "1")
    scores = pd.read_parquet(six / "scores.parquet")
    values = scores.filter(like="value_")
    assert set(values) == {f"value_{name}" for name in coalition_names(sorted(VIEWS))[1:]}
    assert values.shape[1] == 63
    # Shapley's formula, over the orders in which the views may come
    everything = sorted(VIEWS)
    sample = scores.iloc[0]
    orders = list(itertools.permutations(everything))
    for name in everything:
        gains = 0.0
        for order in orders:
            before = sorted(order[: order.index(name)])
            after = sorted([*before, name])
            gains += sample["value_" + "+".join(after)]
            gains -= sample["value_" + "+".join(before)] if before else 0.0
        assert sample[f"contribution_{name}"] == pytest.approx(gains / len(orders), abs=1e-5)
    sums = scores.filter(like="contribution_").sum(axis=1)
    np.testing.assert_allclose(sums, 6 * scores.correct, atol=1e-5)
