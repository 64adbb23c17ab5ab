"""Coalitions: which modalities are present.

A coalition of n modalities is a whole number below 2**n whose set bits are its members; bit 0
is the first modality. Every table over coalitions has its columns in that order, so column 0
is the empty coalition and the last column the grand coalition.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmcoop.errors import UsageError

#: Above this many modalities the 2**n coalitions are too many to value every one.
MAX_EXACT_MODALITIES = 12

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple if they can name modalities, in the order given.

    Raises `UsageError` for no modality at all, for a repeated name and for a name with other
    characters than letters, digits, `_` and `-` (`+` joins the names of a coalition), and for a
    few such as `values`, which are names of `torch.nn.ModuleDict`'s own.
    """
    if isinstance(modalities, str):
        raise UsageError(f"modalities are a list of names, not the text {modalities!r}")
    names = tuple(modalities)
    if not names:
        raise UsageError("no modalities given: at least one is needed")
    if len(set(names)) != len(names):
        raise UsageError(f"modality names repeat: {', '.join(names)}")
    for name in names:
        if hasattr(nn.ModuleDict(), name):
            raise UsageError(f"{name!r} cannot name a modality: torch's modules use it themselves")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a modality: use letters, digits, '_' and '-'")
    return names


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


def coalition_names(modalities: Sequence[str]) -> list[str]:
    """Names of all coalitions in table order: `["", "audio", "visual", "audio+visual"]`."""
    names = check_modalities(modalities)
    return [
        "+".join(name for name, member in zip(names, row, strict=True) if member)
        for row in coalition_matrix(len(names)).tolist()
    ]


def telling_coalitions(names: Sequence[str]) -> list[str]:
    """Of the names of coalitions those that people look at: all of up to three modalities, and of
    more the single modalities, all but one of them, and all, by size.
    """
    sizes = {name: name.count("+") + 1 for name in names}
    n = max(sizes.values())
    kept = [name for name in names if n <= 3 or sizes[name] in (1, n - 1, n)]
    return kept if n <= 3 else sorted(kept, key=lambda name: sizes[name])
