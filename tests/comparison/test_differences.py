"""Two runs on the same samples: against a plain count and drawing groups by hand."""

import numpy as np
import pyarrow as pa
import pytest

from mmcoop.comparison.differences import difference
from mmcoop.comparison.statistics import mcnemar
from mmcoop.errors import DataError
from mmcoop.scores.scores import Scores
from mmcoop.training.evaluation import Evaluation


def of(hits, groups=None, name: str = "run") -> Evaluation:
    right = np.asarray(hits, dtype=bool)
    zeros = np.zeros(len(right))
    columns = {
        "id": [f"sample {k}" for k in range(len(right))],
        **({} if groups is None else {"group": groups}),
        "label": np.zeros(len(right), dtype=np.int64),
        "prediction": (~right).astype(np.int64),
        "correct": right,
        "contribution_sound": zeros,
        "base_value": zeros,
        "value_sound": zeros,
    }
    return Evaluation({"run": name}, Scores(pa.table(columns), ("sound",), {}))


def test_forty_points_on_seven_samples_are_not_much():
    found = difference(of([1, 0, 0, 0, 1, 0, 0], name="joint"), of([1, 1, 1, 1, 0, 1, 0]))
    assert (found["to"], found["samples"]) == ("joint", 5)
    assert found["accuracy"] == pytest.approx(3 / 7)
    # four of five one way: 2 (1 + 5) / 2⁵
    assert found["p"] == pytest.approx(12 / 32)
    low, high = found["interval"]
    assert low < 0 < 3 / 7 < high


def test_the_interval_and_the_test_go_by_groups():
    chance = np.random.default_rng(0)
    first, second = (chance.integers(0, 2, 40).repeat(10) for _ in range(2))
    groups = [f"video {k // 10}" for k in range(400)]
    found = difference(of(first, groups), of(second, groups))
    drawn = (second - first).reshape(40, 10).mean(1)[chance.integers(0, 40, (20_000, 40))].mean(1)
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(found["interval"], expected, atol=0.1 * np.ptp(expected))
    # as if each group were one sample
    assert found["p"] == pytest.approx(mcnemar(second[None, ::10], first[None, ::10]))


def test_runs_on_other_samples_are_refused():
    with pytest.raises(DataError, match="^the runs were evaluated on different samples"):
        difference(of([1, 0, 1]), of([1, 0]))
