"""Coalition values → other attributions than Shapley's, one number per modality too.

They differ in the coalitions that a modality is judged by: all, equally (Banzhaf), only that of all
others (leave-one-out), or only those that keep the other groups together (Owen).
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from mmcoop.core.games.coalition_tables import coalition_values
from mmcoop.core.games.coalitions import coalition_matrix
from mmcoop.core.games.shapley import shapley_matrix, shapley_values, size_weights
from mmcoop.core.modalities import check_modalities
from mmcoop.errors import UsageError

#: Groups of positions of modalities; those in no group are groups of their own.
Groups = Iterable[Sequence[int]]

_GROUP = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)")


def banzhaf_values(values: Tensor) -> Tensor:
    """Compute the mean marginal contribution over all coalitions, each with equal weight.

    βᵐ = 2^−(n−1) Σ_{S ⊆ N∖{m}} (v(S ∪ {m}) − v(S)) (Banzhaf, Rutgers Law Review 1965).

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.

    Returns:
        float64 `(samples, n)`. For n > 2, rows need not sum to v(N) − v(∅).

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    table, members = coalition_values(values, "Banzhaf values")
    signs = 2 * members.double() - 1
    weights: Tensor = signs / 2 ** (members.shape[1] - 1)
    return table @ weights.to(table.device)


def leave_one_out(values: Tensor) -> Tensor:
    """Compute the loss of value if a single modality is missing: v(N) − v(N∖{m}).

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.

    Returns:
        float64 `(samples, n)`. Each of two copies of a modality gets 0, since neither is missed.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
    """
    table, members = coalition_values(values, "leave-one-out values")
    everyone = len(members) - 1
    without = table[:, [everyone ^ 1 << m for m in range(members.shape[1])]]
    return table[:, -1:] - without


def owen_values(values: Tensor, groups: Groups) -> Tensor:
    """Compute Owen values: Shapley values over the orders that do not interrupt a group.

    φᵐ = Σ_{H ⊆ M∖{k}} Σ_{S ⊆ B_k∖{m}} |H|! (g−|H|−1)! / g! · |S|! (b−|S|−1)! / b! ·
    (v(Q_H ∪ S ∪ {m}) − v(Q_H ∪ S)), where M are the g groups, B_k is the group of m with b members,
    and Q_H the union of the groups in H (Owen, *Values of games with a priori unions*, 1977).

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.
        groups: Positions of modalities by group. A modality in no group is a group of its own.

    Returns:
        float64 `(samples, n)`. The values of a group sum to its Shapley value in the game between
        groups (`group_values`). With one group, or no group of several members, they are the
        Shapley values.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
        UsageError: Groups that are empty, overlap, or contain an invalid position.
    """
    table, members = coalition_values(values, "Owen values")
    n_modalities = members.shape[1]
    parts = partition(groups, n_modalities)
    counts = torch.stack([members[:, part].sum(1) for part in parts], dim=1)
    whole = counts == torch.tensor([len(part) for part in parts])
    by_size = size_weights(len(parts))
    weights = torch.zeros(len(members), n_modalities, dtype=torch.float64)
    for k, part in enumerate(parts):
        others = [j for j in range(len(parts)) if j != k]
        untorn = (whole | (counts == 0))[:, others].all(1)
        between = torch.where(untorn, by_size[whole[:, others].sum(1)], 0)
        # the members of this group that are present, as a coalition of the group alone
        inside = members[:, part].long() @ 2 ** torch.arange(len(part))
        weights[:, part] = between.unsqueeze(1) * shapley_matrix(len(part))[inside]
    return table @ weights.to(table.device)


def group_values(values: Tensor, groups: Groups) -> Tensor:
    """Compute Shapley values of groups, where a group joins completely or not at all.

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.
        groups: Positions of modalities by group. A modality in no group is a group of its own.

    Returns:
        float64 `(samples, groups)`, the groups in the order given, then the modalities in no group,
        by position.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
        UsageError: Groups that are empty, overlap, or contain an invalid position.
    """
    table, members = coalition_values(values, "Shapley values of groups")
    parts = partition(groups, members.shape[1])
    unions = coalition_matrix(len(parts)).long() @ torch.tensor(
        [sum(1 << m for m in part) for part in parts]
    )
    return shapley_values(table[:, unions])


