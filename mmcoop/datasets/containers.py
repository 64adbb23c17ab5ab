"""Media containers, opened with PyAV: their streams, their packets, and when each begins and ends.

Times are in seconds.
"""

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
    """Open a media file; raises what PyAV raises."""
    # an absolute path cannot be taken for a protocol, whatever colons its name has; titles and
    # comments may be in any encoding
    return av.open(str(path.absolute()), metadata_errors="replace")


def best_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The video and the audio stream that FFmpeg holds for the best, None for what there is not.

    The cover of a piece of music is no video.
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
    """The best streams of those asked for; `Unusable` where the file lacks one of them."""
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
    """The packets of some streams as they are stored, then an empty one of each."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV may end so, after the last packet, where a stream appeared on the way
        return


def begin_of(piece: Any) -> float | None:
    """When a packet or frame begins by the file's clock; None where it does not say."""
    ticks = piece.dts if piece.pts is None else piece.pts
    return None if ticks is None else float(ticks * piece.time_base)


def lasts(piece: Any, stream: Stream) -> float:
    """How long a packet or frame of a stream lasts."""
    if isinstance(piece, av.AudioFrame):
        return piece.samples / piece.sample_rate
    if piece.duration:
        return float(piece.duration * piece.time_base)
    rate = stream.average_rate if isinstance(stream, VideoStream) else None
    return 1 / float(rate) if rate else 0.0
