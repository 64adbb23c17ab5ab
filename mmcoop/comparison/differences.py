"""What lies between two runs that were evaluated on the same samples."""

from typing import Any

from mmcoop.comparison.statistics import mcnemar
from mmcoop.core.valuation.bootstrap import BootstrapMeans
from mmcoop.errors import DataError
from mmcoop.training.evaluation import Evaluation


def difference(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """How much more accurate the second run is than the first, sample by sample.

    Returns:
        `to` (the first run), `accuracy` (the difference, in −1…1), `interval` (its 95 % bootstrap
        interval), `p` (McNemar's test) and `samples` (how many the two differ on). Samples of one
        group count as one in the interval and in the test.

    Raises:
        DataError: the two are of other samples.
    """
    if first.scores.ids != second.scores.ids:
        raise DataError("the runs were evaluated on different samples: they cannot be compared")
    one, other = first.scores.correct, second.scores.correct
    assert one is not None and other is not None
    gains, groups = other - one, first.scores.dependent_groups
    means = BootstrapMeans(1)
    means.add(gains.unsqueeze(1), groups)
    return {
        "to": first.answer["run"],
        "accuracy": float(gains.mean()),
        "interval": means.interval()[0].tolist(),
        "p": mcnemar(other.numpy()[None], one.numpy()[None], groups),
        "samples": int((gains != 0).sum()),
    }
