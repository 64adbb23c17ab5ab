"""`mmcoop enhance`: fine-tuning a run so that its weak modality is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mmcoop.cli import options
from mmcoop.cli.options import Computing, Logging, Resuming, option, options_of
from mmcoop.cli.output import report
from mmcoop.errors import UsageError
from mmcoop.methods import LEVELS
from mmcoop.training.config import TrainConfig

Main: Any = options_of(TrainConfig, ["epochs", "seed"], unset=True)
Method: Any = options_of(TrainConfig, ["max_extra", "value"], panel="Method", unset=True)

_SETTINGS = ["epochs", "seed", "max_extra", "value", *options.TRAINING]


@dataclass(kw_only=True)
class Enhance(Computing, Logging, Resuming, options.TrainingOptions, Method, Main):
    """Fine-tune a run so that the modality that contributes little is used.

    Before every epoch the training samples are valued, and modalities with a low contribution are
    trained again, alone. Unset options take the dataset's recommended settings for enhancement,
    else those of the run.

    Examples:

    - `mmcoop enhance`

    - `mmcoop enhance --level modality --run runs/joint --epochs 10`

    - `mmcoop enhance --scores scores.parquet --max-extra 3`
    """

    level: Annotated[
        str,
        option("sample: per sample; modality: the weaker modality, at random.", metavar="NAME"),
    ] = "sample"
    run_folder: Annotated[
        Path | None,
        option("Run to start from. \\[default: the last one in runs/]", "--run", metavar="FOLDER"),
    ] = None
    data: options.RunData = None
    out: Annotated[
        Path | None, option("Run folder to create. \\[default: runs/RUN-LEVEL]", metavar="FOLDER")
    ] = None
    scores: options.ScoresFile = None
    set: options.MethodOptions = None

    def run(self) -> None:
        from mmcoop.reporting.summaries import enhanced
        from mmcoop.training.config import make_config
        from mmcoop.training.run import load_run
        from mmcoop.training.threads import suitable_threads, use_threads
        from mmcoop.training.train import resume, train
        from mmcoop.workspace import dataset_of, enhanced_folder, find_run

        if self.level not in LEVELS:
            raise UsageError(f"unknown level {self.level!r}: choose one of {', '.join(LEVELS)}")
        chosen = options.given(self, _SETTINGS)
        if method_options := options.parse_pairs("set", self.set):
            chosen["options"] = method_options
        parent_folder = self.run_folder
        if self.resume and self.out and parent_folder is None:
            begun = load_run(self.out).parent
            parent_folder = Path(begun["path"]) if begun else None
        parent = find_run(parent_folder, enhanced=False)
        if len(parent.modalities) < 2:
            raise UsageError(
                f"{parent.folder} has a single modality: enhancement needs two or more"
            )
        dataset = dataset_of(parent, self.data)
        config = make_config(
            parent.config.to_json(),
            dataset.defaults.get("enhance", {}),
            {"method": self.level, "options": {}, "warmup": 0, "value": TrainConfig.value},
            chosen,
        )
        folder = self.out or enhanced_folder(parent, self.level, config.seed)
        shown = self.runtime.progress
        where: dict[str, Any] = {
            "runtime": self.runtime,
            "scores": self.scores,
            "tensorboard": self.tensorboard,
        }
        kept = load_run(folder).threads if self.resume else None
        suitable = suitable_threads(parent.architecture, config.batch_size)
        use_threads(self.threads or kept or suitable, shown)
        if self.resume:
            expected = {"method": self.level, **chosen}
            after = resume(folder, dataset, expected=expected, **where)
        else:
            after = train(folder, dataset, config, parent=parent, overwrite=self.overwrite, **where)
        answer, tables = enhanced(parent, after)
        report(answer, tables, as_json=self.as_json, quiet=self.quiet)
