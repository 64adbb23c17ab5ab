"""Clips → samples: what is read of a clip, for each of its modalities."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from PIL import Image

from mmcoop.datasets import flow, spectrogram
from mmcoop.datasets.advice import ENCODERS
from mmcoop.datasets.depth import read_levels
from mmcoop.datasets.file_kinds import kinds_by_content, kinds_by_ending
from mmcoop.datasets.media import LONGEST, Footage, file_seconds, read_footage, read_picture
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.rejects import Unusable
from mmcoop.reading import arrays

# Mean and standard deviation of ImageNet's pictures, 0…1, by colour: the field's usual ones.
_COLOUR_MEAN = (0.485, 0.456, 0.406)
_COLOUR_STD = (0.229, 0.224, 0.225)
# Flow has no colours: the mean of these deviations, in levels of a byte.
_FLOW_STD = 57.6

_JPEG_QUALITY = 90

# A clip is noted where it lacks more than so many seconds, and than this share, of what its file
# states; where its sound varies by less than a level of 16 bits; and where it lasts longer than its
# spectrogram by this factor.
_LACKING, _LACKING_SHARE = 0.5, 0.1
_SILENT = 2.0**-15
_LONGER = 1.1

#: Kinds of modality that come from a video or sound file, and so share one decoding.
MEDIA_KINDS = ("frames", "spectrogram", "flow")

#: The kinds of files that each kind of modality can be read from.
FILES_OF_KIND: Mapping[str, Collection[str]] = {
    "frames": ("video",),
    "flow": ("video",),
    "spectrogram": ("sound", "video"),
    "image": ("picture",),
    "series": ("array",),
    "vector": ("array",),
}


@dataclass(frozen=True)
class Clip:
    """One clip that is asked for.

    `paths`: its files by column ("path" where there is one). `start`, `end`: the window, in
    seconds, None for the whole file. `perhaps_cut`: a file that is hardly longer than the window
    is the clip already, not the video it was cut from. `columns`: further columns of its row.
    `absent`: the modalities for which a file was asked for that is not there, by its path as it was
    asked for; none where clips are not asked for by their paths.
    """

    id: str
    split: str
    label: int
    group: str
    paths: Mapping[str, Path]
    start: float | None = None
    end: float | None = None
    perhaps_cut: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What is read of every clip.

    `kinds`: by modality, its kind and the column of its file. Of `stored_frames` frames (or as many
    fields of flow), stored with a shorter side of at most `short_side` pixels, a model sees
    `frames`, at `size × size`; by default all are seen. Clips of less than `min_seconds` and files
    above `max_bytes` are rejected. `time_steps`: of a spectrogram. `flow_folder`: precomputed flow.
    `arrays`: what is recorded of arrays, by modality. `levels`: mean and standard deviation, by
    modality, of pictures whose pixels are numbers of more than a byte.
    """

    kinds: Mapping[str, tuple[str, str]]
    frames: int = 3
    stored_frames: int | None = None
    short_side: int = 256
    size: int = 224
    min_seconds: float = 0.5
    max_bytes: int = 4 * 2**30
    time_steps: int = spectrogram.TIME_STEPS
    flow_folder: Path | None = None
    arrays: Mapping[str, Modality] = field(default_factory=dict)
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        """How many frames are taken of a clip."""
        return self.stored_frames or self.frames

    def modalities(self) -> dict[str, Modality]:
        """How the data set describes its modalities."""
        return {name: self._modality(name, kind) for name, (kind, _) in self.kinds.items()}

    def of_column(self, column: str) -> dict[str, str]:
        """The kinds of the modalities whose files are in a column, by their names."""
        return {name: kind for name, (kind, of) in self.kinds.items() if of == column}

    def least_seconds(self, kinds: Collection[str]) -> float:
        """How long a clip has to be for modalities of these kinds."""
        if "spectrogram" not in kinds:
            return self.min_seconds
        return max(self.min_seconds, spectrogram.SHORTEST / spectrogram.SAMPLE_RATE)

    def _modality(self, name: str, kind: str) -> Modality:
        side, encoder = self.size, ENCODERS[kind]
        segments = self.frames if self.taken > self.frames else None
        if kind == "frames":
            return Modality(
                kind,
                (self.taken, 3, side, side),
                "uint8",
                encoder,
                mean=_COLOUR_MEAN,
                std=_COLOUR_STD,
                size=side,
                training={"flip": {}},
                segments=segments,
            )
        if kind == "image" and name in self.levels:
            mean, std = self.levels[name]
            training: dict[str, Any] = {"crop": {}, "flip": {}}
            return Modality(kind, (1, side, side), "float32", encoder, mean, std, training=training)
        if kind == "image":
            return Modality(
                kind,
                (3, side, side),
                "uint8",
                encoder,
                mean=tuple(255 * m for m in _COLOUR_MEAN),
                std=tuple(255 * s for s in _COLOUR_STD),
                training={"crop": {}, "flip": {}},
            )
        if kind == "flow":
            return Modality(
                kind,
                (self.taken, 2, side, side),
                "uint8",
                encoder,
                mean=float(flow.CENTRE),
                std=_FLOW_STD,
                training={"crop": {}, "flip": {}},
                segments=segments,
            )
        if kind == "spectrogram":
            shape = (1, spectrogram.MEL_BINS, self.time_steps)
            return Modality(
                kind, shape, "float16", encoder, mean=spectrogram.MEAN, std=spectrogram.STD
            )
        return self.arrays[name]


