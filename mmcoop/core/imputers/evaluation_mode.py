"""Evaluation mode, for whatever modules a model consists of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn

from mmcoop.core.imputers.adapters import module_of
from mmcoop.errors import DataError


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode for the module that `model` is or calls, each of its modules restored
    afterwards.

    Raises `DataError` for an exported program in training mode: it keeps the mode of its export.
    """
    root = module_of(model)
    if root is None:
        yield
        return
    training = [module for module in root.modules() if module.training]
    if training:
        try:
            root.eval()
        except NotImplementedError:  # raised by exported programs
            for module in training:
                module.training = False
    for module in root.modules():
        _check_exported(module)
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_exported(module: nn.Module) -> None:
    """Raise `DataError` for an exported program with an operation in training mode."""
    if not isinstance(module, fx.GraphModule) or not hasattr(module, "_in_spec"):
        return
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [] if schema is None else [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        if given.get("train") is True or given.get("training") is True:
            raise DataError(
                f"the exported program has {node.target} in training mode: call model.eval() "
                "before torch.export.export"
            )
