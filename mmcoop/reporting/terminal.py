"""The one way to a terminal for what files and names say."""

from typing import Any

from rich.console import Console
from rich.text import Text

from mmcoop.printable import printable


class Terminal(Console):
    """A console that takes every string, in a table cell too, for plain text: no markup, no emoji
    codes, control characters escaped, and what is too long shortened.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text, lines=True), **how)
