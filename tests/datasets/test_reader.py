"""The dataset folder: what is written reads back, and what is damaged or odd is refused."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcoop.datasets import reader
from mmcoop.datasets import writer as writing
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import (
    SPLITS,
    is_dataset,
    is_rejects,
    open_dataset,
    read_rejects,
)
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError, UsageError

ROWS = {"train": 41, "validation": 7, "test": 13}
EVERY_KIND = {
    "clip": Modality("frames", (2, 3, 16, 12), "uint8", "resnet18", size=8),
    "picture": Modality("image", (3, 5, 4), "uint8", "conv"),
    "motion": Modality("flow", (2, 2, 4, 3), "float16", "conv"),
    "sound": Modality("spectrogram", (1, 6, 7), "float16", "conv", mean=-2.0, std=3.0),
    "sensor": Modality("series", (5, 3), "float32", "conv1d"),
    "table": Modality("vector", (4,), "float32", "mlp", training={"noise": {"scale": 0.5}}),
}
DENSE = [name for name, modality in EVERY_KIND.items() if modality.kind != "frames"]


def header(modalities: dict[str, Modality], **changes: Any) -> Header:
    content: dict[str, Any] = {
        "name": "small",
        "recipe": "tests",
        "options": {"seed": 3},
        "classes": ["no", "yes"],
        "modalities": modalities,
        "source": "made by the tests",
    }
    return Header(**{**content, **changes})


VECTOR = header({"x": Modality("vector", (2,), "float32", "mlp")})


def sample(name: str, **changes: Any) -> dict[str, Any]:
    """Arguments of `DatasetWriter.add` for a data set of `VECTOR`."""
    return {"id": name, "label": 1, "group": f"group of {name}", "x": [1.0, 2.0], **changes}


def build_small(folder: Path, like: Header = VECTOR, **options: Any) -> Path:
    """A data set of two samples a split."""
    with write_dataset(folder, like, **options) as writer:
        for split in SPLITS:
            for k in range(2):
                writer.add(split, **sample(f"{split}-{k}"))
    return folder


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def edited(folder: Path, change: Callable[[Any], Any]) -> Path:
    """The folder after `change` of what `dataset.json` holds, in place or returned."""
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, jpeg) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """A data set of every kind in many small shards and record batches, and what was written."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("store") / "every-kind"
    written: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    every_kind = header(
        EVERY_KIND,
        columns={"duration": "float32", "speaker": "string", "take": "int64"},
        defaults={"train": {"epochs": 7}, "enhance": {"epochs": 5}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BATCH_ROWS", 3)
        patch.setattr(writing, "_SHARD_BYTES", 15_000)
        with write_dataset(folder, every_kind) as writer:
            # splits take turns, as they do in a recipe that reads a source from start to end
            for split in rng.permutation(np.repeat(SPLITS, list(ROWS.values()))).tolist():
                k = len(written[split])
                row: dict[str, Any] = {
                    "id": f"{split} {k}",
                    "label": int(rng.integers(2)),
                    "group": f"{split} group {k // 2}",
                    "duration": float(np.float32(rng.uniform())),
                    "speaker": None if k % 5 == 0 else f"spéaker {k}",
                    "take": k,
                }
                for name, modality in EVERY_KIND.items():
                    shape = modality.shape
                    if modality.kind == "frames":
                        pictures = rng.integers(0, 256, (shape[0], *shape[2:], 3), dtype=np.uint8)
                        row[name] = [jpeg(picture) for picture in pictures]
                    elif modality.dtype == "uint8":
                        row[name] = rng.integers(0, 256, shape, dtype=np.uint8)
                    else:
                        row[name] = rng.normal(size=shape).astype(modality.dtype)
                writer.add(split, **row)
                written[split].append(row)
            writer.reject("clip 9", "unreadable", "moov atom not found")
            writer.reject("clip 4", "too-short")
    return folder, written


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", EVERY_KIND)
def test_any_positions_in_any_order_read_what_was_written(made, split, name):
    folder, written = made
    opened = open_dataset(folder).split(split)
    assert len(opened) == ROWS[split]
    modality = EVERY_KIND[name]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, ROWS[split] - 1), max_size=60))
    def check(positions: list[int]) -> None:
        read = opened.read(name, np.array(positions, dtype=np.int64))
        expected = [written[split][position][name] for position in positions]
        if modality.kind == "frames":
            assert read == expected
        else:
            assert isinstance(read, np.ndarray)
            assert read.dtype == modality.dtype
            assert read.shape == (len(positions), *modality.shape)
            for got, wanted in zip(read, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)

    check()


