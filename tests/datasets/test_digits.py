"""Digits seen and heard: the pictures are the real scans, and the noise is what it says it is."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mmcoop.datasets import digits

TONE_HZ = [500, 1000, 1700, 2500, 3300]


def sine(hertz: float, samples: int, power: float = 1.0) -> np.ndarray:
    """A sine of the given mean power at 8 kHz."""
    return math.sqrt(2 * power) * np.sin(2 * math.pi * hertz * np.arange(samples) / 8000)


def mel_centres() -> np.ndarray:
    """Centres, in Hz, of 40 triangles evenly spaced on the mel scale from 0 to 4 kHz."""
    edges = np.linspace(0, 2595 * math.log10(1 + 4000 / 700), 42)
    return 700 * (10 ** (edges[1:-1] / 2595) - 1)


# Pictures


def test_handwriting_is_scikit_learns_with_its_labels():
    pictures, labels = digits.handwriting()
    assert pictures.shape == (1797, 28, 28)
    assert pictures.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, load_digits().target)


def test_handwriting_is_the_scans_enlarged_bilinearly():
    """Pixel k of 28 lies at (k + ½) · 8/28 − ½ of the 8; beyond the outermost, theirs goes on."""
    at = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    for index in (0, 100, 1796):
        scan = load_digits().images[index] / 16
        wide = np.array([np.interp(at, range(8), row) for row in scan])
        expected = np.array([np.interp(at, range(8), column) for column in wide.T]).T
        np.testing.assert_allclose(digits.handwriting()[0][index], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.2), (0.34, 0.33, 0.33), (1.0, 0.0, 0.0)])
def test_pictures_are_shared_out_disjointly_and_completely_by_digit(shares):
    splits = digits.pictures_by_split(shares, np.random.default_rng(0))
    labels = load_digits().target
    assert [len(split) for split in splits] == [10, 10, 10]
    for digit in range(10):
        mine = np.concatenate([split[digit] for split in splits])
        assert sorted(mine) == np.flatnonzero(labels == digit).tolist()
        for share, split in zip(shares, splits, strict=True):
            assert len(split[digit]) >= 1  # however small the share
            assert abs(len(split[digit]) - share * len(mine)) <= (1 if min(shares) else 2)


def test_pictures_are_shared_out_as_the_seed_says():
    def shared_out(seed: int) -> list[int]:
        parts = digits.pictures_by_split((0.7, 0.1, 0.2), np.random.default_rng(seed))
        return np.concatenate([np.concatenate(split) for split in parts]).tolist()

    assert shared_out(1) == shared_out(1)
    assert shared_out(1) != shared_out(2)
    assert shared_out(1) != sorted(shared_out(1))


@pytest.mark.parametrize("sigma", [0.2, 1.0, 1.6])
def test_picture_noise_has_the_sigma_asked_for_in_the_pictures_own_units(sigma):
    picture = np.kron(digits.handwriting()[0][3], np.ones((10, 10)))  # large: a tight estimate
    noise = digits.noisy_picture(picture, sigma, np.random.default_rng(0)) - picture
    assert noise.std() / picture.std() == pytest.approx(sigma, rel=5 / math.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 5 * noise.std() / math.sqrt(noise.size)


@pytest.mark.parametrize(("sigma", "decibel"), [(1.0, 0.0), (0.1, 20.0), (10.0, -20.0)])
def test_picture_snr_is_the_power_ratio_in_decibel(sigma, decibel):
    assert digits.picture_snr(sigma) == pytest.approx(decibel, abs=1e-9)
    assert digits.picture_snr(sigma) == pytest.approx(10 * math.log10(1 / sigma**2), abs=1e-9)


# Sounds


@pytest.mark.parametrize("snr", [-18.0, 0.0, 2.0, 30.0])
@pytest.mark.parametrize("power", [1.0, 0.01])
def test_sound_noise_has_the_snr_asked_for(snr, power):
    length, start = 200_000, 70_000
    sound = sine(1000, 50_000, power)
    clip = digits.noisy_sound(sound, snr, start, length, np.random.default_rng(0))
    assert clip.shape == (length,)
    noise = clip.copy()
    noise[start : start + len(sound)] -= sound
    measured = 10 * math.log10(np.mean(sound**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr, abs=0.1)  # 5 standard deviations are 0.07 dB
    for part in (noise[:start], noise[start : start + 50_000], noise[start + 50_000 :]):
        assert part.std() == pytest.approx(noise.std(), rel=0.03)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = np.array_split(spectrum[1:], 2)
    assert low.mean() == pytest.approx(high.mean(), rel=0.05), "the noise is white"


def test_an_infinite_snr_adds_no_noise():
    sound = sine(1000, 100)
    clip = digits.noisy_sound(sound, math.inf, 20, 300, np.random.default_rng(0))
    np.testing.assert_array_equal(clip, np.concatenate([np.zeros(20), sound, np.zeros(180)]))


def test_silence_stays_silent_at_any_snr():
    clip = digits.noisy_sound(np.zeros(100), 0.0, 20, 300, np.random.default_rng(0))
    np.testing.assert_array_equal(clip, np.zeros(300))


def test_log_mels_peak_at_the_bin_of_a_tone():
    tones = np.stack([sine(hertz, 4096) for hertz in TONE_HZ])
    mels = digits.log_mel(tones)
    assert mels.shape == (len(TONE_HZ), 1, 40, 32)
    assert mels.dtype == np.float32
    for hertz, mel in zip(TONE_HZ, mels, strict=True):
        loudest = np.exp(mel[0]).mean(1).argmax()
        assert abs(mel_centres()[loudest] - hertz) == np.abs(mel_centres() - hertz).min()


def test_log_mels_are_loud_when_the_sound_is():
    """Step k is centred on sample 128 k, its window reaching 256 samples to both sides."""
    clip = digits.noisy_sound(sine(1000, 1024), math.inf, 2048, 4096, np.random.default_rng(0))
    steps = digits.log_mel(clip[None])[0, 0].max(0)
    silent = np.abs(steps - math.log(1e-3)) < 1e-5
    centres = 128 * np.arange(32)
    heard = (centres + 256 > 2048) & (centres - 256 < 3072)
    np.testing.assert_array_equal(~silent, heard)


@pytest.mark.parametrize("length", [4096, 4100, 8192])
def test_log_mels_have_a_step_every_128_samples(length):
    assert digits.log_mel(np.ones((2, length))).shape == (2, 1, 40, length // 128)


def test_log_mels_do_not_depend_on_the_loudness_of_the_clip():
    clip = np.random.default_rng(0).normal(size=(1, 4096))
    np.testing.assert_allclose(digits.log_mel(1000 * clip), digits.log_mel(clip), rtol=0, atol=1e-4)


def test_log_mels_of_a_clip_do_not_depend_on_the_clips_beside_it():
    clips = np.random.default_rng(0).normal(size=(3, 4096)) * np.array([[1], [10], [100]])
    for k in range(3):
        np.testing.assert_allclose(
            digits.log_mel(clips)[k], digits.log_mel(clips[k : k + 1])[0], rtol=0, atol=1e-4
        )


def test_log_mels_of_silence_are_finite():
    np.testing.assert_allclose(digits.log_mel(np.zeros((1, 4096))), math.log(1e-3), rtol=1e-5)


# Modalities


@pytest.mark.parametrize(
    ("make", "kind", "shape", "shift"),
    [
        (digits.sound_modality, "spectrogram", (1, 40, 32), {"height": 0, "width": 8}),
        (digits.picture_modality, "image", (1, 28, 28), {"height": 3, "width": 3}),
    ],
)
def test_modalities_are_normalised_to_mean_0_and_std_1(make, kind, shape, shift):
    x = np.random.default_rng(0).normal(-3.0, 2.5, (50, *shape)).astype(np.float32)
    modality = make(x)
    assert (modality.kind, modality.shape, modality.dtype) == (kind, shape, "float16")
    assert modality.encoder == "conv"
    assert modality.training == {"shift": shift}
    normal = (torch.from_numpy(x).double() - modality.mean) / modality.std
    assert abs(normal.mean()) < 1e-4
    assert abs(normal.std() - 1) < 1e-4
