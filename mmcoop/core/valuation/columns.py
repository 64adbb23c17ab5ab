"""Further numbers of each sample: interactions, and attributions other than Shapley's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mmcoop.core.choices import INDICES, INTERACTIONS
from mmcoop.core.games.coalitions import coalition_matrix, coalition_names, table_order
from mmcoop.core.games.indices import group_values, index_values
from mmcoop.core.games.interactions import interaction_indices, shapley_interactions
from mmcoop.core.games.metrics import intershap
from mmcoop.core.valuation.engine import ValuedBatch
from mmcoop.errors import UsageError, setting


@dataclass(frozen=True)
class ExtraColumns:
    """Which further columns there are.

    `interactions`: "pairwise" for the Shapley interaction index of each pair, "all" of every
    coalition of two or more, with the local InterSHAP score either way; "none". `indices`: further
    attributions, of `INDICES`. `groups`: positions of modalities by name of the group, a whole
    partition, for "owen", which also gives each group its own value.

    Raises `UsageError` for names that do not exist.
    """

    modalities: tuple[str, ...]
    interactions: str = "none"
    indices: Sequence[str] = ()
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.interactions not in INTERACTIONS:
            raise UsageError(
                f"unknown interactions {self.interactions!r}: choose one of "
                f"{', '.join(INTERACTIONS)}"
            )
        for name in self.indices:
            if name not in INDICES:
                raise UsageError(f"unknown index {name!r}: choose one of {', '.join(INDICES)}")
        if "owen" in self.indices and not self.groups:
            raise UsageError(f"index 'owen' needs groups of modalities ({setting('groups')})")
        if self.groups and "owen" not in self.indices:
            raise UsageError("groups of modalities are for index 'owen': choose it, or give none")
        if self.interactions != "none" and len(self.modalities) < 2:
            raise UsageError("one modality has none to interact with: leave interactions out")

    def columns(self, batch: ValuedBatch) -> dict[str, Tensor]:
        """The columns of a batch by name, float64 `(batch,)` each.

        Raises `UsageError` where the batch has not the values of all coalitions.
        """
        if not self:
            return {}
        if batch.stderr is not None:
            self.check_drawn()
        table = batch.values[:, table_order(batch.coalitions)]
        found: dict[str, Tensor] = {}
        if self.interactions != "none":
            found |= self._interactions(table)
        for name in self.indices:
            # the one index that looks at groups
            groups = self.groups.values() if name == "owen" else ()
            numbers = index_values(table, name, groups)
            label = name.replace("-", "_")
            found |= {f"{label}_{m}": numbers[:, k] for k, m in enumerate(self.modalities)}
            if name == "owen":
                whole = group_values(table, groups)
                found |= {f"group_{group}": whole[:, k] for k, group in enumerate(self.groups)}
        return found

    def check_drawn(self) -> None:
        """Raise `UsageError` where drawn coalitions are not enough for the columns."""
        if self and len(self.modalities) > 3:
            raise UsageError(
                "interactions and further indices need the values of all coalitions: leave them "
                f"out, or value with {setting('estimator', 'exact')}"
            )

    def __bool__(self) -> bool:
        return self.interactions != "none" or bool(self.indices)

    def _interactions(self, table: Tensor) -> dict[str, Tensor]:
        n = len(self.modalities)
        members = coalition_matrix(n)
        names = coalition_names(self.modalities)
        found = {}
        if self.interactions == "all":
            indices = interaction_indices(table)
            for k in (members.sum(1) > 1).nonzero().squeeze(1).tolist():
                found[f"interaction_{names[k]}"] = indices[:, k]
        else:
            pairs = shapley_interactions(table)
            for k in (members.sum(1) == 2).nonzero().squeeze(1).tolist():
                i, j = members[k].nonzero().squeeze(1).tolist()
                found[f"interaction_{names[k]}"] = pairs[:, i, j]
        found["intershap"] = intershap(table).local if len(table) else table[:, 0]
        return found
