"""Starting a comparison: what can be refused is, before there is a folder."""

from pathlib import Path

from mmcoop.comparison.folder import Comparison, ComparisonSpec, is_comparison, layers
from mmcoop.comparison.run_specs import make_run_specs
from mmcoop.datasets.reader import DatasetFolder
from mmcoop.errors import UsageError, setting
from mmcoop.files import atomic_folder, check_new_folder
from mmcoop.locks import check_unlocked, locked
from mmcoop.training.config import make_config


def new_comparison(
    folder: Path | str, dataset: DatasetFolder, plan: ComparisonSpec, *, overwrite: bool = False
) -> Comparison:
    """Make the folder of a comparison that is about to start.

    Raises `UsageError` where it may not be made, while another process works on it, and for cases
    that cannot be trained.
    """
    folder = Path(folder)
    if plan.match == "seconds" and make_config(*layers(dataset, plan)).schedule == "cosine":
        raise UsageError(
            f"{setting('match')} seconds: how long a run trains is not known before, and "
            f"{setting('schedule')} cosine "
            "needs to know; choose step or constant"
        )
    make_run_specs(dataset, plan.methods, plan.fusions, plan.options, *layers(dataset, plan))
    check_unlocked(folder)
    _check_place(folder, overwrite)
    about = {"path": str(dataset.folder), "name": dataset.name, "fingerprint": dataset.fingerprint}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_place(folder, overwrite)  # another process may have made one since
        with atomic_folder(folder) as temporary:
            Comparison(temporary, plan, about).save()
    return Comparison(folder, plan, about)


def _check_place(folder: Path, overwrite: bool) -> None:
    if not overwrite and is_comparison(folder):
        raise UsageError(
            f"{folder} exists: resume or extend it with {setting('resume', True)}, choose "
            f"another {setting('out')}, or replace "
            f"it with {setting('overwrite', True)}"
        )
    check_new_folder(folder, overwrite, is_comparison)
