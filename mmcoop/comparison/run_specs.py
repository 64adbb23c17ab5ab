"""Which runs a comparison is made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmcoop.comparison.folder import BASELINE
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import UsageError
from mmcoop.methods import METHODS, checked_options
from mmcoop.training.config import TrainConfig, check_warmup, make_config
from mmcoop.training.train import check_training


@dataclass(frozen=True)
class RunSpec:
    """One line of a comparison: a method with a fusion, over all seeds.

    `label` tells it from others in tables: the method's name and, of `unimodal`, the modality's.
    `options` are the method's, `settings` those of `TrainConfig` that tuning chose.
    """

    method: str
    fusion: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        modality = self.options.get("modality")
        return f"{self.method} {modality}" if modality else self.method

    @property
    def name(self) -> str:
        return f"{self.label}-{self.fusion}".replace(" ", "-")

    def config(self, *layers: Mapping[str, Any]) -> TrainConfig:
        """How its runs are trained, the settings of all the comparison given in layers."""
        own = {"method": self.method, "fusion": self.fusion, "options": dict(self.options)}
        return make_config(*layers, own, self.settings)


def make_run_specs(
    dataset: DatasetFolder,
    methods: Sequence[str] | None,
    fusions: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    *layers: Mapping[str, Any],
) -> tuple[list[RunSpec], dict[str, str]]:
    """The cases of these methods (all there are for None) with these fusions, and why others are
    left out, by name. `options` are given by method.

    A method that is defined on certain fusions alone is trained with those of them, or with its
    usual one where none is among them. `joint` is there for every fusion, and `unimodal` for every
    modality, with the first fusion. Raises `UsageError` for an unknown name, for a fusion that does
    not carry joint training, and for a method that was asked for, or given options, and can be
    trained with no fusion.
    """
    for name in fusions:
        FUSIONS.check(name)
    for name in methods or ():
        METHODS.check(name)
    for name in options:
        if METHODS.check(name) and name not in (methods or METHODS):
            raise UsageError(f"options of {name!r} are given, which is not among the methods")
    wanted = [name for name in METHODS if methods is None or name in methods or name == BASELINE]
    needed = list(dict.fromkeys([*fusions, *(f for n in wanted for f in _fusions_of(n, fusions))]))
    cases: list[RunSpec] = []
    left_out: dict[str, str] = {}
    for name in wanted:
        possible = list(_cases_of(name, dataset, fusions, needed, options.get(name, {})))
        reasons = {}
        for case in possible:
            config = case.config(*layers)
            check_warmup(config)
            try:
                check_training(dataset, config)
            except UsageError as error:
                reasons[case.name] = str(error)
            else:
                cases.append(case)
        asked_for = name in (methods or ()) or name in options
        if asked_for and len(reasons) == len(possible):
            raise UsageError(f"{name} cannot be compared here: {next(iter(reasons.values()))}")
        left_out |= reasons
    trained = {case.fusion for case in cases if case.method != BASELINE}
    kept = [
        case
        for case in cases
        if case.method != BASELINE or case.fusion in fusions or case.fusion in trained
    ]
    for fusion in fusions:
        if reason := left_out.get(RunSpec(BASELINE, fusion).name):
            raise UsageError(f"{fusion} cannot be compared here: {reason}")
    return kept, left_out


def _cases_of(
    method: str,
    dataset: DatasetFolder,
    fusions: Sequence[str],
    needed: Sequence[str],
    options: Mapping[str, Any],
) -> Iterable[RunSpec]:
    if method == "unimodal":
        for modality in dataset.modalities:
            checked_options(method, {"modality": modality, **options})
            yield RunSpec(method, fusions[0], {"modality": modality, **options})
        return
    checked_options(method, options)
    for fusion in needed if method == BASELINE else _fusions_of(method, fusions):
        yield RunSpec(method, fusion, options)


def _fusions_of(method: str, fusions: Sequence[str]) -> Sequence[str]:
    """With which of the fusions a method is trained; its usual one where it is defined on none."""
    legal = METHODS.load(method).fusions
    return [name for name in fusions if name in legal] or legal[:1] if legal else fusions


def tuned(case: RunSpec, settings: Mapping[str, Any], options: Mapping[str, Any]) -> RunSpec:
    """The case with settings and options that tuning chose."""
    return replace(case, settings={**settings}, options={**case.options, **options})
