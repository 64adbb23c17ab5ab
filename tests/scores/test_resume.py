"""A scores file that is written in parts: cut off anywhere, it goes on to the same bytes."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import mmcoop.scores.resume
import mmcoop.scores.table
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.shapley import shapley_values
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.scores.resume import ScoresParts, resumable_scores
from mmcoop.scores.scores import Scores
from mmcoop.scores.table import scores_table

NAMES = ("ear", "eye")
DETAILS = {
    "value": "paper",
    "split": "train",
    "dataset": {"name": "mine"},
    "fair_share": 1.0,
    "classes": 3,
}
SIZES = [5, 5, 5, 1, 7, 5, 5, 2]  # samples of each batch
SPLITS = ["train"] * 4 + ["test"] * 4


def batch(number: int) -> tuple[ValuedBatch, dict[str, torch.Tensor]]:
    """The batch of that number, with one further column that has no number for some samples."""
    generator = torch.Generator().manual_seed(number)
    size = SIZES[number]
    values = torch.rand(size, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (size,), generator=generator)
    choices = torch.randint(3, (size, 4), generator=generator)
    choices[:, 0] = -1
    valued = ValuedBatch(
        ids=[f"{number}-{k}" for k in range(size)],
        coalitions=coalition_matrix(2),
        labels=labels,
        predictions=choices[:, -1],
        outputs=torch.randn(size, 3, generator=generator),
        choices=choices,
        values=values,
        contributions=shapley_values(values),
    )
    further = torch.rand(size, generator=generator, dtype=torch.float64)
    return valued, {"intershap": further.masked_fill(further < 0.2, torch.nan)}


def told(path: Path) -> list[Any]:
    """All that the summaries of a file report, intervals included."""
    summaries = Scores.open(path).summaries(replicates=40)
    return [
        (
            name,
            summary.samples,
            summary.mean_contribution,
            summary.low_contributing,
            summary.accuracy,
            summary.macro_f1,
            summary.shares,
            summary.residual,
            summary.table.tolist(),
            [summary.mean(column) for column in summary.extra],
            [summary.interval(f"contribution_{m}") for m in NAMES],
            [summary.interval(column) for column in summary.extra],
            summary.interval("contribution_ear", minus=summaries["train"]),
        )
        for name, summary in summaries.items()
    ]


def write(
    path: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    before: Callable[[int], None] = lambda number: None,
    details: dict[str, Any] = DETAILS,
) -> list[Any]:
    """Value all batches into `path`, calling `before` with the number of each; gives what the
    summaries say."""
    with resumable_scores(path, NAMES, details, resume=resume, overwrite=overwrite) as parts:
        for split in ("train", "test"):
            ours = [number for number in range(len(SIZES)) if SPLITS[number] == split]
            firsts = [sum(SIZES[ours[0] : number]) for number in ours]
            for left in parts.left(f"the {split} ones", sum(SIZES[number] for number in ours)):
                for number, first in zip(ours, firsts, strict=True):
                    if left.start <= first < left.stop:
                        before(number)
                        parts.add(scores_table(NAMES, split, *batch(number)), SIZES[number])
    return told(path)


def stop_at(number: int, error: type[BaseException] = RuntimeError) -> Callable[[int], None]:
    def before(reached: int) -> None:
        if reached == number:
            raise error("in between")

    return before


@pytest.fixture
def at_once(monkeypatch) -> None:
    """Every batch is a part of its own."""
    monkeypatch.setattr(mmcoop.scores.resume, "_SECONDS", -1.0)


@pytest.fixture
def whole(tmp_path) -> tuple[bytes, list[Any]]:
    """Bytes and summaries of a valuation that was not disturbed."""
    said = write(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "whole.parquet").unlink()
    return content, said


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is written


def test_a_file_in_parts_is_the_file_written_at_once(whole, tmp_path):
    with Scores.create(tmp_path / "at once.parquet", NAMES, DETAILS) as writer:
        for number, split in enumerate(SPLITS):
            writer.write(scores_table(NAMES, split, *batch(number)))
    assert (tmp_path / "at once.parquet").read_bytes() == whole[0]


def test_parts_stand_beside_the_place_of_the_file_until_it_is_whole(at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    seen = []

    def before(number: int) -> None:
        seen.append(names(tmp_path))
        parts = [p for p in names(tmp_path / ".scores.parquet.parts") if p.startswith("part-")]
        assert len(parts) == number

    write(path, before=before)
    assert seen == [[".scores.parquet.lock", ".scores.parquet.parts"]] * len(SIZES)
    assert names(tmp_path) == ["scores.parquet"]


def test_a_part_is_written_when_a_row_group_is_full_or_some_time_has_passed(monkeypatch, tmp_path):
    parts = tmp_path / ".scores.parquet.parts"
    flushed: dict[str, list[int]] = {}

    def count(name: str) -> list[int]:
        flushed[name] = []
        write(tmp_path / "scores.parquet", before=lambda n: flushed[name].append(len(parted())))
        (tmp_path / "scores.parquet").unlink()
        return flushed[name]

    def parted() -> list[str]:
        return [p for p in names(parts) if p.startswith("part-")]

    assert count("neither") == [0, 0, 0, 0, 1, 1, 1, 1], "one for each slice_ at least"
    with monkeypatch.context() as change:
        change.setattr(mmcoop.scores.resume, "ROW_GROUP", 10)
        assert count("rows") == [0, 0, 1, 1, 2, 2, 3, 3]
    clock = iter(range(0, 1000, 2))  # two seconds go by whenever the time is asked for
    watch = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(mmcoop.scores.resume, "time", watch)
    assert count("time") == [0, 0, 0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("rows", [1, 3, 16, 1000])
def test_row_groups_and_bytes_do_not_depend_on_how_parts_came(
    whole, monkeypatch, tmp_path, rows, at_once
):
    monkeypatch.setattr(mmcoop.scores.table, "ROW_GROUP", rows)
    write(tmp_path / "a batch a part.parquet")
    monkeypatch.setattr(mmcoop.scores.resume, "_SECONDS", 1e9)
    write(tmp_path / "one part.parquet")
    monkeypatch.setattr(mmcoop.scores.resume, "ROW_GROUP", 12)
    write(tmp_path / "some parts.parquet")
    content = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(content) == 1
    metadata = pq.read_metadata(tmp_path / "one part.parquet")
    groups = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
    assert groups == [rows] * (35 // rows) + [35 % rows] * (35 % rows > 0)


def test_nothing_to_write_is_refused_and_leaves_nothing(tmp_path):
    path = tmp_path / "scores.parquet"
    with (
        pytest.raises(DataError, match=f"^there is no sample to write into {path}$"),
        resumable_scores(path, NAMES, DETAILS, resume=False),
    ):
        pass
    assert names(tmp_path) == []


# --- going on


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_cut_off_at_any_batch_it_goes_on_to_the_same_bytes_and_summaries(
    whole, at_once, tmp_path, number
):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(number))
    assert names(tmp_path) == [".scores.parquet.parts"] * (number > 0)
    valued_again: list[int] = []
    said = write(path, resume=True, before=valued_again.append)
    assert valued_again == list(range(number, len(SIZES)))
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def test_cut_off_again_and_again_it_ends_the_same(whole, at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    for number in range(1, len(SIZES)):
        with pytest.raises(RuntimeError, match="in between"):
            write(path, resume=True, before=stop_at(number))
    said = write(path, resume=True)
    assert (path.read_bytes(), said) == whole


def test_what_was_not_written_yet_is_valued_again(whole, monkeypatch, tmp_path):
    path = tmp_path / "scores.parquet"
    monkeypatch.setattr(mmcoop.scores.resume, "ROW_GROUP", 10)
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    valued_again: list[int] = []
    said = write(path, resume=True, before=valued_again.append)
    assert valued_again == [2, 3, 4, 5, 6, 7]
    assert (path.read_bytes(), said) == whole


@contextmanager
def dies(function: str) -> Iterator[pytest.MonkeyPatch]:
    """In the block, `mmcoop.scores.resume` fails where it calls this function."""

    def fail(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("in between")

    with pytest.MonkeyPatch.context() as change, pytest.raises(RuntimeError, match="in between"):
        owner, _, name = function.rpartition(".")
        change.setattr({"Scores": Scores, "": mmcoop.scores.resume}[owner], name, fail)
        yield change


@pytest.mark.parametrize("function", ["write_json", "Scores.create"])
def test_cut_off_between_a_part_and_its_state_or_at_the_very_end_it_goes_on(
    whole, at_once, tmp_path, function
):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    with dies(function):
        write(path, resume=True)
    parts = names(tmp_path / ".scores.parquet.parts")
    last = {"write_json": "part-00003.parquet", "Scores.create": "part-00007.parquet"}[function]
    assert last in parts
    valued_again: list[int] = []
    said = write(path, resume=True, before=valued_again.append)
    assert valued_again == {"write_json": [3, 4, 5, 6, 7], "Scores.create": []}[function]
    assert (path.read_bytes(), said) == whole


@pytest.mark.parametrize("left", range(5))
def test_cut_off_while_it_tidies_up_it_ends_well(whole, at_once, tmp_path, left):
    """After so many of the parts, details and state of a published file have been removed."""
    path = tmp_path / "scores.parquet"
    removed: list[Path] = []
    remove = Path.unlink

    def unlink(file: Path, missing_ok: bool = False) -> None:
        if file.parent.name == ".scores.parquet.parts" and file.exists():
            if len(removed) == 2 * left:
                raise KeyboardInterrupt
            removed.append(file)
        remove(file, missing_ok)

    with pytest.MonkeyPatch.context() as change:
        change.setattr(Path, "unlink", unlink)
        with contextlib.suppress(KeyboardInterrupt, Interrupted):
            write(path)
    assert path.read_bytes() == whole[0]
    said = write(path, resume=True, before=lambda number: pytest.fail("valued again"))
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def test_a_finished_file_may_be_resumed_and_one_of_another_valuation_not(whole, tmp_path):
    path = tmp_path / "scores.parquet"
    write(path)
    assert (write(path, resume=True), path.read_bytes()) == (whole[1], whole[0])
    with pytest.raises(UsageError, match=f"{path} exists"):
        write(path, resume=True, details={**DETAILS, "value": "correct"})
    assert path.read_bytes() == whole[0]


def test_what_a_kill_left_half_written_is_thrown_away(whole, at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    parts = tmp_path / ".scores.parquet.parts"
    for name in ("part-00003.parquet", ".part-00003.parquet.partial", ".state.json.partial"):
        (parts / name).write_bytes(b"half")
    (tmp_path / ".scores.parquet.partial").write_bytes(b"half")
    said = write(path, resume=True)
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def test_with_nothing_to_go_on_from_it_begins(whole, tmp_path):
    path = tmp_path / "scores.parquet"
    assert (write(path, resume=True), path.read_bytes()) == (whole[1], whole[0])
    # killed before its first part, of whatever valuation that was
    path.unlink()
    (tmp_path / ".scores.parquet.parts").mkdir()
    (tmp_path / ".scores.parquet.parts/details.json").write_text('{"value": "correct"}')
    assert (write(path, resume=True), path.read_bytes()) == (whole[1], whole[0])


def test_parts_are_thrown_away_on_request_only(whole, at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(6), details={"value": "correct"})
    kept = names(tmp_path / ".scores.parquet.parts")
    with pytest.raises(UsageError, match=r"unfinished valuation .*resume"):
        write(path)
    assert names(tmp_path / ".scores.parquet.parts") == kept
    valued_again: list[int] = []
    said = write(path, overwrite=True, before=valued_again.append)
    assert valued_again == list(range(len(SIZES)))
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def test_a_file_that_is_replaced_stays_until_the_new_one_is_whole(whole, at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    path.write_text("what was there")
    with pytest.raises(RuntimeError, match="in between"):
        write(path, overwrite=True, before=stop_at(3))
    assert path.read_text() == "what was there"
    for more in ({}, {"resume": True}):
        with pytest.raises(UsageError, match=f"{path} exists"):
            write(path, **more)
    said = write(path, resume=True, overwrite=True)
    assert (path.read_bytes(), said) == whole


# --- Ctrl-C


def test_stopped_before_anything_is_written_it_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="in between"):
        write(tmp_path / "scores.parquet", before=stop_at(3, KeyboardInterrupt))
    assert names(tmp_path) == []


def test_stopped_after_a_part_it_keeps_it_and_says_how_to_go_on(whole, at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    expected = "^stopped; what was valued is kept: resume with the same command and resume=True$"
    with pytest.raises(Interrupted, match=expected) as stopped:
        write(path, before=stop_at(5, KeyboardInterrupt))
    assert stopped.value.exit_code == 130
    assert names(tmp_path) == [".scores.parquet.parts"]
    # and again, before the next part
    with pytest.raises(Interrupted, match=expected):
        write(path, resume=True, before=stop_at(5, KeyboardInterrupt))
    said = write(path, resume=True)
    assert (path.read_bytes(), said) == whole


# --- refusals


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**DETAILS, "value": "correct"}, "value 'paper', not 'correct'"),
        ({**DETAILS, "cross_fit": 3}, "cross_fit None, not 3"),
        ({k: v for k, v in DETAILS.items() if k != "split"}, "split 'train', not None"),
        ({**DETAILS, "dataset": {"name": "yours"}}, "dataset {'name': 'mine'}, not {'name': 'y"),
    ],
)
def test_parts_of_another_valuation_are_refused_by_name_and_stay(
    whole, at_once, tmp_path, other, message
):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    with pytest.raises(UsageError) as error:
        write(path, resume=True, details=other)
    assert str(error.value).startswith(f"{path} was begun with {message}")
    assert str(error.value).endswith("resume it as it began, or value again with overwrite=True")
    said = write(path, resume=True)
    assert (path.read_bytes(), said) == whole


def test_parts_of_other_modalities_are_refused(at_once, tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    expected = rf"^{path} was begun with modalities \['ear', 'eye'\], not \['ear'\]: "
    with (
        pytest.raises(UsageError, match=expected),
        resumable_scores(path, ("ear",), DETAILS, resume=True),
    ):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_two_at_once_are_refused_and_the_first_is_not_disturbed(whole, at_once, tmp_path, resume):
    path = tmp_path / "scores.parquet"

    def before(number: int) -> None:
        with pytest.raises(UsageError, match=f"^{path} is in use by process {os.getpid()} since"):
            write(path, resume=resume)

    said = write(path, before=before)
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def damage_state(how: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def damage(parts: Path) -> str:
        (parts / "state.json").write_bytes(how((parts / "state.json").read_bytes()))
        return "state.json"

    return damage


def other_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], str]:
    def damage(parts: Path) -> str:
        state = json.loads((parts / "state.json").read_text())
        (parts / "state.json").write_text(json.dumps(change(state)))
        return "state.json"

    return damage


def flip_bit(part: Path) -> None:
    content = bytearray(part.read_bytes())
    # in the middle of the numbers of a column
    where = pq.read_metadata(part).row_group(0).column(5)
    content[where.data_page_offset + where.total_compressed_size // 2] ^= 1
    part.write_bytes(content)


def another_table(part: Path) -> None:
    """A file that is whole, with other numbers in it."""
    table = pq.read_table(part)
    column = table.column_names.index("contribution_ear")
    changed = pc.add(table["contribution_ear"], 1.0)
    pq.write_table(table.set_column(column, "contribution_ear", changed), part)


DAMAGES = {
    "lost": Path.unlink,
    "a bit": flip_bit,
    "cut short": lambda part: part.write_bytes(part.read_bytes()[:-10]),
    "other numbers": another_table,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("damaged", [[0], [2], [4, 5], [1, 3, 5]])
def test_damaged_parts_are_valued_again_and_it_ends_the_same(
    whole, at_once, tmp_path, damage, damaged
):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(6))
    for number in damaged:
        DAMAGES[damage](tmp_path / ".scores.parquet.parts" / f"part-{number:05d}.parquet")
    # killed again, right before the last of them
    if len(damaged) > 1:
        with pytest.raises(RuntimeError, match="in between"):
            write(path, resume=True, before=stop_at(damaged[-1]))
    valued_again: list[int] = []
    said = write(path, resume=True, before=valued_again.append)
    assert valued_again == [damaged[-1], 6, 7]
    assert (path.read_bytes(), said) == whole
    assert names(tmp_path) == ["scores.parquet"]


def lose_details(parts: Path) -> str:
    (parts / "details.json").unlink()
    return "details.json"


def damage_details(content: str) -> Callable[[Path], str]:
    def damage(parts: Path) -> str:
        (parts / "details.json").write_text(content)
        return "details.json"

    return damage


@pytest.mark.parametrize(
    "damage",
    {
        "state cut short": damage_state(lambda content: content[:20]),
        "state empty": damage_state(lambda content: b""),
        "state of text": damage_state(lambda content: b"not a state"),
        "state of a list": other_state(lambda state: [1, 2]),
        "state without parts": other_state(lambda state: {}),
        "state of a number of parts": other_state(lambda state: {"parts": 3}),
        "state of text for parts": other_state(lambda state: {"parts": "3"}),
        "state of other parts": other_state(
            lambda state: {"parts": [{**part, "stop": -1} for part in state["parts"]]}
        ),
        "details lost": lose_details,
        "details of text": damage_details("{"),
        "details of a number": damage_details("3"),
        "details of a list": damage_details("[1, 2]"),
    }.items(),
    ids=lambda entry: entry[0],
)
def test_damaged_parts_are_refused_with_the_way_out_and_stay(whole, at_once, tmp_path, damage):
    path = tmp_path / "scores.parquet"
    with pytest.raises(RuntimeError, match="in between"):
        write(path, before=stop_at(3))
    parts = tmp_path / ".scores.parquet.parts"
    damaged = parts / damage[1](parts)
    before = names(parts)
    with pytest.raises(DataError) as error:
        write(path, resume=True)
    assert str(error.value).startswith(f"{damaged} is damaged (")
    assert str(error.value).endswith("): value again with overwrite=True")
    assert names(parts) == before
    said = write(path, overwrite=True)
    assert (path.read_bytes(), said) == whole


def test_what_is_done_is_told_by_stretch(at_once, tmp_path):
    with pytest.raises(RuntimeError, match="in between"):
        write(tmp_path / "scores.parquet", before=stop_at(6))
    folder = tmp_path / ".scores.parquet.parts"
    parts = ScoresParts(folder, json.loads((folder / "state.json").read_text()))
    assert parts.done == {"the train ones": 16, "the test ones": 12}
    assert sum(len(table) for table in parts.tables()) == 28
    details = json.loads((parts.folder / "details.json").read_text())
    assert details == {"modalities": ["ear", "eye"], **DETAILS}
