"""What the recipes that read clips share: from a list of clips to a plan to a data set."""

import csv
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mmcoop.datasets import spectrogram
from mmcoop.datasets.advice import training_advice
from mmcoop.datasets.building import BuildPlan, build_clips
from mmcoop.datasets.clip_reader import Clip, Reading, check_clip
from mmcoop.datasets.flow import require_opencv
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.rejects import FIRST, Reject, Unusable, why_not
from mmcoop.datasets.source_files import SourceFiles
from mmcoop.datasets.splitting import cut_by_group
from mmcoop.datasets.writer import NOTES_COLUMN, Header, check_classes, check_new_dataset, leakage
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.files import atomic_write
from mmcoop.progress import SILENT, Progress
from mmcoop.settings import check_settings, option, required

# Options of this recipe, as messages name them.
_FRAMES, _STORED_FRAMES, _SOURCE, _VALIDATION = map(
    setting, ("frames", "stored_frames", "source", "validation")
)

# What every clip has beside its modalities.
_COLUMNS = {"duration": "float32", NOTES_COLUMN: "string"}
# For each frame that a model sees, this many are stored, from which training draws one.
_DRAWN_FROM = 3


@dataclass(frozen=True)
class Listing:
    """What is asked for, and what of it was found.

    `clips` in order, those of whom no file was found without `paths`. `kinds`: by modality, its
    kind and the column of its file. `rejects`: what cannot be asked for, and what can be but is of
    no use, the ids of which are in `unusable`. `report`: what else to tell. `names`: some of the
    files there are where they were looked for.
    """

    name: str
    source: str
    classes: Sequence[str]
    clips: Sequence[Clip]
    kinds: Mapping[str, tuple[str, str]]
    names: str
    rejects: Sequence[Reject] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    shared_groups: bool = False
    arrays: Mapping[str, Modality] = field(default_factory=dict)
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flow_folder: Path | None = None
    unusable: frozenset[str] = frozenset()

    @property
    def found(self) -> list[Clip]:
        return [clip for clip in self.clips if clip.paths and clip.id not in self.unusable]

    @property
    def missing(self) -> list[Clip]:
        return [clip for clip in self.clips if not clip.paths]

    @property
    def leakage(self) -> dict[str, int]:
        """Groups in several splits, of all that is asked for."""
        splits: dict[str, set[str]] = defaultdict(set)
        for clip in self.clips:
            splits[clip.group].add(clip.split)
        return leakage(splits)


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """A recipe that reads clips: it says which (`listing`), and all else is here."""

    source: Path = required("Folder of the clips, searched recursively", metavar="FOLDER")
    frames: int = option(3, "Frames per clip that the model sees", min=1)
    stored_frames: int | None = option(
        None,
        "Frames stored per clip. \\[default: 3 per frame seen]",
        min=1,
    )
    short_side: int = option(256, "Largest shorter side of a stored picture, in pixels", min=1)
    size: int = option(224, "Side of the square the model sees, in pixels", min=1)
    min_seconds: float = option(0.5, "Reject shorter clips", above=0)
    size_limit: float = option(4.0, "Reject larger files, in GiB", above=0)
    time_limit: float = option(60.0, "Reject clips that take longer to read, in seconds", above=0)
    limit: int | None = option(None, "Most clips per split, spread over the classes", min=1)
    seed: int = option(0, "Random seed of the splits")

    def __post_init__(self) -> None:
        check_settings(self)
        if self._stored % (2 * self.frames) != self.frames:
            raise UsageError(
                f"{_STORED_FRAMES} is {self._stored}: it must be an odd multiple of {_FRAMES}, "
                f"such as {self.frames}, {3 * self.frames} or {5 * self.frames}, so that each part "
                "of a clip has a frame in its middle"
            )

    @property
    def _stored(self) -> int:
        return _DRAWN_FROM * self.frames if self.stored_frames is None else self.stored_frames

    @abstractmethod
    def listing(self) -> Listing:
        """What is asked for and what of it is there. Reads lists and names, no clip.

        Raises `DataError` for a list or folder that is not what it should be.
        """

    def checked(self, listing: Listing) -> Listing:
        """The listing, with those clips rejected that cannot be read, as far as it can be known
        without decoding them.
        """
        reading = self._reading(listing)
        rejects = []
        for clip in listing.found:
            try:
                check_clip(clip, reading)
            except Unusable as error:
                rejects.append(Reject(clip.id, error.reason, error.detail))
        return replace(
            listing,
            rejects=[*listing.rejects, *rejects],
            unusable=listing.unusable.union(reject.id for reject in rejects),
        )

    def time_steps(self, listing: Listing) -> int:
        """The length of a spectrogram, in steps of 10 ms: the paper's, unless a recipe differs."""
        return spectrogram.TIME_STEPS

    def plan(self, listing: Listing) -> BuildPlan:
        """How to build what was found; `DataError` where nothing was, of all or of a split."""
        kinds = [kind for kind, _ in listing.kinds.values()]
        if "flow" in kinds and listing.flow_folder is None:
            require_opencv()
        self._check_found(listing)
        reading = self._reading(listing)
        columns = {name: _arrow_type(cell) for name, cell in listing.clips[0].columns.items()}
        if taken := {"id", "label", "group", *columns, *_COLUMNS} & set(listing.kinds):
            raise UsageError(f"a modality cannot be named like the column {min(taken)!r}")
        self._check_usable(listing)
        found, modalities = listing.found, reading.modalities()
        return BuildPlan(
            Header(
                name=listing.name,
                recipe=listing.name,
                options=self.options(),
                classes=listing.classes,
                modalities=modalities,
                defaults=training_advice(modalities),
                source=listing.source,
                columns={**columns, **_COLUMNS},
                report={
                    "asked_for": by_split(listing.clips),
                    "found": by_split(found),
                    "groups_in_several_splits_of_those_asked_for": listing.leakage,
                    **listing.report,
                },
                shared_groups=listing.shared_groups,
            ),
            reading,
            # a split at a time: what a build that is cut off loses is then least
            sorted(limited(found, self.limit), key=lambda clip: SPLITS.index(clip.split)),
            [
                *listing.rejects,
                *(Reject(clip.id, "missing", _absence(clip, listing)) for clip in listing.missing),
            ],
            self.time_limit,
        )

    def _reading(self, listing: Listing) -> Reading:
        return Reading(
            kinds=listing.kinds,
            frames=self.frames,
            stored_frames=self._stored,
            time_steps=self.time_steps(listing),
            short_side=self.short_side,
            size=self.size,
            min_seconds=self.min_seconds,
            max_bytes=int(self.size_limit * 2**30),
            flow_folder=listing.flow_folder,
            arrays=listing.arrays,
            levels=listing.levels,
        )

    def build(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        progress: Progress = SILENT,
        workers: int | None = None,
        listing: Listing | None = None,
    ) -> None:
        """Write the dataset folder; see `build_clips` for how, and what it raises.

        `listing`: where it is known already, as `checked` gives it.
        """
        check_new_dataset(folder, overwrite)
        plan = self.plan(listing or self.checked(self.listing()))
        build_clips(folder, plan, workers=workers, overwrite=overwrite, progress=progress)

    def options(self) -> dict[str, Any]:
        """The options as JSON."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in found.items()
        }

    def _check_found(self, listing: Listing) -> None:
        parts = {"": listing.clips}
        parts |= {f"{s} ": [clip for clip in listing.clips if clip.split == s] for s in SPLITS}
        for part, clips in parts.items():
            if not clips:
                raise DataError(
                    f"there is no {part}clip to look for{why_not(listing.rejects)}: a data set "
                    "needs train, validation and test clips. Add clips, or assign some to each"
                )
            if not any(clip.paths for clip in clips):
                first = [next(iter(clip.absent), clip.id) for clip in clips[:3]]
                wanted = ", ".join(first) + ", …" * (len(clips) > 3)
                needed = ", and a data set needs all three splits" if part else ""
                raise DataError(
                    f"none of the {len(clips):,} {part}clips is in {_SOURCE} {self.source}"
                    f"{needed}: looked for {wanted}; there is {listing.names}"
                    f"{why_not(listing.rejects)}"
                    + ". Assign clips that are there to this split"
                    * bool(part)
                )
        check_classes(listing.classes)

    def _check_usable(self, listing: Listing) -> None:
        usable = Counter(clip.split for clip in listing.found)
        for part in ("", *SPLITS):
            there = [clip for clip in listing.clips if clip.paths and part in ("", clip.split)]
            if not (usable[part] if part else usable.total()):
                raise DataError(
                    f"none of the {len(there):,} {part}{' ' * bool(part)}clips in {_SOURCE} "
                    f"{self.source} can be used{why_not(listing.rejects)}"
                )


def by_split(clips: Sequence[Clip]) -> dict[str, int]:
    """How many clips there are of every split."""
    counts = Counter(clip.split for clip in clips)
    return {split: counts[split] for split in SPLITS}


def limited(clips: Sequence[Clip], limit: int | None) -> list[Clip]:
    """At most `limit` clips a split, in order, taking turns among the classes."""
    if limit is None:
        return list(clips)
    turns: Counter[tuple[str, int]] = Counter()
    turn_of = {}
    for k, clip in enumerate(clips):
        turn_of[k] = turns[clip.split, clip.label]
        turns[clip.split, clip.label] += 1
    chosen = [
        k
        for split in SPLITS
        for k in sorted(
            (k for k, clip in enumerate(clips) if clip.split == split), key=lambda k: turn_of[k]
        )[:limit]
    ]
    return [clips[k] for k in sorted(chosen)]


def without_duplicates(
    clips: Sequence[Clip], places: Sequence[str] = ()
) -> tuple[list[Clip], list[Reject]]:
    """The first clip of every id, and a reject for every other one.

    `places`: where each is listed, for the rejects ("line 7").
    """
    first: dict[str, int] = {}
    rejects = []
    for k, clip in enumerate(clips):
        before = first.setdefault(clip.id, k)
        if before != k:
            detail = f"{places[k]} repeats {places[before]}" if places else "listed more than once"
            rejects.append(Reject(clip.id, "duplicate", detail))
    return [clips[k] for k in first.values()], rejects


def unused(files: Iterable[Path], folder: Path, clips: Iterable[Clip]) -> dict[str, Any]:
    """A report on those of `files` that are of no clip: how many, the first names in `folder`.

    Empty where there are none.
    """
    used = {path for clip in clips for path in clip.paths.values()}
    names = [path.relative_to(folder).as_posix() for path in files if path not in used]
    return {"unused_files": len(names), "first_unused_files": names[:FIRST]} if names else {}


def broken_links(files: SourceFiles) -> dict[str, Any]:
    """A report on the links that lead to no file: how many, and the first names.

    Empty where there are none.
    """
    names = [path.relative_to(files.folder).as_posix() for path in files.broken]
    return {"broken_links": len(names), "first_broken_links": names[:FIRST]} if names else {}


def of_whole_videos(clips: Sequence[Clip]) -> list[Clip]:
    """The clips, where a file of which several windows are asked is none of them but the video."""
    asked = Counter(path for clip in clips if clip.perhaps_cut for path in clip.paths.values())
    return [
        replace(clip, perhaps_cut=all(asked[path] == 1 for path in clip.paths.values()))
        if clip.perhaps_cut
        else clip
        for clip in clips
    ]


def in_splits(clips: Sequence[Clip], splits: Sequence[str]) -> list[Clip]:
    """The clips with their splits replaced."""
    return [replace(clip, split=split) for clip, split in zip(clips, splits, strict=True)]


def cut_validation(
    clips: Sequence[Clip], share: float, seed: int, keep: Collection[str] = ()
) -> list[Clip]:
    """The clips with about `share` of the training ones in validation, a group at a time.

    Groups in `keep` stay in training. Depends on what is asked for, not on what was found.
    """
    if not 0 < share < 1:
        raise UsageError(f"{_VALIDATION} {share}: it must be between 0 and 1")
    free = [clip for clip in clips if clip.split == "train" and clip.group not in keep]
    cut = cut_by_group(
        [clip.group for clip in free], [clip.label for clip in free], share, seed, "validation"
    )
    taken = {clip.id for clip, goes in zip(free, cut, strict=True) if goes}
    return in_splits(clips, ["validation" if clip.id in taken else clip.split for clip in clips])


def write_missing(path: Path, listing: Listing) -> None:
    """Write a CSV of the clips without a file: id, video, and start and end in seconds if any.

    Where they are asked for by their paths, it has a line for each file that is not there, and two
    columns more: the modalities it is for ("audio+visual"), and its path.
    """
    by_path = any(clip.absent for clip in listing.missing)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["id", "video", "start", "end", *["modality", "path"] * by_path])
        for clip in listing.missing:
            window = ["" if t is None else f"{t:.12g}" for t in (clip.start, clip.end)]
            files = [["+".join(of), path] for path, of in clip.absent.items()]
            for file in files or [[]]:
                writer.writerow([clip.id, clip.group, *window, *file])


def _absence(clip: Clip, listing: Listing) -> str:
    """What of a clip is not there; the modalities where others have files of their own."""
    files = [
        path if {*of} == {*listing.kinds} else f"{path} ({', '.join(of)})"
        for path, of in clip.absent.items()
    ]
    return "no file found" + ": " * bool(files) + ", ".join(files)


def _arrow_type(cell: Any) -> str:
    return {str: "string", int: "int64", float: "float64", bool: "bool"}[type(cell)]
