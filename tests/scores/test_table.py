"""The scores file."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import DataError
from mmcoop.reading.scores import read_scores_details
from mmcoop.scores.table import scores_file


def valued(start: int, rows: int) -> ValuedBatch:
    """Some rows of one modality, told apart by their id and label."""
    numbers = torch.arange(start, start + rows)
    return ValuedBatch(
        ids=[str(k) for k in numbers.tolist()],
        labels=numbers,
        predictions=numbers - numbers % 2,
        coalitions=coalition_matrix(1),
        outputs=torch.zeros(rows, 1),
        choices=torch.stack([torch.full_like(numbers, -1), numbers - numbers % 2], 1),
        values=torch.stack([torch.zeros(rows), numbers.double()], 1).double(),
        contributions=numbers.double().unsqueeze(1),
    )


def test_a_file_is_written_in_row_groups_and_keeps_the_order(tmp_path):
    path = tmp_path / "scores.parquet"
    with scores_file(path, ("ear",), {"run": "mine"}) as scores:
        for start in range(0, 20_000, 500):
            scores.append("train", valued(start, 500))
        scores.append("test", valued(20_000, 7))
        assert not path.exists()
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    assert groups == [8192, 8192, 20_007 - 2 * 8192]
    frame = pd.read_parquet(path)
    assert frame["label"].tolist() == list(range(20_007))
    assert frame["contribution_ear"].tolist() == list(range(20_007))
    assert frame["value_ear"].tolist() == list(range(20_007))
    assert frame["correct"].tolist() == [k % 2 == 0 for k in range(20_007)]
    assert frame["split"].tolist() == ["train"] * 20_000 + ["test"] * 7


def test_a_file_without_rows_is_not_written(tmp_path):
    path = tmp_path / "scores.parquet"
    with (
        pytest.raises(DataError, match=f"^there is no sample to write into {path}$"),
        scores_file(path, ("ear",), {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [1, 37, 8192, 20_000])
def test_how_rows_come_makes_no_difference_to_the_bytes(tmp_path, part):
    for name, size in (("one", 500), ("other", part)):
        with scores_file(tmp_path / name, ("ear",), {}) as scores:
            for start in range(0, 20_000, size):
                scores.append("train", valued(start, min(size, 20_000 - start)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_block_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "scores.parquet"
    path.write_text("what was there")
    with (
        pytest.raises(RuntimeError, match="in between"),
        scores_file(path, ("ear",), {}) as scores,
    ):
        scores.append("train", valued(0, 10_000))
        raise RuntimeError("in between")
    assert path.read_text() == "what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "another parquet", "damaged details", "details of a list"]
)
def test_what_is_not_a_scores_file_is_refused(tmp_path, kind):
    path = tmp_path / "scores.parquet"
    table = pa.table({"id": ["a"]})
    if kind == "empty":
        path.touch()
    if kind == "text":
        path.write_text("id,split\n" * 100)
    if kind == "another parquet":
        pq.write_table(table, path)
    if kind == "damaged details":
        pq.write_table(table.replace_schema_metadata({b"mmcoop": b'{"format": '}), path)
    if kind == "details of a list":
        pq.write_table(table.replace_schema_metadata({b"mmcoop": b"[1]"}), path)
    with pytest.raises(DataError, match=f"^{path} is not a scores file of mmcoop: ."):
        read_scores_details(path)


def test_a_parquet_file_of_somebody_elses_is_refused_in_words(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(DataError) as error:
        read_scores_details(path)
    assert "b'mmcoop'" not in str(error.value)
