"""What is read of a clip, for each kind of modality, and why a clip is not usable."""

import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mmcoop.datasets import clip_reader as reader
from mmcoop.datasets import media
from mmcoop.datasets.clip_reader import Clip, Reading, check_clip, read_array, read_clip
from mmcoop.datasets.flow import dense_flow
from mmcoop.datasets.media import read_audio, read_footage
from mmcoop.datasets.modality import Modality
from mmcoop.datasets.reader import open_dataset
from mmcoop.datasets.rejects import REASONS, Unusable
from mmcoop.datasets.spectrogram import filter_bank
from mmcoop.datasets.transforms import build_transform
from mmcoop.datasets.writer import Header, write_dataset
from mmcoop.errors import DataError

AV = {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}


def of_arrays(*shape: int) -> Modality:
    """Vectors or series that are not normalised."""
    kind, encoder = ("vector", "mlp") if len(shape) == 1 else ("series", "conv1d")
    return Modality(kind, shape, "float32", encoder)


def picture(k: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth picture of its own for every k, uint8 `(height, width, 3)`."""
    coarse = np.random.default_rng(k).integers(40, 216, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def noise(rate: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(rate * seconds))


@pytest.fixture(scope="module")
def talk(film, tmp_path_factory) -> Path:
    """Four seconds, 100 pictures, with sound. Five a scene, in which all moves to the right."""
    return film(
        tmp_path_factory.mktemp("talk") / "talk.mp4",
        [np.roll(picture(k // 5), 2 * (k % 5), axis=1) for k in range(100)],
        sound=noise(48_000, 4.0),
    )


def clip(path: Path, **more: Any) -> Clip:
    return Clip("one", "train", 0, "someone", {"path": path}, **more)


def decoded(jpegs: list[bytes]) -> list[np.ndarray]:
    pictures = [Image.open(io.BytesIO(jpeg)) for jpeg in jpegs]
    assert all(one.format == "JPEG" for one in pictures)
    return [np.asarray(one) for one in pictures]


def unusable(one: Clip, reading: Reading, message: str) -> str:
    """The reason for which a clip cannot be read, with such a message."""
    with pytest.raises(Unusable, match=message) as caught:
        read_clip(one, reading)
    assert caught.value.reason in REASONS
    return caught.value.reason


# Films and sound


@pytest.mark.parametrize("window", [(None, None), (1.3, 3.1)])
def test_frames_and_sound_of_a_film_are_those_of_its_window(talk, window):
    start, end = window
    row = read_clip(clip(talk, start=start, end=end), Reading(AV, frames=4))
    assert sorted(row) == ["audio", "duration", "notes", "visual"]
    assert row["notes"] == ""
    footage = read_footage(talk, start=start, end=end, frames=4, short_side=256, rate=16_000)
    assert row["duration"] == pytest.approx(1.8 if start else 4.0, abs=0.03)
    np.testing.assert_array_equal(row["audio"], filter_bank(footage.sound))
    assert len(row["visual"]) == 4
    for got, frame in zip(decoded(row["visual"]), footage.frames, strict=True):
        assert got.shape == frame.shape == (60, 80, 3)
        assert np.abs(got.astype(float) - frame).mean() < 4, "but for JPEG"
    whole = 3.9 if start is None else 1.7
    assert (row["audio"][0, 64] != 0).sum() == pytest.approx(100 * whole, abs=12)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("times", [1, 3, 5])
def test_more_frames_may_be_stored_than_are_seen_and_evaluation_sees_the_same(talk, frames, times):
    """The middle of each part is what is stored where nothing is drawn."""
    pytest.importorskip("cv2")
    kinds = {"visual": ("frames", "path"), "motion": ("flow", "path")}
    few, many = (
        Reading(kinds, frames=frames, stored_frames=stored, size=48)
        for stored in (None, frames * times)
    )
    rows = read_clip(clip(talk), few), read_clip(clip(talk), many)
    assert len(rows[1]["visual"]) == len(rows[1]["motion"]) == frames * times
    for name in kinds:
        seen = [
            build_transform(reading.modalities()[name], training=False)([row[name]])
            if name == "visual"
            else build_transform(reading.modalities()[name], training=False)(row[name][None])
            for reading, row in zip((few, many), rows, strict=True)
        ]
        assert torch.equal(*seen)


@pytest.mark.parametrize(("short_side", "stored"), [(30, (30, 40)), (256, (60, 80))])
def test_frames_are_stored_with_the_shorter_side_asked_for(talk, short_side, stored):
    row = read_clip(clip(talk), Reading(AV, frames=2, short_side=short_side))
    assert [got.shape for got in decoded(row["visual"])] == [(*stored, 3)] * 2


def test_the_last_frame_is_stored_where_no_flow_needs_a_next_one(film, tmp_path):
    path = film(tmp_path / "a.mkv", [picture(k) for k in range(3)], codec="ffv1", fps=5)
    frames = decoded(read_clip(clip(path), Reading({"visual": AV["visual"]}))["visual"])
    for k, frame in enumerate(frames):
        assert np.abs(frame.astype(float) - picture(k)).mean() < 5


@pytest.mark.parametrize("name", ["visual", "audio"])
def test_only_what_is_asked_for_is_read(talk, name):
    row = read_clip(clip(talk), Reading({name: AV[name]}))
    assert sorted(row) == sorted(["duration", "notes", name])


def test_flow_is_that_between_each_frame_and_the_next(talk):
    pytest.importorskip("cv2")
    kinds = {**AV, "motion": ("flow", "path")}
    row = read_clip(clip(talk), Reading(kinds, frames=2, size=48))
    footage = read_footage(talk, frames=2, pairs=True, short_side=256)
    assert row["motion"].shape == (2, 2, 48, 48)
    for field, a, b in zip(row["motion"], footage.frames, footage.following, strict=True):
        np.testing.assert_array_equal(field, dense_flow(a, b, 48))
        assert np.median(field[0]) > 128 + 3
    alone = read_clip(clip(talk), Reading({"motion": ("flow", "path")}, frames=2, size=48))
    np.testing.assert_array_equal(alone["motion"], row["motion"])


def test_flow_needs_opencv(talk, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DataError, match=r"pip install 'mmcoop\[flow\]'"):
        read_clip(clip(talk), Reading({"motion": ("flow", "path")}))


@pytest.mark.parametrize("kinds", [AV, {**AV, "motion": ("flow", "path")}])
def test_all_that_is_taken_from_a_file_is_decoded_at_once(talk, monkeypatch, kinds):
    """Counts the calls that decode, and lets them through."""
    pytest.importorskip("cv2")
    asked = []

    def counting(path: Path, **what: Any) -> Any:
        asked.append((path, what["frames"], what["rate"], what["threads"]))
        return read_footage(path, **what)

    monkeypatch.setattr(reader, "read_footage", counting)
    read_clip(clip(talk), Reading(kinds, size=32))
    assert asked == [(talk, 3, 16_000, 1)]


def test_modalities_may_be_in_files_of_their_own(talk, film, tmp_path):
    speech = film(tmp_path / "speech.wav", sound=noise(16_000, 3.0), sound_codec="pcm_s16le", rate=16_000)  # fmt: skip  # noqa: E501
    np.save(tmp_path / "a.npy", np.arange(6.0))
    Image.fromarray(picture(3)).save(tmp_path / "a.png")
    one = Clip(
        "one", "train", 0, "someone",
        {"film": talk, "speech": speech, "array": tmp_path / "a.npy", "face": tmp_path / "a.png"},
    )  # fmt: skip
    kinds = {
        "audio": ("spectrogram", "speech"),
        "visual": ("frames", "film"),
        "pose": ("vector", "array"),
        "face": ("image", "face"),
    }
    row = read_clip(one, Reading(kinds, arrays={"pose": of_arrays(6)}, size=32))
    assert sorted(row) == ["audio", "duration", "face", "notes", "pose", "visual"]
    np.testing.assert_array_equal(row["audio"], filter_bank(read_audio(speech, 16_000)))
    assert row["duration"] == pytest.approx(3.0), "the shorter one's"
    assert len(row["visual"]) == 3


def test_further_columns_are_in_the_row(talk):
    row = read_clip(clip(talk, columns={"speaker": "Ada", "age": 36}), Reading(AV))
    assert (row["speaker"], row["age"]) == ("Ada", 36)


@pytest.mark.parametrize(
    ("start", "end", "whole"),
    [
        (10.0, 14.0, True),  # as long as the file
        (10.0, 13.1, True),  # the file is 0.9 s longer: cutting at key frames leaves that
        (10.0, 20.0, True),  # the file ends early
        (1.0, 3.9, False),  # 1.1 s longer: the window is in the file
        (1.0, 2.0, False),
        (1.0, None, False),
        (None, 3.5, False),
    ],
)
def test_a_file_hardly_longer_than_the_window_is_perhaps_the_clip_already(talk, start, end, whole):
    row = read_clip(clip(talk, start=start, end=end, perhaps_cut=True), Reading(AV, frames=4))
    window = {} if whole else {"start": start, "end": end}
    footage = read_footage(talk, frames=4, rate=16_000, **window)
    np.testing.assert_array_equal(row["audio"], filter_bank(footage.sound))
    assert row["duration"] == footage.seconds
    for got, frame in zip(decoded(row["visual"]), footage.frames, strict=True):
        assert np.abs(got.astype(float) - frame).mean() < 4, "but for JPEG"


def test_a_video_is_never_taken_for_the_clip_unless_it_may_be(talk):
    one = clip(talk, start=10.0, end=14.0)
    assert unusable(one, Reading(AV), "talk.mp4: it has nothing from 10 s on") == "outside-file"


@pytest.mark.parametrize(
    ("window", "lasts"), [((3.7, 9.0), 0.3), ((1.0, 1.4), 0.4)], ids=["cut off", "short"]
)
@pytest.mark.parametrize("kinds", [AV, {"visual": AV["visual"]}, {"audio": AV["audio"]}])
def test_less_than_is_needed_is_too_short(talk, window, lasts, kinds):
    one = clip(talk, start=window[0], end=window[1])
    message = r"talk.mp4: 0\.\d\d s of it, at least 0.5 needed"
    assert unusable(one, Reading(kinds), message) == "too-short"
    row = read_clip(one, Reading(kinds, min_seconds=lasts - 0.01))
    assert row["duration"] == pytest.approx(lasts, abs=0.03)
    with pytest.raises(Unusable, match=f"at least {lasts + 0.05:g} needed"):
        read_clip(one, Reading(kinds, min_seconds=lasts + 0.05))


def test_a_filter_bank_needs_the_25_ms_of_a_window_of_it(film, tmp_path):
    audio = {"audio": AV["audio"]}
    for samples in (399, 400):
        path = film(
            tmp_path / f"{samples}.wav",
            sound=noise(16_000, samples / 16_000),
            sound_codec="pcm_s16le",
            rate=16_000,
        )
        if samples < 400:
            message = "399.wav: 0.02 s of it, at least 0.025 needed"
            assert unusable(clip(path), Reading(audio, min_seconds=0), message) == "too-short"
        else:
            row = read_clip(clip(path), Reading(audio, min_seconds=0))
            assert (row["audio"][0, :, 0] != 0).all()


@pytest.mark.parametrize(
    ("level", "notes"), [(0.0, "silent-sound"), (0.3, "silent-sound"), (0.001, ""), (None, "")]
)
def test_sound_in_which_nothing_is_heard_is_noted(film, tmp_path, level, notes):
    """Digital silence, with or without an offset; not what is faint."""
    if level is None:
        sound = noise(16_000, 2.0)
    else:
        sound = np.full(32_000, level)
        sound[::2] += 0.001 * (level == 0.001)
    path = film(tmp_path / "a.wav", sound=sound, sound_codec="pcm_s16le", rate=16_000)
    row = read_clip(clip(path), Reading({"audio": AV["audio"]}))
    assert row["notes"] == notes


@pytest.mark.parametrize("kinds", [AV, {"visual": AV["visual"]}, {"audio": AV["audio"]}])
def test_a_clip_that_ends_before_its_file_says_is_noted(film, tmp_path, kinds):
    """A recording of 4 s that was cut off at the end of a block, after which nothing is damaged."""
    path = film(
        tmp_path / "a.webm",
        [picture(k) for k in range(100)],
        codec="libvpx",
        options={"deadline": "realtime", "cpu-used": "8"},
        sound=noise(48_000, 4.0),
        sound_codec="libopus",
    )
    reading = Reading(kinds)
    assert read_clip(clip(path), reading)["notes"] == ""
    with av.open(str(path)) as container:
        block = next(p.pos for p in container.demux(video=0) if p.pts and p.pts >= 1500)
    path.write_bytes(path.read_bytes()[:block])
    row = read_clip(clip(path), reading)
    assert row["duration"] == pytest.approx(1.5, abs=0.1)
    assert row["notes"] == "cut-short"
    assert read_clip(clip(path, start=0.2, end=1.3), reading)["notes"] == ""
    assert read_clip(clip(path, start=0.2, end=3.3), reading)["notes"] == "cut-short"


def test_a_clip_whose_sound_ends_before_its_pictures_lacks_nothing(film, tmp_path):
    path = film(
        tmp_path / "a.mkv", [picture(k) for k in range(100)], sound=noise(48_000, 1.0),
        sound_codec="flac",
    )  # fmt: skip
    assert read_clip(clip(path), Reading(AV))["notes"] == ""


@pytest.mark.parametrize(("steps", "notes"), [(200, "sound-cut"), (390, ""), (600, "")])
def test_a_spectrogram_has_the_length_asked_for_and_what_it_cuts_is_noted(talk, steps, notes):
    reading = Reading({"audio": AV["audio"]}, time_steps=steps)
    row = read_clip(clip(talk), reading)
    assert row["audio"].shape == reading.modalities()["audio"].shape == (1, 128, steps)
    assert row["notes"] == notes
    paper = read_clip(clip(talk), Reading({"audio": AV["audio"]}))["audio"]
    np.testing.assert_array_equal(row["audio"], paper[..., :steps])


def test_a_film_without_sound_or_sound_without_a_film_is_refused(film, tmp_path):
    mute = film(tmp_path / "mute.mp4", [picture(k) for k in range(50)])
    sound = film(tmp_path / "sound.wav", sound=noise(48_000, 2), sound_codec="pcm_s16le")
    assert unusable(clip(mute), Reading(AV), "mute.mp4: it has no sound") == "no-audio"
    assert unusable(clip(sound), Reading(AV), "sound.wav is a sound file") == "no-video"
    assert read_clip(clip(mute), Reading({"visual": AV["visual"]}))["duration"] == 2.0
    assert read_clip(clip(sound), Reading({"audio": AV["audio"]}))["duration"] == 2.0


# Flow computed before


@pytest.fixture
def flow_folder(tmp_path) -> Path:
    for direction, level in (("u", 100), ("v", 150)):
        (tmp_path / "flow" / direction / "talk").mkdir(parents=True)
        for k in range(3):
            grey = Image.fromarray(np.full((20, 20), level + k, np.uint8))
            grey.save(tmp_path / "flow" / direction / "talk" / f"{k}.png")
    return tmp_path / "flow"


@pytest.mark.parametrize("others", [{}, AV])
def test_flow_computed_before_is_that_of_the_folder_with_the_file_s_name(
    talk, flow_folder, monkeypatch, others
):
    """Without OpenCV, and without decoding the film where nothing else is taken from it."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    if not others:
        monkeypatch.setattr(reader, "read_footage", None)
    kinds = {**others, "motion": ("flow", "path")}
    row = read_clip(clip(talk), Reading(kinds, size=16, flow_folder=flow_folder))
    assert sorted(row) == sorted([*others, "motion", "duration", "notes"])
    assert row["duration"] == pytest.approx(4.0, abs=0.03)
    # of pictures of 20 × 20: a pixel is 0.8 of one of the field
    levels = [[128 + 0.8 * (level + k - 128) for level in (100, 150)] for k in range(3)]
    expected = [np.full((2, 16, 16), np.round(level)[:, None, None]) for level in levels]
    np.testing.assert_array_equal(row["motion"], np.stack(expected))


def test_a_film_without_flow_is_missing_it(film, tmp_path, flow_folder):
    path = film(tmp_path / "walk.mp4", [picture(k) for k in range(50)])
    reading = Reading({"motion": ("flow", "path")}, flow_folder=flow_folder)
    assert unusable(clip(path), reading, "no flow pictures in .*walk") == "missing"


def test_flow_of_what_is_no_film_is_refused(tmp_path, flow_folder):
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"words")
    reading = Reading({"motion": ("flow", "path")}, flow_folder=flow_folder)
    assert unusable(clip(path), reading, "talk.mp4: Invalid data found") == "unreadable"


