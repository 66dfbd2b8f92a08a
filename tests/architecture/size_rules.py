"""Rules about size and names of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from sources import Module

MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 50
EMPTY_NAMES = frozenset({"common", "helper", "helpers", "misc", "util", "utilities", "utils"})
"""Names that say nothing about what a module hides."""


def file_violations(modules: Iterable[Module]) -> list[str]:
    """Files that are too long."""
    lengths = ((module, len(module.text.splitlines())) for module in modules)
    return [
        f"{module.where}: {lines} lines, at most {MOST_LINES_OF_A_FILE}"
        for module, lines in lengths
        if lines > MOST_LINES_OF_A_FILE
    ]


def function_violations(modules: Iterable[Module]) -> list[str]:
    """Functions and methods that are too long, from ``def`` to the last line, docstring included."""
    found: list[str] = []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found.append(f"{module.where}:{node.lineno}: {node.name} has {lines} lines, at most 50")
    return found


def name_violations(modules: Iterable[Module]) -> list[str]:
    """Modules, packages and parts of their names like ``utils``."""
    return [
        f"{module.where}: named for nothing: say what it hides"
        for module in modules
        if not EMPTY_NAMES.isdisjoint(module.name.replace("_", ".").split("."))
    ]
