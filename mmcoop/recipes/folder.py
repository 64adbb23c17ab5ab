"""folder: clips in class folders, or listed in a table."""

import errno
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmcoop.core.modalities import check_modalities
from mmcoop.datasets import spectrogram
from mmcoop.datasets.clip_reader import FILES_OF_KIND, Clip, open_array, read_array
from mmcoop.datasets.csv_files import decimal
from mmcoop.datasets.depth import measured
from mmcoop.datasets.feature_files import read_texts
from mmcoop.datasets.file_kinds import ENDINGS, file_kinds, kinds_by_ending, stem
from mmcoop.datasets.media import LONGEST, file_seconds
from mmcoop.datasets.modality import KINDS
from mmcoop.datasets.precision import check_float64
from mmcoop.datasets.rejects import FIRST, Reject, Unusable, why_not
from mmcoop.datasets.source_files import SourceFiles, differing_in_case, inside, names_in
from mmcoop.datasets.splitting import NAMES, fill_splits, split_names
from mmcoop.datasets.standardizing import STANDARDIZE, array_modality, constant_features
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.names import is_utf8, normalised
from mmcoop.recipes.clip_recipe import (
    ClipRecipe,
    Listing,
    in_splits,
    unused,
    without_duplicates,
)
from mmcoop.settings import option

# Options of this recipe, as messages name them.
_SOURCE, _MANIFEST, _SOUND_SECONDS, _MODALITY = map(
    setting, ("source", "manifest", "sound_seconds", "modality")
)

# How many clips are measured for the length of a spectrogram, which is within these seconds.
_MEASURED = 100
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 30.0

_DEFAULT = {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}

# What a modality of such a name usually is.
_KIND_OF_NAME = {
    **dict.fromkeys(("audio", "sound", "speech", "music"), "spectrogram"),
    **dict.fromkeys(("visual", "video", "rgb", "frames"), "frames"),
    **dict.fromkeys(("image", "picture"), "image"),
    "flow": "flow",
}
# What a modality is whose files are all that says so, and what it may be called.
_KIND_OF_FILES = {
    "sound": ("spectrogram", "audio"),
    "video": ("frames", "visual"),
    "picture": ("image", "image"),
    "array": ("array", "table"),
}


