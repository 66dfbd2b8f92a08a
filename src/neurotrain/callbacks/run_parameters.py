"""What a run was told, for trackers: by its own file, in which interpolations are unresolved and secrets hidden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neurotrain.documents import parse_yaml

Parameter = str | int | float | bool


def read_configuration(directory: Path) -> dict[str, Any]:
    """Read ``config.yaml`` of a run directory.

    Args:
        directory: of the run.

    Returns:
        Plain containers; empty where there is no such file.
    """
    path = directory / "config.yaml"
    if not path.is_file():
        return {}
    values = parse_yaml(path.read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}


def leaves(values: object, name: str = "") -> Iterator[tuple[str, Parameter]]:
    """Yield what is neither mapping nor null by its dotted name; lists as their text.

    Example:
        >>> dict(leaves({"model": {"widths": [8, 16], "lr": 0.1, "loss": None}}))
        {'model.widths': '[8, 16]', 'model.lr': 0.1}
    """
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    elif values is not None:
        yield name, values if isinstance(values, Parameter) else str(values)
