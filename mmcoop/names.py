"""When names of classes, samples, modalities, columns and files count as equal."""

import re
import unicodedata

# White space and zero-width characters: byte order mark, zero-width space, non-joiner and joiner,
# and word joiner.
_INVISIBLE = r"[\s\ufeff\u200b-\u200d\u2060]+"
_ENDS = re.compile(rf"\A{_INVISIBLE}|{_INVISIBLE}\Z")


def normalised(name: str) -> str:
    """Normalise a name for comparing, joining and storing.

    Depending on the program or file system, an accented letter is one character or two, and copied
    cells may end in white space; names that differ only in this are equal. Names that differ in
    case are not.

    Args:
        name: Any text. Surrogates for bytes that are not UTF-8 are kept.

    Returns:
        The text in Unicode normalisation form C (Unicode Standard Annex #15), without white space
        and zero-width characters at its ends. Inside a name they may matter, and are kept.
    """
    return _ENDS.sub("", unicodedata.normalize("NFC", name))


def is_utf8(name: str) -> bool:
    """Whether a name can be stored as text; file names may have bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