def partition(groups: Groups, n_modalities: int) -> list[list[int]]:
    """The groups, then every modality in none of them alone: all positions 0 … n − 1 once.

    Raises `UsageError` for groups that are empty, overlap, or hold anything but positions.
    """
    parts: list[list[int]] = []
    taken: set[int] = set()
    for group in groups:
        try:
            part = [operator.index(position) for position in group]
        except TypeError:
            raise UsageError(
                f"group {group!r}: give the positions of its modalities, as in [[0, 1], [2]]"
            ) from None
        if not part:
            raise UsageError("a group of modalities is empty: leave it out")
        for position in part:
            if not 0 <= position < n_modalities:
                raise UsageError(
                    f"group {part}: there is no modality {position}, only 0 to {n_modalities - 1}"
                )
            if position in taken:
                raise UsageError(f"modality {position} is in a group already: give it once")
            taken.add(position)
        parts.append(part)
    return parts + [[m] for m in range(n_modalities) if m not in taken]


def parse_groups(texts: Iterable[str], modalities: Sequence[str]) -> dict[str, list[int]]:
    """`["left=cam1,cam2"]` → the positions of modalities by name of the group.

    Modalities in no group come last, each under its own name: the values are a whole partition,
    for `owen_values`, and the keys name the columns of `group_values`.

    Raises `UsageError` for another form, an unknown modality, one that is given twice, and a group
    that is named twice or like a modality.
    """
    names = check_modalities(modalities)
    groups: dict[str, list[int]] = {}
    for text in texts:
        parsed = _GROUP.fullmatch(text)
        if not parsed:
            raise UsageError(
                f"group {text!r}: write it as NAME=MODALITY,MODALITY, its name in letters, digits, "
                "'_' and '-'"
            )
        group, listed = parsed[1], [name.strip() for name in parsed[2].split(",")]
        if group in names:
            raise UsageError(f"group {text!r}: {group!r} is a modality: choose another name")
        if group in groups:
            raise UsageError(f"group {text!r}: there is a group {group!r} already")
        for name in listed:
            if name not in names:
                raise UsageError(
                    f"group {text!r}: there is no modality {name!r}, only {', '.join(names)}"
                )
            if listed.count(name) > 1 or any(names.index(name) in g for g in groups.values()):
                raise UsageError(
                    f"group {text!r}: {name!r} is in a group already: groups cannot overlap"
                )
        groups[group] = [names.index(name) for name in listed]
    parts = partition(groups.values(), len(names))
    return groups | {names[part[0]]: part for part in parts[len(groups) :]}


#: Attributions by name, `(samples, 2**n)` → `(samples, n)`; `owen` also takes groups.
INDICES: dict[str, Callable[..., Tensor]] = {
    "shapley": shapley_values,
    "banzhaf": banzhaf_values,
    "leave-one-out": leave_one_out,
    "owen": owen_values,
}


def index_values(values: Tensor, index: str = "shapley", groups: Groups = ()) -> Tensor:
    """Compute an attribution by its name in `INDICES`.

    Args:
        values: `(samples, 2**n)`, n in 1…12, as for `shapley_values`.
        index: The name of the index.
        groups: Positions of modalities by group, for `owen`.

    Returns:
        float64 `(samples, n)`.

    Raises:
        DataError: Another shape, or values that are not finite numbers.
        UsageError: An unknown name, `owen` without groups, or groups with another index.
    """
    if index not in INDICES:
        raise UsageError(f"unknown index {index!r}: choose one of {', '.join(INDICES)}")
    groups = list(groups)
    if index == "owen":
        if not groups:
            raise UsageError("index 'owen' needs groups of modalities")
        return owen_values(values, groups)
    if groups:
        raise UsageError(f"index {index!r} does not look at groups: choose owen, or give none")
    return INDICES[index](values)
