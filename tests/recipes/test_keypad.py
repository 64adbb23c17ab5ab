"""keypad: real scans and standard tones, with noise of the amount that is written beside it."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

from mmcoop.datasets import digits
from mmcoop.datasets.reader import SPLITS, open_dataset
from mmcoop.errors import UsageError
from mmcoop.recipes import DEFAULT_RECIPE, RECIPES
from mmcoop.recipes.keypad import Keypad, check_noise, tone_pair

#: ITU-T Recommendation Q.23, table 1: low and high tone of every key, in Hz.
Q23 = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477),
    "4": (770, 1209), "5": (770, 1336), "6": (770, 1477),
    "7": (852, 1209), "8": (852, 1336), "9": (852, 1477),
    "*": (941, 1209), "0": (941, 1336), "#": (941, 1477),
}  # fmt: skip


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def columns(keypad: Path) -> dict[str, np.ndarray]:
    """Every column of the whole data set, the splits one after the other, and the split."""
    opened = open_dataset(keypad)
    found: dict[str, list] = {"split": []}
    for split in SPLITS:
        part = opened.split(split)
        found["split"] += [split] * len(part)
        for name in ("id", "label", "group", "snr_audio", "snr_visual"):
            found.setdefault(name, []).extend(part.table[name].to_pylist())
        for name in opened.modalities:
            found.setdefault(name, []).extend(part.read(name, np.arange(len(part))))
    return {name: np.array(values) for name, values in found.items()}


@pytest.fixture(scope="module")
def scan(columns) -> np.ndarray:
    """Which of scikit-learn's scans each sample is, from its id."""
    return np.array([int(name.removeprefix("key-")) for name in columns["id"]])


def test_the_default_recipe_is_keypad():
    assert DEFAULT_RECIPE == "keypad"
    assert RECIPES.load("keypad") is Keypad


def test_every_option_has_a_default_and_a_help_text():
    assert Keypad() == Keypad(snr_audio=(-18.0, 2.0), sigma_visual=(0.2, 1.6), seed=0)
    assert all(field.metadata["help"] for field in fields(Keypad))


def test_the_splits_have_1000_297_and_500_samples(keypad):
    assert open_dataset(keypad).rows == {"train": 1000, "validation": 297, "test": 500}


def test_the_header_says_how_it_was_built(keypad):
    opened = open_dataset(keypad)
    assert (opened.name, opened.recipe) == ("keypad", "keypad")
    assert opened.classes == list("0123456789")
    assert opened.options == {"snr_audio": [-18.0, 2.0], "sigma_visual": [0.2, 1.6], "seed": 0}
    assert opened.columns == {"snr_audio": "float32", "snr_visual": "float32"}
    assert opened.defaults["train"]["epochs"] == 25
    assert opened.defaults["train"]["warmup"] == 4
    assert opened.defaults["train"]["lr"] == 1e-3
    assert opened.rejects == {}
    assert opened.modalities["audio"].shape == (1, 40, 32)
    assert opened.modalities["audio"].training == {"shift": {"height": 0, "width": 8}}
    assert opened.modalities["visual"].shape == (1, 28, 28)
    assert opened.modalities["visual"].training == {"shift": {"height": 3, "width": 3}}


def test_every_scan_is_there_once_with_its_own_label(columns, scan):
    assert sorted(scan) == list(range(1797))
    np.testing.assert_array_equal(columns["label"], load_digits().target[scan])


def test_groups_are_not_shared_between_splits_or_samples(columns):
    assert len(set(columns["group"])) == 1797


def test_every_split_has_every_digit_in_about_its_share_of_all(columns):
    overall = np.bincount(load_digits().target) / 1797
    for split in SPLITS:
        labels = columns["label"][columns["split"] == split]
        share = np.bincount(labels, minlength=10) / len(labels)
        assert np.abs(share - overall).max() < 4 * math.sqrt(0.1 * 0.9 / len(labels))


def test_snr_columns_lie_in_the_ranges_asked_for_and_fill_them_evenly(columns):
    audio, visual = columns["snr_audio"], columns["snr_visual"]
    assert -18 <= audio.min() < -17.9
    assert 1.9 < audio.max() <= 2
    assert np.mean(audio < -8) == pytest.approx(0.5, abs=0.06)
    sigma = 10 ** (-visual / 20)
    assert 0.2 - 1e-6 <= sigma.min() < 0.21
    assert 1.59 < sigma.max() <= 1.6 + 1e-6
    assert np.mean(sigma < 0.9) == pytest.approx(0.5, abs=0.06)
    assert abs(spearmanr(audio, visual).statistic) < 0.12, "the two noises are independent"


def test_pictures_are_the_scans_with_noise_of_the_snr_written_beside_them(columns, scan):
    clean = digits.handwriting()[0][scan]
    noise = columns["visual"][:, 0].astype(np.float64) - clean
    ratio = noise.std((1, 2)) / clean.std((1, 2)) / 10 ** (-columns["snr_visual"] / 20)
    assert np.abs(ratio - 1).max() < 5 / math.sqrt(2 * 784)
    assert ratio.mean() == pytest.approx(1, abs=4 / math.sqrt(2 * 784 * 1797))


def tone_bins(label: int) -> list[int]:
    """The two of 40 mel bins nearest to the tones of a digit's key."""
    edges = np.linspace(0, 2595 * math.log10(1 + 4000 / 700), 42)
    centres = 700 * (10 ** (edges[1:-1] / 2595) - 1)
    return [int(np.abs(centres - hertz).argmin()) for hertz in Q23[str(label)]]