@dataclass(frozen=True)
class _Row:
    """One line of a table, or one file of a class folder, and which one.

    `paths` by column, as they are written; `files`: where they are, if that is known already.
    """

    id: str
    label: str
    paths: Mapping[str, str]
    place: str
    split: str | None = None
    group: str | None = None
    start: float | None = None
    end: float | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Folder(ClipRecipe):
    """Your own clips, in class folders or listed in a table.

    Without --manifest, --source has one folder per class (`SOURCE/CLASS/clip.mp4`), or one per
    split with these in it (`SOURCE/train/CLASS/clip.mp4`). A manifest is a .csv or .parquet table
    with the columns id, label, path (relative to --source) and, optionally, split, start and end
    (seconds), and group: what must not be in two splits, such as the source video or the speaker.
    Missing splits are cut at random, group by group.

    A modality is the sound (spectrogram), the frames or the optical flow (flow) of a video or sound
    file, an image, or a .npy array (series or vector).
    """

    manifest: Path | None = option(None, "Table of the clips, .csv or .parquet", metavar="FILE")
    modality: list[str] | None = option(
        None,
        "Modality and its column. \\[repeatable; default: audio=path visual=path]",
        metavar="NAME=COLUMN",
    )
    sound_seconds: float | None = option(
        None, f"Seconds per spectrogram. \\[default: the median clip, at most {_MOST_SECONDS:g}]"
    )
    validation: float = option(0.1, "Share for validation, if there is none")
    test: float = option(0.2, "Share for testing, if there is none")
    standardize: bool = option(True, f"{STANDARDIZE} (.npy files)")

    def listing(self) -> Listing:
        wanted = self._wanted()
        if self.manifest is None:
            files = SourceFiles(self.source, *_file_kinds(wanted))
            rows, rejects = _class_folders(files)
            names = files.some_names()
            report = _passed_over(files)
            if not rows:
                raise DataError(
                    f"{_SOURCE} {self.source} has no folder of a class with clips: there is {names}"
                    + why_not(rejects)
                    + _other_kinds(files.others)
                )
        else:
            rows = list(self._manifest(dict.fromkeys(column for column, _ in wanted.values())))
            rejects = []
            if not rows:
                raise DataError(f"{_MANIFEST} {self.manifest} has no line below its header")
            names = names_in(self.source)  # a table says itself what is where
            report = {}
        classes = _sorted_classes({row.label for row in rows})
        clips, places = [], []
        for row, group in zip(rows, _groups(rows), strict=True):
            try:
                paths = dict(row.files) or _files(self.source, row.paths)
            except Unusable as error:
                rejects.append(Reject(row.id, error.reason, error.detail))
                continue
            absent: dict[str, list[str]] = defaultdict(list)
            for name, (column, _) in wanted.items():
                if column not in paths:
                    absent[row.paths[column]].append(name)
            clips.append(
                Clip(
                    row.id,
                    row.split or "",
                    classes.index(row.label),
                    group,
                    {} if absent else paths,
                    row.start,
                    row.end,
                    absent=dict(absent),
                )
            )
            places.append(row.place)
        clips, duplicates = without_duplicates(clips, places)
        splits = fill_splits(
            [clip.split or None for clip in clips],
            [clip.group for clip in clips],
            [clip.label for clip in clips],
            self.validation,
            self.test,
            self.seed,
        )
        clips = in_splits(clips, splits)
        absent_files = dict.fromkeys(path for clip in clips for path in clip.absent)
        if other_case := differing_in_case(self.source, absent_files):
            report |= {
                "missing_files_that_differ_in_case": len(other_case),
                "first_differing_in_case": dict(islice(other_case.items(), FIRST)),
            }
        found = [clip for clip in clips if clip.paths]
        kinds, arrays, levels, constant = {}, {}, {}, {}
        for name, (column, kind) in wanted.items():
            if not found:  # and so nothing is built
                continue
            of_clips = [clip.paths[column] for clip in found]
            training = [clip.paths[column] for clip in found if clip.split == "train"]
            kind = kind or _kind_of(name, of_clips[0])
            if kind in ("series", "vector", "array"):
                shape = _array_shape(name, kind, of_clips)
                _check_whole_numbers(name, training, shape)
                arrays[name], constant[name] = array_modality(
                    shape,
                    _arrays(training, shape),
                    standardize=self.standardize,
                    what=f"modality {name!r}, arrays such as {of_clips[0]}",
                )
                kind = arrays[name].kind
            if kind == "image" and (of_levels := measured(training, self.size)):
                levels[name] = of_levels
            kinds[name] = (kind, column)
        return Listing(
            name="folder",
            source=str(self.source),
            classes=classes,
            clips=clips,
            kinds=kinds,
            names=names,
            rejects=[*rejects, *duplicates],
            report={**report, **constant_features(constant)},
            shared_groups=True,
            arrays=arrays,
            levels=levels,
        )

    def time_steps(self, listing: Listing) -> int:
        """As `sound_seconds` says, else by the median length of some of the clips."""
        seconds = self.sound_seconds
        if seconds is None:
            columns = [column for kind, column in listing.kinds.values() if kind == "spectrogram"]
            lengths = _lengths(listing.found, columns[0]) if columns else []
            if not lengths:
                return super().time_steps(listing)
            seconds = min(float(np.median(lengths)), _MOST_SECONDS)
        if not _LEAST_SECONDS <= seconds <= LONGEST:
            raise UsageError(
                f"{_SOUND_SECONDS} {seconds:g}: it must be from {_LEAST_SECONDS:g} to {LONGEST}"
            )
        return math.ceil(round(seconds * spectrogram.STEPS_PER_SECOND, 6))

    def _wanted(self) -> dict[str, tuple[str, str | None]]:
        """Column and kind by modality; the kind None where it is to be found out."""
        if not self.modality:
            return {name: (column, kind) for name, (kind, column) in _DEFAULT.items()}
        wanted: dict[str, tuple[str, str | None]] = {}
        for text in self.modality:
            name, sign, rest = text.partition("=")
            column, colon, kind = rest.partition(":")
            name, column = normalised(name), normalised(column)
            if not (name and sign and column) or (colon and kind not in KINDS):
                raise UsageError(
                    f"{_MODALITY} {text!r}: write NAME=COLUMN or NAME=COLUMN:KIND, KIND one of "
                    f"{', '.join(KINDS)}"
                )
            if name in wanted:
                raise UsageError(f"{_MODALITY} {name} is given twice")
            if self.manifest is None and column != "path":
                raise UsageError(
                    f"{_MODALITY} {text!r}: without a manifest the only column is path"
                )
            wanted[name] = (column, kind or None)
        check_modalities(list(wanted))
        return wanted

    def _manifest(self, path_columns: Iterable[str]) -> Iterator[_Row]:
        assert self.manifest is not None
        try:
            table, first = read_texts(self.manifest)
        except DataError as error:
            raise DataError(f"{_MANIFEST} {error}") from None
        needed = {"id", "label", *path_columns}
        if missing := needed - set(table.columns):
            raise DataError(
                f"{_MANIFEST} {self.manifest} has no column {', '.join(sorted(missing))}; it has "
                f"{', '.join(table.columns)}. Columns with the paths of files are named by "
                f"{_MODALITY}: {_MODALITY} audio=COLUMN {_MODALITY} visual=COLUMN"
            )
        cells = table.to_dict("records")
        splits = split_names(
            [row.get("split") or None for row in cells], f"the column split of {self.manifest}"
        )
        for line, (row, split) in enumerate(zip(cells, splits, strict=True), start=first):
            if not any(cell.strip() for cell in row.values()):
                continue
            where = f"{_MANIFEST} {self.manifest}, line {line}"
            id, label = (normalised(row[name]) for name in ("id", "label"))
            if not id or not label:
                raise DataError(f"{where}: id or label is empty")
            start, end = (_seconds(row.get(name, ""), name, where) for name in ("start", "end"))
            if end is not None and end <= (start or 0):
                raise DataError(f"{where}: the end, {end:g} s, is not after the start")
            yield _Row(
                id=id,
                label=label,
                paths={column: row[column] for column in path_columns},
                place=f"line {line} ({', '.join(row[column] for column in path_columns)})",
                split=split,
                group=normalised(row.get("group", "")) or None,
                start=start,
                end=end,
            )


