"""The timeline of a media file: timestamps → seconds from its beginning.

In streaming formats (MPEG-TS, MPEG-PS, FLV, Ogg) the clock is only a counter: it jumps where
segments were joined, or where a capture lost its source. What is stored after a jump then follows
directly, and frames and sound shift together. In files with an index (MP4, Matroska, …) the clock
is the timeline: a gap in it is a real gap, and it must not go back.
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

#: By how much a stream's clock may go back between packets without a jump, in seconds: covers
#: corrections by encoders, and reordered frames without decoding times.
BACK = 0.5
# A gap without packets longer than this, in seconds, is a jump of the clock, as for ffmpeg. All
# streams of a part begin within this time of each other.
_AHEAD = 10.0
# Streaming formats: FFmpeg's flag for them, and the names of others.
_TS_DISCONT = 0x200
_STREAMED = ("flv",)
# By how many seconds one jump may differ between streams, in time and in size.
_APART = 2.0
# The most jumps of a clock: more are a sign of damage rather than of joined recordings.
_MOST_JUMPS = 2000
# Streams that start midway are not read: the largest share of a file that they may hold.
_UNREAD = 0.1


@dataclass(frozen=True)
class Timeline:
    """How the timestamps of a file map to seconds.

    Attributes:
        zero: The beginning of the file on its own clock, in seconds.
        bounds: Packet numbers before which the clock jumps, ascending, by stream ("video",
            "audio").
        shifts: Seconds to add to the clock from each of these jumps on.
        ends: Length of each stream in seconds; empty if packets were not read.
    """

    zero: float
    bounds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shifts: Sequence[float] = ()
    ends: Mapping[str, float] = field(default_factory=dict)

    @property
    def sought(self) -> bool:
        """Whether positions in the file can be found by seeking."""
        return not self.shifts

    def place(self, packet: Any, number: int) -> None:
        """Correct the timestamps of packet `number` of its stream for jumps of the clock."""
        part = bisect_right(self.bounds.get(packet.stream.type, ()), number)
        if part:
            ticks = round(self.shifts[part - 1] / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


def stated_timeline(container: InputContainer) -> Timeline:
    """The timeline of an open file whose clock is taken as correct."""
    return Timeline((container.start_time or 0) / av.time_base)


def is_streamed(container: InputContainer) -> bool:
    """Whether an open file has a streaming format, whose clock is only a counter."""
    return not states_length(container) or container.format.name in _STREAMED


def states_length(container: InputContainer) -> bool:
    """Whether an open file states its length; for others FFmpeg estimates it from the clock."""
    return not container.format.flags & _TS_DISCONT


def read_timeline(path: Path) -> Timeline:
    """Read the timeline of a file from all packets of its best streams.

    Raises:
        Unusable: `timestamps`: the clock of only one stream jumps, or much of the file belongs to
            streams that start midway. Sound can then not be matched with frames.
    """
    found = path.stat()
    return _read_timeline(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4)  # windows of one file are usually read one after the other
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
    """The streams whose packets determine the timeline: the best video and the best audio."""
    return [stream for stream in best_streams(container) if stream is not None]


@dataclass
class _Jump:
    """A jump of a stream's clock between two packets.

    Attributes:
        before: Byte position of the packet before the jump.
        at: Byte position of the packet after it.
        number: Number of the packet after it in its stream.
        time: Time of the packet before it, in seconds.
        size: Size of the jump, in seconds.
        certain: Whether the file's clock jumps, rather than this stream having a gap.
        made: Whether the jump is already accounted for.
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
    """The clock of one stream: byte positions of its first and last packet, and its jumps."""

    first: int
    at: int
    time: float
    count: int = 0
    jumps: list[_Jump] = field(default_factory=list)

    def bound(self, jump: _Jump, at: int) -> float | None:
        """The number of the packet before which this stream makes a jump of the file's clock.

        Args:
            jump: The jump, as seen by some stream.
            at: The earliest byte position of the jump.

        Returns:
            The packet number, infinity if the stream ends before the jump, or None if the stream
            does not make it.
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
    """A part of a file without jumps of the clock: where each stream begins and ends."""

    zero: float | None = None  # start of streams that do not state theirs
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
    """The clocks of the best streams of an open file, and the complete file as one part."""
    tracks: dict[str, _Track] = {}
    part = _Part(zero)
    streamed = is_streamed(container)
    clock = math.inf  # time of the previous packet of any stream
    try:
        for packet in container.demux(*streams_of(container)):
            if not packet.size:
                continue
            part.see(packet)
            at = packet.pos or 0
            track = tracks.setdefault(packet.stream.type, _Track(at, at, math.nan))
            at = max(at, track.at)  # if it states no position, that of the previous packet
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
        # PyAV raises this after the last packet if a stream appeared midway
        last = max((track.at for track in tracks.values()), default=0)
        if streamed and last < (1 - _UNREAD) * container.size:
            raise Unusable(
                "timestamps", f"after {clock:.2f} s by its clock, other streams take its place"
            ) from None
    return tracks, part


def _bounds(tracks: Mapping[str, _Track]) -> dict[str, list[float]]:
    """Numbers of the packets of each stream before which the file's clock jumps.

    A stream shows a jump only at its next packet, so where videos were joined, the first stream to
    show it is the closest. In a broadcast, the sound may follow slightly later.
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
