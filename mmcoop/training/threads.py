"""How many threads torch computes with."""

from typing import Any

import torch

from mmcoop.processes import processors
from mmcoop.progress import Progress
from mmcoop.training.build import Architecture

#: Multiplications and additions in the forward pass of a batch below which one thread is used.
#: Several wait for each other at every operation: with so little work they gain little on an idle
#: machine, and lose several times the time on a busy one.
LITTLE_WORK = 1e9


def batch_work(architecture: Architecture, batch_size: int) -> float:
    """Multiplications and additions of the linear layers and convolutions in a forward pass of
    `batch_size` complete samples.
    """
    model = architecture.build().eval()
    work = 0

    def count(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal work
        work += 2 * output.numel() * layer.weight[0].numel()

    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            layer.register_forward_hook(count)
    inputs = {m: torch.zeros(1, *shape) for m, shape in architecture.shapes.items()}
    with torch.no_grad():
        model(inputs, torch.ones(1, len(inputs), dtype=torch.bool))
    return float(batch_size * work)


def suitable_threads(architecture: Architecture, batch_size: int) -> int:
    """1 for a small model, else as many as there are processors, or as torch is set to use if
    these are fewer.

    This depends on the model and the machine alone, not on what else runs there: the number of
    threads changes the last bits of what is computed.
    """
    if batch_work(architecture, batch_size) < LITTLE_WORK:
        return 1
    return min(processors(), torch.get_num_threads())


def use_threads(threads: int, progress: Progress) -> None:
    """Let torch compute with this many threads from now on, and report it."""
    torch.set_num_threads(threads)
    progress.note(f"computing with {threads} thread{'s' if threads > 1 else ''}")
