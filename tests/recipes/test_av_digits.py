"""av-digits: every recording is in, with a picture of its own digit, or is in the rejects."""

import math
import shutil
import wave
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from mmcoop.datasets import digits
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.errors import DataError, UsageError
from mmcoop.recipes import RECIPES
from mmcoop.recipes.av_digits import LENGTH, AVDigits

SPEAKERS = {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
STEPS = LENGTH // 128
TAKES = {"train": set(range(15, 50)), "validation": set(range(10, 15)), "test": set(range(10))}
COLUMNS = ["id", "label", "group", "speaker", "take", "scan", "snr_audio", "snr_visual"]


def described(folder: Path) -> pd.DataFrame:
    """A row a sample: what describes it, its split and its position there."""
    opened = open_dataset(folder)
    parts = []
    for split in SPLITS:
        part = opened.split(split).table.select(COLUMNS).to_pandas()
        parts.append(part.assign(split=split, position=np.arange(len(part))))
    return pd.concat(parts, ignore_index=True)


def stored(folder: Path, modality: str) -> np.ndarray:
    """All samples of a modality, in the order of `described`."""
    opened = open_dataset(folder)
    parts = [opened.split(split) for split in SPLITS]
    return np.concatenate([part.read(modality, np.arange(len(part))) for part in parts])


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def record(folder: Path, name: str, samples: int = 2000) -> None:
    """A wav at 8 kHz that hums."""
    folder.mkdir(exist_ok=True)
    hum = 8000 * np.sin(np.arange(samples) / 3)
    with wave.open(str(folder / name), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(hum.astype("<i2").tobytes())


def record_all(folder: Path, digits_: Iterable[int], takes: Iterable[int]) -> Path:
    for digit in digits_:
        for take in takes:
            record(folder, f"{digit}_ada_{take}.wav")
    return folder


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Recordings of two digits: two for training and one for each of the other splits."""
    return record_all(tmp_path / "few", (3, 8), (0, 10, 20, 21))


@pytest.fixture(scope="module")
def samples(av_digits: Path) -> pd.DataFrame:
    return described(av_digits)


def test_the_recipe_is_found_by_its_name_and_every_option_has_a_help_text():
    assert RECIPES.load("av-digits") is AVDigits
    assert all(field.metadata["help"] for field in fields(AVDigits))


# All recordings


def test_all_3000_recordings_are_in(av_digits, samples, shared_data):
    assert open_dataset(av_digits).rows == {"train": 2100, "validation": 300, "test": 600}
    files = (shared_data / "fsdd" / "recordings").glob("*.wav")
    assert sorted(samples.id) == sorted(path.stem for path in files)
    assert open_dataset(av_digits).rejects == {}
    assert len(pd.read_parquet(av_digits / "rejects.parquet")) == 0


def test_the_take_decides_the_split(samples):
    for split, takes in TAKES.items():
        mine = samples[samples.split == split]
        assert set(mine["take"]) == takes
        counts = mine.groupby(["label", "speaker"]).size()
        assert len(counts) == 60
        assert set(counts) == {len(takes)}, "every speaker says every digit in every take"


def test_label_speaker_and_take_are_those_in_the_name(samples):
    names = samples.id.str.extract(r"^(\d)_([a-z]+)_(\d+)$")
    assert (samples.label == names[0].astype(int)).all()
    assert (samples.speaker == names[1]).all()
    assert (samples["take"] == names[2].astype(int)).all()
    assert set(samples.speaker) == SPEAKERS


def test_the_picture_is_of_the_digit_that_is_heard(av_digits, samples):
    np.testing.assert_array_equal(load_digits().target[samples.scan], samples.label)
    pictures = stored(av_digits, "visual")[:, 0]
    np.testing.assert_array_equal(pictures, digits.handwriting()[0][samples.scan].astype("f2"))


def test_no_picture_is_in_two_splits(samples):
    assert samples.drop_duplicates(["scan", "split"]).scan.is_unique
    assert (samples.group == samples.scan.map("scan-{:04d}".format)).all()


def test_pictures_are_used_as_evenly_as_they_can_be(samples):
    """A picture is shown again only once all of its digit in its split have been."""
    for _, mine in samples.groupby(["split", "label"]):
        uses = mine.scan.value_counts()
        assert uses.max() - uses.min() <= 1
        assert uses.max() <= 2


def test_without_planted_noise_nothing_is_said_of_it(av_digits, samples):
    assert samples.snr_audio.isna().all()
    assert samples.snr_visual.isna().all()
    table = open_dataset(av_digits).split("test").table
    assert table["snr_audio"].null_count == table["snr_visual"].null_count == 600
    options = open_dataset(av_digits).options
    assert options["snr_audio"] is None
    assert options["sigma_visual"] is None
    assert options["seed"] == 0
    assert options["source"].endswith("recordings")


def test_each_clip_holds_as_much_sound_as_its_recording(av_digits, samples, shared_data):
    """Where there is no recording there is digital silence, log 0.001.

    A window of 512 samples every 128 meets n samples of sound at n/128 to (n + 512)/128 steps;
    recordings longer than the clip fill it.
    """
    mels = stored(av_digits, "audio")
    assert mels.shape[1:] == (1, 40, STEPS)
    quiet = np.abs(mels[:, 0].astype(np.float64) - math.log(1e-3)).max(1) < 0.01
    first_heard = quiet.argmin(1)[quiet.any(1)]
    assert set(first_heard) > set(range(STEPS // 2)), "recordings start at random places"
    for i in range(0, len(samples), 23):
        path = shared_data / "fsdd" / "recordings" / f"{samples.id[i]}.wav"
        with wave.open(str(path)) as file:
            length = min(file.getnframes(), LENGTH)
        heard = STEPS - quiet[i].sum()
        assert heard <= min(STEPS, (length + 512) / 128 + 1)
        assert heard >= 0.7 * length / 128, "recordings may begin and end in near silence"


def test_training_samples_alone_decide_the_normalisation(av_digits, samples):
    for name, modality in open_dataset(av_digits).modalities.items():
        x = stored(av_digits, name)[(samples.split == "train").to_numpy()].astype(np.float64)
        # digital silence, which is much of a clip, lies 0.0015 from the nearest float16
        assert modality.mean == pytest.approx(x.mean(), abs=2e-3)
        assert modality.std == pytest.approx(x.std(), abs=2e-3)


# Some recordings


@pytest.fixture
def some(shared_data: Path, tmp_path: Path) -> Path:
    """Real recordings of two speakers, eight takes of each digit."""
    folder = tmp_path / "some"
    folder.mkdir()
    for digit in range(10):
        for speaker in ("george", "theo"):
            for take in (0, 1, 10, 11, 20, 21, 22, 23):
                name = f"{digit}_{speaker}_{take}.wav"
                shutil.copy(shared_data / "fsdd" / "recordings" / name, folder)
    return folder


def test_the_same_recordings_give_the_same_bytes_and_another_seed_others(some, tmp_path):
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        AVDigits(source=some, seed=seed).build(tmp_path / name)
    first = file_bytes(tmp_path / "first")
    assert file_bytes(tmp_path / "second") == first
    third = file_bytes(tmp_path / "third")
    assert third.keys() == first.keys()
    for name in first:
        assert (third[name] == first[name]) == (name == "rejects.parquet")
    shown = [described(tmp_path / name).set_index("id").scan for name in ("first", "third")]
    assert (shown[0] != shown[1].loc[shown[0].index]).mean() > 0.9


def test_planted_noise_is_of_the_amount_written_beside_it(some, tmp_path):
    AVDigits(source=some, snr_audio=(-6.0, 12.0), sigma_visual=(0.2, 1.5)).build(tmp_path / "data")
    samples = described(tmp_path / "data")
    assert samples.snr_audio.between(-6, 12).all()
    assert samples.snr_audio.min() < -4 < 10 < samples.snr_audio.max()
    sigma = 10 ** (-samples.snr_visual.to_numpy() / 20)
    assert (np.abs(sigma - 0.85) <= 0.65 + 1e-6).all()
    assert sigma.min() < 0.4 < 1.3 < sigma.max()
    clean = digits.handwriting()[0][samples.scan]
    noise = stored(tmp_path / "data", "visual")[:, 0].astype(np.float64) - clean
    ratio = noise.std((1, 2)) / clean.std((1, 2)) / sigma
    assert np.abs(ratio - 1).max() < 5 / math.sqrt(2 * 784)
    assert open_dataset(tmp_path / "data").options["snr_audio"] == [-6.0, 12.0]


def test_planted_sound_noise_leaves_the_pictures_clean(few, tmp_path):
    AVDigits(source=few, snr_audio=(0.0, 0.0)).build(tmp_path / "data")
    samples = described(tmp_path / "data")
    assert (samples.snr_audio == 0).all()
    assert samples.snr_visual.isna().all()
    pictures = stored(tmp_path / "data", "visual")[:, 0]
    np.testing.assert_array_equal(pictures, digits.handwriting()[0][samples.scan].astype("f2"))
    silent = np.abs(stored(tmp_path / "data", "audio") - math.log(1e-3)) < 0.01
    assert not silent.any(), "noise fills the whole clip"


def test_a_recording_longer_than_a_clip_is_cut(few, tmp_path):
    record(few, "3_ada_30.wav", samples=20_000)
    AVDigits(source=few).build(tmp_path / "data")
    samples = described(tmp_path / "data")
    (i,) = np.flatnonzero(samples.id == "3_ada_30")
    mel = stored(tmp_path / "data", "audio")[i, 0]
    assert mel.shape == (40, STEPS)
    assert (np.abs(mel - math.log(1e-3)).max(0) > 0.01).all(), "it fills the clip"


def test_what_cannot_be_used_is_rejected_with_its_reason(few, tmp_path):
    (few / "3_ada_40.wav").write_text("these are words")
    record(few, "8_ada_40.wav", samples=399)
    record(few, "8_ada_41.wav", samples=400)
    for name in ("eight_ada_1.wav", "8_ada.wav", "8_ada_x.wav", "12_ada_3.wav", "8_7_3.wav"):
        record(few, name)
    (few / "notes.txt").write_text("not asked for")
    AVDigits(source=few).build(tmp_path / "data")
    rejects = pd.read_parquet(tmp_path / "data" / "rejects.parquet").set_index("id")
    assert rejects.reason.to_dict() == {
        "eight_ada_1.wav": "name",
        "8_ada.wav": "name",
        "8_ada_x.wav": "name",
        "12_ada_3.wav": "name",
        "8_7_3.wav": "name",
        "3_ada_40": "unreadable",
        "8_ada_40": "too-short",
    }
    assert rejects.detail["8_ada.wav"] == "not {digit}_{speaker}_{take}.wav"
    assert "3_ada_40.wav: Invalid data" in rejects.detail["3_ada_40"]
    assert rejects.detail["8_ada_40"] == "399 samples"
    assert open_dataset(tmp_path / "data").rejects == {"name": 5, "unreadable": 1, "too-short": 1}
    taken = set(described(tmp_path / "data").id)
    assert taken == {f"{d}_ada_{t}" for d in (3, 8) for t in (0, 10, 20, 21)} | {"8_ada_41"}


def test_a_rejected_recording_changes_nothing_for_the_others(few, tmp_path):
    AVDigits(source=few).build(tmp_path / "without")
    record(few, "not a name.wav")
    AVDigits(source=few).build(tmp_path / "with")
    for split in SPLITS:
        (shard,) = (tmp_path / "with").glob(f"{split}-*")
        assert shard.read_bytes() == (tmp_path / "without" / shard.name).read_bytes()


# Refused, with nothing left


def refused(source: Path, tmp_path: Path, message: str, **options) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        AVDigits(source=source, **options).build(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "none", tmp_path, "source .*none is not a folder: give the folder of the")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file.wav").touch()
    refused(tmp_path / "file.wav", tmp_path, r"source .*file\.wav is not a folder")


def test_a_folder_without_recordings_is_refused_with_what_it_has(tmp_path):
    folder = tmp_path / "other"
    for name in ("c.wav", "a.txt", "b.wav", "d.wav"):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    message = (
        r"other has no file named \{digit\}_\{speaker\}_\{take\}\.wav; it has: a.txt, b.wav, c.wav$"
    )
    refused(folder, tmp_path, message)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "it has: nothing$")


@pytest.mark.parametrize(
    ("missing", "takes"),
    [("train", (0, 10)), ("validation", (0, 20)), ("test", (10, 20))],
)
def test_recordings_for_two_splits_alone_are_refused(tmp_path, missing, takes):
    source = record_all(tmp_path / "source", (3,), takes)
    message = (
        f"source has no usable recording for the {missing} split: takes 0-9 are test, "
        "10-14 validation, the others training"
    )
    refused(source, tmp_path, message)


def test_recordings_of_a_split_that_cannot_be_read_are_none(few, tmp_path):
    for path in few.glob("*_10.wav"):
        path.write_text("words")
    refused(few, tmp_path, "few has no usable recording for the validation split")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_audio": (3.0, -3.0)}, r"snr_audio 3.0 -3.0: give the lower bound first"),
        ({"sigma_visual": (1.0, 0.5)}, r"sigma_visual 1.0 0.5: give the lower bound first"),
        ({"sigma_visual": (0.0, 0.5)}, r"sigma_visual 0.0: noise must be above 0"),
    ],
)
def test_noise_that_cannot_be_meant_is_refused(few, tmp_path, options, message):
    refused(few, tmp_path, message, **options)


def test_a_split_of_few_recordings_gets_pictures_too(tmp_path):
    source = record_all(tmp_path / "source", range(10), range(15, 65))
    record(source, "0_ada_0.wav")
    record(source, "0_ada_10.wav")
    AVDigits(source=source).build(tmp_path / "data")
    samples = described(tmp_path / "data")
    assert samples.split.value_counts().to_dict() == {"train": 500, "validation": 1, "test": 1}
    assert samples.drop_duplicates(["scan", "split"]).scan.is_unique
