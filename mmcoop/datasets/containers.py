"""Media containers, opened with PyAV: streams, packets, and their times in seconds."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from mmcoop.datasets.rejects import Unusable


def open_container(path: Path) -> InputContainer:
    """Open a media file; errors of PyAV pass through."""
    # FFmpeg could take a relative path with a colon for a protocol; metadata may be in any encoding
    return av.open(str(path.absolute()), metadata_errors="replace")


def best_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The video and audio streams that FFmpeg ranks best; None for a missing one.

    Cover art does not count as video.
    """
    video = container.streams.best("video")
    if video is not None and video.disposition & Disposition.attached_pic:
        video = None
    audio = container.streams.best("audio", related=video)
    assert video is None or isinstance(video, VideoStream)
    assert audio is None or isinstance(audio, AudioStream)
    return video, audio


def streams_to_read(
    container: InputContainer, pictures: bool, sound: bool
) -> tuple[VideoStream | None, AudioStream | None]:
    """The best streams of the requested types; None for types that are not requested.

    Raises:
        Unusable: A requested stream is missing or cannot be decoded.
    """
    video, audio = best_streams(container)
    if pictures and video is None:
        raise Unusable("no-video", "it has no picture")
    if sound and audio is None:
        raise Unusable("no-audio", "it has no sound")
    wanted = (video if pictures else None), (audio if sound else None)
    for stream in wanted:
        if stream is not None and stream.codec_context is None:
            raise Unusable("unreadable", f"FFmpeg cannot decode its {stream.type} stream")
    return wanted


def packets_of(container: InputContainer, streams: Iterable[Stream]) -> Iterator[Any]:
    """Yield the packets of some streams in stored order, then an empty one per stream."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV may raise this after the last packet if a stream appeared midway
        return


def begin_of(piece: Any) -> float | None:
    """The start of a packet or frame on the file's clock, in seconds; None if not stated."""
    ticks = piece.dts if piece.pts is None else piece.pts
    return None if ticks is None else float(ticks * piece.time_base)


def lasts(piece: Any, stream: Stream) -> float:
    """The duration of a packet or frame, in seconds."""
    if isinstance(piece, av.AudioFrame):
        return piece.samples / piece.sample_rate
    if piece.duration:
        return float(piece.duration * piece.time_base)
    rate = stream.average_rate if isinstance(stream, VideoStream) else None
    return 1 / float(rate) if rate else 0.0
