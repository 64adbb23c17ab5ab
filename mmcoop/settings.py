"""Settings, declared once each: fields of a dataclass with their help, limits and choices.

The options of the command line and the checks of a library call both follow from these fields.
"""

import math
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from typing import Any

from mmcoop.errors import UsageError, setting


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    min: int | None = None,
    above: float | None = None,
) -> Any:
    """Declare a setting: a field of a dataclass that is also an option of a command.

    Args:
        default: The default.
        help: The help text of the option, in a few words.
        flag: How the option is spelled, if not like the field.
        metavar: What the help shows in place of the value, if not by its type.
        choices: The legal values.
        min: The smallest legal number.
        above: A number that the value must exceed.

    Returns:
        A field for the body of a dataclass, which calls `check_settings` on itself.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "flag": flag,
            "metavar": metavar,
            "choices": choices,
            "min": min,
            "above": above,
        },
    )


def required(help: str, *, flag: str | None = None, metavar: str | None = None) -> Any:
    """Declare a setting without a default; see `option`."""
    return option(MISSING, help, flag=flag, metavar=metavar)


def check_settings(instance: Any) -> None:
    """Check the settings of a dataclass against the choices and limits declared with them.

    None, which stands for an unset value, passes.

    Raises:
        UsageError: A value is not among the choices, below its limit, or not a finite number.
    """
    for each in fields(instance):
        declared, name, value = each.metadata, setting(each.name), getattr(instance, each.name)
        if value is None or "help" not in declared:
            continue
        choices, least, above = (declared[key] for key in ("choices", "min", "above"))
        if choices is not None and value not in choices:
            raise UsageError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} is {value}: it must be a finite number")
        if least is not None and value < least:
            raise UsageError(f"{name} is {value}: it must be at least {least}")
        if above is not None and not value > above:
            raise UsageError(f"{name} is {value}: it must be above {above:g}")
