"""Sound files: what is read is what is in the file, at the rate asked for."""

import math
import wave
from pathlib import Path

import numpy as np
import pytest

from mmcoop.datasets.media import read_audio
from mmcoop.errors import DataError


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


@pytest.mark.parametrize(
    ("clip", "seconds", "silent"),
    [
        ("mdn_rabbit320.mp4", 7.78, False),
        ("audio_torchcodec_nasa.mp3", 13.06, False),
        ("grid/bbaf2n.mpg", 2.98, False),
        ("moviepy_no_duration.webm", 4.86, True),  # a sound track of zeros
    ],
)
def test_the_sound_of_real_clips_is_read_to_its_end(shared_data, clip, seconds, silent):
    sound = read_audio(shared_data / "clips" / clip, 8000)
    assert sound.dtype == np.float32
    assert len(sound) / 8000 == pytest.approx(seconds, abs=0.01)
    assert np.isfinite(sound).all()
    assert (sound.std() < 0.001) == silent


@pytest.mark.parametrize("clip", ["silent_torchcodec_h265.mp4", "silent_torchcodec_av1.mkv"])
def test_a_silent_film_has_no_sound(shared_data, clip):
    with pytest.raises(DataError, match=f"{clip} has no sound"):
        read_audio(shared_data / "clips" / clip, 8000)


def test_a_wav_without_samples_has_no_sound(tmp_path):
    path = write_wav(tmp_path / "empty.wav", np.zeros(0), 8000)
    with pytest.raises(DataError, match=r"empty\.wav has no sound"):
        read_audio(path, 8000)


@pytest.mark.parametrize("content", [b"", b"these are words\n" * 50, b"RIFF\x24\x00\x00\x00WAVE"])
def test_what_is_not_a_sound_file_is_named(tmp_path, content):
    (tmp_path / "odd.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.wav cannot be read as sound: "):
        read_audio(tmp_path / "odd.wav", 8000)


@pytest.mark.parametrize("name", ["none.wav", "."])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read as sound: .*(No such file|directory)"):
        read_audio(tmp_path / name, 8000)


def test_a_file_whose_channels_change_on_the_way_is_read_or_named(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    sound = sine(440, 16_000)
    soundfile.write(tmp_path / "mono.mp3", sound, 16_000)
    soundfile.write(tmp_path / "stereo.mp3", np.stack([sound, sound], 1), 16_000)
    both = (tmp_path / "mono.mp3").read_bytes() + (tmp_path / "stereo.mp3").read_bytes()
    (tmp_path / "both.mp3").write_bytes(both)
    try:
        assert len(read_audio(tmp_path / "both.mp3", 8000)) > 15_000
    except DataError as error:
        assert "both.mp3" in str(error)
