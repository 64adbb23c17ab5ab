"""The filter bank of the paper: torchaudio's, and what it must show of sounds that are known."""

import math

import numpy as np
import pytest
import torch
from torchaudio.compliance.kaldi import fbank

from mmcoop.datasets.spectrogram import (
    MEAN,
    MEL_BINS,
    SAMPLE_RATE,
    SHORTEST,
    STD,
    TIME_STEPS,
    filter_bank,
)

#: The logarithm of the smallest float32: what Kaldi makes of no energy at all.
SILENCE = math.log(np.finfo(np.float32).eps)


def steps(samples: int) -> int:
    """How many windows of 25 ms, 10 ms apart, fit into so many samples at 16 kHz."""
    return 1 + (samples - 400) // 160


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)


def test_sizes_and_normalisation_are_those_of_the_paper():
    assert (MEL_BINS, TIME_STEPS, SAMPLE_RATE) == (128, 1024, 16_000)
    assert pytest.approx((-4.503877, 2 * 5.141276)) == (MEAN, STD)


@pytest.mark.parametrize("seconds", [0.025, 0.5, 3.0, 10.255, 10.265, 12.0])
def test_it_is_the_one_of_torchaudio_with_the_settings_of_the_paper(seconds):
    """Rounded to float16: half a unit in its last place, of numbers up to 16."""
    sound = noise(seconds) + 0.25
    expected = fbank(
        torch.from_numpy(sound - sound.mean())[None],
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    ).numpy()
    bank = filter_bank(sound)
    assert bank.dtype == np.float16
    assert bank.shape == (1, 128, 1024)
    long = min(len(expected), 1024)
    np.testing.assert_allclose(
        bank[0, :, :long].astype(np.float32), expected[:long].T, rtol=2**-11, atol=2**-11
    )
    np.testing.assert_array_equal(bank[0, :, :long], expected[:long].T.astype(np.float16))


@pytest.mark.parametrize("samples", [400, 559, 560, 8000, 164_079, 164_080, 164_081, 200_000])
def test_a_short_sound_is_padded_with_zeros_and_a_long_one_cut(samples):
    """Zeros, not silence, whose logarithm is −15.9: so do the authors of the paper."""
    bank = filter_bank(noise(samples / 16_000))
    there = min(steps(samples), 1024)
    assert (bank[0, :, :there] != 0).mean() > 0.99
    assert not bank[0, :, there:].any()


def test_the_beginning_of_a_long_sound_is_what_is_kept():
    """But for its mean, which is that of all of it."""
    whole = noise(15.0)
    whole -= whole.mean()
    first = whole[: 16_000 * 11]
    np.testing.assert_allclose(
        filter_bank(whole).astype(float), filter_bank(first - first.mean()).astype(float), atol=0.01
    )


def test_the_shortest_sound_has_one_step():
    assert SHORTEST == 400
    bank = filter_bank(noise(SHORTEST / 16_000))
    assert bank[0, :, 0].all()
    assert not bank[0, :, 1:].any()


@pytest.mark.parametrize("offset", [-0.5, 0.1, 3.0])
def test_a_constant_added_to_the_sound_changes_nothing(offset):
    """But for the rounding of float32, of sounds much smaller than the constant."""
    plain, moved = filter_bank(noise(1.0)), filter_bank(noise(1.0) + np.float32(offset))
    np.testing.assert_allclose(plain.astype(float), moved.astype(float), rtol=0, atol=0.02)


def test_silence_is_the_logarithm_of_the_smallest_number():
    bank = filter_bank(np.zeros(16_000, np.float32))
    np.testing.assert_allclose(bank[0, :, : steps(16_000)].astype(float), SILENCE, rtol=1e-3)


def mel(hertz: float) -> float:
    """HTK's scale: 1127 · ln(1 + f/700)."""
    return 1127 * math.log(1 + hertz / 700)


def centres() -> np.ndarray:
    """The mel frequency of the middle of each of the 128 triangles, from 20 Hz to half the rate."""
    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    return edges[1:-1]


@pytest.mark.parametrize("hertz", [500, 1000, 1234, 2500, 4000, 6500])
def test_a_tone_s_energy_lands_in_the_bin_of_its_mel_frequency(hertz):
    sound = 0.3 * np.sin(2 * math.pi * hertz * np.arange(32_000) / 16_000).astype(np.float32)
    bank = filter_bank(sound)[0, :, : steps(32_000)].astype(float)
    nearest = np.abs(centres() - mel(hertz)).argmin()
    # below 1 kHz a triangle is narrower than a step of the Fourier transform
    assert np.abs(bank.argmax(0) - nearest).max() <= (1 if hertz > 900 else 2)
    assert bank[nearest].mean() > np.median(bank) + 5


def test_twice_the_amplitude_is_four_times_the_energy():
    """Where there is any: of 512 frequencies none falls into the fourth of 128 triangles."""
    quiet, loud = (filter_bank(k * noise(1.0))[0].astype(float) for k in (1, 2))
    energy = quiet[:, : steps(16_000)] > SILENCE + 3
    assert energy.mean() > 0.98
    difference = (loud - quiet)[:, : steps(16_000)][energy]
    np.testing.assert_allclose(difference, math.log(4), rtol=0, atol=0.02)


def test_time_runs_along_the_last_axis_in_steps_of_10_ms():
    sound = np.zeros(64_000, np.float32)
    sound[32_000:33_600] = noise(0.1)
    bank = filter_bank(sound)[0].astype(float).mean(0)
    loud = np.flatnonzero(bank[: steps(64_000)] > SILENCE + 2)
    # a window of 25 ms that begins at step k has samples 160·k … 160·k + 399
    assert loud[0] == pytest.approx((32_000 - 400) / 160, abs=1)
    assert loud[-1] == pytest.approx(33_600 / 160, abs=1)


def test_the_same_sound_has_the_same_filter_bank_and_stays_as_it_is():
    sound = noise(1.0) + 1
    before = sound.copy()
    np.testing.assert_array_equal(filter_bank(sound), filter_bank(sound))
    np.testing.assert_array_equal(sound, before)


def test_all_of_it_fits_into_float16():
    """From silence to a full-scale square wave, and beyond."""
    for sound in (np.zeros(16_000), np.sign(noise(1.0)), 100 * np.sign(noise(1.0))):
        assert np.isfinite(filter_bank(sound.astype(np.float32))).all()
