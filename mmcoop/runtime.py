"""Where and how work is done."""

from dataclasses import dataclass
from numbers import Integral

from mmcoop.errors import UsageError
from mmcoop.progress import SILENT, Progress


@dataclass(frozen=True)
class Runtime:
    """Where and how work is done, which does not decide its results.

    Attributes:
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, …
        workers: Processes that load batches ahead; 0 loads them in between.
        progress: Where progress is shown; silent by default.

    Raises:
        UsageError: `workers` is not a whole number of at least 0.
    """

    device: str = "auto"
    workers: int = 0
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        if not isinstance(self.workers, Integral) or self.workers < 0:
            raise UsageError(f"workers is {self.workers!r}: it must be a whole number, 0 or more")


#: On a GPU if there is one, without other processes, silently.
DEFAULT_RUNTIME = Runtime()
