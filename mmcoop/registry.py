"""Tables of things that users choose by name: recipes, methods, fusions, encoders.

A table names the module of each entry, which is imported only when the entry is used, so that
`mmcoop --help` can list all of them without importing torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmcoop.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """An entry of a registry.

    Attributes:
        module: The module that defines it.
        attribute: Its name in the module.
        summary: What it does, in a few words.
        source: The paper that describes it.
    """

    module: str
    attribute: str
    summary: str
    source: str = ""


class Registry(Mapping[str, Entry]):
    """A fixed table of things of one kind, by name.

    Args:
        kind: What messages call them, such as "fusion".
        entries: The entries by name.
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, name: str) -> str:
        """Return `name` if it is in the table.

        Raises:
            UsageError: It is not; the message lists all names.
        """
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}: choose one of {', '.join(self)}")
        return name

    def load(self, name: str) -> Any:
        """Import and return the thing called `name`.

        Raises:
            UsageError: The name is not in the table.
        """
        entry = self._entries[self.check(name)]
        return getattr(import_module(entry.module), entry.attribute)
