"""A scores file that is written in parts, so that a killed valuation can go on."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmcoop.core.summary import Summary
from mmcoop.core.valuation import ValuedBatch
from mmcoop.errors import DataError, Interrupted, UsageError
from mmcoop.files import locked_folder, read_json, whole_file, write_json
from mmcoop.scores import ROW_GROUP, scores_file, scores_table

STATE = "state.pt"
_DETAILS = "details.json"

# A part is written when so much time has passed, or when a row group is full: what a kill may cost.
_SECONDS = 5.0


class ScoresParts:
    """The parts of a scores file so far, in a folder beside the place of the file.

    `done`: how many samples of each stretch (a split, a fold) are in it. `summaries`: one a split,
    and one of all of them if there is one called "all".
    """

    def __init__(self, folder: Path, modalities: tuple[str, ...], summaries: Mapping[str, Summary]):
        self.folder = folder
        self.modalities = modalities
        self.summaries = summaries
        self.done: dict[str, int] = {}
        self._parts = 0
        self._waiting: list[pa.Table] = []
        self._written = time.monotonic()
        if (folder / STATE).is_file():
            self._load()

    def add(
        self,
        stretch: str,
        split: str,
        batch: ValuedBatch,
        samples: int,
        further: Mapping[str, torch.Tensor],
    ) -> None:
        """Append one batch of so many samples, and count it into the summary of its split."""
        for name in {split, "all"} & self.summaries.keys():
            self.summaries[name].add(batch, further)
        self._waiting.append(scores_table(self.modalities, split, batch, further))
        self.done[stretch] = self.done.get(stretch, 0) + samples
        late = time.monotonic() - self._written > _SECONDS
        if late or sum(map(len, self._waiting)) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a part, and then the state that counts it."""
        if not self._waiting:
            return
        with whole_file(self._part(self._parts)) as path:
            pq.write_table(pa.concat_tables(self._waiting), path, write_page_checksum=True)
        self._waiting, self._written = [], time.monotonic()
        self._parts += 1
        summaries = {split: summary.state() for split, summary in self.summaries.items()}
        state = {"parts": self._parts, "done": self.done, "summaries": summaries}
        with whole_file(self.folder / STATE) as path:
            torch.save(state, path)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all parts, a part at a time."""
        for k in range(self._parts):
            yield pq.read_table(self._part(k))

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _load(self) -> None:
        path = self.folder / STATE
        try:
            state = torch.load(path, weights_only=True)
            self._parts, self.done = state["parts"], state["done"]
            for split, content in state["summaries"].items():
                self.summaries[split].load(content)
            for k in range(self._parts):
                path = self._part(k)
                pq.read_table(path, page_checksum_verification=True)
        except Exception as error:  # noqa: BLE001
            raise DataError(
                f"{path} is damaged ({type(error).__name__}): value anew, without --resume"
            ) from None


@contextmanager
def resumable_scores(
    path: Path,
    modalities: tuple[str, ...],
    details: Mapping[str, Any],
    summaries: Mapping[str, Summary],
    *,
    resume: bool,
) -> Iterator[ScoresParts]:
    """A scores file to write into, with one summary a split; it appears, whole, when the block ends
    well. Until then its parts stand in `.NAME.parts` beside it, from which `resume` goes on.

    Raises `UsageError` where another process writes it, and where `resume` finds the parts of
    another valuation; `DataError` where it finds damaged ones.
    """
    folder = path.with_name(f".{path.name}.parts")
    folder.mkdir(exist_ok=True)
    with locked_folder(folder, f"another process is writing {path} right now"):
        complete = False
        try:
            if not (resume and (folder / STATE).is_file()):
                _begin(folder, modalities, details)
            _check_same(folder, modalities, details, path)
            parts = ScoresParts(folder, modalities, summaries)
            yield parts
            parts.flush()
            with scores_file(path, modalities, details) as writer:
                for table in parts.tables():
                    writer.write(table)
            complete = True
        except KeyboardInterrupt:
            if not (folder / STATE).is_file():
                raise
            raise Interrupted(
                "stopped; what was valued is kept: go on with the same command and --resume"
            ) from None
        finally:
            if complete or not (folder / STATE).is_file():
                shutil.rmtree(folder)


def _begin(folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any]) -> None:
    """Throw away what an earlier valuation has left, and write down which one this is."""
    for old in folder.iterdir():
        old.unlink()
    write_json(folder / _DETAILS, {"modalities": modalities, **details})


def _check_same(
    folder: Path, modalities: tuple[str, ...], details: Mapping[str, Any], path: Path
) -> None:
    """Raise `UsageError` where the parts that are there are of another valuation."""
    try:
        before = dict(read_json(folder / _DETAILS))
    except (DataError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder / _DETAILS} is damaged ({error}): value anew, without --resume"
        ) from None
    now = json.loads(json.dumps({"modalities": modalities, **details}))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{path} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}: go on "
                "as it began, or value anew, without --resume"
            )
