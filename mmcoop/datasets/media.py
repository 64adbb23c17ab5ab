"""Reading media files: video and sound with PyAV, pictures with Pillow.

A span of a file is decoded once, for frames and sound together. Times are in seconds from the
beginning of the file.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Stream
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from mmcoop.datasets.containers import (
    begin_of,
    lasts,
    open_container,
    packets_of,
    streams_to_read,
)
from mmcoop.datasets.orientation import turn_upright
from mmcoop.datasets.rejects import Unusable
from mmcoop.datasets.timeline import (
    BACK,
    Timeline,
    is_streamed,
    read_timeline,
    stated_timeline,
    states_length,
)

#: The longest span that is read, in seconds, and the largest picture, in pixels.
LONGEST = 3600
LARGEST_PICTURE = 2**26

# Decoding starts at the key frame before a span, and this much earlier: it costs little, and covers
# sound whose packets were written ahead of the frames they belong to.
_RUN_UP = 1.0
# How much sound before a span is kept, in seconds, for the resampler's filter.
_LEAD = 0.05
# Gaps in the sound longer than this, in seconds, are filled with silence, and where sound overlaps
# for longer, the first is kept, so that sound and frames stay in sync.
_GAP = 0.1
# Accepted sampling rates, in Hz. Damaged files state others, with which resampling takes very long.
_RATES = range(1000, 1_000_001)
# If the video is longer or shorter than stated by more than this share, its frames are chosen again
# from its actual length.
_INEXACT = 0.02


@dataclass(frozen=True)
class Footage:
    """Frames and sound of a span of a file.

    Attributes:
        frames: The requested frames, RGB uint8 `(height, width, 3)`.
        following: For each of them the next one in the file, for optical flow.
        sound: float32 `(samples,)` in [−1, 1]; None if it was not requested.
        seconds: How long both frames and sound last within the span.
        lacking: How many seconds are missing from what the file states.
    """

    frames: list[np.ndarray]
    following: list[np.ndarray]
    sound: np.ndarray | None
    seconds: float
    lacking: float


def read_footage(
    path: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    frames: int = 0,
    pairs: bool = False,
    short_side: int | None = None,
    rate: int | None = None,
    threads: int = 0,
) -> Footage:
    """Read frames and sound of a span of a file.

    Of several streams, the one that FFmpeg ranks best is read.

    Args:
        path: The file.
        start: Start of the span, in seconds; None for the beginning of the file.
        end: End of the span, in seconds; None for the end of the file.
        frames: Number of frames. Each is the one shown in the middle of one of this many equal
            parts of the span, turned upright.
        pairs: Whether to read the frame after each one as well. For the last frame of the file,
            which has none, the pair is that frame and the one before it.
        short_side: Frames whose shorter side has more pixels are scaled down to it.
        rate: Sampling rate, in Hz, to which the sound is resampled, mixed to mono, with silence in
            gaps; None to read no sound.
        threads: Threads of the decoder; 0 lets FFmpeg choose.

    Returns:
        The frames and the sound.

    Raises:
        Unusable: `unreadable`, `no-audio`, `no-video`, `orientation`, `timestamps`,
            `outside-file` or `too-large`.
    """
    span = (0.0 if start is None else start), (math.inf if end is None else end)
    wanted = _Wanted(frames, pairs, short_side, rate, threads)
    try:
        survey = _surveyed(path, frames > 0, rate is not None)
        try:
            return _footage(survey, span, wanted)
        except _ClockWentBackError:
            return _footage(replace(survey, timeline=read_timeline(path)), span, wanted)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unusable(path, error) from None


def read_audio(path: Path, rate: int) -> np.ndarray:
    """Read all sound of a file, mixed to mono by averaging channels.

    Args:
        path: The file.
        rate: Sampling rate to which it is resampled, in Hz.

    Returns:
        float32 `(samples,)` in [−1, 1].

    Raises:
        Unusable: The file cannot be read or has no sound.
    """
    sound = read_footage(path, rate=rate).sound
    assert sound is not None
    return sound


def file_seconds(path: Path, *, pictures: bool = True, sound: bool = True) -> float:
    """Length of a media file in seconds, as stated or, if not, to the end of its last packet.

    Args:
        path: The file.
        pictures: Whether the file must have video, whose length is then returned.
        sound: Whether the file must have sound. Its length is returned without `pictures`.

    Raises:
        Unusable: The file cannot be read, or lacks video or sound.
    """
    try:
        return _surveyed(path, pictures, sound).length
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unusable(path, error) from None


def read_picture(path: Path, side: int | None, mode: str = "RGB") -> np.ndarray:
    """Read a picture and turn it upright.

    Args:
        path: The picture.
        side: Side to which it is scaled, in pixels; None keeps its size.
        mode: "RGB", or "L" for grey.

    Returns:
        uint8 `(height, width, 3)`, or `(height, width)` for grey.

    Raises:
        Unusable: `unreadable` or `too-large`.
    """
    with open_picture(path) as picture:
        _check_bytes(picture)
        upright = ImageOps.exif_transpose(picture).convert(mode)
        if side is not None:
            upright = upright.resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(upright)


@contextmanager
def open_picture(path: Path) -> Iterator[ImageFile]:
    """Open a picture with Pillow; errors in the block become `Unusable`.

    Raises:
        Unusable: `unreadable`, also for a file of several pictures, or `too-large`.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                raise Unusable("too-large", f"it has {picture.width} × {picture.height} pixels")
            pictures = _pictures_in(picture)
            if pictures > 1 and picture.format != "MPO":  # stereo: the second is the other eye's
                raise Unusable("unreadable", f"it has {pictures} pictures, and one is expected")
            yield picture
    except Image.DecompressionBombError as error:
        raise Unusable("too-large", f"{path}: {error}") from None
    except (OSError, ValueError, SyntaxError, OverflowError) as error:  # Pillow on damaged files
        raise _unusable(path, error) from None


