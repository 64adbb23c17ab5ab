"""Contributions of training samples read from a scores file, instead of a new valuation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmcoop.core.resampling import ROUNDING, in_fair_shares, slack_of
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import DataError, UsageError, setting
from mmcoop.files import sha256
from mmcoop.names import normalised
from mmcoop.scores.scores import Scores

# How many ids a message lists.
_NAMED = 3


@dataclass(frozen=True)
class PrecomputedScores:
    """Contributions to the training samples, read from a scores file.

    Attributes:
        path: The scores file.
        sha256: The file's hash.
        contributions: float64 `(samples, n)`, in the order of the training split, in units of
            fair shares.
        slack: By how much a contribution may miss a step of the re-sampling rule through rounding
            (`extra_rows`).
    """

    path: Path
    sha256: str
    contributions: Tensor
    slack: float = ROUNDING

    @property
    def record(self) -> dict[str, str]:
        """The entry that `run.json` stores."""
        return {"path": str(self.path), "sha256": self.sha256}


def read_precomputed(
    path: Path | str, dataset: DatasetFolder, modalities: Sequence[str]
) -> PrecomputedScores:
    """Read contributions to every training sample from a scores file.

    The scores may be of any model with these modalities. Scores of other samples are ignored.

    Args:
        path: The scores file.
        dataset: The dataset to be trained on.
        modalities: Names of the modalities, in the order of the result's columns.

    Returns:
        The contributions, in the order of the training split.

    Raises:
        DataError: The file is not a scores file, has other modalities or another dataset, or a
            training sample is missing, occurs twice, has another label or a non-finite
            contribution.
        UsageError: The value function has no fair share.
    """
    path = Path(path)
    given = Scores.open(path)
    given.check_ids()
    share, best = _unit(given, len(modalities))
    _check_same(given, dataset, modalities)
    scores = given.by_id()
    split = dataset.split("train")
    ids = pd.Index(map(normalised, split.ids(np.arange(len(split)))))
    scores = scores[scores.index.isin(ids)]
    twice = scores.index[scores.index.duplicated()]
    if len(twice):
        raise DataError(f"{path} has two scores of sample {twice[0]!r}: keep one of them")
    missing = ids[~ids.isin(scores.index)]
    if len(missing):
        raise DataError(
            f"{path} has no scores of {len(missing):,} of the {len(ids):,} training samples "
            f"({_named(missing)}): value the training split, mmcoop valuate --split train"
        )
    scores = scores.loc[ids]
    contributions = scores[list(modalities)].to_numpy(copy=True)
    odd = ids[~np.isfinite(contributions).all(axis=1)]
    if len(odd):
        raise DataError(
            f"{path}: the contributions to {len(odd):,} of the {len(ids):,} training samples "
            f"({_named(odd)}) are NaN or infinite: value them again"
        )
    labels = scores["label"].to_numpy()
    # a missing label is NaN or negative and cannot be compared
    differs = ids[(labels >= 0) & (labels != split.labels)]
    if len(differs):
        raise DataError(
            f"{path} has another class of {len(differs):,} training samples "
            f"({_named(differs)}) than the data set: these scores are of other samples"
        )
    phi = in_fair_shares(torch.from_numpy(contributions), share, best)
    return PrecomputedScores(path, sha256(path), phi, slack_of(share))


def reread_precomputed(
    recorded: Mapping[str, str],
    dataset: DatasetFolder,
    modalities: Sequence[str],
    path: Path | str | None = None,
) -> PrecomputedScores:
    """Read the scores that a run recorded again.

    Args:
        recorded: The run's record of them (`PrecomputedScores.record`).
        dataset: The dataset of the run.
        modalities: Names of the modalities, in order.
        path: Where the file is now, if it has been moved.

    Raises:
        DataError: As `read_precomputed`, and if the file has changed.
        UsageError: As `read_precomputed`.
    """
    given = read_precomputed(path or recorded["path"], dataset, modalities)
    if given.sha256 != recorded["sha256"]:
        raise DataError(
            f"{given.path} is not the scores file any more that the run was started with (its "
            f"sha256 is another one): restore it, or start anew with {setting('overwrite', True)}"
        )
    return given


def _unit(scores: Scores, n_modalities: int) -> tuple[float | None, float]:
    """The constant fair share of the scores' value function, or None and its highest value."""
    value = scores.details.get("value")
    best: Any = scores.details.get("best")
    share: Any = scores.fair_share
    if value != "paper" and "best" not in scores.details and _is_number(share):
        # earlier versions stored the highest value / n as a constant fair share
        share, best = None, share * n_modalities
    if _is_number(share):
        return float(share), 0.0
    if not _is_number(best):
        raise UsageError(
            f"{scores.path} has scores by the value function {value!r}, which has no fair share, "
            "so that enhancement cannot say what contributes little: value the samples by paper, "
            "correct or probability"
        )
    return None, float(best)


def _is_number(share: Any) -> TypeGuard[float]:
    return isinstance(share, int | float) and not isinstance(share, bool) and 0 < share < np.inf


def _check_same(scores: Scores, dataset: DatasetFolder, modalities: Sequence[str]) -> None:
    """Raise `DataError` for scores of other modalities or of another dataset."""
    found = scores.details.get("dataset") or {}
    fingerprint = found.get("fingerprint", dataset.fingerprint)
    if sorted(scores.modalities) != sorted(modalities):
        raise DataError(
            f"{scores.path} has scores of the modalities {', '.join(scores.modalities)}, the model "
            f"has {', '.join(modalities)}: value a model of the same ones"
        )
    if fingerprint not in (dataset.fingerprint, dataset.whole.fingerprint):
        raise DataError(
            f"{scores.path} has scores of another data set than {dataset.folder}: make them with "
            f"mmcoop valuate --data {dataset.folder}, from a run trained on it"
        )


def _named(ids: pd.Index) -> str:
    more = ", …" if len(ids) > _NAMED else ""
    return ", ".join(map(repr, ids[:_NAMED])) + more
