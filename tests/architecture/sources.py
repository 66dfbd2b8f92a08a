"""Python files of the checkout as parsed modules with dotted names: what all rules look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "neurotrain"


@dataclass(frozen=True)
class Module:
    """One parsed file.

    Attributes:
        name: dotted; a package's ``__init__.py`` has the package's name.
        text: of the file.
        where: how messages call it.
        is_package: whether it is an ``__init__.py``.
    """

    name: str
    text: str
    where: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, filename=self.where)

    @property
    def package(self) -> str:
        """Dotted name of the package that the module lies in; a package's own for its ``__init__.py``."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @property
    def room(self) -> str | None:
        """Name of the room that the module belongs to (``batch``, ``data``); None for the front door and strangers."""
        return room_of(self.name)


def room_of(name: str) -> str | None:
    """Room of a dotted name: the part behind ``neurotrain``."""
    parts = name.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def snippet(text: str, name: str = "neurotrain.data.snippet", *, is_package: bool = False) -> Module:
    """A module that exists in a test only."""
    return Module(name=name, text=text, where=f"{name}.py", is_package=is_package)


@cache
def package_modules() -> tuple[Module, ...]:
    """Every module of ``src/neurotrain``."""
    return tuple(_read(CHECKOUT / "src"))


def other_modules(*relative: str) -> list[Module]:
    """Modules of further folders or files of the checkout, those that exist."""
    found: list[Module] = []
    for path in (CHECKOUT / name for name in relative):
        found.extend(_read(path) if path.is_dir() else [_module(path, path.parent)] if path.is_file() else [])
    return found


def _read(root: Path) -> Iterator[Module]:
    for path in sorted(root.rglob("*.py")):
        yield _module(path, root)


def _module(path: Path, root: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, path.read_text(encoding="utf-8"), str(path.relative_to(CHECKOUT)), is_package)
