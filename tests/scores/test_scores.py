"""`Scores`: the same from memory and from a file, streamed or not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import mmcoop
from mmcoop import Scores
from mmcoop.errors import DataError

# Correctness of audio alone, visual alone and both, and the label, one row per sample.
RIGHT = [((1, 0, 1), 0), ((0, 0, 1), 1), ((1, 1, 0), 2), ((0, 1, 1), 1), ((1, 1, 1), 0)]
NAMES = ("audio", "visual")


def model(inputs, present):
    """Right where `audio` has 1 for the coalition, else it predicts the next class."""
    coalition = (present * torch.tensor([1, 2])).sum(1)
    right = inputs["audio"].gather(1, (coalition - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    said = (inputs["visual"] + 1 - right) % 3
    return torch.nn.functional.one_hot(said, 3).float()


def batches(repeat: int = 1):
    rows = RIGHT * repeat
    pattern, labels = torch.tensor([r for r, _ in rows]), torch.tensor([y for _, y in rows])
    for k in range(0, len(rows), 2):
        part = slice(k, k + 2)
        ids = [f"clip-{i}" for i in range(k, min(k + 2, len(rows)))]
        yield {
            "inputs": {"audio": pattern[part], "visual": labels[part]},
            "labels": labels[part],
            "ids": ids,
        }


def valued(repeat: int = 1) -> Scores:
    return mmcoop.valuate(model, batches(repeat), modalities=NAMES)


@pytest.fixture
def opened(tmp_path) -> Scores:
    valued().save(tmp_path / "scores.parquet")
    return Scores.open(tmp_path / "scores.parquet")


def test_the_columns_of_correctness_and_prediction_are_those_of_the_model():
    frame = valued().to_frame()
    for k, name in enumerate(("audio", "visual", "audio+visual")):
        assert frame[f"correct_{name}"].tolist() == [float(right[k]) for right, _ in RIGHT]
        said = [(label + 1 - right[k]) % 3 for right, label in RIGHT]
        column = "prediction" if name == "audio+visual" else f"prediction_{name}"
        assert frame[column].tolist() == said
    assert frame["ties"].isna().all()


def test_opened_from_a_file_scores_are_the_same_as_in_memory(opened):
    memory = valued()
    assert len(opened) == len(memory) == 5
    assert opened.modalities == memory.modalities == NAMES
    assert opened.ids == memory.ids == [f"clip-{k}" for k in range(5)]
    assert json.dumps(opened.details) == json.dumps(memory.details, sort_keys=True)
    for name in ("contributions", "values", "labels", "predictions", "correct", "coalitions"):
        one, other = getattr(opened, name), getattr(memory, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert torch.equal(opened.interval(), memory.interval())
    assert opened.groups is opened.stderr is opened.draws is opened.splits is None
    pd.testing.assert_frame_equal(opened.to_frame(), memory.to_frame(), check_exact=True)
    pd.testing.assert_frame_equal(opened.means(), memory.means(), check_exact=True)
    assert repr(opened) == repr(memory)


def test_saving_what_was_opened_gives_the_same_bytes(opened, tmp_path):
    opened.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == opened.path.read_bytes()
    content = opened.path.read_bytes()
    opened.save(opened.path)
    assert opened.path.read_bytes() == content


def test_a_summary_is_that_of_a_plain_loop_also_over_several_row_groups(tmp_path):
    scores = valued(2000)
    scores.save(tmp_path / "scores.parquet")
    assert pq.read_metadata(tmp_path / "scores.parquet").num_row_groups == 2
    for some in (scores, Scores.open(tmp_path / "scores.parquet")):
        summary = some.summary(replicates=20)
        assert summary.samples == 10_000
        assert summary.accuracy == {"audio": 0.6, "visual": 0.6, "audio+visual": 0.8}
        assert summary.class_samples == [4000, 4000, 2000]
        assert summary.class_accuracy(1) == {"audio": 0.0, "visual": 0.5, "audio+visual": 1.0}
        low, high = summary.interval("accuracy_audio")
        assert 0.58 < low < 0.6 < high < 0.62


def test_tied_classes_are_kept_and_count_in_parts():
    votes = {"left": torch.tensor([[1.0, 1, 0], [0, 2, 1], [1, 1, 1]]), "right": torch.zeros(3, 3)}
    labels = torch.tensor([0, 1, 2])

    def votes_of(inputs, present):
        return inputs["left"] * present[:, :1]

    scores = mmcoop.valuate(votes_of, [(votes, labels)], modalities=["left", "right"])
    assert scores.correct.tolist() == [0.5, 1, pytest.approx(1 / 3)]
    every = [{"coalition": "right", "class": c} for c in range(3)]
    first = [{"coalition": c, "class": k} for c in ("left", "left+right") for k in (0, 1)]
    found = scores.to_frame()["ties"]
    key = lambda tie: (tie["coalition"], tie["class"])  # noqa: E731
    assert sorted(found[0], key=key) == sorted([*first, *every], key=key)
    assert sorted(found[1], key=key) == every
    summary = scores.summary(replicates=0)
    assert summary.accuracy["right"] == pytest.approx(1 / 3)
    # of left: class 0 is predicted ½ + ⅓ times and right ½, class 1 1½ + ⅓ and 1, class 2 ⅓ and ⅓
    f1 = [2 * 0.5 / (1 + 5 / 6), 2 * 1 / (1 + 11 / 6), 2 * (1 / 3) / (1 + 1 / 3)]
    assert summary.macro_f1["left"] == pytest.approx(np.mean(f1))


def test_splits_have_a_summary_each_and_all_of_them_one_more():
    table = pa.Table.from_pandas(valued().to_frame(), preserve_index=False)
    names = pa.array(["test", "train", "test", "train", "test"], pa.string())
    table = table.set_column(1, "split", names)
    scores = Scores(table, NAMES, {"value": "paper", "classes": 3})
    found = scores.summaries(replicates=0)
    assert {name: summary.samples for name, summary in found.items()} == {
        "train": 2,
        "test": 3,
        "all": 5,
    }
    assert found["train"].accuracy == {"audio": 0.0, "visual": 0.5, "audio+visual": 1.0}
    assert scores.splits == names.to_pylist()


def test_a_file_of_an_earlier_version_opens_without_the_columns_of_correctness(opened, tmp_path):
    table = pq.read_table(opened.path)
    old = [n for n in table.column_names if not n.startswith(("correct_", "prediction_", "ties"))]
    details = {k: v for k, v in opened.details.items() if k not in ("classes", "seed")}
    content = json.dumps({"format": "mmcoop scores", "modalities": NAMES, **details})
    path = tmp_path / "old.parquet"
    pq.write_table(table.select(old).replace_schema_metadata({b"mmcoop": content}), path)
    scores = Scores.open(path)
    assert torch.equal(scores.contributions, opened.contributions)
    assert scores.correct.tolist() == opened.correct.tolist() == [1, 1, 0, 1, 1]
    (summary,) = scores.summaries().values()
    assert summary.mean_contribution == opened.summary().mean_contribution
    assert summary.accuracy == {}
    pd.testing.assert_frame_equal(scores.means(), opened.means())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("contribution_audio"), "it has no column 'contribution_audio'"),
        (lambda t: t.drop_columns("id"), "it has no column 'id'"),
        (
            lambda t: t.rename_columns(
                ["value_nose" if n == "value_audio" else n for n in t.column_names]
            ).replace_schema_metadata(t.schema.metadata),
            "it has values of 'nose', which are no modalities of it",
        ),
        (
            lambda t: t.set_column(2, "label", pa.array([7] * 5)),
            "it has labels that are not among its 3 classes",
        ),
        (
            lambda t: t.set_column(
                t.column_names.index("value_audio"), "value_audio", pa.array(["x"] * 5)
            ),
            "value_audio has no numbers",
        ),
    ],
)
def test_a_damaged_file_is_refused_by_name(opened, tmp_path, change, message):
    path = tmp_path / "other.parquet"
    pq.write_table(change(pq.read_table(opened.path)), path)
    with pytest.raises(DataError) as error:
        scores = Scores.open(path)
        _ = scores.coalitions, scores.summary(replicates=0)
    assert str(error.value) == f"{path} is not a scores file of mmcoop: {message}"


def test_a_file_cannot_ask_for_more_memory_than_it_is_large(opened, tmp_path):
    details = {"modalities": NAMES, **opened.details, "classes": 2**24}
    table = pq.read_table(opened.path).replace_schema_metadata({b"mmcoop": json.dumps(details)})
    path = tmp_path / "other.parquet"
    for classes, coalitions in ((2**24, 8), (2**24 + 1, 4)):
        details["classes"] = classes
        more = {f"value_audio+visual{k}": 0 for k in range(coalitions - 4)}
        wide = table
        for name in more:
            wide = wide.append_column(name, pa.array([0.0] * 5))
        pq.write_table(wide.replace_schema_metadata({b"mmcoop": json.dumps(details)}), path)
        with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop: "):
            Scores.open(path).summary(replicates=0)


def test_a_notebook_shows_a_table_in_which_text_is_escaped():
    scores = Scores.from_values(
        NAMES, ["a"], torch.tensor([[0.0, 1, 0, 2]]), details={"value": "<script>\x1b[31m"}
    )
    page = scores._repr_html_()
    assert "<td>audio</td><td>1.500</td>" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page and "\x1b" not in page


def test_a_terminal_shows_the_same_table(capsys):
    from rich.console import Console

    console = Console(width=60, color_system=None)
    console.print(valued())
    shown = capsys.readouterr().out
    assert "5 samples, value paper" in shown
    assert "audio" in shown and "0.800" in shown


def test_a_file_is_appended_to_while_streaming(tmp_path):
    from mmcoop.core.valuation.engine import value_batches

    path = tmp_path / "scores.parquet"
    with Scores.create(path, NAMES, {"value": "paper", "classes": 3}) as writer:
        for batch in value_batches(model, batches(), modalities=NAMES):
            writer.append("test", batch)
        assert not Path(path).exists()
    scores = Scores.open(path)
    assert torch.equal(scores.contributions, valued().contributions)
    assert list(scores.summaries(replicates=0)) == ["test"]
