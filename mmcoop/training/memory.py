"""How much memory this process has taken."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> float:
    """The most memory held at once so far, in MiB: on a GPU what torch has allocated there, on the
    CPU the resident size of the whole process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