def _file_kinds(wanted: Mapping[str, tuple[str, str | None]]) -> list[Collection[str]]:
    """For each modality whose kind is known, the kinds of files it can be read from."""
    kinds = [kind or _KIND_OF_NAME.get(name) for name, (_, kind) in wanted.items()]
    return [FILES_OF_KIND[kind] for kind in kinds if kind] or [tuple(ENDINGS)]


def _lengths(clips: Sequence[Clip], column: str) -> list[float]:
    """How many seconds of sound there are of some clips, evenly chosen, as their files state."""
    lengths = []
    for k in np.linspace(0, len(clips) - 1, min(len(clips), _MEASURED)).round().astype(int):
        clip = clips[k]
        end = clip.end
        if end is None:
            try:
                end = file_seconds(clip.paths[column], pictures=False)
            except Unusable:
                continue  # the build rejects it, and says why
        lengths.append(end - (clip.start or 0.0))
    return [length for length in lengths if length > _LEAST_SECONDS]


def _groups(rows: Sequence[_Row]) -> list[str]:
    """The group of every row: its own, or the first id of the rows that share files with it."""
    files: dict[str, int] = {}
    pairs = [
        (k, files.setdefault(PurePosixPath(normalised(path)).as_posix(), len(files)))
        for k, row in enumerate(rows)
        for path in row.paths.values()
        if path
    ]
    row_of, file_of = np.array(pairs, int).reshape(-1, 2).T
    size = len(rows) + len(files)
    graph = coo_array((np.ones(len(row_of)), (row_of, len(rows) + file_of)), shape=(size, size))
    first: dict[int, str] = {}
    return [
        row.group or first.setdefault(int(part), row.id)
        for row, part in zip(rows, connected_components(graph, directed=False)[1], strict=False)
    ]


def _in_split_folders(files: SourceFiles) -> bool:
    """Whether the class folders are in folders of splits; `DataError` where some of them are."""
    parts = [path.relative_to(files.folder).parts for path in files.paths]
    synonyms = {word for words in NAMES.values() for word in words}
    tops = {part[0] for part in parts if len(part) > 1}
    splits = {top for top in tops if normalised(top).lower() in synonyms}
    if splits == tops:
        return True
    # with classes of their own in them, they are no classes
    within = {part[0] for part in parts if len(part) > 2}
    if splits & within:
        raise DataError(
            f"{_SOURCE} {files.folder}: {min(splits & within)} looks like a split, and "
            f"{min(tops - splits)} does not: let there be folders of splits alone, or of classes "
            f"alone, or list the clips in a {_MANIFEST}"
        )
    return False


def _other_kinds(files: Sequence[Path]) -> str:
    """What to give where the only files are of kinds that were not asked for."""
    for kind, (_, name) in _KIND_OF_FILES.items():
        if found := [path.suffix.lower() for path in files if kind in kinds_by_ending(path)]:
            return f". For its {min(found)} files: {_MODALITY} {name}=path"
    if not files:
        return ""
    return (
        f". Files of any ending can be listed in a {_MANIFEST}, with {_MODALITY} NAME=COLUMN:KIND"
    )


