"""Handwritten and spoken digits with noise, shared by `keypad` and `av-digits`.

A known amount of noise is added to each modality of each sample. It is therefore known which
modality is informative, and valuations can be checked against it.
"""

import math
from functools import cache

import numpy as np

from mmcoop.datasets.modality import Modality

#: Sampling rate of all recordings, in Hz.
SAMPLE_RATE = 8000
#: Side of a picture, in pixels.
PICTURE_SIDE = 28
MEL_BINS = 40
HOP = 128

DIGITS = [str(digit) for digit in range(10)]


@cache
def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """Load scikit-learn's 1,797 scanned digits.

    The 8 × 8 scans (0…16) are scaled to 0…1 and enlarged bilinearly.

    Returns:
        Pictures, float32 `(1797, 28, 28)` in [0, 1], and labels, int64 `(1797,)`.
    """
    import torch
    from sklearn.datasets import load_digits

    scans = load_digits()
    small = torch.from_numpy(scans.images / 16).float().unsqueeze(1)
    large = torch.nn.functional.interpolate(
        small, size=(PICTURE_SIDE, PICTURE_SIDE), mode="bilinear", align_corners=False
    )
    return large.squeeze(1).numpy(), scans.target.astype(np.int64)


def pictures_by_split(
    shares: tuple[float, float, float], rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Divide the pictures among the splits at random.

    Args:
        shares: Shares of training, validation and test; they sum to 1.
        rng: Source of randomness.

    Returns:
        Positions in `handwriting()` by split, then by digit: disjoint, in random order.
    """
    labels = handwriting()[1]
    splits: list[list[np.ndarray]] = [[], [], []]
    for digit in range(10):
        mine = rng.permutation(np.flatnonzero(labels == digit))
        first, second = np.round(np.cumsum(shares[:2]) * len(mine)).astype(int)
        # every split gets a picture of every digit, even if its share is small
        first = np.clip(first, 1, len(mine) - 2)
        second = np.clip(second, first + 1, len(mine) - 1)
        for split, part in zip(splits, np.split(mine, [first, second]), strict=True):
            split.append(part)
    return splits


def noisy_picture(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of `sigma` times the picture's standard deviation."""
    return picture + rng.normal(0, sigma * picture.std(), picture.shape)


def picture_snr(sigma: float) -> float:
    """Signal-to-noise ratio, in dB, of a picture with noise of `sigma` standard deviations."""
    return -20 * math.log10(sigma)


def noisy_sound(
    sound: np.ndarray, snr: float, start: int, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Place a sound in a clip of white noise.

    Args:
        sound: The sound, `(samples,)`.
        snr: Mean power of the sound relative to that of the noise, in dB; infinity adds no noise.
        start: The clip's sample at which the sound starts.
        length: Length of the clip, in samples.
        rng: Source of randomness.

    Returns:
        The clip, `(length,)`.
    """
    clip = np.zeros(length)
    clip[start : start + len(sound)] = sound
    power = float(np.mean(sound**2)) * 10 ** (-snr / 10)
    return clip + rng.normal(0, math.sqrt(power), length) if power > 0 else clip


def log_mel(sounds: np.ndarray) -> np.ndarray:
    """Compute log-mel spectrograms, after scaling each clip to unit power.

    Args:
        sounds: Clips at 8 kHz, `(clips, length)`.

    Returns:
        float32 `(clips, 1, 40, length // 128)`, from windows of 512 samples (64 ms), 16 ms apart.
    """
    import torch
    from torchaudio.transforms import MelSpectrogram

    x = torch.from_numpy(sounds).float()
    x = x / x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-8)
    mel = MelSpectrogram(SAMPLE_RATE, n_fft=512, hop_length=HOP, n_mels=MEL_BINS)(x)
    logs = (mel[:, :, : sounds.shape[1] // HOP] + 1e-3).log()
    spectrograms: np.ndarray = logs.unsqueeze(1).numpy()
    return spectrograms


def sound_modality(log_mels: np.ndarray) -> Modality:
    """The audio modality, normalised by these training spectrograms `(n, 1, 40, steps)`."""
    return Modality(
        kind="spectrogram",
        shape=tuple(log_mels.shape[1:]),
        dtype="float16",
        encoder="conv",
        mean=round(float(log_mels.mean()), 4),
        std=round(float(log_mels.std()), 4),
        training={"shift": {"height": 0, "width": 8}},
    )


def picture_modality(pictures: np.ndarray) -> Modality:
    """The visual modality, normalised by these training pictures `(n, 1, 28, 28)`."""
    return Modality(
        kind="image",
        shape=tuple(pictures.shape[1:]),
        dtype="float16",
        encoder="conv",
        mean=round(float(pictures.mean()), 4),
        std=round(float(pictures.std()), 4),
        training={"shift": {"height": 3, "width": 3}},
    )
