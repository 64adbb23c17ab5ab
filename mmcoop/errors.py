"""What can go wrong for a user, and the exit code the command line gives it."""

import os
import re
import shlex

from mmcoop.printable import printable

# How a message names a setting, in a library call and on the command line, between characters of
# private use that no text has.
_SETTING = re.compile("\ue000([^\ue000-\ue002]*)\ue001([^\ue000-\ue002]*)\ue002")


def setting(name: str, value: object = None) -> str:
    """Name a setting in a message, by itself or with a value.

    Args:
        name: The argument or field.
        value: The value that the message quotes or suggests.

    Returns:
        Text that reads `output` or `output='logits'` for the caller of a library function, and
        `--output` or `--output logits` where the command line prints the message
        (`MmcoopError.on_command_line`).
    """
    option = f"--{name.replace('_', '-')}"
    if value is None:
        return f"\ue000{name}\ue001{option}\ue002"
    if value is True:
        return f"\ue000{name}=True\ue001{option}\ue002"
    return f"\ue000{name}={value!r}\ue001{option} {shlex.quote(str(value))}\ue002"


def said(error: Exception) -> str:
    """What an error says; of one of the system, the system's own words for it."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # libraries add theirs
    return str(error)


class MmcoopError(Exception):
    """Bad input. The message says what is wrong, where, and what to do about it.

    As text it is safe to print, whatever the file holds that it quotes: control characters are
    escaped, and a long one is shortened.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(_SETTING.sub(r"\1", super().__str__()))

    def on_command_line(self) -> str:
        """The message with settings spelled as options."""
        return printable(_SETTING.sub(r"\2", super().__str__()))


class DataError(MmcoopError, ValueError):
    """Data, a file or a model that cannot be used as it is (exit code 1)."""


class UsageError(MmcoopError, ValueError):
    """A request that cannot be meant: an unknown name, options that clash (exit code 2)."""

    exit_code = 2


class Interrupted(MmcoopError):
    """Stopped by Ctrl-C or SIGTERM; what was done can be resumed (exit code 130 or 143)."""

    exit_code = 130


def check_given(given: object, kind: type, name: str, maker: str) -> None:
    """Raise `UsageError` where an argument is not what `maker` returns."""
    if not isinstance(given, kind):
        raise UsageError(f"{name} is a {type(given).__name__}: give what {maker} returns")


def check_path_given(given: object, what: str) -> None:
    """Raise `UsageError` where an argument is no path."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{what} is a {type(given).__name__}: give its path")