def test_spectrograms_hold_the_tones_of_their_key_as_loud_as_the_snr_says(columns):
    power = np.exp(columns["audio"][:, 0].astype(np.float64)).mean(2)
    tones = np.array([tone_bins(label) for label in columns["label"]])
    loudest = np.argsort(-power, axis=1)[:, :4]
    found = [set(pair) <= set(four) for pair, four in zip(tones, loudest, strict=True)]
    assert np.mean(np.array(found)[columns["snr_audio"] > 0]) > 0.98
    assert np.mean(np.array(found)[columns["snr_audio"] < -15]) < 0.1
    # between the keys' tones and above them is noise alone
    contrast = np.take_along_axis(power, tones, 1).mean(1) / power[:, 33:].mean(1)
    assert spearmanr(contrast, columns["snr_audio"]).statistic > 0.9


def test_training_samples_alone_decide_the_normalisation(keypad, columns):
    for name, modality in open_dataset(keypad).modalities.items():
        x = columns[name][columns["split"] == "train"].astype(np.float64)
        assert modality.mean == pytest.approx(x.mean(), abs=1e-4)
        assert modality.std == pytest.approx(x.std(), abs=1e-4)


# Tones


@pytest.mark.parametrize("key", Q23)
def test_a_key_sounds_at_its_two_frequencies(key):
    samples = 4096
    tone = tone_pair(key, samples, np.random.default_rng(0))
    assert tone.shape == (samples,)
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(samples), 8 * samples))
    hertz = np.fft.rfftfreq(8 * samples, 1 / 8000)
    low, high = spectrum[hertz < 1075], spectrum[hertz >= 1075]
    assert hertz[low.argmax()] == pytest.approx(Q23[key][0], abs=0.5)
    assert hertz[len(low) + high.argmax()] == pytest.approx(Q23[key][1], abs=0.5)
    assert low.max() == pytest.approx(high.max(), rel=0.01), "both tones have the same power"


@pytest.mark.parametrize("key", Q23)
def test_a_tone_pair_is_two_sines_of_power_one_together(key):
    tone = tone_pair(key, 2000, np.random.default_rng(1))
    t = 2 * math.pi * np.arange(2000) / 8000
    waves = np.stack([f(hertz * t) for hertz in Q23[key] for f in (np.sin, np.cos)], axis=1)
    fit, *_ = np.linalg.lstsq(waves, tone, rcond=None)
    np.testing.assert_allclose(waves @ fit, tone, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.hypot(fit[::2], fit[1::2]), 1, rtol=1e-9)
    assert np.mean(tone**2) == pytest.approx(1, abs=0.02)


def test_phases_are_random():
    rng = np.random.default_rng(0)
    first, second = tone_pair("5", 1000, rng), tone_pair("5", 1000, rng)
    assert np.abs(first - second).max() > 0.1


# Reproducible, and other options


def test_the_same_build_gives_the_same_bytes_of_every_file(keypad, tmp_path):
    Keypad().build(tmp_path / "again")
    assert file_bytes(tmp_path / "again") == file_bytes(keypad)


def test_another_seed_gives_other_samples_and_another_split(keypad, tmp_path):
    Keypad(seed=1).build(tmp_path / "other")
    first, other = file_bytes(keypad), file_bytes(tmp_path / "other")
    assert first.keys() == other.keys()
    for name in first:
        if name != "rejects.parquet":
            assert first[name] != other[name]
    for split in SPLITS:
        ids = [
            set(open_dataset(f).split(split).table["id"].to_pylist())
            for f in (keypad, tmp_path / "other")
        ]
        assert ids[0] != ids[1]


def test_noise_is_as_narrow_as_asked_for(tmp_path):
    Keypad(snr_audio=(5.0, 5.0), sigma_visual=(0.5, 0.5)).build(tmp_path / "data")
    opened = open_dataset(tmp_path / "data")
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert content["options"] == {"snr_audio": [5.0, 5.0], "sigma_visual": [0.5, 0.5], "seed": 0}
    for split in SPLITS:
        table = opened.split(split).table
        assert set(table["snr_audio"].to_pylist()) == {5.0}
        np.testing.assert_allclose(table["snr_visual"].to_numpy(), 20 * math.log10(2), rtol=1e-6)


# Refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_audio": (2.0, -18.0)}, r"snr_audio 2.0 -18.0: give the lower bound first"),
        ({"sigma_visual": (1.6, 0.2)}, r"sigma_visual 1.6 0.2: give the lower bound first"),
        ({"snr_audio": (math.nan, 0.0)}, r"snr_audio nan 0.0: "),
        ({"snr_audio": (0.0, math.inf)}, r"snr_audio 0.0 inf: "),
        ({"sigma_visual": (0.2, math.nan)}, r"sigma_visual 0.2 nan: "),
        ({"sigma_visual": (0.0, 1.0)}, r"sigma_visual 0.0: noise must be above 0"),
        ({"sigma_visual": (-1.0, 1.0)}, r"sigma_visual -1.0: noise must be above 0"),
    ],
)
def test_noise_that_cannot_be_meant_is_refused_before_anything_is_made(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        Keypad(**options).build(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_noise_that_can_be_meant_is_accepted():
    check_noise(None, None)
    check_noise((-3.0, -3.0), (0.1, 0.1))
    check_noise((-18.0, 2.0), None)


def test_an_existing_folder_is_kept_without_overwrite(keypad):
    before = file_bytes(keypad)
    with pytest.raises(UsageError, match="keypad exists: choose another out, or replace it with"):
        Keypad(seed=2).build(keypad)
    assert file_bytes(keypad) == before
