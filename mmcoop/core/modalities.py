"""Names of modalities, and which coalitions of them are shown; loads without torch."""

import re
from collections.abc import Iterable, Sequence

from mmcoop.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

# Attributes of `torch.nn.ModuleDict`, which cannot be names in one.
# fmt: off
_TORCH_NAMES = {
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init",
    "children", "clear", "compile", "cpu", "cuda", "double", "dump_patches", "eval",
    "extra_repr", "float", "forward", "get_buffer", "get_extra_state", "get_parameter",
    "get_submodule", "half", "ipu", "items", "keys", "load_state_dict", "modules", "mtia",
    "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "pop",
    "register_backward_hook", "register_buffer", "register_forward_hook",
    "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter",
    "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_",
    "set_extra_state", "set_submodule", "share_memory", "state_dict", "to", "to_empty", "train",
    "training", "type", "update", "values", "xpu", "zero_grad",
}
# fmt: on


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple if they can name modalities, in the order given.

    Raises `UsageError` for no modality at all, for a repeated name and for a name with other
    characters than letters, digits, `_` and `-` (`+` joins the names of a coalition), and for a
    few such as `values`, which are names of `torch.nn.ModuleDict`'s own.
    """
    if isinstance(modalities, str) or not isinstance(modalities, Iterable):
        raise UsageError(f"modalities are a list of names, and not {modalities!r}")
    names = tuple(modalities)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"modalities are names, and {odd[0]!r} is a {type(odd[0]).__name__}")
    if not names:
        raise UsageError("no modalities given: at least one is needed")
    if len(set(names)) != len(names):
        raise UsageError(f"modality names repeat: {', '.join(names)}")
    for name in names:
        if name in _TORCH_NAMES:
            raise UsageError(f"{name!r} cannot name a modality: torch's modules use it themselves")
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a modality: use letters, digits, '_' and '-'")
    return names


def display_coalitions(names: Sequence[str]) -> list[str]:
    """Of the names of coalitions those that people look at: all of up to three modalities, and of
    more the single modalities, all but one of them, and all, by size.
    """
    sizes = {name: name.count("+") + 1 for name in names}
    n = max(sizes.values())
    kept = [name for name in names if n <= 3 or sizes[name] in (1, n - 1, n)]
    return kept if n <= 3 else sorted(kept, key=lambda name: sizes[name])
