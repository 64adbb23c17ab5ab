"""Whatever a file's clock says, a picture stays with its sound, or the clip is refused.

Each second of the films here has a picture that shows its number and a tone of a pitch of its own.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from mmcoop.datasets import timeline
from mmcoop.datasets.media import Footage, file_seconds, read_footage
from mmcoop.datasets.rejects import Unusable

#: After so many seconds the clock of MPEG-TS begins again at 0.
WRAP = 2**33 / 90_000

CODECS = {
    ".ts": ("libx264", "aac"),
    ".mpg": ("mpeg2video", "mp2"),
    ".vob": ("mpeg2video", "mp2"),
    ".flv": ("flv", "libmp3lame"),
    ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx", "libopus"),
    ".mp4": ("libx264", "aac"),
}


def picture(second: int) -> np.ndarray:
    """Eight upright stripes, of which those are white whose bit in `second` is set."""
    bits = np.array([second >> bit & 1 for bit in range(8)], np.uint8) * 255
    return np.repeat(np.kron(bits, np.ones((48, 16), np.uint8))[..., None], 3, axis=2)


def second_seen(frame: np.ndarray) -> int:
    """The number that a picture shows."""
    width = frame.shape[1] // 8
    stripes = [frame[:, k * width : (k + 1) * width].mean() for k in range(8)]
    return sum(int(stripe > 127) << bit for bit, stripe in enumerate(stripes))


def second_heard(sound: np.ndarray) -> int | None:
    """The second whose tone this is; None for silence."""
    if np.abs(sound).max() < 0.05:
        return None
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16_000))
    return round((spectrum.argmax() - 300) / 100)


@pytest.fixture(scope="module")
def take(
    film: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`take(ending, first, count)`: a film of the seconds from `first` on, encoded once."""
    folder, rate = tmp_path_factory.mktemp("takes"), 48_000

    def made(ending: str, first: int, count: int = 4) -> Path:
        path = folder / f"{first}-{count}{ending}"
        if not path.exists():
            codec, sound_codec = CODECS[ending]
            speed = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
            t = np.arange(count * rate) / rate
            film(
                path,
                [picture(first + k // 25) for k in range(25 * count)],
                codec=codec,
                options=speed,
                sound=0.4 * np.sin(2 * np.pi * (300 + 100 * (first + np.floor(t))) * t),
                sound_codec=sound_codec,
                rate=44_100 if ending == ".flv" else rate,
            )
        return path

    return made


def remuxed(
    source: Path,
    target: Path,
    shift: Callable[[str, float], float],
    kinds: tuple[str, ...] = ("video", "audio"),
    **options: str,
) -> Path:
    """A copy of a film whose packets are `shift(kind, time)` seconds later, of some streams."""
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as written:
        streams = {
            stream.index: written.add_stream_from_template(stream)
            for stream in read.streams
            if stream.type in kinds
        }
        for packet in read.demux(*(read.streams[index] for index in streams)):
            if packet.size:
                time = packet.pts if packet.dts is None else packet.dts
                later = shift(packet.stream.type, float(time * packet.time_base))
                ticks = round(later / packet.time_base)
                packet.pts += ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                written.mux(packet)
    return target


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def moments(footage: Footage) -> Iterator[tuple[int, int | None]]:
    """For each frame, the second it shows and the second whose sound is heard with it."""
    count = len(footage.frames)
    for k, frame in enumerate(footage.frames):
        at = round(footage.seconds * (k + 0.5) / count * 16_000)
        yield second_seen(frame), second_heard(footage.sound[max(at - 800, 0) : at + 800])


def read(path: Path, seconds: int, **window: float) -> Footage:
    """With a frame of the middle of each second."""
    return read_footage(path, frames=seconds, rate=16_000, **window)


@pytest.mark.parametrize(
    ("ending", "parts"), [(".ts", 3), (".mpg", 3), (".vob", 3), (".mkv", 2), (".webm", 2)]
)
def test_films_joined_byte_by_byte_come_one_after_the_other(tmp_path, take, ending, parts):
    path = joined(tmp_path / f"a{ending}", *(take(ending, 4 * k) for k in range(parts)))
    footage = read(path, 4 * parts)
    assert list(moments(footage)) == [(k, k) for k in range(4 * parts)]
    assert footage.seconds == pytest.approx(4 * parts, abs=0.35)
    for start in (1.0, 5.0, 9.0)[:parts]:
        window = read(path, 2, start=start, end=start + 2)
        # encoders add up to 0.1 s to each part: a window may begin that much earlier
        assert [seen for seen, _ in moments(window)] == [start, start + 1]
        assert [heard for _, heard in moments(window)] == [start, start + 1]
        assert window.seconds == pytest.approx(2)


@pytest.mark.parametrize("shifts", [(0, 600), (600, 0), (600, 0, 300), (0, 2)])
def test_the_clock_may_jump_to_anywhere_where_films_are_joined(tmp_path, take, shifts):
    parts = [
        remuxed(take(".ts", 4 * k), tmp_path / f"{k}.ts", lambda *_, by=by: by)
        for k, by in enumerate(shifts)
    ]
    footage = read(joined(tmp_path / "a.ts", *parts), 4 * len(parts))
    assert list(moments(footage)) == [(k, k) for k in range(4 * len(parts))]
    assert footage.seconds == pytest.approx(4 * len(parts), abs=0.3)


def test_a_short_gap_in_the_clock_is_a_gap_in_sound_and_pictures(tmp_path, take):
    later = remuxed(take(".ts", 4), tmp_path / "b.ts", lambda *_: 7)
    footage = read(joined(tmp_path / "a.ts", take(".ts", 0), later), 11)
    seen = [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7]
    heard = [0, 1, 2, 3, None, None, None, 4, 5, 6, 7]
    assert list(moments(footage)) == list(zip(seen, heard, strict=True))


@pytest.mark.parametrize("count", [2, 4])
def test_a_part_without_sound_is_silent(tmp_path, take, count):
    mute = remuxed(take(".ts", 4, count), tmp_path / "b.ts", lambda *_: 0, ("video",))
    path = joined(tmp_path / "a.ts", take(".ts", 0), mute, take(".ts", 4 + count))
    footage = read(path, 8 + count)
    mutes = range(4, 4 + count)
    assert list(moments(footage)) == [(k, None if k in mutes else k) for k in range(8 + count)]
    assert footage.seconds == pytest.approx(8 + count, abs=0.3)


@pytest.mark.parametrize("before", [1.5, 30.0, 70.0])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_clock_that_wraps_goes_on(tmp_path, take, before, parts):
    """Within the film, or, of two that are joined, where the second one begins at 0 again."""
    first = remuxed(take(".ts", 0), tmp_path / "b.ts", lambda *_: WRAP - before)
    path = joined(tmp_path / "a.ts", *(first, take(".ts", 4))[:parts])
    footage = read(path, 4 * parts)
    assert list(moments(footage)) == [(k, k) for k in range(4 * parts)]
    assert footage.seconds == pytest.approx(4 * parts, abs=0.2)
    window = read(path, 2, start=1.0, end=3.0)
    assert list(moments(window)) == [(1, 1), (2, 2)]
    assert file_seconds(path) == pytest.approx(4 * parts, abs=0.2)


@pytest.mark.parametrize("ending", [".ts", ".flv"])
def test_a_capture_that_loses_its_source_goes_on_where_it_finds_it_again(tmp_path, take, ending):
    path = remuxed(
        take(ending, 0), tmp_path / f"a{ending}", lambda _, time: 500.0 if time >= 2 else 0.0
    )
    footage = read(path, 4)
    assert list(moments(footage)) == [(k, k) for k in range(4)]
    assert footage.seconds == pytest.approx(4, abs=0.3)


def test_a_gap_in_a_file_with_an_index_is_part_of_it(tmp_path, take):
    film = take(".webm", 0)
    path = remuxed(film, tmp_path / "a.webm", lambda _, time: 16.0 if time >= 2 else 0.0)
    footage = read(path, 20)
    assert footage.seconds == pytest.approx(20, abs=0.2)
    seen, heard = zip(*moments(footage), strict=True)
    assert seen == (0, *[1] * 17, 2, 3)
    assert heard == (0, 1, *[None] * 16, 2, 3)


def test_what_overlaps_a_little_is_heard_and_seen_once(tmp_path, take):
    """As where a segment repeats the end of the one before."""
    later = remuxed(take(".ts", 4), tmp_path / "b.ts", lambda *_: 3.7)
    footage = read(joined(tmp_path / "a.ts", take(".ts", 0), later), 77)
    assert footage.seconds == pytest.approx(7.7, abs=0.1)
    assert len(footage.sound) == pytest.approx(7.7 * 16_000, abs=1600)
    apart = [seen for seen, heard in moments(footage) if seen != heard]
    assert len(apart) <= 8, "at the turns of the seconds alone"


@pytest.mark.parametrize("slower", [0.9, 1.1])
def test_sound_keeps_to_its_clock_where_it_has_more_or_fewer_samples(tmp_path, take, slower):
    """As from a recorder whose two clocks run at different speeds."""
    path = remuxed(
        take(".mkv", 0),
        tmp_path / "a.mkv",
        lambda kind, time: (slower - 1) * time * (kind == "audio"),
    )
    footage = read(path, 4)
    assert len(footage.sound) == pytest.approx(4 * slower * 16_000, abs=2000)
    for second in range(4):
        at = round((second + 0.5) * slower * 16_000)
        assert second_heard(footage.sound[at - 2000 : at + 2000]) == second


@pytest.mark.parametrize(
    ("ending", "kind"), [(".ts", "audio"), (".ts", "video"), (".mpg", "video")]
)
@pytest.mark.parametrize("jump", [-1.5, 500.0, 20_000.0])
def test_a_clock_that_jumps_for_one_stream_alone_is_a_reason_of_its_own(
    tmp_path, take, ending, kind, jump
):
    later = remuxed(
        take(ending, 4),
        tmp_path / f"b{ending}",
        lambda of, _: 4 + jump * (of == kind),
        max_interleave_delta="1",  # written as they come
    )
    path = joined(tmp_path / f"a{ending}", take(ending, 0), later)
    for window in ({}, {"start": 3.0, "end": 6.0}):
        with pytest.raises(Unusable, match=f"a{ending}: ") as caught:
            read(path, 4, **window)
        assert caught.value.reason == "timestamps"


def test_a_clock_that_jumps_all_the_time_is_damage(tmp_path, take, monkeypatch):
    monkeypatch.setattr(timeline, "_MOST_JUMPS", 3)
    with pytest.raises(Unusable, match="a.ts: its clock jumps 3 times") as caught:
        read(joined(tmp_path / "a.ts", *[take(".ts", 0, 1)] * 5), 1)
    assert caught.value.reason == "timestamps"
    footage = read(joined(tmp_path / "b.ts", *[take(".ts", 0, 1)] * 4), 4)
    assert list(moments(footage)) == [(0, 0)] * 4


def test_streams_that_take_the_place_of_others_are_a_reason_of_their_own(tmp_path, take):
    """Their pictures would be lost without a word: FFmpeg gives them as streams of their own."""
    later = remuxed(
        take(".ts", 4), tmp_path / "b.ts", lambda *_: 0, mpegts_start_pid="0x200",
        mpegts_pmt_start_pid="0x1100",
    )  # fmt: skip
    path = joined(tmp_path / "a.ts", take(".ts", 0), later)
    with pytest.raises(
        Unusable, match=r"a.ts: after 3\.\d+ s by its clock, other streams"
    ) as caught:
        read(path, 4)
    assert caught.value.reason == "timestamps"


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_sound_files_joined_byte_by_byte_come_one_after_the_other(tmp_path, film, codec):
    t = np.arange(2 * 48_000) / 48_000
    parts = [
        film(tmp_path / f"{k}.oga", sound=0.4 * np.sin(2 * np.pi * (400 + 100 * k) * t),
             sound_codec=codec)
        for k in range(3)
    ]  # fmt: skip
    sound = read_footage(joined(tmp_path / "a.oga", *parts), rate=16_000).sound
    assert len(sound) == pytest.approx(6 * 16_000, abs=800)
    assert [second_heard(sound[at : at + 8000]) for at in (8000, 40_000, 72_000)] == [1, 2, 3]


# Edit lists of MP4: a presentation begins where the list says, not where the media do


def with_edits(path: Path, edits: dict[str, list[tuple[float, float]]]) -> Path:
    """Replace the edit lists of an mp4 film by `(seconds, from)` each, −1 for nothing shown.

    ISO/IEC 14496-12, 8.6.6: the duration in the movie's time scale, the media time in the track's.
    """
    content = path.read_bytes()
    moov = content.index(b"moov") - 4
    movie_scale = int.from_bytes(content[moov + 8 + 20 : moov + 8 + 24], "big")
    head, tracks = content[: moov + 8], b""
    at = moov + 8
    while at < moov + int.from_bytes(content[moov : moov + 4], "big"):
        size = int.from_bytes(content[at : at + 4], "big")
        box = content[at : at + size]
        if box[4:8] == b"trak":
            kind = "video" if b"vide" in box else "audio"
            mdhd = box.index(b"mdhd") + 4
            scale = int.from_bytes(box[mdhd + 12 : mdhd + 16], "big")
            if b"edts" in box:
                cut = box.index(b"edts") - 4
                box = box[:cut] + box[cut + int.from_bytes(box[cut : cut + 4], "big") :]
            entries = b"".join(
                struct.pack(
                    ">IiI",
                    round(seconds * movie_scale),
                    -1 if begin < 0 else round(begin * scale),
                    1 << 16,
                )
                for seconds, begin in edits[kind]
            )
            elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits[kind])) + entries
            edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
            body = box[8:]
            tkhd = int.from_bytes(body[:4], "big")
            box = body[:tkhd] + edts + body[tkhd:]
            box = struct.pack(">I4s", 8 + len(box), b"trak") + box
        tracks += box
        at += size
    assert moov + int.from_bytes(content[moov : moov + 4], "big") == len(content), "it is the last"
    path.write_bytes(head[:-8] + struct.pack(">I4s", 8 + len(tracks), b"moov") + tracks)
    return path


