"""Reading media files: films and sound with PyAV, pictures with Pillow.

A stretch of a file is decoded once, for its frames and its sound together. Times are in seconds
from the beginning of the file.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from mmcoop.datasets.orientation import turn_upright
from mmcoop.datasets.rejects import Unusable

#: The longest stretch that is read, in seconds, and the largest picture, in pixels.
LONGEST = 3600
LARGEST_PICTURE = 2**26

# The decoder starts at the key frame before a stretch; a little earlier costs nothing, and covers
# sound whose packets were written ahead of the pictures they belong to.
_RUN_UP = 1.0
# How much of the sound before a stretch is kept, in seconds, for the resampler's filter.
_LEAD = 0.05
# Sound that is missing for longer than this, in seconds, is silence: it stays with its pictures.
_GAP = 0.1
# Samples a second that sound may have. Beyond is what damaged files say, and resampling takes ages.
_RATES = range(1000, 1_000_001)
# By what part of its length a stretch may be longer or shorter than stated before its frames are
# shared out anew.
_INEXACT = 0.02


@dataclass(frozen=True)
class Footage:
    """What was read of a stretch of a file.

    `frames`: the pictures asked for, uint8 `(height, width, 3)` RGB. `following`: to each of them
    the next one in the file, for optical flow. `sound`: float32 `(samples,)` in −1…1.
    `seconds`: how much there is of the stretch.
    """

    frames: list[np.ndarray]
    following: list[np.ndarray]
    sound: np.ndarray | None
    seconds: float


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
    """Frames and sound of a stretch of a file, the whole file unless `start` and `end` say else.

    `frames` pictures are taken evenly: each is the one shown in the middle of one of so many equal
    parts of the stretch. They are turned upright and, where `short_side` is given, scaled down so
    that their shorter side has so many pixels. `pairs` asks for the next picture of each, too;
    the last one of a file has none, so the one before stands in for it. With a `rate`, the sound
    is mixed to mono and resampled to so many samples a second, silent where the file has none. Of
    several streams FFmpeg's "best" is taken. `threads` are those of the decoder, 0 for as many as
    it likes.

    Raises `Unusable`: unreadable, no-audio, no-video, orientation, outside-file, too-large.
    """
    begin = 0.0 if start is None else start
    try:
        stated = _length(path, frames > 0, bool(rate)) if end is None else end
        if stated - begin > LONGEST:
            raise _too_long(stated - begin)
        # what a file states of its length is not always true: without an end, all of it is read
        until = math.inf if end is None else end
        wanted = _Wanted(_middles(begin, stated, frames), pairs, short_side)
        found = _read(path, begin, until, wanted, rate, threads)
        pictures = found.picker
        lasts = found.video_end - begin
        if frames and lasts > 0 and abs(stated - found.video_end) > _INEXACT * lasts:
            # the pictures last longer than the file says, or end before it says, or before the
            # stretch does: share out what there is
            wanted = _Wanted(_middles(begin, found.video_end, frames), pairs, short_side)
            pictures = _read(path, begin, found.video_end, wanted, None, threads).picker
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unusable(path, error) from None
    if found.seconds <= 0:
        what = "no sound" if lasts > 0 else "nothing"
        raise Unusable("outside-file", f"{path} has {what} from {begin:g} s on")
    return Footage(pictures.frames, pictures.following, found.sound, found.seconds)


def read_audio(path: Path, rate: int) -> np.ndarray:
    """The sound of a whole file, mixed to mono and resampled to `rate` samples a second.

    float32 `(samples,)` in −1…1, the mean of the channels. Raises `Unusable` where the file cannot
    be read or has no sound.
    """
    sound = read_footage(path, rate=rate).sound
    assert sound is not None
    return sound


def file_seconds(path: Path, *, pictures: bool = True, sound: bool = True) -> float:
    """How long a media file is, in seconds: its pictures, if they are asked for, else its sound.

    What the file states or, where it states nothing, the end of its last packet. Raises `Unusable`
    where it cannot be read or lacks what is asked for.
    """
    try:
        return _length(path, pictures, sound)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unusable(path, error) from None


def read_picture(path: Path, side: int, mode: str = "RGB") -> np.ndarray:
    """A picture, turned upright and scaled to `side × side`: uint8 `(side, side, 3)`.

    With the mode "L" grey, `(side, side)`. Raises `Unusable`: unreadable, too-large.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST_PICTURE:
                raise Unusable("too-large", f"it has {picture.width} × {picture.height} pixels")
            if picture.mode[0] in "IF":  # Pillow would cut off all that a byte does not hold
                raise Unusable("unreadable", f"its levels are not bytes (mode {picture.mode})")
            upright = ImageOps.exif_transpose(picture).convert(mode)
            return np.asarray(upright.resize((side, side), Image.Resampling.BILINEAR))
    except Image.DecompressionBombError as error:
        raise Unusable("too-large", f"{path}: {error}") from None
    except (OSError, ValueError, SyntaxError, OverflowError) as error:  # PIL's for damaged files
        raise _unusable(path, error) from None


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


