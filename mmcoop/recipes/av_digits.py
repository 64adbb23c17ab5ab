"""av-digits: the Free Spoken Digit Dataset with handwritten digits.

The recordings are files `{digit}_{speaker}_{take}.wav`; every one is paired with a scanned
handwritten digit (scikit-learn) of the same class.
"""

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmcoop.core.seeds import derive_seed
from mmcoop.datasets import digits
from mmcoop.datasets.advice import training_advice
from mmcoop.datasets.media import read_audio
from mmcoop.datasets.reader import SPLITS
from mmcoop.datasets.writer import Header, check_new_dataset, write_dataset
from mmcoop.errors import DataError, setting
from mmcoop.progress import SILENT, Progress
from mmcoop.recipes.keypad import check_noise
from mmcoop.settings import option, required

# Options of this recipe, as messages name them.
_SOURCE = setting("source")

LENGTH = 6144  # samples: 0.768 s; all but a few recordings are shorter
SHORTEST = digits.SAMPLE_RATE // 20

TEST_TAKES = range(10)
VALIDATION_TAKES = range(10, 15)

_NAME = re.compile(r"(\d)_([A-Za-z][A-Za-z0-9-]*)_(\d+)\.wav")


@dataclass(frozen=True)
class AVDigits:
    """Recordings of spoken digits (audio) with handwritten digits (visual).

    --source is the folder of the Free Spoken Digit Dataset's wav files. Takes 0-9 of every speaker
    are the test split, takes 10-14 the validation split, the others the training split; no image is
    in two splits. With --snr-audio or --sigma-visual, each sample gets a known amount of noise,
    recorded as snr_audio and snr_visual.
    """

    source: Path = required("Folder of the recordings, DIGIT_SPEAKER_TAKE.wav", metavar="FOLDER")
    snr_audio: tuple[float, float] | None = option(
        None, "Planted audio noise: lowest and highest SNR, in dB"
    )
    sigma_visual: tuple[float, float] | None = option(
        None, "Planted picture noise: least and most, in standard deviations"
    )
    seed: int = option(0, "Random seed of the pairs and the noise")

    def build(self, folder: Path, *, overwrite: bool = False, progress: Progress = SILENT) -> None:
        check_noise(self.snr_audio, self.sigma_visual)
        check_new_dataset(folder, overwrite)
        recordings, rejects = _recordings(self.source)
        sizes = [sum(r["split"] == split for r in recordings) for split in SPLITS]
        shares = tuple(size / len(recordings) for size in sizes)
        pool = digits.pictures_by_split(
            shares, np.random.default_rng(derive_seed(self.seed, "pictures"))
        )
        samples: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        sounds: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        used: dict[tuple[str, int], int] = defaultdict(int)
        for recording in progress.track(recordings, "reading recordings"):
            split, digit = recording["split"], recording["label"]
            rng = np.random.default_rng(derive_seed(self.seed, "sample", recording["id"]))
            try:
                sound = read_audio(recording.pop("path"), digits.SAMPLE_RATE)
            except DataError as error:
                rejects.append((recording["id"], "unreadable", str(error)))
                continue
            if len(sound) < SHORTEST:
                rejects.append((recording["id"], "too-short", f"{len(sound)} samples"))
                continue
            mine = pool[SPLITS.index(split)][digit]
            scan = int(mine[used[split, digit] % len(mine)])
            used[split, digit] += 1
            audio, snr_audio = self._heard(sound, rng)
            picture, snr_visual = self._seen(scan, rng)
            sounds[split].append(audio)
            samples[split].append(
                {
                    **{k: v for k, v in recording.items() if k != "split"},
                    "group": f"scan-{scan:04d}",
                    "scan": scan,
                    "snr_audio": snr_audio,
                    "snr_visual": snr_visual,
                    "visual": picture[None],
                }
            )
        for split in SPLITS:
            if not samples[split]:
                raise DataError(
                    f"{self.source} has no usable recording for the {split} split: takes 0-9 are "
                    "test, 10-14 validation, the others training"
                )
        log_mels = {split: digits.log_mel(np.stack(sounds[split])) for split in SPLITS}
        pictures = np.stack([sample["visual"] for sample in samples["train"]])
        modalities = {
            "audio": digits.sound_modality(log_mels["train"]),
            "visual": digits.picture_modality(pictures),
        }
        header = Header(
            name="av-digits",
            recipe="av-digits",
            options={**asdict(self), "source": str(self.source)},
            source="Free Spoken Digit Dataset (CC BY-SA 4.0); scikit-learn's handwritten digits",
            classes=digits.DIGITS,
            modalities=modalities,
            columns={
                "speaker": "string",
                "take": "int64",
                "scan": "int64",
                "snr_audio": "float32",
                "snr_visual": "float32",
            },
            defaults=training_advice(modalities, epochs=20, warmup=4, enhance_epochs=15),
        )
        with write_dataset(folder, header, overwrite=overwrite) as writer:
            for split in SPLITS:
                for sample, log_mel in zip(samples[split], log_mels[split], strict=True):
                    writer.add(split, audio=log_mel, **sample)
            for reject in rejects:
                writer.reject(*reject)

    def _heard(
        self, sound: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float | None]:
        """The recording at a random place in its clip (cut if longer), and its SNR."""
        sound = (sound - sound.mean())[:LENGTH]
        start = int(rng.integers(0, LENGTH - len(sound) + 1))
        snr = None if self.snr_audio is None else float(rng.uniform(*self.snr_audio))
        level = np.inf if snr is None else snr
        return digits.noisy_sound(sound, level, start, LENGTH, rng), snr

    def _seen(self, scan: int, rng: np.random.Generator) -> tuple[np.ndarray, float | None]:
        """The picture, and its SNR."""
        picture = digits.handwriting()[0][scan]
        if self.sigma_visual is None:
            return picture, None
        sigma = float(rng.uniform(*self.sigma_visual))
        return digits.noisy_picture(picture, sigma, rng), digits.picture_snr(sigma)


def _recordings(source: Path) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """The recordings in a folder, by id, and what looks like one but is not named like one."""
    if not source.is_dir():
        raise DataError(f"{_SOURCE} {source} is not a folder: give the folder of the wav files")
    found, rejects = [], []
    for path in sorted(source.glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if not match:
            rejects.append((path.name, "name", "not {digit}_{speaker}_{take}.wav"))
            continue
        digit, speaker, take = match[1], match[2], int(match[3])
        split = (
            "test" if take in TEST_TAKES else "validation" if take in VALIDATION_TAKES else "train"
        )
        found.append(
            {
                "id": path.stem,
                "label": int(digit),
                "speaker": speaker,
                "take": take,
                "split": split,
                "path": path,
            }
        )
    if not found:
        first = ", ".join(sorted(p.name for p in source.iterdir())[:3]) or "nothing"
        raise DataError(
            f"{source} has no file named {{digit}}_{{speaker}}_{{take}}.wav; it has: {first}"
        )
    return found, rejects