# Pictures


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("png", mode) for mode in ("RGB", "L", "RGBA", "P", "LA", "1")),
        *(("tif", mode) for mode in ("RGB", "L", "RGBA", "P", "CMYK")),
        *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *(("webp", mode) for mode in ("RGB", "L", "RGBA")),
        *(("bmp", mode) for mode in ("RGB", "L", "P")),
    ],
)
def test_a_picture_is_scaled_to_a_square_in_three_colours(tmp_path, kind, mode):
    """By Pillow itself, of the same file; its colours are near those that were saved."""
    path, original = tmp_path / f"a.{kind}", Image.fromarray(picture(1))
    original.convert(mode).save(path, lossless=True)
    row = read_clip(clip(path), Reading({"face": ("image", "path")}, size=24))
    assert row["duration"] is None
    assert row["face"].shape == (3, 24, 24)
    assert row["face"].dtype == np.uint8
    opened = Image.open(path).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(row["face"].transpose(1, 2, 0), np.asarray(opened))
    if mode in ("RGB", "RGBA"):
        expected = np.asarray(original.resize((24, 24), Image.Resampling.BILINEAR), float)
        assert np.abs(row["face"].transpose(1, 2, 0) - expected).mean() < 3


def test_a_picture_whose_levels_are_not_bytes_is_refused(tmp_path):
    """Pillow would make it white wherever it is brighter than 255."""
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(levels).save(tmp_path / "a.png")
    message = r"a.png: its pixels have more than eight bits \(mode I;16\): .* as .npy arrays"
    reading = Reading({"face": ("image", "path")})
    assert unusable(clip(tmp_path / "a.png"), reading, message) == "unreadable"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says what is odd about each
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "webp"])
def test_a_damaged_picture_is_read_or_unreadable_and_nothing_else(tmp_path, kind):
    path, rng = tmp_path / f"a.{kind}", np.random.default_rng(0)
    Image.fromarray(picture(1)).save(path)
    whole, reading = path.read_bytes(), Reading({"face": ("image", "path")}, size=16)
    for share in (0.0, 0.02, 0.5):
        path.write_bytes(whole[: int(share * len(whole))])
        assert unusable(clip(path), reading, f"a.{kind}") == "unreadable"
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 200), 6):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert read_clip(clip(path), reading)["face"].shape == (3, 16, 16)
        except Unusable as error:
            assert error.reason in ("unreadable", "too-large")