@pytest.mark.parametrize("split", SPLITS)
def test_labels_ids_and_further_columns_are_in_the_order_added(made, split):
    folder, written = made
    opened = open_dataset(folder).split(split)
    rows = written[split]
    assert opened.labels.dtype == np.int64
    assert opened.labels.tolist() == [row["label"] for row in rows]
    backwards = np.arange(len(rows))[::-1]
    assert opened.ids(backwards) == [row["id"] for row in rows[::-1]]
    for column in ("id", "group", "duration", "speaker", "take"):
        assert opened.table[column].to_pylist() == [row[column] for row in rows]


def test_a_split_is_cut_into_numbered_shards_of_several_record_batches(made):
    folder, _ = made
    shards = sorted(path.name for path in folder.glob("train-*"))
    assert len(shards) >= 3
    assert shards == [f"train-{k:05d}-of-{len(shards):05d}.arrow" for k in range(len(shards))]
    with pa.ipc.open_file(folder / shards[0]) as reader:
        assert reader.num_record_batches >= 2
        assert reader.get_batch(0).num_rows == 3


def test_a_shard_is_closed_once_it_is_full(made):
    folder, _ = made
    shards = sorted(folder.glob("train-*"))
    nbytes = []
    for path in shards:
        with pa.ipc.open_file(path) as reader:
            nbytes.append([reader.get_batch(k).nbytes for k in range(reader.num_record_batches)])
    for shard in nbytes:
        assert sum(shard[:-1]) < 15_000, "nothing is added to a full shard"
    for shard in nbytes[:-1]:
        assert sum(shard) >= 15_000, "the next shard starts only when this one is full"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux' /proc/self/maps")
@pytest.mark.parametrize("name", DENSE)
def test_dense_samples_are_views_of_the_mapped_shards(made, name):
    folder, written = made
    opened = open_dataset(folder).split("train")
    before = pa.total_allocated_bytes()
    views, starts = opened._dense[name], opened._starts
    assert pa.total_allocated_bytes() == before
    maps = [
        (*(int(edge, 16) for edge in line.split()[0].split("-")), line.split()[-1])
        for line in Path("/proc/self/maps").read_text().splitlines()
    ]
    assert len(views) > 3
    for view, start in zip(views, starts, strict=True):
        np.testing.assert_array_equal(view[0], written["train"][start][name])
        assert not view.flags.owndata
        assert not view.flags.writeable
        address = view.__array_interface__["data"][0]
        (file,) = [file for low, high, file in maps if low <= address < high]
        assert Path(file).name.startswith("train-")
        assert Path(file).parent == folder


def test_samples_read_the_same_after_their_pages_were_let_go(made, monkeypatch):
    folder, written = made
    monkeypatch.setattr(reader, "_KEEP_BYTES", 0)
    opened = open_dataset(folder).split("train")
    for name in EVERY_KIND:
        for _ in range(2):
            (first,) = opened.read(name, np.array([0]))
            if name == "clip":
                assert first == written["train"][0][name]
            else:
                np.testing.assert_array_equal(first, written["train"][0][name])


def test_reading_a_clip_takes_the_memory_of_that_clip(tmp_path):
    """Not that of all clips, of which there may be more than an Arrow array can hold."""
    like = header({"x": EVERY_KIND["clip"]})
    clip = [bytes([k]) * 2**19 for k in range(2)]
    with write_dataset(tmp_path / "data", like) as writer:
        for split in SPLITS:
            for k in range(20 if split == "train" else 1):
                writer.add(split, **sample(f"{split}-{k}", x=[*clip[: k % 2], *clip][:2]))
    opened = open_dataset(tmp_path / "data").split("train")
    assert len(opened.table["x"].chunks) == 20
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert opened.read("x", np.array([18, 3, 18])) == [clip, [clip[0], clip[0]], clip]
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 2**20


