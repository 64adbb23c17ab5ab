"""Films that the tests encode themselves, so that what is in them is known."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

os.environ.setdefault("SVT_LOG", "1")  # errors alone: its encoder prints a page else

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Undo what SVT-AV1's encoder does as root: it makes the calling thread, and so every process
    that is started from it, a real-time one that starves all others.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_film(
    path: Path,
    pictures: Sequence[np.ndarray | av.VideoFrame] = (),
    *,
    codec: str = "libx264",
    fps: int = 25,
    times: Sequence[float] | None = None,
    pixels: str = "yuv420p",
    key_every: int = 12,
    options: dict[str, str] | None = None,
    format: str = "rgb24",
    tags: dict[str, int] | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    rate: int = 48_000,
    sound_from: float = 0.0,
) -> Path:
    """Encode pictures and sound into a file whose name says what kind of file it is.

    `pictures` are frames, or arrays of `format`; `sound` is `(samples,)` or `(channels, samples)`
    in −1…1. Picture k is shown from `times[k]` seconds on, every 1 / `fps` where they are not
    given; the sound begins at `sound_from`. `tags` are the colour tags. Skips the test where this
    FFmpeg has no such encoder.
    """
    for wanted in [codec] * (len(pictures) > 0) + [sound_codec] * (sound is not None):
        try:
            av.codec.Codec(wanted, "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this FFmpeg has no encoder {wanted}")
    with ordinary_priority(), av.open(str(path), "w") as container:
        packets = []
        if len(pictures):
            quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            video = container.add_stream(codec, rate=fps, options={**quiet, **(options or {})})
            video.pix_fmt = pixels
            video.codec_context.gop_size = key_every
            ticks = 1000 if times is not None else fps
            video.codec_context.time_base = Fraction(1, ticks)
            for name, tag in (tags or {}).items():
                setattr(video.codec_context, name, tag)
        if sound is not None:
            sound = np.ascontiguousarray(np.atleast_2d(sound), np.float32)
            audio = container.add_stream(sound_codec, rate=rate)
            audio.codec_context.layout = _LAYOUTS[len(sound)]
        for k, picture in enumerate(pictures):
            frame = picture
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(picture, format=format)
            for name, tag in (tags or {}).items():
                setattr(frame, name, tag)
            if k == 0:
                video.width, video.height = frame.width, frame.height
            frame.pts = k if times is None else round(times[k] * ticks)
            frame.time_base = Fraction(1, ticks)
            packets += video.encode(frame)
        if len(pictures):
            packets += video.encode(None)
        if sound is not None:
            packed = sound.T.reshape(1, -1)
            whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=_LAYOUTS[len(sound)])
            whole.sample_rate = rate
            whole.pts, whole.time_base = round(sound_from * rate), Fraction(1, rate)
            packets += [*audio.encode(whole), *audio.encode(None)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.fixture(scope="session")
def film() -> Callable[..., Path]:
    """Encodes a film: see `write_film`."""
    return write_film
