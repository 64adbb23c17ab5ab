"""Files are known by their endings and, without one, by what is in them."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcoop.datasets.file_kinds import ENDINGS, file_kinds, kinds_by_content, kinds_by_ending, stem

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
PLAIN = Image.new("RGB", (8, 8), (65, 66, 67))  # its bytes are letters


def save_sound(form: str) -> Callable[[Path], None]:
    tone = np.sin(np.arange(4000) / 5)
    return lambda path: soundfile.write(path, tone, 8000, format=form)


def save_picture(form: str, picture: Image.Image = PICTURE) -> Callable[[Path], None]:
    return lambda path: picture.save(path, form)


def save_film(form: str, codec: str = "mpeg4") -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with av.open(str(path), "w", format=form) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for noise in np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
            container.mux(stream.encode())

    return save


def save_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


FILES = [
    ("au", {"sound"}, save_sound("AU")),
    ("aiff", {"sound"}, save_sound("AIFF")),
    ("aif", {"sound"}, save_sound("AIFF")),
    ("caf", {"sound"}, save_sound("CAF")),
    ("w64", {"sound"}, save_sound("W64")),
    ("sph", {"sound"}, save_sound("NIST")),
    ("mp3", {"sound"}, save_sound("MP3")),
    ("oga", {"sound"}, save_sound("OGG")),
    ("MTS", {"video"}, save_film("mpegts")),
    ("m2ts", {"video"}, save_film("mpegts")),
    ("vob", {"video"}, save_film("vob", "mpeg2video")),
    ("mov", {"video"}, save_film("mov")),
    ("mkv", {"video"}, save_film("matroska")),
    ("avi", {"video"}, save_film("avi")),
    ("gif", {"video", "picture"}, save_picture("GIF")),
    ("ppm", {"picture"}, save_picture("PPM")),
    ("pnm", {"picture"}, save_picture("PPM", PLAIN)),
    ("avif", {"picture"}, save_picture("AVIF")),
    ("tif", {"picture"}, save_picture("TIFF")),
    ("jp2", {"picture"}, save_picture("JPEG2000")),
    ("npy", {"array"}, save_array),
]


@pytest.mark.parametrize(("ending", "kinds", "save"), FILES, ids=[ending for ending, *_ in FILES])
def test_a_file_is_known_by_its_ending_and_by_its_content(tmp_path, ending, kinds, save):
    for name in (f"a.{ending}", "none", "other.xyz", "no. 5"):
        save(tmp_path / name)
        assert file_kinds(tmp_path / name) == kinds
        assert kinds_by_content(tmp_path / name) == kinds
        assert kinds_by_ending(tmp_path / name) == (kinds if name.startswith("a.") else set())


def test_sound_with_a_picture_of_its_cover_is_sound(tmp_path):
    path = tmp_path / "song"
    cover = tmp_path / "cover.png"
    PICTURE.save(cover)
    with av.open(str(path), "w", format="flac") as container, av.open(str(cover)) as picture:
        sound = container.add_stream("flac", rate=8000, layout="mono")
        image = container.add_stream_from_template(picture.streams.video[0])
        image.disposition = av.stream.Disposition.attached_pic
        for packet in picture.demux():
            if packet.size:
                packet.stream = image
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.ones((1, 4096), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with av.open(str(path)) as container:
        assert container.streams.video
    assert kinds_by_content(path) == {"sound"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"some text\n" * 500,
        "ü".encode() * 2000,
        b"\x1b[31mred\x1b[0m" * 100,
        json.dumps(list(range(2000))).encode(),
        pickle.dumps(np.arange(5000.0)),
        np.random.default_rng(0).bytes(100_000),
        bytes(100_000),
        b"\xff\xfb\x90" * 30_000,  # the beginnings of frames of an .mp3, and no frame
        b"PK\x03\x04" + np.random.default_rng(1).bytes(20_000),
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"#EXTM3U\n#EXTINF:10,\na.mp4\n",
        b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
    ],
)
def test_what_is_no_media_is_of_no_kind(tmp_path, content):
    save_film("mov")(tmp_path / "a.mp4")  # for those that name it
    (tmp_path / "file").write_bytes(content)
    assert kinds_by_content(tmp_path / "file") == frozenset()


@pytest.mark.parametrize("ending", [".part", ".crdownload", ".LRV"])
def test_what_is_not_complete_or_a_copy_is_not_looked_into(tmp_path, ending):
    save_film("mpegts")(tmp_path / f"a{ending}")
    assert file_kinds(tmp_path / f"a{ending}") == frozenset()


def test_what_cannot_be_read_is_of_no_kind(tmp_path):
    assert kinds_by_content(tmp_path / "none") == frozenset()
    assert kinds_by_content(tmp_path) == frozenset()


def test_only_a_gif_may_be_of_two_kinds():
    for ending in frozenset.union(*ENDINGS.values()):
        assert ending == ending.lower()
        assert Path(f"a{ending}").suffix == ending
        assert len(kinds_by_ending(Path(f"a{ending}"))) == (2 if ending == ".gif" else 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mp4", "a"),
        ("a.3GP", "a"),
        ("a.tar.xyz", "a.tar"),
        ("a", "a"),
        ("op. 5", "op. 5"),
        ("v1.5", "v1.5"),
        ("a.unknown_video", "a"),
    ],
)
def test_an_ending_is_what_follows_the_last_dot_unless_it_is_a_number(name, expected):
    assert stem(Path("folder") / name) == expected
