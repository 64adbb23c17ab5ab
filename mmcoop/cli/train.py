"""`mmcoop train`: a run from scratch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mmcoop.cli import options
from mmcoop.cli.listing import list_and_exit
from mmcoop.cli.options import Computing, Logging, Resuming, option, options_of
from mmcoop.cli.output import report
from mmcoop.core.models.encoders import ENCODERS
from mmcoop.core.models.fusions import FUSIONS
from mmcoop.errors import UsageError, setting
from mmcoop.methods import METHODS
from mmcoop.training.config import TrainConfig

_MAIN, _METHOD = ["method", "fusion", "epochs", "seed"], ["warmup", "max_extra", "value"]
Main: Any = options_of(TrainConfig, _MAIN, unset=True)
Method: Any = options_of(TrainConfig, _METHOD, panel="Method", unset=True)


@dataclass(kw_only=True)
class Train(Computing, Logging, Resuming, options.TrainingOptions, Method, Main):
    """Train a model on a dataset, from scratch.

    Unset options take the dataset's recommended settings (`mmcoop info data/NAME`), else the
    paper's. The best epoch is chosen on the validation split; the test split is not read.

    Examples:

    - `mmcoop train`

    - `mmcoop train --method sample`

    - `mmcoop train --method unimodal --modality audio --seed 1`

    - `mmcoop train --method modality --set rule=tanh --set alpha=2`

    - `mmcoop train --resume`
    """

    data: options.Data = None
    out: Annotated[
        Path | None, option("Run folder. \\[default: runs/METHOD]", metavar="FOLDER")
    ] = None
    encoder: options.Encoder = None
    modality: Annotated[
        str | None, option("The modality of unimodal.", panel="Method", metavar="NAME")
    ] = None
    scores: options.ScoresFile = None
    set: options.MethodOptions = None
    list_methods: Annotated[
        bool,
        option(
            "List the training methods.",
            "--list-methods",
            callback=list_and_exit(METHODS),
            is_eager=True,
            panel="Lists",
        ),
    ] = False
    list_fusions: Annotated[
        bool,
        option(
            "List the fusions.",
            "--list-fusions",
            callback=list_and_exit(FUSIONS),
            is_eager=True,
            panel="Lists",
        ),
    ] = False
    list_encoders: Annotated[
        bool,
        option(
            "List the encoders.",
            "--list-encoders",
            callback=list_and_exit(ENCODERS),
            is_eager=True,
            panel="Lists",
        ),
    ] = False

    def run(self) -> None:
        from mmcoop.reporting.summaries import trained
        from mmcoop.training.build import architecture_of
        from mmcoop.training.config import (
            check_warmup,
            fitting_defaults,
            make_config,
            shrunk_warmup,
        )
        from mmcoop.training.run import FINISHED, load_run
        from mmcoop.training.threads import suitable_threads, use_threads
        from mmcoop.training.train import resume, train
        from mmcoop.workspace import dataset_of, find_dataset, run_folder

        chosen = self._given()
        shown = self.runtime.progress
        where: dict[str, Any] = {
            "runtime": self.runtime,
            "scores": self.scores,
            "tensorboard": self.tensorboard,
        }
        if self.resume:
            folder = self.out or run_folder(make_config(chosen))
            begun = load_run(folder)
            dataset = dataset_of(begun, self.data)
            if begun.status == FINISHED:
                shown.note(f"{folder} has already finished: nothing is left to train")
            use_threads(
                self.threads
                or begun.threads
                or suitable_threads(begun.architecture, begun.config.batch_size),
                shown,
            )
            run = resume(folder, dataset, expected=chosen, **where)
        else:
            dataset = find_dataset(self.data)
            usual = dataset.defaults.get("train", {})
            config = make_config(fitting_defaults(usual, chosen), chosen)
            if "warmup" in chosen and not METHODS.load(config.method).has_warmup:
                raise UsageError(
                    f"method {config.method!r} has no warm-up: omit {setting('warmup')}"
                )
            if "max_extra" in chosen and not METHODS.load(config.method).adds_rows:
                raise UsageError(
                    f"method {config.method!r} adds no examples: omit {setting('max_extra')}"
                )
            if "value" in chosen and not METHODS.load(config.method).adds_rows:
                raise UsageError(
                    f"method {config.method!r} does not value samples: omit {setting('value')}"
                )
            check_warmup(config)
            if note := shrunk_warmup(config, usual, chosen):
                shown.note(note)
            folder = self.out or run_folder(config)
            architecture = architecture_of(dataset, config)
            use_threads(self.threads or suitable_threads(architecture, config.batch_size), shown)
            run = train(folder, dataset, config, overwrite=self.overwrite, **where)
        answer, tables = trained(run)
        report(answer, tables, as_json=self.as_json, quiet=self.quiet)

    def _given(self) -> dict[str, Any]:
        """The settings that were given, as `TrainConfig` has them."""
        chosen = options.given(self, [*_MAIN, *_METHOD, *options.TRAINING])
        method_options = options.parse_pairs("set", self.set)
        if self.modality is not None:
            method_options["modality"] = self.modality
        if method_options:
            chosen["options"] = method_options
        if encoders := options.parse_pairs("encoder", self.encoder):
            chosen["encoders"] = encoders
        return chosen
