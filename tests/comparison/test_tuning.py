"""Trials: the defaults first, then the same chances for every case."""

import math

import pytest

from mmcoop.comparison.run_specs import RunSpec
from mmcoop.comparison.tuning import LR_FACTOR, best_trial, trial_spec
from mmcoop.methods import METHODS, checked_options

TRIALS = range(1, 200)


def test_the_first_trial_is_the_defaults():
    case = RunSpec("ogm", "concat")
    assert trial_spec(case, 0, 0, 1e-3) is case


def test_learning_rates_are_the_same_for_every_case_and_spread_evenly_on_a_logarithmic_scale():
    found = [trial_spec(RunSpec("joint", "concat"), k, 0, 1e-3).settings["lr"] for k in TRIALS]
    other = [trial_spec(RunSpec("ogm", "sum"), k, 0, 1e-3).settings["lr"] for k in TRIALS]
    assert found == other
    assert len(set(found)) > 150
    steps = [math.log(lr / 1e-3, LR_FACTOR) for lr in found]
    assert -1.01 < min(steps) < -0.9
    assert 0.9 < max(steps) < 1.01
    assert abs(sum(steps) / len(steps)) < 0.1


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS.load(m).search])
def test_options_that_are_searched_are_the_methods_own_and_stay_within_bounds(method):
    search = METHODS.load(method).search
    for k in TRIALS:
        options = trial_spec(RunSpec(method, "concat"), k, 0, 1e-3).options
        assert options.keys() == search.keys()
        checked_options(method, options)
        for name, (low, high) in search.items():
            assert low * 0.99 <= options[name] <= high * 1.01
    drawn = [trial_spec(RunSpec(method, "concat"), k, 0, 1e-3).options for k in TRIALS]
    for name, (low, high) in search.items():
        below = sum(options[name] < math.sqrt(low * high) for options in drawn)
        assert 70 < below < 130  # about half of 199 are below the geometric middle


def test_an_option_that_was_given_is_not_searched():
    case = RunSpec("ogm-ge", "concat", {"alpha": "0.8"})
    options = trial_spec(case, 1, 0, 1e-3).options
    assert options["alpha"] == "0.8"
    assert "noise" in options


def test_another_seed_draws_other_trials_and_the_same_one_the_same():
    case = RunSpec("pmr", "concat")
    assert trial_spec(case, 1, 0, 1e-3) == trial_spec(case, 1, 0, 1e-3)
    assert trial_spec(case, 1, 0, 1e-3) != trial_spec(case, 1, 1, 1e-3)


def test_the_best_trial_is_of_highest_accuracy_and_of_lowest_loss_among_equals():
    outcomes = [
        {"validation": {"accuracy": accuracy, "loss": loss}}
        for accuracy, loss in [(0.8, 0.1), (0.9, 0.5), (0.9, 0.4), (0.7, 0.0)]
    ]
    assert best_trial(outcomes) == 2
