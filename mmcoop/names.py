"""When two names are one name: of classes, samples, modalities, columns and files."""

import re
import unicodedata

# White space, and characters that have no width: byte order mark, zero-width space, non-joiner,
# joiner, and word joiner.
_INVISIBLE = r"[\s\ufeff\u200b-\u200d\u2060]+"
_ENDS = re.compile(rf"\A{_INVISIBLE}|{_INVISIBLE}\Z")


def normalised(name: str) -> str:
    """The one spelling of a name, which is compared, joined by and stored.

    A letter with an accent may be written as one character or as two, depending on the program
    or the file system that wrote it, and a copied cell may end in white space: neither makes
    another name. Upper and lower case do. Surrogates that stand for bytes that are not UTF-8
    stay as they are.

    Args:
        name: Any text.

    Returns:
        The text in Unicode normalisation form C (Unicode Standard Annex #15), without white space
        and zero-width characters at either end. Those inside a name may be part of its spelling
        and stay.
    """
    return _ENDS.sub("", unicodedata.normalize("NFC", name))


def is_utf8(name: str) -> bool:
    """Whether a name can be stored as text: a file's name may have bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
