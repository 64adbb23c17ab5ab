"""Coalitions: which modalities are present.

A coalition of n modalities is a whole number below 2**n whose set bits are its members; bit 0
is the first modality. Every table over coalitions has its columns in that order, so column 0
is the empty coalition and the last column the grand coalition.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcoop.core.modalities import check_modalities
from mmcoop.errors import UsageError

#: Above this many modalities the 2**n coalitions are too many to value every one: they are sampled.
MAX_EXACT_MODALITIES = 12


def coalition_matrix(n_modalities: int) -> Tensor:
    """Membership of all coalitions, bool `(2**n, n)`: row S, column m is True if m is in S.

    Raises `UsageError` for n outside 1…12: there are 2**n rows.
    """
    if not 1 <= n_modalities <= MAX_EXACT_MODALITIES:
        raise UsageError(
            f"{n_modalities} modalities: all coalitions are enumerated for 1 to "
            f"{MAX_EXACT_MODALITIES} modalities only"
        )
    coalitions = torch.arange(2**n_modalities).unsqueeze(1)
    return coalitions.bitwise_right_shift(torch.arange(n_modalities)).bitwise_and(1).bool()


def coalition_names(modalities: Sequence[str], coalitions: Tensor | None = None) -> list[str]:
    """Names of coalitions, bool `(k, n)`; of all of them in table order where none are given:
    `["", "audio", "visual", "audio+visual"]`.
    """
    names = check_modalities(modalities)
    if coalitions is None:
        coalitions = coalition_matrix(len(names))
    return [
        "+".join(name for name, member in zip(names, row, strict=True) if member)
        for row in coalitions.tolist()
    ]


def anchor_coalitions(n_modalities: int) -> Tensor:
    """The coalitions that are valued whatever the number of modalities, bool `(k, n)`, by size:
    none of them, each alone, all but one of them, all.
    """
    one = torch.eye(n_modalities, dtype=torch.bool)
    none = torch.zeros(1, n_modalities, dtype=torch.bool)
    every = [none, one, ~one.flip(0), ~none]
    if n_modalities < 3:  # a modality alone is all but one of them, or all of them
        every = [none, one, ~none] if n_modalities == 2 else [none, ~none]
    return torch.cat(every)


def table_order(coalitions: Tensor) -> Tensor:
    """Where, among coalitions `(2**n, n)` in any order, each one of a table is: int64 `(2**n,)`."""
    return (coalitions * 2 ** torch.arange(coalitions.shape[1])).sum(1).argsort()