def check_clip(clip: Clip, reading: Reading) -> None:
    """Raise `Unusable` where a clip cannot be read, as far as it can be known without decoding it:
    by the size and kind of its files, its window, the heads of its arrays and the names of flow
    pictures.
    """
    for column, path in clip.paths.items():
        _check_file(path, reading.max_bytes)
        mine = reading.of_column(column)
        for name, kind in mine.items():
            _check_kind_of_file(path, name, kind)
        if any(kind in MEDIA_KINDS for kind in mine.values()):
            _check_window(clip, path, mine, reading)
        if "flow" in mine.values() and reading.flow_folder is not None:
            flow.stored_pictures(reading.flow_folder, path.stem)
        for name in mine:
            if name in reading.arrays:
                open_array(path, reading.arrays[name].shape)


def read_clip(clip: Clip, reading: Reading) -> dict[str, Any]:
    """The row of a clip: its modalities, further columns, `duration` in seconds and `notes`.

    The notes are some of `NOTES`, separated by spaces. Every file is decoded once, whatever is
    taken from it. Raises `Unusable`.
    """
    check_clip(clip, reading)
    row: dict[str, Any] = dict(clip.columns)
    lasts = []
    notes: set[str] = set()
    for column, path in clip.paths.items():
        mine = reading.of_column(column)
        if any(kind in MEDIA_KINDS for kind in mine.values()):
            lasts.append(_read_media(clip, path, mine, reading, row, notes))
        for name, kind in mine.items():
            if kind == "image":
                row[name] = (
                    read_levels(path, reading.size)[None]
                    if name in reading.levels
                    else read_picture(path, reading.size).transpose(2, 0, 1)
                )
            elif kind not in MEDIA_KINDS:
                modality = reading.arrays[name]
                row[name] = read_array(path, modality.shape, modality.dtype)
    row["duration"] = min(lasts, default=None)
    row["notes"] = " ".join(sorted(notes))
    return row


def _read_media(
    clip: Clip,
    path: Path,
    kinds: Mapping[str, str],
    reading: Reading,
    row: dict[str, Any],
    notes: set[str],
) -> float:
    """Add the media modalities of one file to `row`, and what is odd about it to `notes`.

    Returns how many seconds there are of the clip.
    """
    wanted = set(kinds.values())
    sound = "spectrogram" in wanted
    computes_flow = "flow" in wanted and reading.flow_folder is None
    pictures = "frames" in wanted or computes_flow
    if not pictures and not sound:  # flow alone, and precomputed
        footage, seconds = None, file_seconds(path, sound=False)
    else:
        start, end = clip.start, clip.end
        if clip.perhaps_cut and start is not None and end is not None:
            # a second more than asked for is what cutting at key frames leaves
            whole = file_seconds(path, pictures=pictures, sound=sound)
            if whole <= end - start + 1:
                start, end = None, None
        footage = read_footage(
            path,
            start=start,
            end=end,
            frames=reading.taken if pictures else 0,
            pairs=computes_flow,
            short_side=reading.short_side,
            rate=spectrogram.SAMPLE_RATE if sound else None,
            threads=1,
        )
        seconds = footage.seconds
        notes |= _notes(footage, reading)
    _check_length(path, seconds, reading.least_seconds(wanted))
    for name, kind in kinds.items():
        if kind == "frames":
            assert footage is not None
            row[name] = [_jpeg(frame) for frame in footage.frames]
        elif kind == "spectrogram":
            assert footage is not None
            assert footage.sound is not None
            row[name] = spectrogram.filter_bank(footage.sound, reading.time_steps)
        elif kind == "flow":
            if reading.flow_folder is not None:
                row[name] = flow.stored_flow(
                    reading.flow_folder, path.stem, reading.taken, reading.size
                )
            else:
                assert footage is not None
                pairs = zip(footage.frames, footage.following, strict=True)
                row[name] = np.stack([flow.dense_flow(a, b, reading.size) for a, b in pairs])
    return seconds