def _streams(
    container: InputContainer, pictures: bool, sound: bool
) -> tuple[VideoStream | None, AudioStream | None]:
    """The streams to read; `Unusable` where one is asked for that the file does not have."""
    video = container.streams.best("video")
    if video is not None and video.disposition & Disposition.attached_pic:
        video = None  # the cover of a piece of music is not what was filmed
    audio = container.streams.best("audio", related=video)
    if pictures and video is None:
        raise Unusable("no-video", "it has no picture")
    if sound and audio is None:
        raise Unusable("no-audio", "it has no sound")
    assert video is None or isinstance(video, VideoStream)
    assert audio is None or isinstance(audio, AudioStream)
    wanted = (video if pictures else None), (audio if sound else None)
    for stream in wanted:
        if stream is not None and stream.codec_context is None:
            raise Unusable("unreadable", f"FFmpeg cannot decode its {stream.type} stream")
    return wanted


def _open(path: Path) -> InputContainer:
    # an absolute path cannot be taken for a protocol, whatever colons its name has; titles and
    # comments may be in any encoding
    return av.open(str(path.absolute()), metadata_errors="replace")


def _length(path: Path, pictures: bool, sound: bool) -> float:
    with _open(path) as container:
        video, audio = _streams(container, pictures, sound)
        zero = _zero(container)
        stream = video or audio
        assert stream is not None
        if stream.duration and stream.time_base:
            return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - zero
        if container.duration:
            return container.duration / av.time_base
        end = 0.0
        for packet in _packets(container, [stream]):
            if packet.size:  # the last one only says that there are no more
                end = max(end, _end_of(packet, stream, _begin_of(packet, zero, end)))
        return end


def _zero(container: InputContainer) -> float:
    # what comes before 0 only sets the sound decoder going
    return max(0, container.start_time or 0) / av.time_base


def _picture(frame: av.VideoFrame, short_side: int | None) -> np.ndarray:
    """A decoded frame → an upright RGB array, scaled down on the way."""
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


@dataclass(frozen=True)
class _Wanted:
    """The pictures asked for: those shown at `times`, in rising order."""

    times: Sequence[float]
    pairs: bool
    short_side: int | None


class _Picker:
    """Picks the frames that are shown at some times out of all frames as they come."""

    def __init__(self, wanted: _Wanted) -> None:
        self.frames: list[np.ndarray] = []
        self.following: list[np.ndarray] = []
        self._waiting = deque(wanted.times)
        self._wanted = wanted
        self._shown: deque[av.VideoFrame] = deque(maxlen=2)

    @property
    def done(self) -> bool:
        return not self._waiting

    def see(self, frame: av.VideoFrame, time: float) -> None:
        """The next frame, and the time from which it is shown."""
        while self._waiting and self._shown and time > self._waiting[0]:
            self._take(self._shown[-1], frame)
        self._shown.append(frame)

    def end(self) -> None:
        """No frame comes any more: the last one is shown at all times that are left."""
        while self._waiting and self._shown:
            self._take(self._shown[0 if self._wanted.pairs else -1], self._shown[-1])

    def _take(self, frame: av.VideoFrame, after: av.VideoFrame) -> None:
        self._waiting.popleft()
        self.frames.append(_picture(frame, self._wanted.short_side))
        if self._wanted.pairs:
            self.following.append(_picture(after, self._wanted.short_side))


class _Sound:
    """Collects decoded sound from `start` to `end` as mono at another rate."""

    def __init__(self, rate: int, start: float, end: float) -> None:
        self._rate = rate
        self._start = start
        self._end = end
        self._resampler: av.AudioResampler | None = None
        self._of: tuple[str, str, int] | None = None
        self._parts: list[np.ndarray] = []
        self._begin = 0.0  # of what was collected
        self._next = 0.0  # its end so far, by the number of its samples

    def see(self, frame: av.AudioFrame, time: float) -> None:
        """The next frame, and the time from which it is heard."""
        lasts = frame.samples / frame.sample_rate
        if time + lasts <= self._start - _LEAD:
            return  # what follows a seek need not be sound yet, nor as long as it says
        if frame.sample_rate not in _RATES:
            raise Unusable("unreadable", f"its sound has {frame.sample_rate} samples a second")
        time = min(time, self._end)  # of what begins later only that it is silent until then
        of = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._of is None:
            self._begin = self._next = time
        gap = time - self._next
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
        """What was heard; silence before the first sound."""
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
    # of packed samples: PyAV 18 crashes on a frame of eight or more planes
    channels = sound.layout.nb_channels
    mean: np.ndarray = sound.to_ndarray().reshape(-1, channels).mean(1)
    return mean