def test_what_is_read_can_be_changed_without_changing_the_data_set(made):
    opened = open_dataset(made[0]).split("train")
    before = file_bytes(made[0])
    opened.read("sensor", np.array([0, 1]))[:] = 0
    assert opened.read("sensor", np.array([0, 1])).any()
    assert file_bytes(made[0]) == before


def test_the_writer_keeps_a_copy_of_what_it_is_given(tmp_path):
    buffer = np.zeros(2, np.float32)
    with write_dataset(tmp_path / "data", VECTOR) as writer:
        for k, split in enumerate(SPLITS):
            buffer[:] = k
            writer.add(split, **sample(split, x=buffer))
    opened = open_dataset(tmp_path / "data")
    for k, split in enumerate(SPLITS):
        assert opened.split(split).read("x", np.array([0])).tolist() == [[k, k]]


def test_another_process_gets_a_split_without_its_samples_and_maps_them_itself(made):
    opened = open_dataset(made[0]).split("train")
    everything = np.arange(len(opened))
    read = {name: opened.read(name, everything) for name in EVERY_KIND}
    labels = opened.labels
    pickled = pickle.dumps(opened)
    assert len(pickled) < 5_000 < sum(path.stat().st_size for path in made[0].iterdir())
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.labels, labels)
    for name in DENSE:
        np.testing.assert_array_equal(again.read(name, everything), read[name])
    assert again.read("clip", everything) == read["clip"]


