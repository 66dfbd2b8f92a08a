"""Rules about single statements: nothing is swallowed, probed or passed through unseen."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from sources import Module


def pattern_violations(modules: Iterable[Module]) -> list[str]:
    """Swallowed exceptions, probing for attributes and ``**kwargs`` that are passed on."""
    return [
        f"{module.where}:{line}: {reason}"
        for module in modules
        for node in ast.walk(module.tree)
        for line, reason in _violations(node)
    ]


def _violations(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            yield node.lineno, "a bare except catches what nobody meant"
        if all(_does_nothing(statement) for statement in node.body):
            yield node.lineno, "an exception is swallowed"
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called == "hasattr":
            yield node.lineno, "hasattr probes: state what a type has"
        if called == "getattr" and len(node.args) + len(node.keywords) > 2:
            yield node.lineno, "getattr with a default probes: state what a type has"
        if called.rpartition(".")[2] == "suppress" and _catches_all(node):
            yield node.lineno, "an exception is swallowed"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.args.kwarg is not None:
        yield from () if _is_of_a_signature(node.args.kwarg) else _passed_through(node, node.args.kwarg.arg)


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _catches_all(node: ast.Call) -> bool:
    return any(ast.unparse(argument) in ("Exception", "BaseException") for argument in node.args)


def _is_of_a_signature(argument: ast.arg) -> bool:
    """Whether it is annotated ``P.kwargs``: a wrapper with the very signature of what it wraps."""
    return isinstance(argument.annotation, ast.Attribute) and argument.annotation.attr == "kwargs"


def _passed_through(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is None and ast.unparse(keyword.value) == name:
                    yield node.lineno, f"**{name} is passed through: name the arguments"
