"""Rules about public signatures: typed, documented, keyword-only constructors of what is configured."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sources import Module

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Public(NamedTuple):
    """A public function or class where it is defined.

    Attributes:
        name: with the class in front.
        node: its definition.
        in_class: whether it is a method.
    """

    name: str
    node: Function | ast.ClassDef
    in_class: bool


def untyped(modules: Iterable[Module]) -> list[str]:
    """Arguments and returns of public functions that have no annotation; special methods included."""
    found: list[str] = []
    for module in modules:
        for public in _public(module, special=True):
            if isinstance(public.node, ast.ClassDef):
                continue
            missing = [argument.arg for argument in _arguments(public) if argument.annotation is None]
            if public.node.returns is None:
                missing.append("return")
            found.extend(f"{module.where}:{public.node.lineno}: {public.name} leaves {m} untyped" for m in missing)
    return found


def undocumented(modules: Iterable[Module]) -> list[str]:
    """Modules, public classes, functions and methods without a docstring.

    Special methods mean what Python says, and further overloads and setters what the first definition says.
    """
    found: list[str] = []
    for module in modules:
        if not ast.get_docstring(module.tree) and module.text.strip():
            found.append(f"{module.where}:1: the module has no docstring")
        for public in _public(module, special=False):
            if not ast.get_docstring(public.node) and not _says_it_elsewhere(public.node):
                found.append(f"{module.where}:{public.node.lineno}: {public.name} has no docstring")
    return found


def _public(module: Module, *, special: bool) -> Iterator[Public]:
    if any(part.startswith("_") for part in module.name.split(".")):
        return
    yield from _members(module.tree.body, prefix="", special=special)


def _members(body: list[ast.stmt], *, prefix: str, special: bool) -> Iterator[Public]:
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from _members([*node.body, *node.orelse], prefix=prefix, special=special)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        is_special = node.name.startswith("__") and node.name.endswith("__")
        if node.name.startswith("_") and not (is_special and special):
            continue
        name = f"{prefix}{node.name}"
        yield Public(name, node, in_class=bool(prefix))
        if isinstance(node, ast.ClassDef):
            yield from _members(node.body, prefix=f"{name}.", special=special)


def _arguments(public: Public) -> list[ast.arg]:
    assert not isinstance(public.node, ast.ClassDef)
    given = public.node.args
    positional = [*given.posonlyargs, *given.args]
    if public.in_class and "staticmethod" not in _decorators(public.node):
        positional = positional[1:]
    rest = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    return [*positional, *given.kwonlyargs, *rest]


def _decorators(node: Function | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}


def _says_it_elsewhere(node: Function | ast.ClassDef) -> bool:
    return not _decorators(node).isdisjoint({"overload", "setter", "deleter"})
