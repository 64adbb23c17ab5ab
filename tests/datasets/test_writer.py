"""Writing that is cut off goes on to the same bytes; what is shared and rejected is reported."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmcoop.datasets import writer as writing
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, open_dataset, read_rejects
from mmcoop.datasets.rejects import Reject, Unusable
from mmcoop.datasets.writer import (
    DatasetWriter,
    Header,
    continue_dataset,
    leakage,
    write_dataset,
)
from mmcoop.errors import DataError, UsageError
from mmcoop.files import NoRoom

VECTOR = Modality("vector", (3,), "float32", "mlp")


def header(**changes: Any) -> Header:
    content: dict[str, Any] = {
        "name": "small",
        "recipe": "tests",
        "options": {},
        "classes": ["no", "yes"],
        "modalities": {"x": VECTOR},
        "source": "made by the tests",
    }
    return Header(**{**content, **changes})


# Every kind of column that there is: buffers of any length, with and without nulls.
EVERY = header(
    modalities={
        "clip": Modality("frames", (2, 3, 8, 8), "uint8", "resnet18"),
        "sound": Modality("spectrogram", (1, 2, 3), "float16", "conv"),
        "x": VECTOR,
    },
    columns={"duration": "float32", "speaker": "string"},
)
KNOWN = [Reject("lost", "missing", "no file"), Reject("row 3", "duplicate", "listed twice")]


def source(like: Header, count: int = 40, seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """What there is to add, in order, `(split, arguments of add)`; a reject has none but its id."""
    rng = np.random.default_rng(seed)
    content: list[tuple[str, dict[str, Any]]] = []
    for k in range(count):
        if k % 7 == 5:
            content.append(("", {"id": f"row {k}"}))
            continue
        split = SPLITS[(0, 0, 1, 0, 2)[k % 5]]
        row: dict[str, Any] = {"id": f"row {k}", "label": k % 2, "group": f"group {split} {k // 4}"}
        for name, modality in like.modalities.items():
            if modality.kind == "frames":
                row[name] = [rng.bytes(int(rng.integers(1, 40))) for _ in range(modality.shape[0])]
            else:
                row[name] = rng.normal(size=modality.shape)
        for name, kind in like.columns.items():
            number = float(np.float32(rng.uniform()))
            row[name] = None if k % 4 == 1 else number if kind == "float32" else f"Zoë {k}"
        content.append((split, row))
    return content


def give(writer: DatasetWriter, content: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Give a writer what it does not have yet, as whoever reads the source again would."""
    for split, row in content:
        if row["id"] not in writer.settled:
            if split:
                writer.add(split, **row)
            else:
                # brackets and line breaks, which a reader of its journal could stumble over
                writer.reject(row["id"], "unreadable", f"[Errno 5] of ]\n\u2028 {row['id']}")


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def working(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building")


class Stop(Exception):
    """What cuts a writer off in the tests."""


def cut_off(folder: Path, like: Header, content: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    """Write and stop before the end; returns the folder where the work is kept."""
    with pytest.raises(Stop), continue_dataset(folder, like, "plan", rejects=KNOWN) as writer:
        give(writer, content)
        raise Stop
    return working(folder)


def go_on(folder: Path, like: Header, content: Sequence[tuple[str, dict[str, Any]]]) -> set[str]:
    """Write to the end; returns the ids that were there already."""
    with continue_dataset(folder, like, "plan", rejects=KNOWN) as writer:
        settled = set(writer.settled)
        give(writer, content)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return settled


def whole(folder: Path, like: Header, content: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    """The same by a writer that is never cut off, and cannot go on."""
    with write_dataset(folder, like) as writer:
        for reject in KNOWN:
            writer.reject(*reject)
        give(writer, content)
    return folder


@pytest.fixture(autouse=True)
def many_small_pieces(monkeypatch) -> None:
    """Some rows a record batch, and some batches a shard."""
    monkeypatch.setattr(writing, "_BATCH_ROWS", 3)
    monkeypatch.setattr(writing, "_SHARD_BYTES", 3500)


def messages(path: Path) -> list[int]:
    """Where each message of an Arrow file begins and where its body does, found by hand.

    Four bytes of 0xff, the length of the metadata, the metadata, the body: up to a length of 0.
    """
    content = path.read_bytes()
    edges, at = [0, 8], 8
    with pa.memory_map(str(path)) as file:
        file.seek(8)
        while content[at : at + 4] == b"\xff" * 4:
            metadata = int.from_bytes(content[at + 4 : at + 8], "little")
            if metadata == 0:
                return [*edges, at + 8]
            body = at + 8 + metadata
            pa.ipc.read_message(file)
            at = file.tell()
            edges += [body, at]
    return edges


# Cut off at the level of files


def test_a_writer_that_is_never_cut_off_gives_the_bytes_of_one_that_cannot_go_on(tmp_path):
    content = source(EVERY)
    assert go_on(tmp_path / "data", EVERY, content) == set()
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    assert file_bytes(tmp_path / "data") == expected
    assert len([name for name in expected if name.startswith("train")]) >= 2, "several shards"


@pytest.mark.parametrize("shard", [0, -1], ids=["the only shard", "the last of several"])
def test_a_shard_cut_at_any_byte_that_matters_is_gone_on_with_to_the_same_bytes(tmp_path, shard):
    content = source(EVERY)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    shutil.rmtree(tmp_path / "whole")
    folder = tmp_path / "data"
    left = file_bytes(cut_off(folder, EVERY, content))
    split = "train" if shard else "test"
    shards = [name for name in left if name.startswith(split)]
    assert (len(shards) > 1) == (shard == -1)
    name = shards[shard]
    edges = messages(working(folder) / name)
    assert len(edges) >= 6, "a schema and two record batches"
    size = len(left[name])
    inside = random.Random(0).sample(range(size), 40)
    for cut in sorted({at for edge in edges for at in (edge - 1, edge, edge + 1)} | {*inside}):
        if not 0 <= cut <= size:
            continue
        for old in (folder, working(folder)):
            shutil.rmtree(old, ignore_errors=True)
        working(folder).mkdir()
        for other, text in left.items():
            (working(folder) / other).write_bytes(text[:cut] if other == name else text)
        batches = max(0, sum(edge <= cut for edge in edges[2:]) // 2 - 1)
        with continue_dataset(folder, EVERY, "plan", rejects=KNOWN) as writer:
            kept = [row["id"] for split_, row in content if split_ == split][
                : (0 if shard == 0 else rows_before(left, shards[:shard])) + 3 * batches
            ]
            again = {row["id"] for split_, row in content if split_ == split} - writer.settled
            assert again == {row["id"] for s, row in content if s == split} - set(kept), cut
            give(writer, content)
        assert file_bytes(folder) == expected, f"cut at byte {cut} of {size}"
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


def rows_before(left: dict[str, bytes], names: list[str]) -> int:
    """Rows of shards that were closed."""
    return sum(pa.ipc.open_file(left[name]).read_all().num_rows for name in names)


@pytest.mark.parametrize("lost", [1, 5, 8, 200, 10_000])
def test_what_follows_a_shard_that_a_power_cut_left_open_is_read_again(tmp_path, lost):
    content = source(EVERY, 80)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    shutil.rmtree(tmp_path / "whole")
    folder = tmp_path / "data"
    shards = sorted(cut_off(folder, EVERY, content).glob("train-*"))
    assert len(shards) >= 3
    size = shards[0].stat().st_size
    os.truncate(shards[0], max(0, size - lost))
    go_on(folder, EVERY, content)
    assert file_bytes(folder) == expected


def test_a_journal_cut_anywhere_is_gone_on_with_to_the_same_bytes(tmp_path):
    content = source(EVERY, 24)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    shutil.rmtree(tmp_path / "whole")
    folder = tmp_path / "data"
    left = file_bytes(cut_off(folder, EVERY, content))
    journal = left["rejects.jsonl"]
    lines = journal.count(b"\n")
    assert lines == 3
    ends = [at + 1 for at in range(len(journal)) if journal[at : at + 1] == b"\n"]
    near = {at for end in ends for at in range(end - 3, end + 3) if at <= len(journal)}
    for cut in sorted({*near, *range(0, len(journal), 7)}):
        for old in (folder, working(folder)):
            shutil.rmtree(old, ignore_errors=True)
        working(folder).mkdir()
        for name, text in left.items():
            short = text[:cut] if name == "rejects.jsonl" else text
            (working(folder) / name).write_bytes(short)
        settled = go_on(folder, EVERY, content)
        rejects = {row["id"] for split, row in content if not split}
        assert len(settled & rejects) == journal[:cut].count(b"\n")
        assert file_bytes(folder) == expected, f"cut at byte {cut}"


@pytest.mark.parametrize("line", [b"\0\0\0\n", b"5\n", b"{}\n", b'["a"]\n', b'"\xff"\n', b"]\n"])
def test_a_line_of_the_journal_that_is_none_is_passed_over(tmp_path, line):
    content = source(EVERY)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    shutil.rmtree(tmp_path / "whole")
    journal = cut_off(tmp_path / "data", EVERY, content[:20]) / "rejects.jsonl"
    journal.write_bytes(line + journal.read_bytes() + line)
    go_on(tmp_path / "data", EVERY, content)
    assert file_bytes(tmp_path / "data") == expected


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_cut_off_anywhere_any_number_of_times_it_ends_with_the_same_bytes(tmp_path, data):
    """Stops after any clip; then any of the files that were being written loses its end."""
    content = source(EVERY, 60)
    shutil.rmtree(tmp_path)
    folder = tmp_path / "data"
    for _ in range(data.draw(st.integers(1, 3))):
        left = cut_off(folder, EVERY, content[: data.draw(st.integers(0, len(content)))])
        last = [shards[-1] for s in SPLITS if (shards := sorted(left.glob(f"{s}-*.arrow")))]
        for path in (*last, left / "rejects.jsonl"):
            if data.draw(st.booleans()):
                os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
    go_on(folder, EVERY, content)
    assert file_bytes(folder) == bytes_of_60(tmp_path.with_name("bytes of 60"))


def bytes_of_60(folder: Path) -> dict[str, bytes]:
    if not folder.exists():
        whole(folder, EVERY, source(EVERY, 60))
    return file_bytes(folder)


def test_a_shard_that_is_full_gets_no_more_rows_after_going_on(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 1)
    content = source(EVERY)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    shutil.rmtree(tmp_path / "whole")
    for count in range(0, 40, 3):
        cut_off(tmp_path / "data", EVERY, content[:count])
        go_on(tmp_path / "data", EVERY, content)
        assert file_bytes(tmp_path / "data") == expected
        shutil.rmtree(tmp_path / "data")


def test_a_shard_that_is_closed_stays_so_where_shards_may_be_larger_now(tmp_path, monkeypatch):
    content = source(EVERY, 60)
    folder = tmp_path / "data"
    shards = sorted(cut_off(folder, EVERY, content[:40]).glob("train-*"))
    assert len(shards) == 3
    os.truncate(shards[-1], 0)
    monkeypatch.setattr(writing, "_SHARD_BYTES", 2**30)
    go_on(folder, EVERY, content)
    opened = open_dataset(folder).split("train")
    assert opened.ids(np.arange(len(opened))) == [
        r["id"] for split, r in content if split == "train"
    ]
    assert len(list(folder.glob("train-*"))) == 3


def test_what_is_done_is_kept_but_for_the_rows_being_collected(tmp_path):
    rows = [("train", {"id": f"{k}", "label": 0, "group": f"{k}", "x": [k] * 3}) for k in range(11)]
    cut_off(tmp_path / "data", header(), [*rows, ("", {"id": "r"})])
    with (
        pytest.raises(Stop),
        continue_dataset(tmp_path / "data", header(), "plan", rejects=KNOWN) as writer,
    ):
        assert writer.settled == {*map(str, range(9)), "r"}
        assert writer.bytes_written > 9 * 12
        with pytest.raises(DataError, match="sample id '3' occurs twice"):
            writer.add("train", **rows[3][1])
        with pytest.raises(DataError, match="group '3' of sample 'new' is in train already"):
            writer.add("test", id="new", label=0, group="3", x=[0] * 3)
        raise Stop


def test_a_reject_is_kept_at_once(tmp_path):
    """Whatever happens next: finding it out may have taken a minute."""
    with pytest.raises(Stop), continue_dataset(tmp_path / "data", header(), "plan") as writer:
        writer.reject("a", "timeout", "reading it took longer than 60 s")
        kept = (working(tmp_path / "data") / "rejects.jsonl").read_text(encoding="utf-8")
        assert json.loads(kept) == ["a", "timeout", "reading it took longer than 60 s"]
        raise Stop


def test_what_was_rejected_beforehand_can_still_be_added(tmp_path):
    """The second of two clips of one name is a duplicate; the first one is not."""
    content = source(header())
    cut_off(tmp_path / "data", header(), content[:2])
    go_on(tmp_path / "data", header(), content)
    assert "row 3" in open_dataset(tmp_path / "data").split("train").table["id"].to_pylist()
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet")
    assert rejects.id.to_list() == [
        "lost",
        "row 12",
        "row 19",
        "row 26",
        "row 3",
        "row 33",
        "row 5",
    ]
    assert open_dataset(tmp_path / "data").rejects == {
        "duplicate": 1,
        "missing": 1,
        "unreadable": 5,
    }


def test_bytes_written_is_about_what_the_shards_will_have(tmp_path):
    content = source(header(), 200)
    with write_dataset(tmp_path / "data", header()) as writer:
        give(writer, content)
        said = writer.bytes_written
    size = sum(path.stat().st_size for path in (tmp_path / "data").glob("*.arrow"))
    assert 0.8 * size < said <= size  # the footers come later


def test_bytes_written_before_count_as_well(tmp_path):
    left = cut_off(tmp_path / "data", EVERY, source(EVERY))
    with pytest.raises(Stop), continue_dataset(tmp_path / "data", EVERY, "plan") as writer:
        assert writer.bytes_written == sum(path.stat().st_size for path in left.glob("*.arrow"))
        raise Stop


def test_rows_being_collected_count_as_bytes_written(tmp_path):
    with pytest.raises(Stop), write_dataset(tmp_path / "data", header()) as writer:
        writer.add("train", id="a", label=0, group="a", x=[0] * 3)
        assert writer.bytes_written == 12
        raise Stop


def test_large_rows_are_written_without_waiting_for_more(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 256)
    monkeypatch.setattr(writing, "_BATCH_BYTES", 30)
    with pytest.raises(Stop), continue_dataset(tmp_path / "data", header(), "plan") as writer:
        for k in range(4):
            writer.add("train", id=f"{k}", label=0, group=f"{k}", x=[k] * 3)
        raise Stop
    with continue_dataset(tmp_path / "data", header(), "plan") as writer:
        assert writer.settled == {"0", "1", "2"}
        for split in SPLITS:
            writer.add(split, id=split, label=0, group=split, x=[1] * 3)


# Another plan


def test_the_work_of_another_plan_is_thrown_away(tmp_path):
    content = source(EVERY)
    cut_off(tmp_path / "data", EVERY, source(EVERY, seed=1))
    with continue_dataset(tmp_path / "data", EVERY, "another plan", rejects=KNOWN) as writer:
        assert writer.settled == set()
        assert [path.name for path in working(tmp_path / "data").glob("*.arrow")] == []
        give(writer, content)
    assert file_bytes(tmp_path / "data") == file_bytes(whole(tmp_path / "whole", EVERY, content))


def test_work_without_a_plan_is_thrown_away(tmp_path):
    content = source(EVERY)
    (cut_off(tmp_path / "data", EVERY, source(EVERY, seed=1)) / "plan.txt").unlink()
    assert go_on(tmp_path / "data", EVERY, content) == set()
    assert file_bytes(tmp_path / "data") == file_bytes(whole(tmp_path / "whole", EVERY, content))


def test_shards_of_other_columns_are_not_gone_on_with(tmp_path):
    """As where a plan says the same of another data set, which it never should."""
    content = source(header())
    cut_off(tmp_path / "data", EVERY, source(EVERY))
    (working(tmp_path / "data") / "rejects.jsonl").unlink()
    assert go_on(tmp_path / "data", header(), content) == set()
    expected = file_bytes(whole(tmp_path / "whole", header(), content))
    assert file_bytes(tmp_path / "data") == expected


# Killed at any moment

# Writes a data set, and is killed at one operation on a file after the other, in forks; each goes
# on, killed again at the same operation, and again without a kill.
KILLER = """
import os, signal, sys, traceback
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from test_writer import EVERY, KNOWN, give, source, writing
from mmcoop.datasets.writer import continue_dataset

place, overwrite = Path(sys.argv[2]), sys.argv[3] == "overwrite"
writing._BATCH_ROWS, writing._SHARD_BYTES = 3, 3500
content = source(EVERY)
FILES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate")


def build(folder, kill_at, log=None):
    done = []

    def watch(event, arguments):
        mode = arguments[1] if event == "open" and isinstance(arguments[1], str) else ""
        if event in FILES or set(mode) & set("wxa"):
            if len(done) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    with continue_dataset(folder, EVERY, "plan", rejects=KNOWN, overwrite=overwrite) as writer:
        give(writer, content)
    if log:
        log.write_text("\\n".join(done))


def fork(*arguments):
    process = os.fork()
    if process == 0:
        try:
            build(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def prepare(folder):
    folder.parent.mkdir()
    if overwrite:
        import shutil
        shutil.copytree(place / "old", folder)


prepare(place / "none" / "data")
assert fork(place / "none" / "data", None, place / "log") == 0
count = len((place / "log").read_text().splitlines())
for point in range(count):
    folder = place / str(point) / "data"
    prepare(folder)
    assert fork(folder, point) == -signal.SIGKILL, point
    if (folder / "dataset.json").is_file() and not overwrite:
        # complete, and only the lock was left: what stands there is not built again
        assert fork(folder, None) == 1, point
        continue
    again = fork(folder, point)
    if again == 0:
        continue  # less was left to do
    assert again == -signal.SIGKILL, point
    assert fork(folder, None) == 0, point
print(count)
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_writer_killed_at_any_operation_goes_on_to_the_same_bytes(tmp_path, overwrite):
    expected = file_bytes(whole(tmp_path / "whole", EVERY, source(EVERY)))
    place = tmp_path / "place"
    place.mkdir()
    whole(place / "old", EVERY, source(EVERY, seed=1))
    mode = "overwrite" if overwrite else "new"
    done = subprocess.run(
        [sys.executable, "-c", KILLER, Path(__file__).parent, place, mode],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 12
    for point in range(int(done.stdout)):
        folder = place / str(point)
        # killed after its last rename, it is complete; with --overwrite it is then built again
        assert file_bytes(folder / "data") == expected, (place / "log").read_text()
        assert [path.name for path in folder.iterdir()] == ["data"]


# A full disk


def test_a_full_disk_is_an_error_with_its_number_and_what_is_done_is_kept(small_disk, tmp_path):
    content = source(EVERY, 600)
    expected = file_bytes(whole(tmp_path / "whole", EVERY, content))
    with small_disk(tmp_path / "disk", 40_960) as resize:
        folder = tmp_path / "disk" / "data"
        settled, size = 0, 40_960
        while not folder.exists():
            try:
                with continue_dataset(folder, EVERY, "plan", rejects=KNOWN) as writer:
                    assert len(writer.settled) >= settled
                    settled = len(writer.settled)
                    give(writer, content)
            except NoRoom:
                size += 24_576
                resize(size)
        assert settled > 400, "the last of many attempts goes on with much"
        assert file_bytes(folder) == expected


def test_room_made_while_it_fails_is_not_taken_for_the_rest_of_a_record_batch(
    small_disk, tmp_path, monkeypatch
):
    """A footer behind half a batch would make it look whole."""
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    monkeypatch.setattr(writing, "_SHARD_BYTES", 2**30)
    like = header(modalities={"x": Modality("vector", (500,), "float32", "mlp")})
    content = source(like, 300)
    expected = file_bytes(whole(tmp_path / "whole", like, content))
    sizes = [2**12 * pages for pages in range(80, 88)]
    with small_disk(tmp_path / "disk", sizes[0]) as resize:
        folder = tmp_path / "disk" / "data"
        for size in sizes:
            resize(size)
            with (
                pytest.raises(NoRoom),
                continue_dataset(folder, like, "plan", rejects=KNOWN) as writer,
            ):
                try:
                    give(writer, content)
                except OSError:
                    resize(2**22)
                    raise
            go_on(folder, like, content)
            assert file_bytes(folder) == expected
            shutil.rmtree(folder)


def test_going_on_needs_no_room_for_a_copy(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 2**30)
    content = source(header(), 3000)
    with small_disk(tmp_path / "disk", 300_000) as resize:
        folder = tmp_path / "disk" / "data"
        with pytest.raises(NoRoom):
            go_on(folder, header(), content)
        with (
            pytest.raises(NoRoom),
            continue_dataset(folder, header(), "plan", rejects=KNOWN) as writer,
        ):
            assert len(writer.settled) > 1000
            give(writer, content)
        resize(1_000_000)
        assert len(go_on(folder, header(), content)) > 1000


# Groups, rejects and reports


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({}, {}),
        ({"a": {"train"}, "b": {"test"}, "c": set()}, {}),
        ({"a": {"test", "train"}, "b": {"train", "test"}}, {"train+test": 2}),
        (
            {"a": {"validation", "train", "test"}, "b": {"validation", "train"}, "c": {"test"}},
            {"train+validation": 1, "train+validation+test": 1},
        ),
        ({"a": ["test", "validation"]}, {"validation+test": 1}),
    ],
)
def test_leakage_counts_the_groups_in_several_splits(splits, expected):
    found = leakage(splits)
    assert found == expected
    assert list(found) == sorted(found)


@pytest.mark.parametrize("stops", [0, 9])
def test_shared_groups_are_reported_and_so_is_what_the_recipe_tells(tmp_path, stops):
    like = header(shared_groups=True, report={"asked_for": {"train": 12}, "note": "Zoë"})
    content = [
        (SPLITS[k % 3], {"id": f"{k}", "label": int(k == 0), "group": f"g{k // 3}", "x": [k] * 3})
        for k in range(12)
    ]
    content[4] = ("train", content[4][1])
    if stops:
        cut_off(tmp_path / "data", like, content[:stops])
        assert len(list(working(tmp_path / "data").glob("*.arrow"))) == 2
    go_on(tmp_path / "data", like, content)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.leakage == {"train+test": 1, "train+validation+test": 3}
    assert dataset.report == {"asked_for": {"train": 12}, "note": "Zoë"}
    assert dataset.rejects == {"duplicate": 1, "missing": 1}
    stored = json.loads((tmp_path / "data" / "dataset.json").read_text(encoding="utf-8"))
    assert stored["leakage"] == dataset.leakage
    assert stored["report"] == dataset.report
    assert stored["rejects"] == dataset.rejects


def test_groups_are_not_shared_unless_the_recipe_says_so(tmp_path):
    with (
        pytest.raises(
            DataError,
            match="group 'g' of sample 'b' is in train already: it cannot be in test too",
        ),
        continue_dataset(tmp_path / "data", header(), "plan") as writer,
    ):
        writer.add("train", id="a", label=0, group="g", x=[0] * 3)
        writer.add("test", id="b", label=0, group="g", x=[0] * 3)


def test_rejects_are_sorted_whenever_they_were_found_out(tmp_path):
    content = source(header())
    for k, order in enumerate((content, content[::-1])):
        with continue_dataset(tmp_path / f"{k}", header(), "plan", rejects=KNOWN[::-1]) as writer:
            give(writer, content if k == 0 else [x for x in order if not x[0]])
            give(writer, [x for x in content if x[0]] if k else [])
    first, second = (file_bytes(tmp_path / f"{k}") for k in (0, 1))
    assert first == second
    rejects = pd.read_parquet(tmp_path / "0" / "rejects.parquet")
    assert rejects.id.to_list() == sorted(rejects.id)
    assert set(rejects.reason) == {"duplicate", "missing", "unreadable"}


def test_a_split_that_stays_empty_says_what_was_rejected_and_keeps_the_rejects(tmp_path):
    expected = (
        r"no sample for the split validation: a data set needs all three \(3 rejected: "
        r"missing 1, no-audio 1, unreadable 1; the first: a/1, no-audio: it has no sound\)\. .*"
        rf"mmcoop info {tmp_path}/\.data\.building/rejects\.parquet$"
    )
    for _ in range(2):  # what is done is kept
        with (
            pytest.raises(DataError, match=expected),
            continue_dataset(
                tmp_path / "data", header(), "plan", rejects=[Reject("c", "missing", "-")]
            ) as writer,
        ):
            if not writer.settled:
                for k in range(6):
                    writer.add("train", id=f"{k}", label=0, group=f"{k}", x=[0] * 3)
                writer.reject("b", "unreadable", "-")
                writer.reject("a/1", "no-audio", "it has no sound")
            assert {"a/1", "b"} <= writer.settled or not writer.settled
        rejects = read_rejects(tmp_path / ".data.building" / "rejects.parquet")
        assert [reject.id for reject in rejects] == ["a/1", "b", "c"]
    with (
        pytest.raises(DataError, match=r"for the split train: a data set needs all three"),
        continue_dataset(tmp_path / "other", header(), "plan"),
    ):
        pass


def test_classes_without_a_training_sample_are_reported(tmp_path):
    like = header(classes=["a", "b", "c"], report={"files": 3})
    labels = {"train": [0, 1, 0], "validation": [2, 0], "test": [1, 2]}
    for name, trained in (("some", labels), ("all", {**labels, "train": [2, 1, 0]})):
        with write_dataset(tmp_path / name, like) as writer:
            for split, mine in trained.items():
                for k, label in enumerate(mine):
                    id = f"{split}{k}"
                    writer.add(split, id=id, label=label, group=id, x=[0] * 3)
    assert open_dataset(tmp_path / "some").report == {
        "files": 3,
        "classes_without_a_training_sample": ["c"],
    }
    assert open_dataset(tmp_path / "all").report == {"files": 3}


@pytest.mark.parametrize("size", [0, 8, 300, None])
def test_a_shard_without_rows_is_no_split(tmp_path, size):
    """As where the process was killed while it began the first shard of a split."""
    content = [x for x in source(header()) if x[0] != "test"]
    left = cut_off(tmp_path / "data", header(), content)
    begun = (left / "train-00000.arrow").read_bytes()
    batch = messages(left / "train-00000.arrow")[3]
    (left / "test-00000.arrow").write_bytes(begun[: min(size or batch, batch)])
    with pytest.raises(DataError, match="no sample for the split test"):
        go_on(tmp_path / "data", header(), content)


# Samples at fault alone


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"x": [1.0, 2.0]}, "wrong-shape", r"x of sample 'b' has shape \(2,\): expected \(3,\)"),
        ({"x": [1.0, np.nan, 0]}, "not-a-number", "x of sample 'b' has numbers float32 cannot"),
        ({"x": [1.0, 1e39, 0]}, "not-a-number", "x of sample 'b' has numbers float32 cannot"),
        ({"clip": [b""]}, "wrong-shape", "sample 'b' has 1 frames: expected 2"),
        ({"id": "b\udcff"}, "name", r"sample id 'b\\udcff' or group 'b' is not UTF-8"),
        ({"group": "b\udcff"}, "name", r"sample id 'b' or group 'b\\udcff' is not UTF-8"),
    ],
)
def test_a_sample_that_is_itself_at_fault_is_unusable_and_can_be_rejected(
    tmp_path, change, reason, message
):
    content = source(EVERY)
    row = {**content[0][1], "id": "b", "group": "b", **change}
    with continue_dataset(tmp_path / "data", EVERY, "plan") as writer:
        with pytest.raises(Unusable, match=message) as caught:
            writer.add("train", **row)
        assert caught.value.reason == reason
        writer.reject(row["id"], reason)
        give(writer, content)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.rejects[reason] == 1
    assert dataset.leakage == {}
    dataset.verify()


def test_names_that_are_not_utf_8_are_rejected_in_words(tmp_path):
    strange = os.fsdecode(b"caf\xe9.mp4")
    like = header(options={"source": strange}, report={strange: 1})
    content = source(like)
    with pytest.raises(Stop), continue_dataset(tmp_path / "data", like, "plan") as writer:
        writer.reject(strange, "missing", strange)
        raise Stop
    with continue_dataset(tmp_path / "data", like, "plan") as writer:
        assert writer.settled == {strange}
        give(writer, content)
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet")
    (reject,) = rejects[rejects.reason == "missing"].to_dict("records")
    assert reject == {"id": r"caf\udce9.mp4", "reason": "missing", "detail": r"caf\udce9.mp4"}
    dataset = open_dataset(tmp_path / "data")
    assert dataset.options == {"source": strange}
    assert dataset.report == {strange: 1}


# Existing folders


def test_a_finished_folder_is_refused_before_any_work(tmp_path):
    content = source(header())
    before = file_bytes(whole(tmp_path / "data", header(), content))
    with (
        pytest.raises(UsageError, match="data exists: choose another out, or replace it with"),
        continue_dataset(tmp_path / "data", header(), "plan"),
    ):
        pytest.fail("it began")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert file_bytes(tmp_path / "data") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_built_over(tmp_path, overwrite):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(UsageError, match="data exists and was not made by mmcoop"),
        continue_dataset(tmp_path / "data", header(), "plan", overwrite=overwrite),
    ):
        pytest.fail("it began")
    assert file_bytes(tmp_path / "data") == {"thesis.tex": b"years of work"}


def test_the_old_folder_is_replaced_at_the_end_and_not_before(tmp_path):
    old, new = source(header(), seed=1), source(header(), 50)
    folder = whole(tmp_path / "data", header(), old)
    before = file_bytes(folder)
    for stop in (True, False):
        with (
            pytest.raises(Stop if stop else DataError),
            continue_dataset(folder, header(), "plan", overwrite=True) as writer,
        ):
            give(writer, new[:30] if stop else [])
            if stop:
                raise Stop
            raise DataError("again")
        assert file_bytes(folder) == before
        open_dataset(folder).verify()
    with continue_dataset(folder, header(), "plan", rejects=KNOWN, overwrite=True) as writer:
        assert len(writer.settled) > 20
        give(writer, new)
        assert file_bytes(folder) == before
    assert file_bytes(folder) == file_bytes(whole(tmp_path / "whole", header(), new))
    assert {path.name for path in tmp_path.iterdir()} == {"data", "whole"}


def test_two_writers_of_one_folder_are_one_too_many(tmp_path):
    content = source(header())
    with continue_dataset(tmp_path / "data", header(), "plan", rejects=KNOWN) as writer:
        give(writer, content[:20])
        with (
            pytest.raises(UsageError, match="data is in use by process"),
            continue_dataset(tmp_path / "data", header(), "another plan"),
        ):
            pytest.fail("it began")
        give(writer, content[20:])
    expected = file_bytes(whole(tmp_path / "whole", header(), content))
    assert file_bytes(tmp_path / "data") == expected


def test_a_writer_that_cannot_be_made_lets_go_of_the_folder(tmp_path):
    with (
        pytest.raises(UsageError, match="a modality cannot be named like the column 'label'"),
        continue_dataset(tmp_path / "data", header(modalities={"label": VECTOR}), "plan"),
    ):
        pytest.fail("it began")
    go_on(tmp_path / "data", header(), source(header()))


# What float32 loses, and names that are equal


@pytest.mark.parametrize(
    ("kind", "shape", "place"),
    [("vector", (3,), 1), ("series", (5, 3), (..., 1)), ("spectrogram", (1, 4, 6), ...)],
)
def test_what_float32_cannot_tell_apart_is_refused_unless_it_is_stored_in_float64(
    tmp_path, kind, shape, place
):
    content = source(header(modalities={"x": Modality(kind, shape, "float32", "mlp")}))
    for k, (_, row) in enumerate(content):
        if "x" in row:
            row["x"][place] = 1.7e9 + k
    channel = 0 if kind == "spectrogram" else 1
    narrow, wide = (
        header(modalities={"x": Modality(kind, shape, dtype, "mlp")})
        for dtype in ("float32", "float64")
    )
    message = (
        f"modality 'x', channel {channel}: numbers about 1.7e\\+09 .*: give it the dtype float64"
    )
    with pytest.raises(DataError, match=message), write_dataset(tmp_path / "a", narrow) as writer:
        give(writer, content)
    assert not list(tmp_path.iterdir())
    with write_dataset(tmp_path / "a", wide) as writer:
        give(writer, content)
    part = open_dataset(tmp_path / "a").split("train")
    expected = [row["x"] for split, row in content if split == "train"]
    np.testing.assert_array_equal(part.read("x", np.arange(len(part))), expected)


@pytest.mark.parametrize("number", [np.float32(1.7e9), 2**24, 1e-30, 7])
def test_what_float32_holds_is_stored_in_it(tmp_path, number):
    content = source(header())
    for k, (_, row) in enumerate(content):
        if "x" in row:
            row["x"] = np.full(3, number) - np.full(3, k % 2, np.asarray(number).dtype)
    with write_dataset(tmp_path / "a", header()) as writer:
        give(writer, content)


def test_ids_groups_and_classes_are_compared_by_what_they_spell(tmp_path):
    with (
        pytest.raises(DataError, match="2 classes are called 'caf\u00e9': make them one"),
        write_dataset(tmp_path / "a", header(classes=["caf\u00e9", "cafe\u0301 "])),
    ):
        pass
    one = {"label": 0, "group": "caf\u00e9", "x": np.zeros(3, np.float32)}
    with (
        pytest.raises(DataError, match="'cafe.*' occurs twice"),
        write_dataset(tmp_path / "a", header()) as writer,
    ):
        writer.add("train", id="caf\u00e9", **one)
        writer.add("train", id="cafe\u0301", **one)
    with (
        pytest.raises(DataError, match="is in train already"),
        write_dataset(tmp_path / "a", header()) as writer,
    ):
        writer.add("train", id="1", **one)
        writer.add("test", id="2", **{**one, "group": " cafe\u0301"})


@pytest.mark.parametrize("cut", [None, 10, 300])
def test_what_is_odd_about_samples_is_counted_in_the_report(tmp_path, cut):
    """Of all of them, also where the work of an earlier writer is resumed."""
    header = Header(
        name="noted",
        recipe="tests",
        options={},
        classes=["no", "yes"],
        modalities={"x": Modality("vector", (2,), "float32", "mlp")},
        source="made by the tests",
        columns={"notes": "string"},
    )

    def write(rows: int) -> None:
        with continue_dataset(tmp_path / "data", header, "plan") as writer:
            for k in range(rows):
                if str(k) in writer.settled:
                    continue
                notes = " ".join(["even"] * (k % 2 == 0) + ["third"] * (k % 3 == 0))
                split = ("train", "validation", "test")[(k >= 320) + (k >= 340)]
                writer.add(split, id=str(k), label=k % 2, group=str(k), x=[k, k], notes=notes)
            if rows < 360:
                raise RuntimeError("cut off")

    if cut is not None:
        with pytest.raises(RuntimeError):
            write(cut)
    write(360)
    report = open_dataset(tmp_path / "data").report
    assert report["notes"] == {"even": 180, "third": 120}
    assert report["first_with_note"] == {
        "even": ["0", "2", "4", "6", "8"],
        "third": ["0", "3", "6", "9", "12"],
    }