@pytest.mark.parametrize(
    "chunk", [b"\xf7\xe8;\xff", b"IDAT"], ids=["a chunk of no name", "an empty one"]
)
def test_a_picture_that_pillow_calls_a_syntax_error_is_unreadable(tmp_path, chunk):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    at = content.index(b"IDAT") - 4
    path.write_bytes(content[:at] + b"\0\0\0\0" + chunk + b"\0\0\0\0" + content[at + 4 :])
    reading = Reading({"face": ("image", "path")})
    assert unusable(clip(path), reading, "a.png: ") == "unreadable"


@pytest.mark.parametrize("pixels", [60 * 80 - 1, 60 * 80 // 3])
def test_a_picture_beyond_the_limit_is_too_large(tmp_path, monkeypatch, pixels):
    path = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(path)
    reading = Reading({"face": ("image", "path")})
    monkeypatch.setattr(media, "LARGEST_PICTURE", pixels)
    assert unusable(clip(path), reading, "a.png: it has 80 × 60 pixels") == "too-large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 80 // 2 - 1)
    assert unusable(clip(path), reading, "a.png: Image size .* exceeds limit") == "too-large"
    monkeypatch.undo()
    assert read_clip(clip(path), reading)["face"].shape == (3, 224, 224)


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(4, 3),
        np.arange(12, dtype=np.int16).reshape(4, 3),
        np.arange(12, dtype=">f8").reshape(4, 3),
        np.asfortranarray(np.arange(12.0).reshape(4, 3)),
        np.arange(12).reshape(4, 3) % 2 == 0,
        np.arange(12, dtype=np.uint64).reshape(4, 3) * 10**17,
    ],
)
def test_an_array_of_numbers_is_read_as_float32(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    read = read_array(tmp_path / "a.npy")
    assert read.dtype == np.float32
    assert type(read) is np.ndarray or not isinstance(read.base, np.memmap)
    np.testing.assert_array_equal(read, array.astype(np.float32))
    (tmp_path / "a.npy").unlink()
    kind = Reading({"pose": ("series", "path")}, arrays={"pose": of_arrays(4, 3)})
    np.save(tmp_path / "b.npy", array)
    np.testing.assert_array_equal(read_clip(clip(tmp_path / "b.npy"), kind)["pose"], read)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["1.5", "2"]),
        np.array([b"1"]),
        np.array([1 + 2j]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([None, 1.0], object),
        np.zeros(2, [("x", "f4"), ("y", "f4")]),
    ],
    ids=["text", "bytes", "complex", "dates", "objects", "records"],
)
def test_an_array_of_anything_else_is_unreadable(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(Unusable, match="a.npy: not an array of numbers: ") as caught:
        read_array(tmp_path / "a.npy")
    assert caught.value.reason == "unreadable"


def test_what_is_pickled_is_never_unpickled(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    for content in (pickle.dumps(Malicious()), None):
        if content is None:
            np.save(tmp_path / "a.npy", np.array([Malicious()], object), allow_pickle=True)
        else:
            (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(Unusable, match="a.npy: not an array of numbers: "):
            read_array(tmp_path / "a.npy")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"words, words, words",
        b"PK\x03\x04 not a zip file",
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3".ljust(90),
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': +}".ljust(90),
        b"\x93NUMPY\x01\x00\x46\x00{'descr': ',f8', 'fortran_order': False, 'shape': (3,)}".ljust(
            90
        ),
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117)
        + b"\n12345678",
    ],
    ids=["empty", "begun", "text", "zip", "unended", "no shape", "no type", "a terabyte"],
)
def test_what_is_no_array_is_unreadable(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(Unusable, match="a.npy: not an array of numbers: ") as caught:
        read_array(tmp_path / "a.npy")
    assert caught.value.reason == "unreadable"


def test_several_arrays_in_a_file_are_unreadable(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, a=np.ones(3))
    with pytest.raises(Unusable, match="a.npy: not an array of numbers: "):
        read_array(tmp_path / "a.npy")


def test_an_array_that_is_not_there_is_unreadable(tmp_path):
    with pytest.raises(Unusable, match="none.npy: not an array of numbers: .*No such file"):
        read_array(tmp_path / "none.npy")


def test_an_array_of_another_shape_is_refused_with_both(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 3)))
    reading = Reading({"pose": ("series", "path")}, arrays={"pose": of_arrays(5, 3)})
    message = r"a.npy: shape \(4, 3\), the first one's is \(5, 3\)"
    assert unusable(clip(tmp_path / "a.npy"), reading, message) == "wrong-shape"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_an_array_with_what_is_no_number_is_refused(tmp_path, number):
    np.save(tmp_path / "a.npy", np.array([1.0, number]))
    with pytest.raises(Unusable, match="a.npy has NaN or infinite numbers") as caught:
        read_array(tmp_path / "a.npy", (2,))
    assert caught.value.reason == "not-a-number"


