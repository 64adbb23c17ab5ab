"""Messages: safe to print, with settings spelled as the reader can give them."""

import pytest

from mmcoop.errors import DataError, UsageError, setting


@pytest.mark.parametrize(
    ("name", "value", "in_python", "typed"),
    [
        ("output", "logits", "output='logits'", "--output logits"),
        ("output", "last scores", "output='last scores'", "--output 'last scores'"),
        ("output", -1, "output=-1", "--output -1"),
        ("max_extra", 0, "max_extra=0", "--max-extra 0"),
        ("groups", None, "groups", "--groups"),
        ("overwrite", True, "overwrite=True", "--overwrite"),
    ],
)
def test_a_setting_is_spelled_as_an_argument_in_python_and_as_an_option_when_typed(
    name, value, in_python, typed
):
    error = UsageError(f"two words: give {setting(name, value)}, or none")
    assert str(error) == f"two words: give {in_python}, or none"
    assert error.on_command_line() == f"two words: give {typed}, or none"


def test_what_a_message_quotes_is_escaped_in_either_spelling():
    error = DataError(f"file \x1b[2J: give {setting('output', 'a' + chr(10) + 'b')}")
    assert str(error) == r"file \x1b[2J: give output='a\nb'"
    assert error.on_command_line() == r"file \x1b[2J: give --output 'a\nb'"
