"""Text from files, file names and models, made safe to print."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: The most characters shown of one message or table cell.
LONGEST = 2000

# Control characters, line and paragraph separators, what changes the direction of writing, and
# surrogates, which no terminal can be sent.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False, most: int = LONGEST) -> str:
    """`text` with control characters as escapes, and its middle left out where it is too long.

    Applying it twice changes nothing.

    Args:
        text: Anything, with lone surrogates too, as file names that are not UTF-8 have them.
        lines: Keep line breaks.
        most: The most characters to return; at least 100.

    Returns:
        Text without control characters; "\\x1b" for an escape character, "\\xff" for the byte of a
        file name that is not UTF-8, "\\u202e" for one that changes the direction of writing.
    """
    # before, so that a long text takes no longer than a short one; after, as escapes are longer
    return _shortened(_escaped(_shortened(text, most), lines), most)


def json_text(content: Any) -> str:
    """`content` as JSON: null for NaN and infinity, and no character that a terminal acts on."""
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
    if 0xDC80 <= code <= 0xDCFF:  # how Python has a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return named.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