# Files


KINDS = ["frames", "spectrogram", "flow", "image", "vector"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["nothing", "folder", "broken link", "loop", "long", "null"])
def test_what_is_no_file_is_missing(tmp_path, kind, what):
    path = tmp_path / "a.mp4"
    if what == "folder":
        path.mkdir()
    elif what == "broken link":
        path.symlink_to(tmp_path / "none")
    elif what == "loop":
        path.symlink_to(path)
    elif what == "long":
        path = tmp_path / ("a" * 300 + ".mp4")
    elif what == "null":
        path = tmp_path / "a\0.mp4"
    reading = Reading({"it": (kind, "path")}, arrays={"it": of_arrays(2)})
    assert unusable(clip(path), reading, "is not there, or is not a file") == "missing"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_is_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / "a.mp4")
    reading = Reading({"it": (kind, "path")}, arrays={"it": of_arrays(2)})
    message = "a.mp4 is not there, or is not a file"
    assert unusable(clip(tmp_path / "a.mp4"), reading, message) == "missing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_beyond_the_limit_is_too_large(tmp_path, kind):
    (tmp_path / "a.bin").write_bytes(bytes(12_345))
    message = "a.bin has 12,345 bytes, the limit is 12,344"
    reading = Reading({"it": (kind, "path")}, max_bytes=12_344, arrays={"it": of_arrays(2)})
    assert unusable(clip(tmp_path / "a.bin"), reading, message) == "too-large"
    reading = Reading({"it": (kind, "path")}, max_bytes=12_345, arrays={"it": of_arrays(2)})
    assert unusable(clip(tmp_path / "a.bin"), reading, "a.bin") == "unreadable"