def test_hugging_face_datasets_opens_the_shards_as_they_are(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    folder, written = made
    loaded = datasets.load_dataset(
        "arrow",
        data_files={split: sorted(map(str, folder.glob(f"{split}-*"))) for split in SPLITS},
        cache_dir=str(tmp_path / "cache"),
    )
    for split in SPLITS:
        assert loaded[split].num_rows == ROWS[split]
        for row, wanted in zip(loaded[split], written[split], strict=True):
            for name in DENSE:
                got = np.array(row.pop(name), dtype=EVERY_KIND[name].dtype)
                np.testing.assert_array_equal(got, wanted[name].ravel())
            assert row == {key: value for key, value in wanted.items() if key not in DENSE}


def test_rejects_open_in_pandas(made):
    rejects = pd.read_parquet(made[0] / "rejects.parquet")
    assert rejects.to_dict("records") == [
        {"id": "clip 4", "reason": "too-short", "detail": ""},
        {"id": "clip 9", "reason": "unreadable", "detail": "moov atom not found"},
    ]
    assert open_dataset(made[0]).rejects == {"unreadable": 1, "too-short": 1}


def test_rejects_are_read_by_id(made):
    path = made[0] / "rejects.parquet"
    assert is_rejects(path)
    assert [tuple(reject) for reject in read_rejects(path)] == [
        tuple(row) for row in pd.read_parquet(path).itertuples(index=False)
    ]
    assert [reject.id for reject in read_rejects(path)] == sorted(pd.read_parquet(path).id)


def test_what_is_no_file_of_rejects_is_none(made, tmp_path):
    (tmp_path / "text.parquet").write_text("id,reason,detail")
    pd.DataFrame({"id": ["a"], "reason": ["missing"]}).to_parquet(tmp_path / "other.parquet")
    for path in (tmp_path / "text.parquet", tmp_path / "other.parquet", made[0], tmp_path / "no"):
        assert not is_rejects(path)
    with pytest.raises(DataError, match=r"text\.parquet cannot be read as a file of rejects: "):
        read_rejects(tmp_path / "text.parquet")


def test_no_rejects_are_a_table_without_rows(tmp_path):
    rejects = pd.read_parquet(build_small(tmp_path / "data") / "rejects.parquet")
    assert list(rejects.columns) == ["id", "reason", "detail"]
    assert len(rejects) == 0
    assert open_dataset(tmp_path / "data").rejects == {}


def test_dataset_json_says_what_the_data_set_is(made):
    folder, _ = made
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["format"] == "mmcoop dataset"
    assert content["format_version"] == 2
    assert content["name"] == "small"
    assert content["recipe"] == "tests"
    assert content["options"] == {"seed": 3}
    assert content["source"] == "made by the tests"
    assert content["classes"] == ["no", "yes"]
    assert content["columns"] == {"duration": "float32", "speaker": "string", "take": "int64"}
    assert content["defaults"] == {"train": {"epochs": 7}, "enhance": {"epochs": 5}}
    assert content["rejects"] == {"unreadable": 1, "too-short": 1}
    assert content["leakage"] == {}
    assert content["report"] == {}
    assert list(content["modalities"]) == sorted(EVERY_KIND)
    assert content["modalities"]["sound"] == {
        "kind": "spectrogram",
        "shape": [1, 6, 7],
        "dtype": "float16",
        "encoder": "conv",
        "mean": -2.0,
        "std": 3.0,
        "size": None,
        "training": {},
    }
    listed = {"dataset.json", "rejects.parquet"}
    for split in SPLITS:
        part = content["splits"][split]
        assert part["rows"] == ROWS[split] == sum(shard["rows"] for shard in part["shards"])
        for shard in part["shards"]:
            bytes_ = (folder / shard["file"]).read_bytes()
            assert shard["bytes"] == len(bytes_)
            assert shard["sha256"] == hashlib.sha256(bytes_).hexdigest()
            listed.add(shard["file"])
    assert {path.name for path in folder.iterdir()} == listed


def test_an_opened_data_set_says_what_its_header_said(made):
    opened = open_dataset(str(made[0]))
    assert opened.folder == made[0]
    assert (opened.name, opened.recipe, opened.source) == ("small", "tests", "made by the tests")
    assert opened.options == {"seed": 3}
    assert opened.classes == ["no", "yes"]
    assert opened.defaults == {"train": {"epochs": 7}, "enhance": {"epochs": 5}}
    assert opened.columns == {"duration": "float32", "speaker": "string", "take": "int64"}
    assert list(opened.modalities.items()) == sorted(EVERY_KIND.items())
    assert opened.rows == ROWS


def test_the_same_samples_give_the_same_bytes_of_every_file(tmp_path):
    first, second = build_small(tmp_path / "first"), build_small(tmp_path / "second")
    assert file_bytes(first) == file_bytes(second)
    assert len(file_bytes(first)) == 5


def test_the_fingerprint_is_that_of_samples_and_labels_alone(tmp_path):
    built = open_dataset(build_small(tmp_path / "data"))
    other_words = header(
        VECTOR.modalities, name="other", source="elsewhere", defaults={"train": {"epochs": 1}}
    )
    renamed = open_dataset(build_small(tmp_path / "renamed", other_words))
    assert renamed.fingerprint == built.fingerprint
    for k, change in enumerate(({"label": 0}, {"x": [1.0, 2.5]}, {"id": "another"})):
        with write_dataset(tmp_path / f"changed-{k}", VECTOR) as writer:
            for split in SPLITS:
                writer.add(split, **sample(f"{split}-0"))
                writer.add(split, **sample(f"{split}-1", **(change if split == "test" else {})))
        assert open_dataset(tmp_path / f"changed-{k}").fingerprint != built.fingerprint
    scaled = header({"x": Modality("vector", (2,), "float32", "mlp", std=2.0)})
    assert open_dataset(build_small(tmp_path / "s", scaled)).fingerprint != built.fingerprint
    classes = header(VECTOR.modalities, classes=["no", "maybe"])
    assert open_dataset(build_small(tmp_path / "c", classes)).fingerprint != built.fingerprint


# What a writer refuses. Nothing of the data set may be left then.


@pytest.mark.parametrize(
    ("split", "second", "message"),
    [
        ("train", sample("a"), "sample id 'a' occurs twice"),
        ("test", sample("a", group="other"), "sample id 'a' occurs twice"),
        (
            "test",
            sample("b", group="group of a"),
            "group 'group of a' of sample 'b' is in train already: it cannot be in test too",
        ),
        ("train", sample("b", label=2), "label 2 of sample 'b' has no class"),
        ("train", sample("b", label=-1), "label -1 of sample 'b' has no class"),
        (
            "train",
            sample("b", x=[1.0, 2.0, 3.0]),
            r"x of sample 'b' has shape \(3,\): expected \(2,\)",
        ),
        ("train", sample("b", x=[[1.0, 2.0]]), r"has shape \(1, 2\): expected \(2,\)"),
        (
            "train",
            sample("b", y=1, z=2),
            "sample 'b' has columns nobody declared: y, z",
        ),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_and_nothing_is_left(
    tmp_path, split, second, message
):
    with (
        pytest.raises(DataError, match=message),
        write_dataset(tmp_path / "data", VECTOR) as writer,
    ):
        writer.add("train", **sample("a"))
        writer.add(split, **second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("dev", {}, "dev"),
        ("train", {"x": None}, "'x'.*'b'|'b'.*'x'"),
        ("train", {"quality": None}, "'quality'.*'b'|'b'.*'quality'"),
    ],
)
def test_a_sample_without_a_column_or_a_known_split_is_refused(tmp_path, split, change, message):
    like = header(VECTOR.modalities, columns={"quality": "float32"})
    columns = {**sample("b"), "quality": 0.5}
    for name in change:
        del columns[name]
    with (
        pytest.raises((DataError, UsageError), match=message),
        write_dataset(tmp_path / "data", like) as writer,
    ):
        writer.add(split, **columns)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_clip_of_another_number_of_frames_is_refused(tmp_path, jpeg, frames):
    like = header({"x": EVERY_KIND["clip"]})
    clip = [jpeg(np.zeros((16, 12, 3), np.uint8))] * frames
    with (
        pytest.raises(DataError, match=f"sample 'a' has {frames} frames: expected 2"),
        write_dataset(tmp_path / "data", like) as writer,
    ):
        writer.add("train", **sample("a", x=clip))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", SPLITS)
def test_a_data_set_without_one_of_its_splits_is_refused(tmp_path, missing):
    with (
        pytest.raises(
            DataError, match=f"no sample for the split {missing}: a data set needs all three"
        ),
        write_dataset(tmp_path / "data", VECTOR) as writer,
    ):
        for split in SPLITS:
            if split != missing:
                writer.add(split, **sample(split))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({}, "no modalities given"),
        ({"a+b": VECTOR.modalities["x"]}, r"'a\+b' cannot name a modality"),
    ],
)
def test_modalities_that_cannot_be_named_are_refused(tmp_path, modalities, message):
    with (
        pytest.raises(UsageError, match=message),
        write_dataset(tmp_path / "data", header(modalities)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["id", "label", "group", "quality"])
def test_a_modality_named_like_a_column_is_refused(tmp_path, name):
    like = header({name: VECTOR.modalities["x"]}, columns={"quality": "float32"})
    with (
        pytest.raises((DataError, UsageError), match=name),
        write_dataset(tmp_path / "data", like),
    ):
        pass


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_build_that_is_cut_off_leaves_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    with pytest.raises(error), write_dataset(tmp_path / "data", VECTOR) as writer:
        for split in SPLITS:
            writer.add(split, **sample(split))
        assert len(list(tmp_path.rglob("*.arrow"))) == 3, "shards are being written"
        raise error
    assert list(tmp_path.iterdir()) == []


# Existing folders


def test_an_existing_data_set_is_kept_without_overwrite(tmp_path):
    before = file_bytes(build_small(tmp_path / "data"))
    with pytest.raises(UsageError, match="data exists: choose another out, or replace it with"):
        build_small(tmp_path / "data", header(VECTOR.modalities, name="new"))
    assert file_bytes(tmp_path / "data") == before


def test_an_existing_data_set_is_replaced_with_overwrite(tmp_path):
    build_small(tmp_path / "data")
    (tmp_path / "data" / "train-00001-of-00002.arrow").touch()
    build_small(tmp_path / "data", header(VECTOR.modalities, name="new"), overwrite=True)
    build_small(tmp_path / "fresh", header(VECTOR.modalities, name="new"))
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "fresh"}


