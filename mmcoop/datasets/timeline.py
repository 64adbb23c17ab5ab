"""The timeline of a media file: what its clock says → seconds from its beginning.

In a stream (MPEG-TS, MPEG-PS, FLV, Ogg) the clock is only a counter: where segments were joined
end to end, or a capture lost its source, it jumps for all that follows. What is stored after the
jump then comes after what is stored before it, and picture and sound move together. In a file with
an index (MP4, Matroska, …) the clock is the timeline, and a gap in it is a gap, but it never goes
back.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from mmcoop.datasets.containers import (
    begin_of,
    best_streams,
    lasts,
    open_container,
    packets_of,
)
from mmcoop.datasets.rejects import Unusable

#: By how much the clock of a stream may go back from one packet to the next, in seconds: what
#: encoders correct, and what reordered pictures without a time of decoding amount to.
BACK = 0.5
# Beyond how many seconds without any packet the clock of a stream has jumped. The ffmpeg program
# draws the line there, too. The streams of a part begin within as much of each other.
_AHEAD = 10.0
# Formats, by FFmpeg's flag or their name, whose clock is only a counter.
_TS_DISCONT = 0x200
_STREAMED = ("flv",)
# How far apart in time, and how different in size, a jump may be in the streams of one file.
_APART = 2.0
# How often the clock of a stream may jump: more is damage, not recordings that were joined.
_MOST_JUMPS = 2000
# Streams that appear after the beginning are not read: what they may have of a file, at most.
_UNREAD = 0.1


@dataclass(frozen=True)
class Timeline:
    """When what is stored in a file is shown and heard.

    `zero`: the beginning of the file by its own clock. `bounds`: by stream, "video" and "audio",
    before which of its packets, counted from 0, the clock jumps, rising; `shifts`: what is added
    to the clock from each of these jumps on. `ends`: how many seconds there are of each stream;
    empty for a file whose packets were not looked at.
    """

    zero: float
    bounds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shifts: Sequence[float] = ()
    ends: Mapping[str, float] = field(default_factory=dict)

    @property
    def sought(self) -> bool:
        """Whether the clock leads to a place in the file."""
        return not self.shifts

    def place(self, packet: Any, number: int) -> None:
        """Set the times of packet `number` of its stream as if the clock had never jumped."""
        part = bisect_right(self.bounds.get(packet.stream.type, ()), number)
        if part:
            ticks = round(self.shifts[part - 1] / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


def stated_timeline(container: InputContainer) -> Timeline:
    """The timeline of an open file whose clock is taken as it is."""
    return Timeline((container.start_time or 0) / av.time_base)


def is_streamed(container: InputContainer) -> bool:
    """Whether the clock of an open file is only a counter."""
    return not states_length(container) or container.format.name in _STREAMED


def states_length(container: InputContainer) -> bool:
    """Whether an open file can say how long it is; of others FFmpeg estimates it by their clock."""
    return not container.format.flags & _TS_DISCONT


def read_timeline(path: Path) -> Timeline:
    """The timeline of a file by all packets of its best streams.

    Raises `Unusable`: `timestamps`, where the clock of one stream jumps and that of the other does
    not, or much of the file belongs to streams that begin in the middle of it: nothing says then
    which sound belongs to which picture.
    """
    found = path.stat()
    return _read_timeline(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4)  # windows of one file are asked for one after the other
def _read_timeline(path: Path, size: int, changed: int) -> Timeline:
    with open_container(path) as container:
        zero = stated_timeline(container).zero
        tracks, part = _tracks(container, zero)
    bounds = _bounds(tracks)
    parts = [part]
    if joints := len(next(iter(bounds.values()), ())):
        parts = [_Part(zero), *(_Part() for _ in range(joints))]
        seen: Counter[str] = Counter()
        with open_container(path) as container:
            for packet in packets_of(container, streams_of(container)):
                if packet.size:
                    name = packet.stream.type
                    parts[bisect_right(bounds[name], seen[name])].see(packet)
                    seen[name] += 1
        if any(part.apart > _AHEAD for part in parts):
            raise _unrelated()
    shifts: list[float] = []
    ends: dict[str, float] = {}
    for k, part in enumerate(parts):
        shift = max(ends.values()) + zero - part.begin if k else 0.0
        shifts += [shift] * (k > 0)
        ends |= {name: end + shift - zero for name, end in part.ends.items()}
    return Timeline(zero, bounds, shifts, ends)


def streams_of(container: InputContainer) -> list[Stream]:
    """The streams by whose packets a timeline is read: the best video and the best audio."""
    return [stream for stream in best_streams(container) if stream is not None]


@dataclass
class _Jump:
    """A jump of a stream's clock, by `size` seconds, between its packets at two bytes.

    `number`: that of the packet after it in its stream. `time`: that of the packet before it.
    `certain`: whether the clock of the file jumps, and not this stream alone has nothing for a
    while. `made`: whether it is counted.
    """

    before: int
    at: int
    number: int
    time: float
    size: float
    certain: bool
    made: bool = False


@dataclass
class _Track:
    """The clock of one stream: the bytes of its first and its last packet, and its jumps."""

    first: int
    at: int
    time: float
    count: int = 0
    jumps: list[_Jump] = field(default_factory=list)

    def bound(self, jump: _Jump, at: int) -> float | None:
        """Before which of its packets this stream makes a jump that one of the streams makes.

        `at`: the byte where that is at the earliest. None where it does not make it.
        """
        for own in self.jumps:
            if own is jump or own.before < at <= own.at:
                return own.number
        if not self.first < at <= self.at:
            return 0 if at <= self.first else math.inf
        for own in self.jumps:
            near = abs(own.time - jump.time) < _APART and abs(own.size - jump.size) < _APART
            if near and not own.made:
                own.made = True
                return own.number
        return None


@dataclass
class _Part:
    """A slice_ of a file in which the clock does not jump: where each stream begins and ends."""

    zero: float | None = None  # of what does not say when it begins
    begins: dict[str, float] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)

    @property
    def begin(self) -> float:
        return min(self.begins.values())

    @property
    def apart(self) -> float:
        return max(self.begins.values()) - self.begin

    def see(self, packet: Any) -> None:
        name = packet.stream.type
        begin = begin_of(packet)
        if begin is None:
            begin = self.ends.get(name, self.zero)
        if begin is None:
            return
        self.begins[name] = min(self.begins.get(name, math.inf), begin)
        end = begin + lasts(packet, packet.stream)
        self.ends[name] = max(self.ends.get(name, -math.inf), end)


def _tracks(container: InputContainer, zero: float) -> tuple[dict[str, _Track], _Part]:
    """The clocks of the best streams of an open file, and all of it as one part."""
    tracks: dict[str, _Track] = {}
    part = _Part(zero)
    streamed = is_streamed(container)
    clock = math.inf  # by the packet before, of any stream
    try:
        for packet in container.demux(*streams_of(container)):
            if not packet.size:
                continue
            part.see(packet)
            at = packet.pos or 0
            track = tracks.setdefault(packet.stream.type, _Track(at, at, math.nan))
            at = max(at, track.at)  # where it does not say, as the one before it
            if packet.dts is not None:
                time = float(packet.dts * packet.time_base)
                size = time - track.time
                if size < -BACK or (streamed and size > _AHEAD):
                    certain = size < 0 or time > clock + _AHEAD
                    jump = _Jump(track.at, at, track.count, track.time, size, certain)
                    track.jumps.append(jump)
                    if len(track.jumps) > _MOST_JUMPS:
                        raise Unusable("timestamps", f"its clock jumps {_MOST_JUMPS:,} times")
                track.time = clock = time
            track.at = at
            track.count += 1
    except IndexError:
        # PyAV ends so, after the last packet, where a stream appeared on the way
        last = max((track.at for track in tracks.values()), default=0)
        if streamed and last < (1 - _UNREAD) * container.size:
            raise Unusable(
                "timestamps", f"after {clock:.2f} s by its clock, other streams take its place"
            ) from None
    return tracks, part


def _bounds(tracks: Mapping[str, _Track]) -> dict[str, list[float]]:
    """Before which packets of each stream the clock of a file jumps.

    A stream sees a jump somewhere after its last packet before, so where films are joined, the
    first stream to see it is the nearest. In a broadcast, the sound may follow a little later.
    """
    jumps = sorted((jump for track in tracks.values() for jump in track.jumps), key=lambda j: j.at)
    bounds: dict[str, list[float]] = {name: [] for name in tracks}
    places: set[int] = set()
    for jump in jumps:
        at = min((j.at for j in jumps if jump.before < j.at <= jump.at), default=jump.at)
        if not jump.certain or jump.made or at in places:
            continue
        places.add(at)
        jump.made = True
        for name, track in tracks.items():
            bound = track.bound(jump, at)
            if bound is None:
                raise _unrelated()
            bounds[name].append(bound)
    return bounds


def _unrelated() -> Unusable:
    return Unusable(
        "timestamps",
        "its clock jumps for its pictures or for its sound alone: nothing says which belong "
        "together",
    )
