"""Text from files, file names and models, made safe to print."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: The most characters shown of one message or table cell.
LONGEST = 2000

# Control characters, line and paragraph separators, characters that change the direction of
# writing, and surrogates, which cannot be sent to a terminal.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False, most: int = LONGEST) -> str:
    """Escape control characters, and shorten long text in the middle; idempotent.

    Args:
        text: Any text, also with lone surrogates, which occur in file names that are not UTF-8.
        lines: Whether to keep line breaks.
        most: The most characters to return; at least 100.

    Returns:
        Text without control characters: "\\x1b" for an escape character, "\\xff" for a byte that is
        not UTF-8, "\\u202e" for a character that changes the direction of writing.
    """
    # shortened before, so that long text costs no more time, and after, because escapes are longer
    return _shortened(_escaped(_shortened(text, most), lines), most)


def json_text(content: Any) -> str:
    """Serialise `content` as JSON, with null for NaN and infinity, and escaped control characters.

    Line breaks between the parts of the document are kept.
    """
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda c: c[0] if c[0] == "\n" else f"\\u{ord(c[0]):04x}", text)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(part) for part in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    note = f" … ({len(text):,} characters) … "
    kept = most - len(note)
    return text[: kept * 2 // 3] + note + text[len(text) - (kept - kept * 2 // 3) :]


def _escaped(text: str, lines: bool) -> str:
    return _UNSAFE.sub(
        lambda found: found[0] if lines and found[0] == "\n" else _escape(found[0]), text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogates for bytes that are not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return named.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
