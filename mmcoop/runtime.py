"""Where and how work is done."""

from dataclasses import dataclass

from mmcoop.progress import SILENT, Progress


@dataclass(frozen=True)
class Runtime:
    """Where and how work is done, which does not decide its results.

    Attributes:
        device: `"auto"` (a GPU if there is one), `"cpu"`, `"cuda"`, …
        workers: Processes that load batches ahead; 0 loads them in between.
        progress: Where progress is shown; silent by default.
    """

    device: str = "auto"
    workers: int = 0
    progress: Progress = SILENT


#: On a GPU if there is one, without other processes, silently.
DEFAULT_RUNTIME = Runtime()
