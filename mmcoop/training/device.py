"""Where a model is trained and valued."""

import torch

from mmcoop.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    Raises `UsageError` for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from None
    return device
