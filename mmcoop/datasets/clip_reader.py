"""Clips → samples: reading the modalities of a clip from its files."""

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

# The usual ImageNet mean and standard deviation by colour channel, for pixels in [0, 1].
_COLOUR_MEAN = (0.485, 0.456, 0.406)
_COLOUR_STD = (0.229, 0.224, 0.225)
# For flow, which has no colours, the mean of these deviations, for pixels in 0…255.
_FLOW_STD = 57.6

_JPEG_QUALITY = 90

# A clip gets a note if it lacks more than this many seconds, and more than this share, of what its
# file states; if its sound varies by less than one 16-bit level; or if its sound is longer than the
# spectrogram by more than this factor.
_LACKING, _LACKING_SHARE = 0.5, 0.1
_SILENT = 2.0**-15
_LONGER = 1.1

#: Kinds of modality read from a video or sound file, which is decoded once for all of them.
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
    """A requested clip.

    Attributes:
        id: Id of the sample.
        split: Its split.
        label: Its class number.
        group: Its group.
        paths: Its files by column ("path" if there is only one).
        start: Start of the window, in seconds; None for the beginning of the file.
        end: End of the window, in seconds; None for the end of the file.
        perhaps_cut: Whether a file that is hardly longer than the window is taken to be the clip
            itself, already cut from the video.
        columns: Additional columns of its row.
        absent: Modalities whose requested file does not exist, by path as requested; empty if clips
            are not requested by path.
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
    """What to read from every clip.

    Attributes:
        kinds: Kind and column of the file, by modality.
        frames: Number of frames or flow fields that a model sees.
        stored_frames: Number that is stored, from which training draws; None for `frames`.
        short_side: Stored frames have a shorter side of at most this many pixels.
        size: Side of the frames, flow fields and pictures that a model sees, in pixels.
        min_seconds: Shorter clips are rejected.
        max_bytes: Larger files are rejected.
        time_steps: Length of a spectrogram.
        flow_folder: Folder of precomputed flow; None computes it.
        arrays: Descriptions of array modalities, by name.
        levels: Mean and standard deviation of modalities of pictures with more than eight bits.
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
        """Number of frames stored per clip."""
        return self.stored_frames or self.frames

    def modalities(self) -> dict[str, Modality]:
        """Descriptions of the modalities, for the dataset."""
        return {name: self._modality(name, kind) for name, (kind, _) in self.kinds.items()}

    def of_column(self, column: str) -> dict[str, str]:
        """Kinds of the modalities whose files are in a column, by name."""
        return {name: kind for name, (kind, of) in self.kinds.items() if of == column}

    def least_seconds(self, kinds: Collection[str]) -> float:
        """The shortest acceptable clip for modalities of these kinds, in seconds."""
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
    """Check a clip as far as possible without decoding it.

    Checks size and type of its files, its window, headers of arrays, and names of flow pictures.

    Args:
        clip: The clip.
        reading: What will be read from it.

    Raises:
        Unusable: The clip cannot be read.
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
    """Read a clip, decoding each of its files once.

    Args:
        clip: The clip.
        reading: What to read from it.

    Returns:
        The columns of its row: modalities, additional columns, `duration` in seconds (None without
        video and sound) and `notes`, some of `NOTES` separated by spaces.

    Raises:
        Unusable: The clip cannot be read.
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
    """Add the media modalities of one file to `row`, and notes on it to `notes`.

    Returns the length of the clip in seconds.
    """
    wanted = set(kinds.values())
    sound = "spectrogram" in wanted
    computes_flow = "flow" in wanted and reading.flow_folder is None
    pictures = "frames" in wanted or computes_flow
    if not pictures and not sound:  # only flow, and that is precomputed
        footage, seconds = None, file_seconds(path, sound=False)
    else:
        start, end = clip.start, clip.end
        if clip.perhaps_cut and start is not None and end is not None:
            # cutting at key frames leaves up to a second more than requested
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
    """Open a `.npy` array of numbers, memory-mapped; only its header is read.

    Args:
        path: The file.
        shape: The expected shape, or None.

    Raises:
        Unusable: The file is not an array of numbers, or has another shape.
    """
    try:
        stored = arrays.open_array(path)
        if stored.dtype.kind not in "biuf":
            raise ValueError(f"it has {stored.dtype}")
    except ValueError as error:  # includes every DataError
        raise Unusable("unreadable", f"{path}: not an array of numbers: {error}") from None
    if shape is not None and stored.shape != tuple(shape):
        raise Unusable("wrong-shape", f"{path}: shape {stored.shape}, the first one's is {shape}")
    return stored


def read_array(
    path: Path, shape: Sequence[int] | None = None, dtype: str = "float32"
) -> np.ndarray:
    """Read a `.npy` array of numbers.

    Args:
        path: The file.
        shape: The expected shape, or None.
        dtype: The dtype of the result.

    Raises:
        Unusable: The file is not an array of numbers, has another shape, or has numbers that are
            not finite in float32, in which models compute.
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
    """Raise `Unusable` for a file of the wrong type, such as sound instead of video.

    Only files whose extension suggests another type are opened: some extensions are used for
    several types.
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