@pytest.mark.parametrize(
    ("kind", "content", "more", "reason"),
    [
        ("frames", b"", {}, "unreadable"),
        ("image", bytes(200), {}, "too-large"),
        ("frames", b"junk", {"start": 1.0, "end": 1.4}, "too-short"),
        ("spectrogram", b"junk", {"end": 0.2}, "too-short"),
        ("flow", b"junk", {"start": 5.0, "end": 3606.0}, "too-large"),
        ("flow", b"junk", {}, "missing"),
        ("vector", np.zeros(3), {}, "wrong-shape"),
        ("vector", b"junk", {}, "unreadable"),
    ],
)
def test_what_needs_no_decoding_is_known_beforehand(tmp_path, kind, content, more, reason):
    """The files are junk: decoded, all but arrays would be unreadable."""
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    arrays = {"it": of_arrays(2)} if kind == "vector" else {}
    reading = Reading(
        {"it": (kind, "path")}, max_bytes=199, arrays=arrays, flow_folder=tmp_path / "flow"
    )
    for look in (check_clip, read_clip):
        with pytest.raises(Unusable) as caught:
            look(clip(path, **more), reading)
        assert caught.value.reason == reason


def test_nothing_is_said_beforehand_of_what_only_decoding_tells(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"junk")
    check_clip(clip(tmp_path / "a.mp4"), Reading(AV))
    check_clip(clip(tmp_path / "a.mp4", start=3.0), Reading(AV))
    # of a file that may be the clip already, the window says nothing
    check_clip(clip(tmp_path / "a.mp4", start=1.0, end=1.2, perhaps_cut=True), Reading(AV))


