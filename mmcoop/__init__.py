"""mmcoop: what each modality of a multimodal model contributes to each sample.

Everything a user may import is listed in `__all__`. Names are loaded when first used, so that
the command line can answer `--help` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcoop.core.games.indices import banzhaf_values, leave_one_out, owen_values
    from mmcoop.core.games.interactions import interaction_indices, shapley_interactions
    from mmcoop.core.games.metrics import intershap
    from mmcoop.core.games.shapley import shapley_values
    from mmcoop.core.imputers.wrap import replace_features, replace_inputs
    from mmcoop.core.resampling import extra_rows, modality_probability
    from mmcoop.core.valuation.config import ValuationConfig
    from mmcoop.datasets.loading import load_batches
    from mmcoop.datasets.reader import open_dataset
    from mmcoop.errors import DataError, MmcoopError, UsageError
    from mmcoop.runtime import Runtime
    from mmcoop.scores.dataset import ValuationRequest, score_model
    from mmcoop.scores.scores import Scores
    from mmcoop.scores.user_model import ImputerSpec
    from mmcoop.scores.valuate import valuate
    from mmcoop.training.config import TrainConfig, make_config
    from mmcoop.training.crossfit import cross_fit
    from mmcoop.training.evaluation import evaluate_run, valuate_run
    from mmcoop.training.run import load_run
    from mmcoop.training.train import resume, train

_HOMES = {
    "ImputerSpec": "mmcoop.scores.user_model",
    "DataError": "mmcoop.errors",
    "MmcoopError": "mmcoop.errors",
    "ValuationRequest": "mmcoop.scores.dataset",
    "Runtime": "mmcoop.runtime",
    "Scores": "mmcoop.scores.scores",
    "TrainConfig": "mmcoop.training.config",
    "UsageError": "mmcoop.errors",
    "ValuationConfig": "mmcoop.core.valuation.config",
    "banzhaf_values": "mmcoop.core.games.indices",
    "cross_fit": "mmcoop.training.crossfit",
    "evaluate_run": "mmcoop.training.evaluation",
    "extra_rows": "mmcoop.core.resampling",
    "interaction_indices": "mmcoop.core.games.interactions",
    "intershap": "mmcoop.core.games.metrics",
    "leave_one_out": "mmcoop.core.games.indices",
    "load_batches": "mmcoop.datasets.loading",
    "load_run": "mmcoop.training.run",
    "make_config": "mmcoop.training.config",
    "modality_probability": "mmcoop.core.resampling",
    "open_dataset": "mmcoop.datasets.reader",
    "owen_values": "mmcoop.core.games.indices",
    "replace_features": "mmcoop.core.imputers.wrap",
    "replace_inputs": "mmcoop.core.imputers.wrap",
    "resume": "mmcoop.training.train",
    "score_model": "mmcoop.scores.dataset",
    "shapley_interactions": "mmcoop.core.games.interactions",
    "shapley_values": "mmcoop.core.games.shapley",
    "train": "mmcoop.training.train",
    "valuate": "mmcoop.scores.valuate",
    "valuate_run": "mmcoop.training.evaluation",
}

__all__ = [
    "DataError",
    "ImputerSpec",
    "MmcoopError",
    "Runtime",
    "Scores",
    "TrainConfig",
    "UsageError",
    "ValuationConfig",
    "ValuationRequest",
    "banzhaf_values",
    "cross_fit",
    "evaluate_run",
    "extra_rows",
    "interaction_indices",
    "intershap",
    "leave_one_out",
    "load_batches",
    "load_run",
    "make_config",
    "modality_probability",
    "open_dataset",
    "owen_values",
    "replace_features",
    "replace_inputs",
    "resume",
    "score_model",
    "shapley_interactions",
    "shapley_values",
    "train",
    "valuate",
    "valuate_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmcoop' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
