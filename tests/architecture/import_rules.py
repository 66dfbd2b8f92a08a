"""Rules about imports: layers, cycles, where Hydra is known, what is loaded on import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sources import PACKAGE, Module, room_of

LAYERS: tuple[tuple[str, ...], ...] = (
    ("batch", "documents", "ema", "shards", "storage", "losses", "noise"),
    ("metrics", "networks"),
    ("data",),
    ("diffusion", "inference"),
    ("tasks",),
    ("callbacks", "strategies"),
    ("app",),
)
"""Rooms of the package from the lowest to the highest; a room may import its own layer and those below."""

STRANGERS = frozenset({"tasks", "data"})
"""Neither imports the other: both know ``batch``."""

CONFIGURATION = frozenset({"hydra", "hydra_zen", "omegaconf"})
"""Libraries that only ``app`` knows."""

HEAVY = frozenset(
    {
        "PIL",
        "datasets",
        "deepspeed",
        "diffusers",
        "matplotlib",
        "monai",
        "open_clip",
        "pandas",
        "scipy",
        "segmentation_models_pytorch",
        "sklearn",
        "timm",
        "torchvision",
        "transformers",
    }
)
"""Libraries that are imported where they are used."""


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        target: dotted path of a module, or of a name in one.
        line: where.
        on_import: whether it runs when the module is loaded (not in a function, not for type checking only).
    """

    target: str
    line: int
    on_import: bool


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, in functions too; relative ones are resolved."""
    yield from _imports(module, module.tree, on_import=True)


def layer_violations(modules: Iterable[Module]) -> list[str]:
    """Imports that go up, between rooms that must not know each other, or of a room that has no layer."""
    level = {room: index for index, rooms in enumerate(LAYERS) for room in rooms}
    found: list[str] = []
    for module in modules:
        own = module.room
        if own is None:  # the package's front door, above all rooms
            continue
        if own not in level:
            found.append(f"{module.where}: {own!r} has no layer")
            continue
        for item in imports(module):
            if item.target.partition(".")[0] != PACKAGE:
                continue
            room = room_of(item.target)
            place = f"{module.where}:{item.line}: {own} imports {item.target}"
            if room not in level:
                found.append(f"{place}, which has no layer")
            elif level[room] > level[own]:
                found.append(f"{place}, which is above it")
            elif {room, own} == STRANGERS:
                found.append(f"{place}: tasks and data never import each other")
    return found


def configuration_violations(modules: Iterable[Module]) -> list[str]:
    """Imports of Hydra and its relatives outside ``app``."""
    return [
        f"{module.where}:{item.line}: only app knows {item.target}"
        for module in modules
        if module.room != "app"
        for item in imports(module)
        if item.target.partition(".")[0] in CONFIGURATION
    ]


def heavy_violations(modules: Iterable[Module]) -> list[str]:
    """Heavy libraries that are imported as soon as the module is."""
    return [
        f"{module.where}:{item.line}: {item.target} is heavy: import it in the function that uses it"
        for module in modules
        for item in imports(module)
        if item.on_import and item.target.partition(".")[0] in HEAVY
    ]


def module_cycles(modules: Iterable[Module]) -> list[str]:
    """Groups of modules that import each other, directly or around corners, each as one line."""
    edges = _edges(list(modules))
    return _cycles(edges)


def package_cycles(modules: Iterable[Module]) -> list[str]:
    """Groups of packages that import each other; a package and the packages inside it are different ones."""
    listed = list(modules)
    # A single-file room (``neurotrain.batch``) is a package of its own.
    package = {module.name: module.name if module.package == PACKAGE else module.package for module in listed}
    edges: dict[str, set[str]] = {name: set() for name in package.values()}
    for source, targets in _edges(listed).items():
        edges[package[source]] |= {package[target] for target in targets} - {package[source]}
    return _cycles(edges)


def _imports(module: Module, node: ast.AST, *, on_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, on_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _base(module, child)
            yield from (Import(f"{base}.{alias.name}", child.lineno, on_import) for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(module, ast.Module(body=child.body, type_ignores=[]), on_import=False)
            yield from _imports(module, ast.Module(body=child.orelse, type_ignores=[]), on_import=on_import)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(module, child, on_import=on_import and not inside)


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    parents = parts[: len(parts) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _edges(modules: list[Module]) -> dict[str, set[str]]:
    """Which module names which; ``from package import module`` names the module, not the package."""
    names = {module.name for module in modules}
    edges: dict[str, set[str]] = {}
    for module in modules:
        targets: set[str] = set()
        for item in imports(module):
            holder = item.target.rpartition(".")[0]
            target = item.target if item.target in names else holder
            targets |= {target} & names
        edges[module.name] = targets - {module.name}
    return edges


def _cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """Sets of nodes that reach each other."""
    reach = {node: _reachable(edges, node) for node in edges}
    groups = {frozenset(other for other in reach[node] if node in reach[other]) for node in edges}
    return sorted(" <-> ".join(sorted(group)) for group in groups if len(group) > 1)


def _reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen
