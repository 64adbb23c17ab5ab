"""How samples are valued: what is chosen, what a file says of it, and what cannot be meant."""

import math

import pytest

from mmcoop.core import choices
from mmcoop.core.games.estimators import least_budget
from mmcoop.core.valuation.config import ValuationConfig
from mmcoop.core.valuation.value_functions import VALUE_FUNCTIONS
from mmcoop.errors import UsageError


def test_by_default_all_coalitions_of_up_to_twelve_are_valued_and_some_of_more():
    assert [ValuationConfig().chosen(n) for n in (1, 2, 12)] == [("exact", None)] * 3
    assert ValuationConfig().chosen(13) == ("kernel", 512)
    assert ValuationConfig().chosen(400)[1] == least_budget("kernel", 400) > 512


def test_a_budget_that_all_coalitions_fit_into_values_them_all():
    assert ValuationConfig(budget=16).chosen(4) == ("exact", None)
    assert ValuationConfig(budget=1000).chosen(9) == ("exact", None)
    assert ValuationConfig(budget=1000).chosen(10) == ("kernel", 1000)
    assert ValuationConfig(budget=2**13).chosen(13) == ("kernel", 2**13)


def test_a_tolerance_draws_coalitions():
    assert ValuationConfig(tolerance=0.1).chosen(5) == ("kernel", 512)
    assert ValuationConfig(tolerance=0.1, budget=64).chosen(5) == ("kernel", 64)


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_an_estimator_that_is_asked_for_is_chosen(estimator):
    assert ValuationConfig(estimator=estimator).chosen(4) == (estimator, 512)
    assert ValuationConfig(estimator=estimator, budget=99).chosen(4) == (estimator, 99)
    # of three, the coalitions that are always valued are all there are
    assert ValuationConfig(estimator=estimator, budget=8).chosen(3) == (estimator, 8)
    assert ValuationConfig(estimator=estimator, budget=10**6).chosen(12) == (estimator, 10**6)


def test_exact_is_exact():
    assert ValuationConfig(estimator="exact").chosen(12) == ("exact", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "papper"}, "^unknown value function 'papper': choose one of paper, correct, "),
        (
            {"estimator": "guess"},
            "^unknown estimator 'guess': choose one of auto, exact, permutation, kernel$",
        ),
        ({"budget": 0}, "^budget is 0: it must be at least 1$"),
        ({"budget": -5}, "^budget is -5: it must be at least 1$"),
        ({"max_batch": 0}, "^max_batch is 0: it must be at least 1$"),
        ({"tolerance": 0.0}, "^tolerance is 0.0: it must be a number above 0$"),
        ({"tolerance": -1.0}, "^tolerance is -1.0: it must be a number above 0$"),
        ({"tolerance": math.nan}, "^tolerance is nan: it must be a number above 0$"),
        ({"tolerance": math.inf}, "^tolerance is inf: it must be a number above 0$"),
        (
            {"estimator": "exact", "budget": 9},
            "^a budget or a tolerance is for coalitions that are drawn: leave it out, or choose an "
            "estimator: permutation, kernel$",
        ),
        (
            {"estimator": "exact", "tolerance": 0.1},
            "^a budget or a tolerance is for coalitions that are drawn: leave it out, or choose an",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options, message):
    with pytest.raises(UsageError, match=message):
        ValuationConfig(**options)


def test_too_many_modalities_for_all_their_coalitions_are_refused():
    message = (
        "^13 modalities: all coalitions are valued for 1 to 12 modalities only; choose an "
        "estimator that draws them: permutation, kernel$"
    )
    with pytest.raises(UsageError, match=message):
        ValuationConfig(estimator="exact").chosen(13)


@pytest.mark.parametrize(
    ("options", "n", "estimator", "fewest"),
    [
        ({"budget": 25}, 5, "kernel", 12 + 10 * 2),
        ({"budget": 3}, 2, "kernel", 4),
        ({"budget": 7, "estimator": "permutation"}, 3, "permutation", 8),
        ({"budget": 100, "estimator": "permutation"}, 6, "permutation", 14 + 16 * 6),
    ],
)
def test_too_small_a_budget_is_refused_with_the_least_that_will_do(options, n, estimator, fewest):
    how = ValuationConfig(**options)
    message = (
        f"^a budget of {options['budget']} coalitions a sample is too small for estimator "
        f"'{estimator}' and {n} modalities: it takes {fewest} at least"
    )
    with pytest.raises(UsageError, match=message):
        how.chosen(n)
    with pytest.raises(UsageError, match=message):
        how.details(n)


def test_a_file_is_told_value_fair_share_and_estimator_and_what_was_drawn():
    assert ValuationConfig().details(4) == {
        "value": "paper",
        "fair_share": 1.0,
        "best": None,
        "estimator": "exact",
        "seed": 0,
    }
    assert ValuationConfig("correct", seed=3).details(4) == {
        "value": "correct",
        "fair_share": None,
        "best": 1.0,
        "estimator": "exact",
        "seed": 3,
    }
    assert ValuationConfig("margin", "permutation", 200, 0.05, 64, 3).details(4) == {
        "value": "margin",
        "fair_share": None,
        "best": None,
        "estimator": "permutation",
        "budget": 200,
        "tolerance": 0.05,
        "seed": 3,
    }


def test_a_value_function_of_ones_own_is_told_by_its_name():
    def surprise(outputs, targets, sizes):
        return -outputs[:, 0]

    assert ValuationConfig(surprise).details(2) == {
        "value": "custom: surprise",
        "fair_share": None,
        "best": None,
        "estimator": "exact",
        "seed": 0,
    }


def test_what_may_be_picked_by_name_is_what_there_is():
    assert list(choices.VALUES) == list(VALUE_FUNCTIONS)
    assert list(choices.ESTIMATORS) == ["auto", "exact", *choices.SAMPLED]
    assert choices.listed({"a": "one", "b": "two"}) == "a: one; b: two"