def _pictures_in(picture: ImageFile) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception as error:  # noqa: BLE001 - a damaged list of pictures leads Pillow anywhere
        raise Unusable("unreadable", f"its list of pictures is damaged: {error}") from None


def has_levels(picture: Image.Image) -> bool:
    """Whether a picture has one channel of more than eight bits."""
    return picture.mode[0] in "IF"


def _check_bytes(picture: ImageFile) -> None:
    """Raise `Unusable` for more than eight bits per channel: Pillow would truncate them."""
    raw = [(tile.codec_name, *_arguments(tile)) for tile in picture.tile]
    scaled = any(codec == "ppm" and arguments[-1] > 255 for codec, *arguments in raw)
    if has_levels(picture) or scaled or any(";16" in str(part) for parts in raw for part in parts):
        raise Unusable(
            "unreadable",
            f"its pixels have more than eight bits (mode {picture.mode}): store it with eight, as "
            "grey numbers like the first picture's, or all pictures as .npy arrays",
        )


def _arguments(tile: Any) -> tuple[Any, ...]:
    return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _middles(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * (k + 0.5) / count for k in range(count)]


def _too_long(seconds: float) -> Unusable:
    return Unusable(
        "too-large", f"it lasts {seconds:.0f} s, the most is {LONGEST}: give start and end"
    )