def test_a_replacement_that_fails_leaves_the_old_data_set(tmp_path):
    before = file_bytes(build_small(tmp_path / "data"))
    with (
        pytest.raises(DataError, match="no sample for the split train"),
        write_dataset(tmp_path / "data", VECTOR, overwrite=True) as writer,
    ):
        writer.add("test", **sample("only one"))
    assert file_bytes(tmp_path / "data") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="data exists and was not made by mmcoop"):
        build_small(tmp_path / "data", overwrite=overwrite)
    assert file_bytes(tmp_path / "data") == {"thesis.tex": b"years of work"}


def test_a_folder_of_somebody_else_s_dataset_json_is_never_replaced(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text('{"title": "years of work"}')
    with pytest.raises(UsageError, match="data exists and was not made by mmcoop"):
        build_small(tmp_path / "data", overwrite=True)


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "data").mkdir()
    build_small(tmp_path / "data")
    assert open_dataset(tmp_path / "data").rows == dict.fromkeys(SPLITS, 2)


def test_a_data_set_is_recognised_by_its_dataset_json(tmp_path):
    assert not is_dataset(tmp_path)
    assert not is_dataset(tmp_path / "none")
    assert is_dataset(build_small(tmp_path / "data"))


# What cannot be opened


@pytest.mark.parametrize("name", ["none", "."])
def test_a_folder_without_dataset_json_is_not_opened(tmp_path, name):
    with pytest.raises(
        DataError,
        match=r"is not a dataset folder \(no dataset\.json\): build one with mmcoop build-dataset",
    ):
        open_dataset(tmp_path / name)


