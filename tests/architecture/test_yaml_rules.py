"""Configuration files hold deltas; every class that they can select is registered."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from sources import CHECKOUT
from yaml_rules import inherited_nodes, target_violations

from neurotrain.app.registry import FAMILIES, Family, members, register

_CONFIGS = CHECKOUT / "configs"
_FILES = sorted(_CONFIGS.rglob("*.yaml"))
_OWN = [family for family in FAMILIES if family.module.startswith("neurotrain.")]


def test_no_file_names_a_class() -> None:
    assert len(_FILES) > 30
    found = [
        line
        for path in _FILES
        for line in target_violations(path.read_text(encoding="utf-8"), str(path.relative_to(CHECKOUT)))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    ["_target_: a.B", "network:\n  _target_: a.B", "callbacks:\n  - x: 1\n  - deep: {_target_: a.B}"],
)
def test_a_class_in_a_file_is_found(text: str) -> None:
    assert len(target_violations(text, "x.yaml")) == 1
    assert target_violations(text.replace("_target_", "target"), "x.yaml") == []


def test_inherited_nodes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model" / "loss" / "sum.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("defaults:\n  - _Sum\n  - /callbacks@average: _Ema\n  - part: _Part\n  - other\n  - _self_\n")
    assert inherited_nodes(path, tmp_path) == [
        ("model/loss", "_Sum"),
        ("callbacks", "_Ema"),
        ("model/loss/part", "_Part"),
    ]


def test_every_inherited_node_is_stored() -> None:
    register()
    store = ConfigStore.instance()
    inherited = [(path, node) for path in _FILES for node in inherited_nodes(path, _CONFIGS)]
    assert inherited
    missing = [
        f"{path.relative_to(CHECKOUT)}: {group}/{name}"
        for path, (group, name) in inherited
        if f"{name}.yaml" not in (store.list(group) if group else store.repo)
    ]
    assert missing == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_member_has_a_node(family: Family) -> None:
    register()
    names = [name for name, _ in members(family)]
    assert names
    stored = ConfigStore.instance().list(family.group)
    assert [name for name in names if f"_{name}.yaml" not in stored] == []


def _defined(family: Family) -> Iterator[type]:
    """Public concrete classes of a family that are defined anywhere in its package."""
    module_name, _, base_name = family.base.rpartition(".")
    base = getattr(import_module(module_name), base_name)
    package = import_module(family.module)
    inside = vars(package).get("__path__", [])  # a family may be a single module
    found = [family.module, *(item.name for item in pkgutil.walk_packages(inside, f"{family.module}."))]
    for name in found:
        for value in vars(import_module(name)).values():
            defined_here = inspect.isclass(value) and value.__module__ == name and not value.__name__.startswith("_")
            if defined_here and issubclass(value, base) and not inspect.isabstract(value):
                yield value


# Networks are built of modules that are no networks, so only their own list can tell.
@pytest.mark.parametrize("family", [f for f in _OWN if f.name != "networks"], ids=lambda family: family.name)
def test_every_class_of_a_family_is_listed(family: Family) -> None:
    listed = {member for _, member in members(family)}
    defined = list(_defined(family))
    assert defined
    assert [value for value in defined if value not in listed] == []


@pytest.mark.parametrize("family", _OWN, ids=lambda family: family.name)
def test_configured_constructors_take_keywords_only(family: Family) -> None:
    positional = [
        f"{name}({parameter})"
        for name, member in members(family)
        for parameter in inspect.signature(member).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert positional == []
