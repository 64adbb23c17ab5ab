"""debiased: a part of another data set, sample by sample as it was."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.files import sha256
from mmcoop.recipes.debiased import Debiased
from mmcoop.scores.scores import Scores

PATTERNS = np.array([[0, 0], [0.5, -0.5], [-0.5, 0.5], [1, 1], [1.5, 0.5], [0.5, 1.5]])
ODDS = [0.05, 0.05, 0.02, 0.4, 0.33, 0.15]  # audio leads


def scores_of(folder: Path, path: Path, *, change=None, **details) -> Path:
    """A scores file of made-up contributions to every sample of a data set."""
    dataset = open_dataset(folder)
    rng = np.random.default_rng(0)
    frames = []
    for split in SPLITS:
        part = dataset.split(split)
        phi = PATTERNS[rng.choice(len(PATTERNS), len(part), p=ODDS)]
        frames.append(
            pd.DataFrame(
                {
                    "id": part.table["id"].to_pylist(),
                    "split": split,
                    "label": part.labels,
                    "prediction": part.labels,
                    "correct": True,
                    "contribution_audio": phi[:, 0],
                    "contribution_visual": phi[:, 1],
                    "value_audio": 0.0,
                    "value_visual": 0.0,
                    "value_audio+visual": 2.0,
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    frame = frame if change is None else change(frame)
    import pyarrow as pa

    about = {"dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint}, **details}
    with Scores.create(path, ("audio", "visual"), about) as writer:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer.write(table.replace_schema_metadata())
    return path


@pytest.fixture(scope="module")
def built(keypad, tmp_path_factory) -> tuple[Path, Path]:
    """keypad debiased by made-up scores, and these."""
    folder = tmp_path_factory.mktemp("debiased")
    scores = scores_of(keypad, folder / "scores.parquet")
    Debiased(source=keypad, scores=scores).build(folder / "data")
    return folder / "data", scores


def test_means_are_equal_to_within_the_tolerance_in_every_split_and_the_spread_stays(built):
    data, scores = built[0], pd.read_parquet(built[1]).set_index("id")
    for split in SPLITS:
        part = open_dataset(data).split(split)
        kept = scores.loc[part.table["id"].to_pylist()]
        before = scores[scores.split == split]
        assert 0 < len(kept) < len(before)
        lead, all_lead = (x.contribution_audio - x.contribution_visual for x in (kept, before))
        assert abs(lead.mean()) <= 0.02 < abs(all_lead.mean())
        assert lead.abs().mean() >= 0.5 * all_lead.abs().mean()
        sizes = np.bincount(part.labels)
        assert sizes.max() <= 2 * sizes.min()


def test_samples_are_as_they_were_in_their_splits(keypad, built):
    source, data = open_dataset(keypad), open_dataset(built[0])
    for split in SPLITS:
        before, after = source.split(split), data.split(split)
        at = {id: k for k, id in enumerate(before.table["id"].to_pylist())}
        index = np.array([at[id] for id in after.table["id"].to_pylist()])
        assert (np.diff(index) > 0).all()
        rows = np.arange(len(after))
        for name in source.modalities:
            np.testing.assert_array_equal(after.read(name, rows), before.read(name, index))
        for column in ("label", "group", "snr_audio", "snr_visual"):
            assert after.table[column].to_pylist() == [
                before.table[column].to_pylist()[k] for k in index
            ]
    assert data.modalities == source.modalities
    assert data.defaults == source.defaults
    assert data.classes == source.classes
    assert data.rejects == {}


def test_the_report_says_what_changed(keypad, built):
    data = open_dataset(built[0])
    assert data.recipe == "debiased"
    assert data.options["source_fingerprint"] == open_dataset(keypad).fingerprint
    assert data.options["scores_sha256"] == sha256(built[1])
    for split in SPLITS:
        facts = data.report["debiased"][split]
        assert facts["before"]["samples"] == open_dataset(keypad).rows[split]
        assert facts["after"]["samples"] == data.rows[split]
        assert facts["before"]["gap"] > 0.02 >= facts["after"]["gap"]
    assert data.report["classes_dropped"] == []
    largest = data.report["largest"]
    assert largest["samples"] == sum(data.rows.values()) <= largest["bound"]
    assert sum(data.report["samples_by_class"]["after"].values()) == sum(data.rows.values())


def test_the_same_call_gives_the_same_bytes(keypad, built, tmp_path):
    Debiased(source=keypad, scores=built[1]).build(tmp_path / "again")
    names = sorted(path.name for path in built[0].iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (built[0] / name).read_bytes()


def test_a_class_that_is_one_sided_goes_and_the_others_are_numbered_anew(keypad, tmp_path):
    def one_sided(frame):
        mine = frame.label == 3
        frame.loc[mine, ["contribution_audio", "contribution_visual"]] = (1.5, 0.5)
        frame.loc[~mine, ["contribution_audio", "contribution_visual"]] = (1.0, 1.0)
        return frame

    scores = scores_of(keypad, tmp_path / "scores.parquet", change=one_sided)
    Debiased(source=keypad, scores=scores, min_spread=0.0).build(tmp_path / "data")
    data, source = open_dataset(tmp_path / "data"), open_dataset(keypad)
    assert data.classes == [name for name in source.classes if name != "3"]
    assert data.report["classes_dropped"] == ["3"]
    label_of = dict(
        zip(source.split("test").table["id"].to_pylist(), source.split("test").labels, strict=True)
    )
    part = data.split("test")
    for id, label in zip(part.table["id"].to_pylist(), part.labels, strict=True):
        assert data.classes[label] == source.classes[label_of[id]]


def test_what_changed_is_said_on_the_command_line(keypad, built, tmp_path, capsys, monkeypatch):
    from mmcoop.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["--from", str(keypad), "--scores", str(built[1]), "--out", "data", "--json"]
    with pytest.raises(SystemExit) as end:
        main(["build-dataset", "debiased", *arguments])
    out, err = capsys.readouterr()
    assert not end.value.code
    assert json.loads(out)["debiased"]["test"]["after"]["gap"] <= 0.02
    assert "train: samples 1,000 → " in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f.split == "train"], "no scores of the validation split: value every split"),
        (lambda f: f.drop(index=5), "no scores of 1 train samples"),
        (lambda f: pd.concat([f, f.iloc[:1]]), "two scores of sample"),
        (lambda f: f.assign(label=(f.label + 1) % 10), "has another class of sample"),
        (lambda f: f.assign(contribution_audio=np.nan), "are NaN or infinite"),
        (
            lambda f: pd.concat([f, f.iloc[:1].assign(id="stranger")]),
            "scores of 1 samples, 'stranger' for one, that are not in the data set",
        ),
        (
            lambda f: f.assign(contribution_audio=1.5, contribution_visual=0.5),
            "audio contributes more than visual to 500 of 500 samples",
        ),
    ],
)
def test_scores_that_do_not_fit_are_refused_and_nothing_is_left(keypad, tmp_path, change, message):
    scores = scores_of(keypad, tmp_path / "scores.parquet", change=change)
    with pytest.raises(DataError, match=message):
        Debiased(source=keypad, scores=scores).build(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_scores_are_joined_by_ids_however_they_are_spelt(keypad, built, tmp_path):
    folder, _ = built

    def spelt(frame):
        return frame.assign(id=" " + frame.id + "\u200b").sample(frac=1, random_state=0)

    scores = scores_of(keypad, tmp_path / "scores.parquet", change=spelt)
    Debiased(source=keypad, scores=scores).build(tmp_path / "data")
    for name in SPLITS:
        kept, expected = (open_dataset(f).split(name).table for f in (tmp_path / "data", folder))
        assert kept.equals(expected)


def test_scores_of_another_data_set_are_refused(keypad, tmp_path):
    about = {"name": "other", "fingerprint": "0" * 64}
    scores = scores_of(keypad, tmp_path / "scores.parquet", dataset=about)
    with pytest.raises(DataError, match="has scores of another data set than"):
        Debiased(source=keypad, scores=scores).build(tmp_path / "data")


def test_scores_with_positions_for_ids_are_refused(keypad, tmp_path):
    scores = scores_of(keypad, tmp_path / "scores.parquet", ids="positions")
    with pytest.raises(DataError, match="has positions for ids"):
        Debiased(source=keypad, scores=scores).build(tmp_path / "data")


def test_a_file_that_is_no_scores_file_is_refused(keypad, tmp_path):
    (tmp_path / "scores.parquet").write_text("no")
    with pytest.raises(DataError, match="is not a scores file of mmcoop"):
        Debiased(source=keypad, scores=tmp_path / "scores.parquet").build(tmp_path / "data")


def test_one_modality_has_nothing_to_be_balanced_with(keypad, tmp_path):
    import torch

    ids = open_dataset(keypad).split("train").table["id"].to_pylist()
    zeros = torch.zeros(len(ids), dtype=torch.int64)
    values = torch.zeros(len(ids), 2)
    Scores.from_values(("audio",), ids, values, labels=zeros).save(tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="has scores of one modality"):
        Debiased(source=keypad, scores=tmp_path / "scores.parquet").build(tmp_path / "data")


def test_the_data_set_itself_is_never_in_the_way(keypad, built):
    with pytest.raises(UsageError, match="contains the dataset to select from"):
        Debiased(source=keypad, scores=built[1]).build(keypad, overwrite=True)
    assert open_dataset(keypad).rows["train"] == 1000