def test_a_reason_survives_the_way_from_one_process_to_another():
    error = Unusable("no-audio", "a.mp4: it has no sound")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.detail) == ("no-audio", "a.mp4: it has no sound")
    assert str(copy) == str(error) == "a.mp4: it has no sound"


# Described as they are read


def test_what_is_read_is_what_the_data_set_says_of_it(talk, film, tmp_path):
    """Every kind of modality goes through the writer, and comes back as it went in."""
    pytest.importorskip("cv2")
    lying = film(tmp_path / "lying.webm", [picture(k, 90, 50) for k in range(30)],
        codec="libvpx", sound=noise(48_000, 1.2), sound_codec="libopus")  # fmt: skip
    np.save(tmp_path / "v.npy", np.arange(7.0))
    np.save(tmp_path / "s.npy", np.arange(15.0).reshape(5, 3))
    Image.fromarray(picture(9)).save(tmp_path / "a.jpg")
    kinds = {
        "audio": ("spectrogram", "film"),
        "visual": ("frames", "film"),
        "motion": ("flow", "film"),
        "face": ("image", "face"),
        "pose": ("series", "pose"),
        "words": ("vector", "words"),
    }
    reading = Reading(
        kinds, frames=2, size=32, arrays={"pose": of_arrays(5, 3), "words": of_arrays(7)}
    )
    header = Header(
        name="mine",
        recipe="folder",
        options={},
        classes=["talk", "silence"],
        modalities=reading.modalities(),
        source="made by the test",
        columns={"duration": "float32", "notes": "string", "speaker": "string"},
    )
    rows = {}
    with write_dataset(tmp_path / "mine", header) as writer:
        for split, path in (("train", talk), ("validation", lying), ("test", talk)):
            paths = {"film": path, "face": tmp_path / "a.jpg", "pose": tmp_path / "s.npy", "words": tmp_path / "v.npy"}  # fmt: skip  # noqa: E501
            one = Clip(split, split, 0, split, paths, columns={"speaker": "Ada"})
            rows[split] = read_clip(one, reading)
            writer.add(split, id=one.id, label=one.label, group=one.group, **rows[split])
    for split, row in rows.items():
        stored = open_dataset(tmp_path / "mine").split(split)
        for name, modality in reading.modalities().items():
            got = stored.read(name, np.array([0]))
            if modality.kind == "frames":
                assert got[0] == row[name]
                assert modality.shape[0] == len(row[name])
            else:
                assert row[name].shape == modality.shape
                assert row[name].dtype == modality.dtype
                np.testing.assert_array_equal(got[0], row[name])
            x = build_transform(modality, training=False)(got)
            assert x.shape == (1, *modality.input_shape)


