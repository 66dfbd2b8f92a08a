"""References in a pipeline's texts: found by one pattern, looked up in plain mappings, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from neurotrain.app.pipelines.definition import PipelineError

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")

LookUp = Callable[[tuple[str, ...]], Sequence[str]]
"""Gives the values of a dotted reference; several where a task has several variants."""


def references(text: str) -> list[tuple[str, ...]]:
    """Return the dotted references of a text.

    Args:
        text: of an argument.

    Returns:
        The parts of each.

    Raises:
        PipelineError: if a reference is not dotted names.

    Example:
        >>> references("--run=${tasks.train.run_dir} $${HOME}")
        [('tasks', 'train', 'run_dir')]
    """
    found: list[tuple[str, ...]] = []
    for match in _REFERENCE.finditer(text):
        if match.group() == "$${":
            continue
        name = match.group(1)
        if name is None or not _NAMES.fullmatch(name):
            raise PipelineError(f"{text!r}: {match.group()!r} is no reference (write $${{ for a literal one)")
        found.append(tuple(name.split(".")))
    return found


def filled(text: str, look_up: LookUp) -> list[str]:
    """Replace the references of a text.

    Args:
        text: of an argument.
        look_up: gives the values of a reference.

    Returns:
        One text; several where the text is nothing but a reference to several values.

    Raises:
        PipelineError: if several values stand within a text.

    Example:
        >>> filled("seed=${variant.seed}", lambda parts: ["3"]), filled("${tasks.train.dir}", lambda parts: ["a", "b"])
        (['seed=3'], ['a', 'b'])
    """
    names = references(text)
    if len(names) == 1 and text == f"${{{'.'.join(names[0])}}}":
        return list(look_up(names[0]))

    def one(match: re.Match[str]) -> str:
        if match.group() == "$${":
            return "${"
        values = look_up(tuple(match.group(1).split(".")))
        if len(values) != 1:
            raise PipelineError(
                f"{text!r}: {match.group()} has {len(values)} values: it must be an argument of its own"
            )
        return values[0]

    return [_REFERENCE.sub(one, text)]
