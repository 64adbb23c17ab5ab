"""Coalitions: which modalities are present.

A coalition of n modalities is a whole number below 2**n whose set bits are its members; bit 0
is the first modality. Every table over coalitions has its columns in that order, so column 0
is the empty coalition and the last column the grand coalition.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mmcoop.errors import UsageError

#: Above this many modalities the 2**n coalitions are too many to value every one: they are sampled.
MAX_EXACT_MODALITIES = 12

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple if they can name modalities, in the order given.

    Raises `UsageError` for no modality at all, for a repeated name and for a name with other
    characters than letters, digits, `_` and `-` (`+` joins the names of a coalition), and for a
    few such as `values`, which are names of `torch.nn.ModuleDict`'s own.
    """
    if isinstance(modalities, str) or not isinstance(modalities, Iterable):
        raise UsageError(f"modalities are a list of names, and not {modalities!r}")
    names = tuple(modalities)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"modalities are names, and {odd[0]!r} is a {type(odd[0]).__name__}")
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


def reported_coalitions(n_modalities: int) -> Tensor:
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


def telling_coalitions(names: Sequence[str]) -> list[str]:
    """Of the names of coalitions those that people look at: all of up to three modalities, and of
    more the single modalities, all but one of them, and all, by size.
    """
    sizes = {name: name.count("+") + 1 for name in names}
    n = max(sizes.values())
    kept = [name for name in names if n <= 3 or sizes[name] in (1, n - 1, n)]
    return kept if n <= 3 else sorted(kept, key=lambda name: sizes[name])