def test_a_still_picture_is_near_the_middle_of_what_a_model_sees(tmp_path):
    """Normalised by the mean and deviation of the field's pictures; and no motion is 0."""
    modalities = Reading(
        {"face": ("image", "a"), "visual": ("frames", "b"), "motion": ("flow", "b")},
        size=8,
        frames=1,
    ).modalities()
    grey = np.empty((3, 8, 8), np.uint8)
    grey[:] = np.array([124, 116, 104])[:, None, None]  # 255 × (0.485, 0.456, 0.406)
    buffer = io.BytesIO()
    Image.fromarray(grey.transpose(1, 2, 0)).save(buffer, "JPEG", quality=100, subsampling=0)
    face = build_transform(modalities["face"], training=False)(grey[None])
    visual = build_transform(modalities["visual"], training=False)([[buffer.getvalue()]])
    still = build_transform(modalities["motion"], training=False)(
        np.full((1, 1, 2, 8, 8), 128, np.uint8)
    )
    assert face.abs().max() < 0.03
    assert visual.abs().max() < 0.05
    assert (still == 0).all()
    white = build_transform(modalities["face"], training=False)(
        np.full((1, 3, 8, 8), 255, np.uint8)
    )
    np.testing.assert_allclose(white[0, :, 0, 0], [2.249, 2.429, 2.640], atol=0.001)


def test_files_of_another_kind_are_known_without_decoding(talk, tmp_path):
    """By content where the ending is that of another kind: one that merely has it is read."""
    sound, still, film_named_ogg = (tmp_path / name for name in ("s.wav", "p.png", "film.ogg"))
    reader_of = {
        kind: Reading({"x": (kind, "path")}) for kind in ("frames", "spectrogram", "image")
    }
    soundfile.write(sound, noise(16_000, 2.0), 16_000)
    Image.fromarray(picture(0)).save(still)
    film_named_ogg.write_bytes(talk.read_bytes())
    for path, kind, reason in (
        (sound, "frames", "no-video"),
        (still, "frames", "no-video"),
        (sound, "image", "unreadable"),
        (still, "spectrogram", "unreadable"),
        (talk, "image", "unreadable"),
    ):
        with pytest.raises(Unusable) as caught:
            check_clip(clip(path), reader_of[kind])
        assert caught.value.reason == reason, (path, kind)
    for path, kind in ((sound, "spectrogram"), (still, "image"), (film_named_ogg, "frames")):
        check_clip(clip(path), reader_of[kind])
