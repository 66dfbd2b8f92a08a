"""Configurations as trees of chosen nodes, and as the defaults list and values that Hydra reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stored node with values of its own; values may hold further nodes.

    Attributes:
        group: Hydra's group, ``data/source``.
        name: of the class, ``FolderSource``.
        values: arguments that differ from the constructor's.
    """

    group: str
    name: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


def flattened(node: Node, *, at: str = "") -> tuple[list[str | dict[str, str]], dict[str, Any]]:
    """The defaults list and the plain values of a tree.

    Args:
        node: the root.
        at: package of the root; empty for a file of the root's own group.

    Returns:
        Entries of the defaults list, parents first; nested values without nodes.

    Example:
        >>> storage = Node(group="data/storage", name="LocalStorage", values={"root": "photos"})
        >>> source = Node(group="data/source", name="FolderSource", values={"name": "a", "storage": storage})
        >>> for part in flattened(source, at="train"):
        ...     print(part)
        [{'/data/source@train': '_FolderSource'}, {'/data/storage@train.storage': '_LocalStorage'}]
        {'name': 'a', 'storage': {'root': 'photos'}}
    """
    defaults: list[str | dict[str, str]] = [{f"/{node.group}@{at}": f"_{node.name}"} if at else f"_{node.name}"]
    values: dict[str, Any] = {}
    for key, value in node.values.items():
        inner, values[key] = _flattened(value, f"{at}.{key}" if at else key)
        defaults += inner
    return defaults, {key: value for key, value in values.items() if value != {} or node.values[key] == {}}


def _flattened(value: Any, at: str) -> tuple[list[str | dict[str, str]], Any]:  # noqa: ANN401 - any YAML value
    if isinstance(value, Node):
        return flattened(value, at=at)
    if isinstance(value, Mapping) and any(isinstance(item, Node) for item in value.values()):
        parts = {key: _flattened(item, f"{at}.{key}") for key, item in value.items()}
        return [entry for inner, _ in parts.values() for entry in inner], {key: own for key, (_, own) in parts.items()}
    return [], value
