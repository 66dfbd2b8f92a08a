"""Rules about ``configs/**/*.yaml``: deltas only, and every stored node that a file inherits exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def target_violations(text: str, where: str) -> list[str]:
    """Keys ``_target_`` at any depth: what is constructed is the registry's to say."""
    return [f"{where}: {'.'.join(path)} names a class; inherit its node" for path in _targets(yaml.safe_load(text), ())]


def inherited_nodes(path: Path, root: Path) -> list[tuple[str, str]]:
    """Stored nodes (``_Name``) in a file's defaults list.

    Args:
        path: the file.
        root: folder of all configurations.

    Returns:
        Group and name of each; the group is relative to ``root`` and empty at the top.
    """
    own = path.relative_to(root).parent.as_posix()
    own = "" if own == "." else own
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = content.get("defaults", []) if isinstance(content, dict) else []
    found: list[tuple[str, str]] = []
    for entry in entries:
        if isinstance(entry, str):
            key, name = "", entry
        else:
            key, name = next(iter(entry.items()))
        if isinstance(name, str) and name.startswith("_") and name != "_self_":
            found.append((_group(str(key), own), name))
    return found


def _group(key: str, own: str) -> str:
    """Group of an entry of a defaults list: ``/model/loss@losses.bce`` is absolute, ``network`` lies in ``own``."""
    bare = key.removeprefix("override ").removeprefix("optional ").partition("@")[0]
    if bare.startswith("/"):
        return bare.removeprefix("/")
    return "/".join(part for part in (own, bare) if part)


def _targets(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - any YAML
    if isinstance(node, dict):
        for key, value in node.items():
            here = (*path, str(key))
            if key == "_target_":
                yield here
            yield from _targets(value, here)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, (*path, str(index)))
