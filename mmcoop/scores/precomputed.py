"""Contributions of the training samples from a scores file, in place of valuing them."""

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

# So many ids are named where samples are missing or odd.
_NAMED = 3


@dataclass(frozen=True)
class PrecomputedScores:
    """What a scores file says of the training samples.

    Attributes:
        path: the file.
        sha256: that of the file.
        contributions: float64 `(samples, n)`, in the order of the training split; 1 is a fair
            share.
        slack: how far below a step of the re-sampling rule a contribution is still at it
            (`extra_rows`).
    """

    path: Path
    sha256: str
    contributions: Tensor
    slack: float = ROUNDING

    @property
    def record(self) -> dict[str, str]:
        """What `run.json` says of it."""
        return {"path": str(self.path), "sha256": self.sha256}


def read_precomputed(
    path: Path | str, dataset: DatasetFolder, modalities: Sequence[str]
) -> PrecomputedScores:
    """The contributions of `modalities`, in that order, to every training sample of `dataset`.

    The file may be of any model with these modalities; what it says of other samples is passed
    over. Raises `DataError` where it is no scores file, is of other modalities or another data set,
    or says nothing, or no number, of a training sample, and `UsageError` where its value function
    has no unit to measure contributions in.
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
    # without labels there is nothing to compare: those are missing, or below 0
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
    """The scores that a run has recorded, from `path` if they have been moved there.

    Raises `DataError` where it is not the same file any more.
    """
    given = read_precomputed(path or recorded["path"], dataset, modalities)
    if given.sha256 != recorded["sha256"]:
        raise DataError(
            f"{given.path} is not the scores file any more that the run was started with (its "
            f"sha256 is another one): restore it, or start anew with {setting('overwrite', True)}"
        )
    return given


def _unit(scores: Scores, n_modalities: int) -> tuple[float | None, float]:
    """The constant fair share of the scores' value function, or None and its best value."""
    value = scores.details.get("value")
    best: Any = scores.details.get("best")
    share: Any = scores.fair_share
    if value != "paper" and "best" not in scores.details and _is_number(share):
        # earlier versions wrote down the n-th part of the best value as the fair share of all
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
    """Raise `DataError` for scores of other modalities, or of another data set."""
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