def test_a_dataset_json_that_is_not_json_is_refused(tmp_path):
    folder = build_small(tmp_path / "data")
    path = folder / "dataset.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"dataset\.json cannot be read: "):
        open_dataset(folder)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_format_version_is_refused(tmp_path, version):
    folder = edited(build_small(tmp_path / "data"), lambda c: c.update(format_version=version))
    with pytest.raises(
        DataError, match=rf"dataset\.json has format version {version}: this mmcoop reads 2"
    ):
        open_dataset(folder)


@pytest.mark.parametrize("content", [[], "text", 3, {}])
def test_json_that_is_no_header_at_all_is_refused(tmp_path, content):
    folder = build_small(tmp_path / "data")
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"dataset\.json has format version None"):
        open_dataset(folder)


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "recipe",
        "options",
        "source",
        "classes",
        "columns",
        "defaults",
        "rejects",
        "leakage",
        "report",
        "modalities",
        "splits",
    ],
)
def test_a_header_without_one_of_its_parts_is_refused(tmp_path, key):
    folder = edited(build_small(tmp_path / "data"), lambda c: c.pop(key) and None)
    with pytest.raises(DataError, match=rf"dataset\.json is not what mmcoop writes: {key}: "):
        open_dataset(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["splits"].pop("test"),
        lambda c: c["splits"]["train"].pop("rows"),
        lambda c: c["splits"]["train"].pop("shards"),
        lambda c: c["splits"]["train"].update(shards=3),
        lambda c: c["splits"]["train"]["shards"][0].pop("file"),
        lambda c: c["splits"]["train"]["shards"][0].update(file=5),
        lambda c: c.update(modalities=["x"]),
        lambda c: c["modalities"]["x"].pop("shape"),
        lambda c: c["modalities"]["x"].update(shape=["2"]),
        lambda c: c["modalities"]["x"].update(code="import os"),
    ],
)
def test_an_odd_header_is_refused(tmp_path, change):
    folder = edited(build_small(tmp_path / "data"), lambda c: change(c) and None)
    with pytest.raises(DataError, match=r"dataset\.json is not what mmcoop writes: "):
        open_dataset(folder)