@dataclass
class _Found:
    """What one pass found: pictures and where they end, sound, and the seconds that have both."""

    picker: _Picker
    video_end: float
    sound: np.ndarray | None
    seconds: float


def _read(
    path: Path, start: float, end: float, wanted: _Wanted, rate: int | None, threads: int
) -> _Found:
    """Decode a file from `start` to `end` once."""
    if start > _RUN_UP:
        found = _pass(path, start, end, wanted, rate, threads, seek=True)
        if found is not None:
            return found
    found = _pass(path, start, end, wanted, rate, threads, seek=False)
    assert found is not None
    return found


def _pass(
    path: Path,
    start: float,
    end: float,
    wanted: _Wanted,
    rate: int | None,
    threads: int,
    *,
    seek: bool,
) -> _Found | None:
    """Decode a file up to `end`, from a key frame before `start` with `seek`, else from its start.

    None where seeking does not lead to where `start` can be read, as in files without an index.
    """
    with _open(path) as container:
        video, audio = _streams(container, len(wanted.times) > 0, rate is not None)
        zero = _zero(container)
        if seek:
            try:
                container.seek(int((start - _RUN_UP + zero) * av.time_base))
            except av.FFmpegError:
                return None
        streams = {stream for stream in (video, audio) if stream is not None}
        for each in streams:
            each.codec_context.thread_type = "AUTO"
            each.codec_context.thread_count = threads
        picker = _Picker(wanted)
        sound = _Sound(rate, start, end) if rate else None
        decoded: dict[VideoStream | AudioStream, float] = {}  # how far each stream was decoded
        reach = dict.fromkeys(streams, 0.0)  # … and how far its packets go, in any order
        open_streams = set(streams)
        unknown = math.inf if seek else 0.0  # the time of what does not say it
        for packet in _packets(container, streams):
            stream = packet.stream
            if stream not in open_streams:
                continue
            begin = _begin_of(packet, zero, reach[stream])
            if begin - start > LONGEST and end == math.inf:
                raise _too_long(begin - start)
            if packet.size:  # the last one only says that there are no more
                reach[stream] = max(reach[stream], _end_of(packet, stream, begin))
            if packet.stream is video and picker.done:
                # nothing is to be seen any more, but how long the pictures last
                if reach[stream] >= end:
                    open_streams.discard(stream)
                continue
            try:
                frames: list[Any] = packet.decode()
            except av.FFmpegError as error:
                if begin < start:
                    continue  # the run-up may begin in the middle of something
                if seek:
                    return None
                raise Unusable(
                    "unreadable", f"it is damaged at {begin:.2f} s: {_reason(error)}"
                ) from None
            for frame in frames:
                begin = _begin_of(frame, zero, decoded.get(stream, unknown))
                if seek and stream not in decoded and begin > start:
                    return None
                if begin >= end:
                    open_streams.discard(stream)
                if isinstance(frame, av.VideoFrame):
                    picker.see(frame, begin)
                elif sound is not None:
                    sound.see(frame, begin)
                decoded[stream] = max(decoded.get(stream, 0.0), _end_of(frame, stream, begin))
            if not open_streams:
                break
    if empty := streams - set(decoded):
        if seek:
            return None
        reason, what = ("no-video", "picture") if video in empty else ("no-audio", "sound")
        raise Unusable(reason, f"its {what} stream is empty")
    video_end = end if video is None else min(end, max(decoded[video], reach[video]))
    picker.end()
    heard = sound.heard() if sound is not None else None
    lasts = len(heard) / rate if heard is not None and rate else math.inf
    return _Found(picker, video_end, heard, min(video_end - start, lasts))


def _packets(container: InputContainer, streams: Iterable[Stream]) -> Iterator[Any]:
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV may end so, after the last packet, where a stream appeared on the way
        return


def _begin_of(piece: Any, zero: float, otherwise: float) -> float:
    """When a packet or frame begins, in seconds; `otherwise` where it does not say."""
    ticks = piece.dts if piece.pts is None else piece.pts
    return otherwise if ticks is None else float(ticks * piece.time_base) - zero


def _end_of(piece: Any, stream: VideoStream | AudioStream, begin: float) -> float:
    """When a packet or frame of a stream ends that begins at `begin`, in seconds."""
    if isinstance(piece, av.AudioFrame):
        return begin + piece.samples / piece.sample_rate
    if piece.duration:
        return begin + float(piece.duration * piece.time_base)
    rate = stream.average_rate if isinstance(stream, VideoStream) else None
    return begin + (1 / float(rate) if rate else 0.0)
