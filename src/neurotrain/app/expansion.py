"""How much a configuration's references stand for, counted before they are resolved.

``a: ${b}${b}``, ``b: ${c}${c}`` and so on for thirty lines is a gigabyte of text, and it takes OmegaConf as long to
write it. Referred to by containers, it is as many values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from neurotrain.app.strict import ConfigurationError, Problem

LARGEST = 10_000_000
"""Characters and values that a resolved configuration may have."""

_INNERMOST = re.compile(r"\$\{\s*(?:oc\.(?:select|deprecated|dict\.\w+)\s*:\s*)?([^${}:,]*)(?:,[^${}]*)?\}")
"""A reference with no other one within it; of resolvers those that look up a key."""


def check_expansion(values: Mapping[str, Any]) -> None:
    """Refuse a configuration that would be too large once its references are resolved.

    Args:
        values: plain containers, interpolations as they are written.

    Raises:
        ConfigurationError: names the first such key.

    Example:
        >>> check_expansion({"a": "x", "b": "${a}${a}"})
        >>> check_expansion({"k0": "x" * 10, **{f"k{n}": f"${{k{n - 1}}}" * 2 for n in range(1, 40)}})
        Traceback (most recent call last):
        neurotrain.app.strict.ConfigurationError: k19: its references stand for 10486772 characters, ...
    """
    sizes = _Sizes(values)
    for key in values:
        sizes.at((str(key),))


class _Sizes:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.known: dict[tuple[str, ...], int] = {}

    def at(self, path: tuple[str, ...]) -> int:
        """Size of what stands at a path; 0 for what is not there, or refers to itself, of which OmegaConf tells."""
        if path in self.known:
            return self.known[path]
        self.known[path] = 0
        node = self._node(path)
        if isinstance(node, Mapping):
            size = sum(self.at((*path, str(key))) + 1 for key in node)
        elif isinstance(node, list):
            size = sum(self.at((*path, str(place))) + 1 for place in range(len(node)))
        else:
            size = self._text(node, path) if isinstance(node, str) else 1
        if size > LARGEST:
            told = f"its references stand for {size} characters, at most {LARGEST} may be"
            raise ConfigurationError([Problem(".".join(path), told, None)])
        self.known[path] = size
        return size

    def _text(self, text: str, path: tuple[str, ...]) -> int:
        size = len(text)
        while found := _INNERMOST.search(text):
            target = _absolute(found[1].strip(), path)
            size += self.at(target)
            value = self._node(target)
            # A name may be put together of what others stand for: ${a.${b}}.
            inner = str(value) if isinstance(value, str | int) and "${" not in str(value) else ""
            text = text[: found.start()] + inner + text[found.end() :]
        return size

    def _node(self, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any YAML value
        node: Any = self.values
        for part in path:
            if isinstance(node, Mapping):
                node = next((value for key, value in node.items() if str(key) == part), None)
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node


def _absolute(reference: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Path of a reference that stands at ``path``: each leading dot goes up by one.

    Example:
        >>> _absolute("..c[0].d", ("a", "b", "x")), _absolute("a.b", ("x",))
        (('a', 'c', '0', 'd'), ('a', 'b'))
    """
    name = reference.lstrip(".")
    up = len(reference) - len(name)
    parts = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
    return (*path[: max(0, len(path) - up)], *parts) if up else parts