def test_a_header_with_an_unknown_kind_is_refused(tmp_path):
    folder = edited(
        build_small(tmp_path / "data"), lambda c: c["modalities"]["x"].update(kind="smell")
    )
    with pytest.raises(DataError, match="unknown kind of modality 'smell'"):
        open_dataset(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["splits"]["train"]["shards"][0].pop("rows"),
        lambda c: c["splits"]["train"]["shards"][0].pop("bytes"),
        lambda c: c["splits"]["train"]["shards"][0].pop("sha256"),
        lambda c: c["splits"]["train"].update(shards=[]),
        lambda c: c["splits"]["train"].update(rows=5),
        lambda c: c["splits"]["train"]["shards"][0].update(rows=5),
        lambda c: c["modalities"].update(y=c["modalities"]["x"]),
        lambda c: c["modalities"]["x"].update(shape=[3]),
        lambda c: c["modalities"]["x"].update(dtype="float16"),
    ],
    ids=[
        "no-rows",
        "no-bytes",
        "no-sha256",
        "no-shards",
        "split-rows",
        "shard-rows",
        "no-such-column",
        "other-shape",
        "other-dtype",
    ],
)
def test_a_header_that_does_not_fit_its_shards_is_refused(tmp_path, change):
    folder = edited(build_small(tmp_path / "data"), lambda c: change(c) and None)
    with pytest.raises(DataError):  # on opening or on first use
        opened = open_dataset(folder).split("train")
        assert len(opened) == len(opened.labels) == 2
        for name in opened.dataset.modalities:
            assert opened.read(name, np.array([0])).dtype == np.float32


@pytest.mark.parametrize("place", ["../outside.arrow", "/etc/hostname", "sub/inside.arrow", ""])
def test_a_header_that_names_a_shard_outside_its_folder_is_refused(tmp_path, place):
    folder = build_small(tmp_path / "data")
    shutil.copy(folder / "train-00000-of-00001.arrow", tmp_path / "outside.arrow")
    edited(folder, lambda c: c["splits"]["train"]["shards"][0].update(file=place))
    with pytest.raises(DataError, match=r"dataset\.json names the shard '.*', which is not in its"):
        open_dataset(folder)


@pytest.mark.parametrize("name", ["dev", "", "Train"])
def test_an_unknown_split_is_refused_with_the_known_ones(made, name):
    with pytest.raises(
        UsageError, match=f"unknown split '{name}': choose one of train, validation, test"
    ):
        open_dataset(made[0]).split(name)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, r"{} is damaged \(its sha256 is not the one in dataset.json\): build the"),
        (truncate, r"{} is damaged \(its sha256 is not the one in dataset.json\): build the"),
        (Path.unlink, r"{} is missing: build the data set again \(mmcoop build-dataset"),
    ],
    ids=["byte-flipped", "truncated", "missing"],
)
def test_a_shard_that_is_not_the_one_written_is_named(made, tmp_path, damage, message):
    folder = shutil.copytree(made[0], tmp_path / "data")
    shard = sorted(folder.glob("train-*"))[1]
    damage(shard)
    opened = open_dataset(folder)
    for _ in range(2):
        with pytest.raises(DataError, match=message.format(shard.name)):
            opened.split("train")
    with pytest.raises(DataError, match=message.format(shard.name)):
        opened.verify()
    assert len(opened.split("test")) == ROWS["test"]


def test_a_sound_data_set_verifies(made):
    open_dataset(made[0]).verify()


def test_shards_are_checked_once_and_again_on_request(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "data")
    opened = open_dataset(folder)
    opened.split("train")
    shard = sorted(folder.glob("train-*"))[-1]
    flip_a_byte(shard)
    opened.split("train")
    with pytest.raises(DataError, match=f"{shard.name} is damaged"):
        opened.verify()


# Some of the training samples alone

KEPT = np.array([0, 2, 3, 7, 19, 20, 33, 40])


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_restricted_split_reads_its_own_samples(made, name):
    folder, written = made
    opened = open_dataset(folder).restricted(train=KEPT).split("train")
    assert len(opened) == len(KEPT)
    modality = EVERY_KIND[name]

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.integers(0, len(KEPT) - 1), max_size=20))
    def check(positions: list[int]) -> None:
        read = opened.read(name, np.array(positions, dtype=np.int64))
        expected = [written["train"][KEPT[position]][name] for position in positions]
        if modality.kind == "frames":
            assert read == expected
        else:
            assert read.shape == (len(positions), *modality.shape)
            for got, wanted in zip(read, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)

    check()


