"""`mmcoop valuate`: what every modality contributed to every sample."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mmcoop.cli import options
from mmcoop.cli.options import Computing, Resuming, option
from mmcoop.cli.output import report
from mmcoop.core.choices import ABSENT, CLASS_VALUES, ESTIMATORS, INDICES, INTERACTIONS
from mmcoop.errors import UsageError, setting

_VALUES, _COALITIONS, _EXTRA, _OWN = (
    "Value of a coalition",
    "Sampled coalitions",
    "Extra columns",
    "Your own model",
)
_DRAWS, _BATCH_SIZE = 8, 64


def _listed(names: Iterable[str]) -> str:
    """The names, of which the first is the default."""
    default, *others = names
    return ", ".join([f"{default} (default)", *others])


@dataclass(kw_only=True)
class Valuate(Computing, Resuming):
    """Value the modalities of a run, or of your own model, for every sample.

    Writes one row per sample. A contribution φ is the Shapley value of a modality: by the paper's
    value function, 1 is a fair share, less is low-contributing and below 0 is misleading.

    Examples:

    - `mmcoop valuate --out scores.parquet`

    - `mmcoop valuate --run runs/joint --split test --out test-scores.parquet --json`

    - `mmcoop valuate --split test --value probability --absent marginal --interactions pairwise`

    - `mmcoop valuate --cross-fit 5 --out held-out.parquet`

    - `mmcoop valuate --model mine:make_model --weights mine.safetensors --data data/keypad`
    """

    run_folder: Annotated[
        Path | None,
        option("Run folder. \\[default: the last one in runs/]", "--run", metavar="FOLDER"),
    ] = None
    data: options.RunData = None
    split: Annotated[
        str, option("train (default), validation, test or all.", metavar="NAME", show_default=False)
    ] = "train"
    out: Annotated[
        Path, option("Scores file. \\[default: scores.parquet]", metavar="FILE", show_default=False)
    ] = Path("scores.parquet")
    cross_fit: Annotated[
        int | None,
        option("Value training samples by N models trained without them.", min=2, metavar="N"),
    ] = None
    value: Annotated[
        str,
        option(f"{_listed(CLASS_VALUES)}.", panel=_VALUES, metavar="NAME", show_default=False),
    ] = "paper"
    absent: Annotated[
        str | None,
        option(
            f"Imputer: {', '.join(ABSENT)}. \\[default: the model's own, else zero]",
            panel=_VALUES,
            metavar="NAME",
        ),
    ] = None
    features: Annotated[
        list[str] | None,
        option(
            "Impute this submodule's output. \\[repeatable]",
            "--features",
            panel=_VALUES,
            metavar="MODALITY=SUBMODULE",
        ),
    ] = None
    draws: Annotated[
        int | None,
        option(
            f"Samples per marginal imputation. \\[default: {_DRAWS}]",
            min=1,
            panel=_VALUES,
            metavar="N",
        ),
    ] = None
    estimator: Annotated[
        str,
        option(f"{_listed(ESTIMATORS)}.", panel=_COALITIONS, metavar="NAME", show_default=False),
    ] = "auto"
    budget: Annotated[
        int | None,
        option(
            "Coalitions per sample. \\[default: 512 or more]",
            min=1,
            panel=_COALITIONS,
            metavar="N",
        ),
    ] = None
    tolerance: Annotated[
        float | None,
        option("Standard error at which to stop.", panel=_COALITIONS, metavar="NUMBER"),
    ] = None
    max_batch: Annotated[
        int | None,
        option("Queries per call of the model.", min=1, panel=_COALITIONS, metavar="N"),
    ] = None
    seed: Annotated[
        int,
        option("Random seed. \\[default: 0]", panel=_COALITIONS, metavar="N", show_default=False),
    ] = 0
    interactions: Annotated[
        str,
        option(f"{_listed(INTERACTIONS)}.", panel=_EXTRA, metavar="NAME", show_default=False),
    ] = "none"
    index: Annotated[
        list[str] | None,
        option(f"{', '.join(INDICES)}. \\[repeatable]", "--index", panel=_EXTRA, metavar="NAME"),
    ] = None
    groups: Annotated[
        list[str] | None,
        option(
            "Group for owen. \\[repeatable]",
            "--groups",
            panel=_EXTRA,
            metavar="NAME=MODALITY,…",
        ),
    ] = None
    emap: Annotated[
        int,
        option(
            "Samples for EMAP's gap; 0 (default): none.",
            min=0,
            panel=_EXTRA,
            metavar="N",
            show_default=False,
        ),
    ] = 0
    model: Annotated[
        str | None,
        option("The model, or a function that makes it.", panel=_OWN, metavar="MODULE:NAME"),
    ] = None
    output: Annotated[
        str | None,
        option(
            "Item with the predictions; or logits, probabilities.",
            "--output",
            panel=_OWN,
            metavar="NAME",
        ),
    ] = None
    weights: Annotated[
        Path | None, option("safetensors, .pt or .ckpt.", panel=_OWN, metavar="FILE")
    ] = None
    modality: Annotated[
        list[str] | None,
        option(
            "Input of the model. \\[repeatable; default: all]",
            "--modality",
            panel=_OWN,
            metavar="NAME",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        option(f"Samples per batch. \\[default: {_BATCH_SIZE}]", min=1, panel=_OWN, metavar="N"),
    ] = None

    def run(self) -> None:
        from mmcoop.reporting.valuation import valuation_report

        scores, subject, held_out = self._of_run() if self.model is None else self._of_model()
        answer, tables = valuation_report(scores, subject, held_out)
        report(answer, tables, as_json=self.as_json, quiet=self.quiet)

    def _of_run(self) -> tuple[Any, dict[str, Any], float | None]:
        """The scores of a run, what was valued, and its accuracy on held-out samples."""
        from mmcoop.training.evaluation import valuate_run
        from mmcoop.training.threads import suitable_threads, use_threads
        from mmcoop.workspace import dataset_of, find_run

        for name in ("weights", "modality", "batch_size", "output"):
            if getattr(self, name):
                raise UsageError(
                    f"{setting(name)} is for your own model: name it with {setting('model')}"
                )
        where = self._where()
        valued = find_run(self.run_folder)
        subject: dict[str, Any] = {"run": str(valued.folder)}
        held_out: float | None = None
        if self.cross_fit:
            subject["cross_fit"] = self.cross_fit
        elif self.split == "train":
            held_out = valued.best_epoch["validation_accuracy"]
        dataset = dataset_of(valued, self.data)
        suitable = suitable_threads(valued.architecture, valued.config.batch_size)
        use_threads(self.threads or suitable, self.progress)
        scores = valuate_run(
            valued,
            dataset,
            self.split,
            self.out,
            folds=self.cross_fit or 0,
            **where,
        )
        return scores, subject, held_out

    def _of_model(self) -> tuple[Any, dict[str, Any], None]:
        """The scores of the user's own model, and what was valued."""
        from mmcoop.files import sha256
        from mmcoop.scores.dataset import score_model
        from mmcoop.scores.user_model import load_own_model, own_errors
        from mmcoop.training.device import pick_device
        from mmcoop.training.threads import use_threads
        from mmcoop.workspace import find_dataset

        assert self.model is not None
        if self.run_folder is not None:
            raise UsageError("--run and --model exclude each other: which one should be valued?")
        if self.cross_fit:
            raise UsageError("--cross-fit trains runs again: use it with --run, not with --model")
        where = self._where()
        dataset = find_dataset(self.data)
        model = load_own_model(self.model, self.weights)
        if self.threads:
            use_threads(self.threads, self.progress)
        if hasattr(model, "to"):
            model = model.to(pick_device(self.device))
        with own_errors(self.model, model):
            scores = score_model(
                model,
                dataset,
                self.split,
                self.out,
                modalities=tuple(sorted(self.modality)) if self.modality else None,
                name=self.model,
                weights=sha256(self.weights) if self.weights else None,
                batch_size=self.batch_size or _BATCH_SIZE,
                output=_item(self.output),
                **where,
            )
        return scores, {"model": self.model}, None

    def _where(self) -> dict[str, Any]:
        """What both kinds of valuation take: the request, and how to go about it."""
        from mmcoop.core.valuation.config import ValuationConfig
        from mmcoop.scores.dataset import ValuationRequest
        from mmcoop.scores.user_model import ImputerSpec

        if self.draws and self.absent != "marginal":
            raise UsageError("--draws is for --absent marginal: omit it")
        how = ValuationConfig(
            value=self.value,
            estimator=self.estimator,
            budget=self.budget,
            tolerance=self.tolerance,
            max_batch=self.max_batch,
            seed=self.seed,
        )
        submodules = options.parse_pairs("features", self.features)
        request = ValuationRequest(
            how=how,
            absence=ImputerSpec(self.absent, submodules, self.draws or _DRAWS, self.seed),
            interactions=self.interactions,
            indices=tuple(self.index or ()),
            groups=tuple(self.groups or ()),
            emap=self.emap,
        )
        return {
            "request": request,
            "overwrite": self.overwrite,
            "resume": self.resume,
            "runtime": self.runtime,
        }


def _item(text: str | None) -> str | int | None:
    """The name or position that --output gives."""
    return int(text) if text is not None and text.removeprefix("-").isdecimal() else text
