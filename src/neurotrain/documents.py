"""YAML and JSON that others may have written: what grows when it is read, or never ends, is refused.

A few lines of YAML whose aliases stand for each other are gigabytes once something walks through them; brackets that
nest a hundred thousand deep end the interpreter, without a traceback where a library's C code reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TextIO, TypeVar, cast

import yaml
from yaml.parser import ParserError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

try:
    from yaml import CSafeLoader as EventLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader as EventLoader

DEEPEST = 100
"""Levels that a document may nest."""

MOST_REPEATED = 100_000
"""Values that aliases may add to those that are written."""

_SURELY_READ = 2000
"""Levels that any reader takes."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

L = TypeVar("L")
N = TypeVar("N")


def parse_yaml(text: str | TextIO, *, loader: type[Any] = yaml.SafeLoader) -> Any:  # noqa: ANN401 - any YAML value
    """Read one document of plain values.

    Args:
        text: of the document, or an open file, which errors then name.
        loader: a safe loader of PyYAML.

    Returns:
        Plain containers.

    Raises:
        yaml.YAMLError: if it is none, names a Python object, nests too deeply, or its aliases stand for too much.

    Example:
        >>> parse_yaml("[&x [1, 2], *x]")
        [[1, 2], [1, 2]]
        >>> parse_yaml("a: &x [*x]")
        Traceback (most recent call last):
        yaml.constructor.ConstructorError: stands within itself
          in "<unicode string>", line 1, column 4:
            a: &x [*x]
               ^
    """
    return yaml.load(text, Loader=bounded(loader))  # noqa: S506 - a safe one


def bounded(loader: type[L]) -> type[L]:
    """A loader that looks at a document before it makes anything of it.

    Args:
        loader: of PyYAML.

    Returns:
        A subclass.
    """

    class Bounded(cast(Any, loader)):
        def __init__(self, stream: str | TextIO) -> None:
            _refuse_depth(stream)
            super().__init__(stream)

        def get_single_node(self) -> yaml.Node | None:
            try:
                node = super().get_single_node()
            except RecursionError:
                raise _refused(f"nests deeper than {DEEPEST} levels") from None
            if node is not None:
                check_tree(node, parts=_parts, most_repeated=MOST_REPEATED, refused=_refused)
            return node

    return cast("type[L]", Bounded)


def parse_json(text: str | bytes, *, where: object = None) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON document.

    Args:
        text: of the document.
        where: it stands, for the message of an error; None where the caller says it.

    Returns:
        Plain containers.

    Raises:
        ValueError: if it is none, or nests too deeply.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: nests too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        reason = "nests too deeply"
    except ValueError as error:
        if where is None:
            raise
        reason = str(error)
    raise ValueError(reason if where is None else f"{where}: is no JSON: {reason}")


def refuse_deep_json(data: bytes) -> None:
    """Refuse JSON, or lines of it, that nests so deeply that a reader in C may take the interpreter with it.

    Args:
        data: the document, right or wrong.

    Raises:
        ValueError: if it nests deeper than :data:`DEEPEST`.

    Example:
        >>> refuse_deep_json(b'{"text": "' + b"[" * 1000 + b'"}')
        >>> refuse_deep_json(b"[" * 1000)
        Traceback (most recent call last):
        ValueError: nests deeper than 100 levels
    """
    import numpy as np

    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return
    brackets = np.zeros(256, np.int8)
    brackets[[ord("["), ord("{")]], brackets[[ord("]"), ord("}")]] = 1, -1
    levels = brackets[np.frombuffer(_STRING.sub(b"", data), np.uint8)]
    levels = levels[levels != 0]
    if len(levels) and int(levels.cumsum(dtype=np.int64).max()) > DEEPEST:
        raise ValueError(f"nests deeper than {DEEPEST} levels")


def check_tree(
    root: N,
    *,
    parts: Callable[[N], Iterable[N]],
    most_repeated: int,
    refused: Callable[[str, N], Exception],
) -> None:
    """Refuse what is too deep, stands within itself, or is much larger as a tree than it is; without recursion.

    Args:
        root: of a graph.
        parts: of a node.
        most_repeated: nodes that the tree may have more than the graph.
        refused: makes the error of a reason and a node.

    Raises:
        Exception: of ``refused``.
    """
    sizes: dict[int, int] = {}
    above: set[int] = set()
    stack: list[tuple[N, list[N] | None]] = [(root, None)]
    while stack:
        node, below = stack.pop()
        if below is not None:
            above.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in below)
            continue
        if id(node) in above:
            raise refused("stands within itself", node)
        if id(node) in sizes:
            continue
        above.add(id(node))
        if len(above) > DEEPEST:
            raise refused(f"nests deeper than {DEEPEST} levels", node)
        below = list(parts(node))
        stack.append((node, below))
        stack += [(part, None) for part in below]
    repeated = sizes[id(root)] - len(sizes)
    if repeated > most_repeated:
        raise refused(f"stands for {repeated} values more than are written, at most {most_repeated} may be", root)


def _refuse_depth(stream: str | TextIO) -> None:
    """Count levels without making nodes, of which libyaml's binding makes so many that the stack ends."""
    text = stream
    if not isinstance(stream, str):
        text = stream.read()
        stream.seek(0)
    assert isinstance(text, str)
    # Each level of brackets has one, each level of blocks begins further right, or is a list right below its key.
    bound = text.count("[") + text.count("{") + 2 * max(map(len, text.splitlines()), default=0)
    if bound <= _SURELY_READ:
        return
    depth = 0
    try:
        for event in yaml.parse(text, Loader=EventLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise _refused(f"nests deeper than {DEEPEST} levels")
    except (ScannerError, ParserError, ReaderError):
        return  # the loader says what is wrong, and where


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refused(reason: str, node: yaml.Node | None = None) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, reason, None if node is None else node.start_mark)
