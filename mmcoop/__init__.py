"""mmcoop: what each modality of a multimodal model contributes to each sample.

Everything a user may import is listed in `__all__`. Names are loaded when first used, so that
the command line can answer `--help` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcoop.core.absence import replace_features, replace_inputs
    from mmcoop.core.indices import banzhaf_values, leave_one_out, owen_values
    from mmcoop.core.interactions import interaction_indices, shapley_interactions
    from mmcoop.core.measures import intershap
    from mmcoop.core.resampling import extra_rows, modality_probability
    from mmcoop.core.shapley import shapley_values
    from mmcoop.core.valuing import Valuing
    from mmcoop.datasets.loading import load_batches
    from mmcoop.datasets.store import open_dataset
    from mmcoop.errors import DataError, MmcoopError, UsageError
    from mmcoop.library import Valuation, valuate
    from mmcoop.scoring import Request, score_model
    from mmcoop.training.config import TrainConfig, make_config
    from mmcoop.training.crossfit import cross_fit
    from mmcoop.training.evaluation import evaluate_run, valuate_run
    from mmcoop.training.run import load_run
    from mmcoop.training.start import resume, train
    from mmcoop.valued_model import Absence

_HOMES = {
    "Absence": "mmcoop.valued_model",
    "DataError": "mmcoop.errors",
    "MmcoopError": "mmcoop.errors",
    "Request": "mmcoop.scoring",
    "TrainConfig": "mmcoop.training.config",
    "UsageError": "mmcoop.errors",
    "Valuation": "mmcoop.library",
    "Valuing": "mmcoop.core.valuing",
    "banzhaf_values": "mmcoop.core.indices",
    "cross_fit": "mmcoop.training.crossfit",
    "evaluate_run": "mmcoop.training.evaluation",
    "extra_rows": "mmcoop.core.resampling",
    "interaction_indices": "mmcoop.core.interactions",
    "intershap": "mmcoop.core.measures",
    "leave_one_out": "mmcoop.core.indices",
    "load_batches": "mmcoop.datasets.loading",
    "load_run": "mmcoop.training.run",
    "make_config": "mmcoop.training.config",
    "modality_probability": "mmcoop.core.resampling",
    "open_dataset": "mmcoop.datasets.store",
    "owen_values": "mmcoop.core.indices",
    "replace_features": "mmcoop.core.absence",
    "replace_inputs": "mmcoop.core.absence",
    "resume": "mmcoop.training.start",
    "score_model": "mmcoop.scoring",
    "shapley_interactions": "mmcoop.core.interactions",
    "shapley_values": "mmcoop.core.shapley",
    "train": "mmcoop.training.start",
    "valuate": "mmcoop.library",
    "valuate_run": "mmcoop.training.evaluation",
}

__all__ = [
    "Absence",
    "DataError",
    "MmcoopError",
    "Request",
    "TrainConfig",
    "UsageError",
    "Valuation",
    "Valuing",
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