@pytest.mark.parametrize(
    ("video", "audio", "expected"),
    [
        ([(4, 0)], [(4, 0)], [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ([(3, 1)], [(3, 1)], [(1, 1), (2, 2), (3, 3)]),
        ([(2, 1.5)], [(2, 1.5)], [(1, 1), (2, 2)]),
        ([(4, 0)], [(1, -1), (3, 0)], [(0, None), (1, 0), (2, 1), (3, 2)]),
        ([(1, -1), (3, 0)], [(4, 0)], [(0, 0), (0, 1), (1, 2), (2, 3)]),
        ([(2, -1), (4, 0)], [(2, -1), (4, 0)], [(0, 0), (1, 1), (2, 2), (3, 3)]),
    ],
    ids=["all", "from 1 s", "from 1.5 s", "sound later", "pictures later", "both later"],
)
def test_an_edit_list_says_what_is_shown_when(tmp_path, take, video, audio, expected):
    path = tmp_path / "a.mp4"
    path.write_bytes(take(".mp4", 0).read_bytes())
    with_edits(path, {"video": video, "audio": audio})
    at = 0.25 if video[0][1] == 1.5 else 0.5
    footage = read(path, 4)
    seconds = len(expected)
    assert footage.seconds == pytest.approx(seconds, abs=0.1)
    for k, pair in enumerate(expected):
        window = read(path, 1, start=k + at - 0.05, end=k + at + 0.05)
        assert next(moments(window)) == pair