def _unusable(path: Path, error: Exception) -> Unusable:
    if isinstance(error, Unusable):
        return Unusable(error.reason, f"{path}: {error.detail}")
    return Unusable("unreadable", f"{path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@dataclass(frozen=True)
class _Wanted:
    """What to read, as in the arguments of `read_footage`."""

    frames: int
    pairs: bool
    short_side: int | None
    rate: int | None
    threads: int


@dataclass(frozen=True)
class _Survey:
    """What is known about a file before it is decoded.

    Attributes:
        path: The file.
        pictures: Whether frames are requested.
        sound: Whether sound is requested.
        timeline: How its clock maps to seconds.
        stated: Stated ends of the requested streams, in seconds, by type ("video", "audio").
        whole: Stated length of the file, in seconds; None if it is not stated.
    """

    path: Path
    pictures: bool
    sound: bool
    timeline: Timeline
    stated: Mapping[str, float]
    whole: float | None

    @property
    def length(self) -> float:
        """Length in seconds of the video if frames are requested, else of the sound."""
        name = "video" if self.pictures else "audio"
        for known in (self.timeline.ends.get(name), self.stated.get(name), self.whole):
            if known is not None:
                return known
        return read_timeline(self.path).ends.get(name, 0.0)

    def lacking(self, span: tuple[float, float], ends: Mapping[str, float]) -> float:
        """By how many seconds the streams of a span end before their stated ends.

        Args:
            span: Start and end.
            ends: Actual ends by stream type.
        """
        stated = {name: min(end, span[1]) for name, end in self.stated.items() if name in ends}
        if not stated and self.whole is not None:
            stated, ends = {"": min(self.whole, span[1])}, {"": max(ends.values())}
        return max([0.0, *(end - ends[name] for name, end in stated.items())])


def _surveyed(path: Path, pictures: bool, sound: bool) -> _Survey:
    with open_container(path) as container:
        wanted = streams_to_read(container, pictures, sound)
        timeline = stated_timeline(container)
        stated: dict[str, float] = {}
        whole = None
        if states_length(container):
            for stream in wanted:
                if stream is not None and stream.duration and stream.time_base:
                    end = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
                    stated[stream.type] = end - timeline.zero
            whole = container.duration / av.time_base if container.duration else None
        streamed = is_streamed(container)
    if streamed:
        timeline = read_timeline(path)
    return _Survey(path, pictures, sound, timeline, stated, whole)


def _footage(survey: _Survey, span: tuple[float, float], wanted: _Wanted) -> Footage:
    begin, until = span
    # stated lengths may be wrong: without an end, the file is read to its actual end
    stated = survey.length if until == math.inf else until
    if stated - begin > LONGEST:
        raise _too_long(stated - begin)
    found = _read(survey, span, _middles(begin, stated, wanted.frames), wanted)
    picker, video_end = found.picker, found.ends.get("video", until)
    if wanted.frames and abs(stated - video_end) > _INEXACT * (video_end - begin) > 0:
        # the video is longer or shorter than stated, or ends within the span: choose frames again,
        # evenly over its actual length
        times = _middles(begin, video_end, wanted.frames)
        picker = _read(survey, (begin, video_end), times, replace(wanted, rate=None)).picker
    seconds = min(found.ends.values()) - begin
    if seconds <= 0:
        what = "no sound" if video_end > begin else "nothing"
        raise Unusable("outside-file", f"it has {what} from {begin:g} s on")
    lacking = survey.lacking(span, found.ends)
    return Footage(picker.frames, picker.following, found.sound, seconds, lacking)


def _picture(frame: av.VideoFrame, short_side: int | None) -> np.ndarray:
    """A decoded frame → an upright RGB array, scaled down if needed."""
    if frame.width * frame.height > LARGEST_PICTURE:
        raise Unusable("too-large", f"its pictures have {frame.width} × {frame.height} pixels")
    scale = min(1.0, (short_side or math.inf) / min(frame.width, frame.height))
    rgb = frame.reformat(
        width=max(1, round(frame.width * scale)),
        height=max(1, round(frame.height * scale)),
        format="rgb24",
        interpolation="AREA" if scale < 1 else "BICUBIC",
    ).to_ndarray()
    return turn_upright(rgb, frame)


class _Picker:
    """Picks, out of all frames in order, those shown at some ascending times."""

    def __init__(self, times: Sequence[float], wanted: _Wanted) -> None:
        self.frames: list[np.ndarray] = []
        self.following: list[np.ndarray] = []
        self._waiting = deque(times)
        self._wanted = wanted
        self._shown: deque[av.VideoFrame] = deque(maxlen=2)

    @property
    def done(self) -> bool:
        return not self._waiting

    def see(self, frame: av.VideoFrame, time: float) -> None:
        """Process the next frame, shown from `time` on."""
        while self._waiting and self._shown and time > self._waiting[0]:
            self._take(self._shown[-1], frame)
        self._shown.append(frame)

    def end(self) -> None:
        """End the video: the last frame is shown at all remaining times."""
        while self._waiting and self._shown:
            self._take(self._shown[0 if self._wanted.pairs else -1], self._shown[-1])

    def _take(self, frame: av.VideoFrame, after: av.VideoFrame) -> None:
        self._waiting.popleft()
        self.frames.append(_picture(frame, self._wanted.short_side))
        if self._wanted.pairs:
            self.following.append(_picture(after, self._wanted.short_side))


class _Sound:
    """Collects decoded sound from `start` to `end`, as mono at another sampling rate."""

    def __init__(self, rate: int, start: float, end: float) -> None:
        self._rate = rate
        self._start = start
        self._end = end
        self._resampler: av.AudioResampler | None = None
        self._of: tuple[str, str, int] | None = None
        self._parts: list[np.ndarray] = []
        self._begin = 0.0  # when the collected sound starts
        self._next = 0.0  # when it ends so far, by the number of samples
        self._overlaps = False

    def see(self, frame: av.AudioFrame, time: float) -> None:
        """Process the next frame, heard from `time` on."""
        lasts = frame.samples / frame.sample_rate
        if time + lasts <= self._start - _LEAD:
            return  # right after a seek, frames may be invalid
        if frame.sample_rate not in _RATES:
            raise Unusable("unreadable", f"its sound has {frame.sample_rate} samples a second")
        time = min(time, self._end)  # a later frame only shows that there is silence until the end
        of = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._of is None:
            self._begin = self._next = time
        gap = time - self._next
        self._overlaps = gap < -_GAP or (self._overlaps and gap < 0)
        if self._overlaps:
            return
        if of != self._of or gap > _GAP:
            self._flush()
            self._resampler, self._of = av.AudioResampler(format="flt", rate=self._rate), of
        if gap > _GAP:
            self._parts.append(np.zeros(round(gap * self._rate), np.float32))
            self._next = time
        assert self._resampler is not None
        self._parts += [_mono(part) for part in self._resampler.resample(frame)]
        self._next += lasts

    def heard(self) -> np.ndarray:
        """The sound of the span, float32 `(samples,)`, with silence before its first frame."""
        self._flush()
        if not self._parts:
            return np.zeros(0, np.float32)
        sound = np.concatenate(self._parts)
        stop = None
        if math.isfinite(self._end):
            stop = round((self._end - self._start) * self._rate)
        ahead = round((self._start - self._begin) * self._rate)
        if ahead < 0:
            sound = np.concatenate([np.zeros(-ahead, np.float32), sound])
        return sound[max(ahead, 0) :][:stop]

    def _flush(self) -> None:
        if self._resampler is not None:
            self._parts += [_mono(part) for part in self._resampler.resample(None)]


def _mono(sound: av.AudioFrame) -> np.ndarray:
    # expects packed samples, because PyAV 18 crashes on frames with eight or more planes
    channels = sound.layout.nb_channels
    mean: np.ndarray = sound.to_ndarray().reshape(-1, channels).mean(1)
    return mean


@dataclass
class _Found:
    """The result of one pass: frames, sound, and the end of each requested stream by type."""

    picker: _Picker
    sound: np.ndarray | None
    ends: dict[str, float]


class _ClockWentBackError(Exception):
    """The clock of a file goes back, so it cannot be used as its timeline."""


def _read(
    survey: _Survey, span: tuple[float, float], times: Sequence[float], wanted: _Wanted
) -> _Found:
    """Decode a span of a file once, and pick the frames shown at `times`."""
    if span[0] > _RUN_UP and survey.timeline.sought:
        found = _Pass(survey, span, times, wanted, seeks=True).run()
        if found is not None:
            return found
    found = _Pass(survey, span, times, wanted, seeks=False).run()
    assert found is not None
    return found


class _Pass:
    """Decodes a file up to the end of a span, from the beginning or from a key frame before it."""

    def __init__(
        self,
        survey: _Survey,
        span: tuple[float, float],
        times: Sequence[float],
        wanted: _Wanted,
        *,
        seeks: bool,
    ) -> None:
        self._survey = survey
        self._start, self._end = span
        self._threads = wanted.threads
        self._seeks = seeks
        self._pictures = len(times) > 0
        self._picker = _Picker(times, wanted)
        self._sound = _Sound(wanted.rate, *span) if wanted.rate else None
        self._rate = wanted.rate
        # keyed by type, because streams cannot be used after their file is closed
        self._decoded: dict[str, float] = {}  # end of the decoded frames
        self._reach: dict[str, float] = {}  # end of the packets, in any order
        self._last: dict[str, float] = {}  # start of the last frame
        self._clock: dict[str, float] = {}  # decoding time of the last packet

    def run(self) -> _Found | None:
        """Decode the span; None if seeking did not lead to a usable position."""
        with open_container(self._survey.path) as container:
            wanted = streams_to_read(container, self._pictures, self._rate is not None)
            if self._seeks:
                ahead = self._start - _RUN_UP + self._survey.timeline.zero
                try:
                    container.seek(int(ahead * av.time_base))
                except av.FFmpegError:
                    return None
            streams = [stream for stream in wanted if stream is not None]
            types = {str(stream.type) for stream in streams}
            for each in streams:
                each.codec_context.thread_type = "AUTO"
                each.codec_context.thread_count = self._threads
            if not self._decode(packets_of(container, streams), set(types)):
                return None
        if empty := types - set(self._decoded):
            if self._seeks:
                return None
            reason, what = ("no-video", "picture") if "video" in empty else ("no-audio", "sound")
            raise Unusable(reason, f"its {what} stream is empty")
        self._picker.end()
        ends = {name: min(self._end, max(self._decoded[name], self._reach[name])) for name in types}
        sound = self._sound.heard() if self._sound is not None else None
        if sound is not None and self._rate:
            ends["audio"] = self._start + len(sound) / self._rate
        return _Found(self._picker, sound, ends)

    def _decode(self, packets: Iterator[Any], waiting: set[str]) -> bool:
        """Decode until no stream is `waiting` for more; False if seeking overshot the start."""
        numbers: Counter[str] = Counter()
        for packet in packets:
            name = packet.stream.type
            if name not in waiting:
                continue
            self._check_clock(packet)
            self._survey.timeline.place(packet, numbers[name])
            numbers[name] += 1
            begin = self._begin(packet, self._reach.setdefault(name, 0.0))
            if begin - self._start > LONGEST and self._end == math.inf:
                raise _too_long(begin - self._start)
            if packet.size:  # an empty packet marks the end of its stream
                self._reach[name] = max(self._reach[name], begin + lasts(packet, packet.stream))
            if name == "video" and self._picker.done:
                # all frames are found: only the end of the video is still unknown
                reached = self._reach[name] >= self._end
            else:
                try:
                    frames: list[Any] = packet.decode()
                except av.FFmpegError as error:
                    if begin < self._start:
                        continue  # before the span, decoding may start within a group of frames
                    if self._seeks:
                        return False
                    raise Unusable(
                        "unreadable", f"it is damaged at {begin:.2f} s: {_reason(error)}"
                    ) from None
                if not self._see(frames, packet.stream):
                    return False
                reached = self._last.get(name, -math.inf) >= self._end
            if reached:
                waiting.discard(name)
            if not waiting:
                break
        return True

    def _see(self, frames: Sequence[Any], stream: Stream) -> bool:
        """Process decoded frames; False if seeking overshot the start of the span."""
        name = stream.type
        for frame in frames:
            begin = self._begin(frame, self._decoded.get(name, math.inf if self._seeks else 0.0))
            if self._seeks and name not in self._decoded and begin > self._start:
                return False
            if name == "video":
                self._picker.see(frame, begin)
            elif self._sound is not None:
                self._sound.see(frame, begin)
            self._last[name] = begin
            self._decoded[name] = max(self._decoded.get(name, 0.0), begin + lasts(frame, stream))
        return True

    def _check_clock(self, packet: Any) -> None:
        """Raise `_ClockWentBackError` if the clock, used as the timeline, goes back."""
        if packet.dts is None or self._survey.timeline.ends:
            return
        time = float(packet.dts * packet.time_base)
        name = packet.stream.type
        if time < self._clock.get(name, -math.inf) - BACK:
            raise _ClockWentBackError
        self._clock[name] = time

    def _begin(self, piece: Any, otherwise: float) -> float:
        """Start of a packet or frame in seconds; `otherwise` if it does not state one."""
        by_clock = begin_of(piece)
        return otherwise if by_clock is None else by_clock - self._survey.timeline.zero