def _notes(footage: Footage, reading: Reading) -> set[str]:
    notes = set()
    if footage.lacking > max(_LACKING, _LACKING_SHARE * (footage.seconds + footage.lacking)):
        notes.add("cut-short")
    if footage.sound is not None:
        lasts = len(footage.sound) / spectrogram.SAMPLE_RATE
        if len(footage.sound) and np.ptp(footage.sound) < _SILENT:
            notes.add("silent-sound")
        if lasts > _LONGER * reading.time_steps / spectrogram.STEPS_PER_SECOND:
            notes.add("sound-cut")
    return notes


def open_array(path: Path, shape: Sequence[int] | None = None) -> np.ndarray:
    """A `.npy` array of numbers, mapped into memory; `Unusable` where it is none, or has another
    shape. Reads no more than the head of the file.
    """
    try:
        stored = arrays.open_array(path)
        if stored.dtype.kind not in "biuf":
            raise ValueError(f"it has {stored.dtype}")
    except ValueError as error:  # as every DataError is
        raise Unusable("unreadable", f"{path}: not an array of numbers: {error}") from None
    if shape is not None and stored.shape != tuple(shape):
        raise Unusable("wrong-shape", f"{path}: shape {stored.shape}, the first one's is {shape}")
    return stored


def read_array(
    path: Path, shape: Sequence[int] | None = None, dtype: str = "float32"
) -> np.ndarray:
    """A `.npy` array of numbers as `dtype`; `Unusable` where it is none, has another shape, or has
    numbers that float32 cannot hold, in which models compute.
    """
    stored = open_array(path, shape)
    with np.errstate(over="ignore"):
        if not np.isfinite(stored.astype(np.float32)).all():
            raise Unusable("not-a-number", f"{path} has NaN or infinite numbers")
    array: np.ndarray = stored.astype(dtype)
    return array


def _check_window(clip: Clip, path: Path, kinds: Mapping[str, str], reading: Reading) -> None:
    if clip.end is None or clip.perhaps_cut:  # the file itself may be the clip
        return
    seconds = clip.end - (clip.start or 0.0)
    if seconds > LONGEST:
        raise Unusable("too-large", f"{path}: {seconds:.0f} s of it, the most is {LONGEST}")
    _check_length(path, seconds, reading.least_seconds(kinds.values()))


def _check_length(path: Path, seconds: float, needed: float) -> None:
    if seconds < needed:
        raise Unusable("too-short", f"{path}: {seconds:.2f} s of it, at least {needed:g} needed")


def _check_kind_of_file(path: Path, name: str, kind: str) -> None:
    """Raise `Unusable` for a sound where pictures are needed, a picture where a video is, ….

    Only a file whose ending promises another kind is opened: some endings are used for several.
    """
    needed = FILES_OF_KIND[kind]
    if not (by_ending := kinds_by_ending(path)) or by_ending.intersection(needed):
        return
    if (found := kinds_by_content(path)) and not found.intersection(needed):
        reason = "no-video" if kind in ("frames", "flow") else "unreadable"
        raise Unusable(
            reason,
            f"{path} is a {' or '.join(sorted(found))} file: modality {name!r} ({kind}) needs a "
            f"{' or '.join(needed)} file",
        )


def _check_file(path: Path, max_bytes: int) -> None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        found = None
    if found is None or not S_ISREG(found.st_mode):
        raise Unusable("missing", f"{path} is not there, or is not a file")
    if not found.st_size:
        raise Unusable("unreadable", f"{path} is empty")
    if found.st_size > max_bytes:
        raise Unusable(
            "too-large", f"{path} has {found.st_size:,} bytes, the limit is {max_bytes:,}"
        )


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
