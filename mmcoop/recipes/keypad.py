"""keypad: what a camera sees and a microphone hears when a key is pressed.

1,797 scanned handwritten digits (scikit-learn) with the DTMF tone pair of the same key
(ITU-T Q.23). Nothing is downloaded.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmcoop.core.seeds import derive_seed
from mmcoop.datasets import digits
from mmcoop.datasets.advice import training_advice
from mmcoop.datasets.writer import Header, check_new_dataset, write_dataset
from mmcoop.errors import UsageError, setting
from mmcoop.progress import SILENT, Progress
from mmcoop.settings import option

SIZES = {"train": 1000, "validation": 297, "test": 500}
LENGTH = 4096  # samples: 0.512 s

# ITU-T Q.23: the low tone is that of the key's row, the high one that of its column.
ROW_HZ = (697, 770, 852, 941)
COLUMN_HZ = (1209, 1336, 1477)
ROWS_OF_KEYS = ("123", "456", "789", "*0#")


@dataclass(frozen=True)
class Keypad:
    """Handwritten digits (visual) with the tone pair of the same key (audio).

    Every sample has its own noise in each modality, stored with it as snr_audio and snr_visual:
    which modality is informative is known. 1,000 training, 297 validation, 500 test samples.
    """

    snr_audio: tuple[float, float] = option((-18.0, 2.0), "Lowest and highest audio SNR, in dB")
    sigma_visual: tuple[float, float] = option(
        (0.2, 1.6), "Least and most picture noise, in standard deviations"
    )
    seed: int = option(0, "Random seed of the splits, the noise and the tones")

    def build(self, folder: Path, *, overwrite: bool = False, progress: Progress = SILENT) -> None:
        check_noise(self.snr_audio, self.sigma_visual)
        check_new_dataset(folder, overwrite)
        pictures, labels = digits.handwriting()
        order = np.random.default_rng(derive_seed(self.seed, "split")).permutation(len(labels))
        rows = []
        sounds = np.empty((len(labels), LENGTH))
        for i in progress.track(range(len(labels)), "making samples"):
            rng = np.random.default_rng(derive_seed(self.seed, "sample", i))
            snr = rng.uniform(*self.snr_audio)
            sigma = rng.uniform(*self.sigma_visual)
            burst = tone_pair(str(labels[i]), int(rng.uniform(LENGTH / 4, LENGTH / 2)), rng)
            start = int(rng.integers(0, LENGTH - len(burst) + 1))
            sounds[i] = digits.noisy_sound(burst, snr, start, LENGTH, rng)
            rows.append(
                {
                    "id": f"key-{i:04d}",
                    "label": int(labels[i]),
                    "group": f"scan-{i:04d}",
                    "snr_audio": snr,
                    "snr_visual": digits.picture_snr(sigma),
                    "visual": digits.noisy_picture(pictures[i], sigma, rng)[None],
                }
            )
        log_mels = digits.log_mel(sounds)
        train = order[: SIZES["train"]]
        modalities = {
            "audio": digits.sound_modality(log_mels[train]),
            "visual": digits.picture_modality(np.stack([rows[i]["visual"] for i in train])),
        }
        header = Header(
            name="keypad",
            recipe="keypad",
            options=asdict(self),
            source="scikit-learn's handwritten digits; DTMF tones after ITU-T Q.23",
            classes=digits.DIGITS,
            modalities=modalities,
            columns={"snr_audio": "float32", "snr_visual": "float32"},
            defaults=training_advice(modalities, epochs=25, warmup=4),
        )
        splits = np.split(order, np.cumsum(list(SIZES.values()))[:-1])
        with write_dataset(folder, header, overwrite=overwrite) as writer:
            for split, members in zip(SIZES, splits, strict=True):
                for i in sorted(members):
                    writer.add(split, audio=log_mels[i], **rows[i])


def tone_pair(key: str, samples: int, rng: np.random.Generator) -> np.ndarray:
    """The two sines of a key, of equal power and random phase, of mean power 1."""
    row = next(r for r, keys in enumerate(ROWS_OF_KEYS) if key in keys)
    column = ROWS_OF_KEYS[row].index(key)
    t = np.arange(samples) / digits.SAMPLE_RATE
    low, high = (
        np.sin(2 * math.pi * hertz * t + rng.uniform(0, 2 * math.pi))
        for hertz in (ROW_HZ[row], COLUMN_HZ[column])
    )
    return low + high


def check_noise(
    snr_audio: tuple[float, float] | None, sigma_visual: tuple[float, float] | None
) -> None:
    """Raise `UsageError` for a range of noise that is upside down or not a range of numbers."""
    for name, bounds in (("snr_audio", snr_audio), ("sigma_visual", sigma_visual)):
        if bounds and not (all(map(math.isfinite, bounds)) and bounds[0] <= bounds[1]):
            raise UsageError(
                f"{setting(name)} {bounds[0]} {bounds[1]}: give the lower bound first, both as "
                "numbers"
            )
    if sigma_visual and sigma_visual[0] <= 0:
        raise UsageError(f"{setting('sigma_visual')} {sigma_visual[0]}: noise must be above 0")