def _passed_over(files: SourceFiles) -> dict[str, Any]:
    """A report on the files that are no clips, and on the folders of classes that have no clip."""
    with_clips = {folder for path in files.paths for folder in path.parents}
    without = [folder for folder in _folders(files.folder) if folder not in with_clips]
    if _in_split_folders(files):
        tops = [folder for folder in _folders(files.folder) if folder in with_clips]
        without += [f for top in tops for f in _folders(top) if f not in with_clips]
    names = [folder.relative_to(files.folder).as_posix() for folder in without]
    report = unused(files.others, files.folder, ())
    return {**report, "folders_without_a_clip": names} if names else report


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_folders(files: SourceFiles) -> tuple[list[_Row], list[Reject]]:
    """One row per file in a class folder; a reject for each file outside them, and for each broken
    link.

    Files of one name but for its ending, likely one clip in several formats, are a group.
    """
    in_split_folders = _in_split_folders(files)
    stems = Counter(path.with_name(stem(path)) for path in files.paths)
    rows, rejects = [], []
    for path in files.paths:
        part = path.relative_to(files.folder).parts
        split, below = (part[0], part[1:]) if in_split_folders else (None, part)
        name = path.relative_to(files.folder).as_posix()
        bare = path.with_name(stem(path))
        bare_id, whole_id = (
            "/".join(map(normalised, each.relative_to(files.folder).parts)) for each in (bare, path)
        )
        if not is_utf8(name):
            rejects.append(Reject(name, "name", "its path is not UTF-8: rename it"))
            continue
        label = normalised(below[0]) if len(below) > 1 else ""
        if not label:
            rejects.append(Reject(name, "unknown-class", "it is not in the folder of a class"))
            continue
        rows.append(
            _Row(
                id=bare_id if stems[bare] == 1 else whole_id,
                label=label,
                paths={"path": name},
                place=name,
                group=bare_id,
                split=split and split_names([split])[0],
                files={"path": path},
            )
        )
    for path in files.broken:
        name = path.relative_to(files.folder).as_posix()
        rejects.append(Reject(name, "missing", "the link leads to no file"))
    return rows, rejects


def _seconds(cell: str, name: str, where: str) -> float | None:
    if not cell:
        return None
    try:
        number = decimal(cell)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise DataError(f"{where}: {name} is {cell!r}, expected seconds from the file's beginning")
    return number


def _files(folder: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """The files called so in `folder`, by column; those that are there.

    Raises `Unusable` where a name is empty, leads out of the folder, or round in a loop.
    """
    found = {}
    for column, name in names.items():
        if not name:
            raise Unusable("missing", f"its cell in the column {column} is empty")
        path = inside(folder, name)
        try:
            if S_ISREG(path.stat().st_mode):
                found[column] = path
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Unusable("outside-folder", f"{name!r} is a loop of symbolic links") from None
        except ValueError:  # a null character
            pass
    return found


def _kind_of(name: str, path: Path) -> str:
    """What a modality is, by its name or, where that is of other files, by its first file."""
    of_file = file_kinds(path)
    by_name = _KIND_OF_NAME.get(name)
    if by_name and of_file.intersection(FILES_OF_KIND[by_name]):
        return by_name
    if len(of_file) == 1:
        (kind,) = of_file
        return _KIND_OF_FILES[kind][0]
    may_be = f" (they may be {' or '.join(sorted(of_file))})" if of_file else ""
    raise DataError(
        f"what is modality {name!r}, of files like {path}{may_be}? Say it: "
        f"{_MODALITY} {name}=COLUMN:KIND, KIND one of {', '.join(KINDS)}"
    )


def _array_shape(name: str, kind: str, paths: Sequence[Path]) -> tuple[int, ...]:
    """The shape of arrays, vectors or series: that of the first that can be read.

    Raises `DataError` where it is neither, or not that of the `kind` that was asked for.
    """
    first: Unusable | None = None
    for path in paths:
        try:
            shape = read_array(path).shape
        except Unusable as error:
            first = first or error
            continue
        found = {1: "vector", 2: "series"}.get(len(shape))
        if found is None or 0 in shape or kind not in (found, "array"):
            expected = [KINDS[k] for k in ("vector", "series") if kind in (k, "array")]
            raise DataError(
                f"modality {name!r}: {path} has shape {shape}: expected {' or '.join(expected)}"
            )
        return shape
    raise DataError(f"modality {name!r}: none of its files can be read, the first: {first}")


def _arrays(paths: Sequence[Path], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The arrays of this shape that can be used, each as one sample."""
    for path in paths:
        with suppress(Unusable):
            yield read_array(path, shape, "float64")[None]


def _check_whole_numbers(name: str, paths: Sequence[Path], shape: tuple[int, ...]) -> None:
    """Raise `DataError` for arrays of whole numbers that float64 cannot tell apart either."""
    large = []
    for path in paths:
        with suppress(Unusable):
            array = open_array(path, shape)
            if array.dtype.kind in "iu" and np.abs(array.astype(np.float64)).max() > 2**53:
                large.append(np.array(array))
    for i in range(shape[-1] if large else 0):
        exact = [number for array in large for number in array[..., i].ravel().tolist()]
        where = f"modality {name!r}, arrays such as {paths[0]}, channel {i},"
        check_float64(np.array(exact, np.float64), exact.copy, where)


def _sorted_classes(labels: set[str]) -> list[str]:
    if all(re.fullmatch(r"-?\d{1,18}", label) for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)