def test_a_restricted_split_has_the_labels_ids_and_columns_of_its_samples(made):
    folder, written = made
    opened = open_dataset(folder).restricted(train=KEPT).split("train")
    rows = [written["train"][k] for k in KEPT]
    assert opened.labels.tolist() == [row["label"] for row in rows]
    assert opened.ids(np.array([7, 0, 7])) == [rows[k]["id"] for k in (7, 0, 7)]
    for column in ("id", "group", "duration", "speaker", "take"):
        assert opened.column(column).to_pylist() == [row[column] for row in rows]
        assert opened.table[column].to_pylist() == [row[column] for row in rows]
    assert opened.table["clip"].to_pylist() == [row["clip"] for row in rows]


def test_the_order_of_the_positions_is_that_of_the_split(made):
    whole = open_dataset(made[0])
    mixed = whole.restricted(train=np.random.default_rng(0).permutation(KEPT))
    everything = np.arange(len(KEPT))
    straight = whole.restricted(train=KEPT)
    assert mixed.split("train").ids(everything) == straight.split("train").ids(everything)
    assert mixed.fingerprint == straight.fingerprint


def test_the_other_splits_and_the_data_set_itself_stay_as_they_are(made):
    folder, _ = made
    whole = open_dataset(folder)
    part = whole.restricted(train=KEPT)
    for split in ("validation", "test"):
        everything = np.arange(ROWS[split])
        assert part.split(split).ids(everything) == whole.split(split).ids(everything)
    assert part.rows == {**ROWS, "train": len(KEPT)}
    assert whole.rows == ROWS
    assert len(whole.split("train")) == ROWS["train"]
    assert whole.fingerprint == open_dataset(folder).fingerprint
    assert part.whole is whole
    assert whole.whole is whole


def test_a_restricted_data_set_has_a_name_and_a_fingerprint_of_its_own(made):
    whole = open_dataset(made[0])
    part = whole.restricted(train=KEPT)
    assert part.name == "small, 8 of 41 training samples"
    others = [whole.restricted(train=KEPT[1:]), whole.restricted(train=np.arange(41))]
    fingerprints = {d.fingerprint for d in (whole, part, *others)}
    assert len(fingerprints) == 4
    assert part.fingerprint == open_dataset(made[0]).restricted(train=KEPT).fingerprint


def test_restricting_twice_is_restricting_to_what_is_left(made):
    whole = open_dataset(made[0])
    twice = whole.restricted(train=KEPT).restricted(train=np.array([1, 4, 6]))
    once = whole.restricted(train=KEPT[[1, 4, 6]])
    assert twice.fingerprint == once.fingerprint
    assert twice.name == once.name == "small, 3 of 41 training samples"
    assert twice.split("train").ids(np.arange(3)) == once.split("train").ids(np.arange(3))
    assert twice.whole is whole


def test_another_process_gets_a_restricted_split_without_its_samples(made):
    opened = open_dataset(made[0]).restricted(train=KEPT).split("train")
    everything = np.arange(len(KEPT))
    read = {name: opened.read(name, everything) for name in EVERY_KIND}
    labels = opened.labels
    pickled = pickle.dumps(opened)
    assert len(pickled) < 5_000
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.labels, labels)
    for name in DENSE:
        np.testing.assert_array_equal(again.read(name, everything), read[name])
    assert again.read("clip", everything) == read["clip"]


def test_a_restricted_data_set_without_a_training_sample_is_refused(made):
    expected = f"^{made[0]}: no training sample is left to train on$"
    with pytest.raises(DataError, match=expected):
        open_dataset(made[0]).restricted(train=np.array([], dtype=np.int64))


@pytest.mark.parametrize(
    "positions", [[0, 41], [-1, 3], [5, 5], [0.0, 1.0], [True, False]], ids=str
)
def test_positions_that_are_none_are_refused(made, positions):
    expected = (
        "^the positions of training samples must be different whole numbers from 0 to 40: "
        f"{made[0]} has 41 of them$"
    )
    with pytest.raises(DataError, match=expected):
        open_dataset(made[0]).restricted(train=np.array(positions))
