"""Imports go down only, without cycles, and what is heavy is loaded where it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from import_rules import (
    HEAVY,
    LAYERS,
    configuration_violations,
    heavy_violations,
    layer_violations,
    module_cycles,
    package_cycles,
)
from sources import CHECKOUT, other_modules, package_modules, snippet


def test_there_is_something_to_check() -> None:
    names = {module.name for module in package_modules()}
    assert {"neurotrain", "neurotrain.batch", "neurotrain.app.train"} <= names
    assert [module.name for module in other_modules("train.py")] == ["train"]


def test_layers() -> None:
    assert layer_violations(package_modules()) == []


def test_no_module_imports_itself_around_corners() -> None:
    assert module_cycles(package_modules()) == []


def test_no_packages_import_each_other() -> None:
    assert package_cycles(package_modules()) == []


def test_only_app_knows_hydra() -> None:
    assert configuration_violations(package_modules()) == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    assert heavy_violations([*package_modules(), *other_modules("train.py")]) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("neurotrain.losses.functional", "from neurotrain.metrics import dice"),
        ("neurotrain.losses.functional", "from ..metrics import dice"),
        ("neurotrain.losses.functional", "from .. import metrics"),
        ("neurotrain.losses.functional", "import neurotrain.app.train"),
        ("neurotrain.networks.unet", "def build():\n    from neurotrain.data import Drive"),
        ("neurotrain.data.modules", "from neurotrain import inference"),
        ("neurotrain.inference.tta", "import neurotrain.tasks"),
        ("neurotrain.tasks.segmentation", "from neurotrain.callbacks.ema import WeightAveraging"),
        ("neurotrain.callbacks.ema", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import neurotrain.app"),
        ("neurotrain.tasks.segmentation", "from neurotrain.data import Drive"),
        ("neurotrain.data.modules", "from neurotrain.tasks import SegmentationTask"),
        ("neurotrain.attic.old", "x = 1"),
        ("neurotrain.app.train", "import neurotrain.attic"),
        ("neurotrain.app.train", "import neurotrain"),
    ],
)
def test_a_forbidden_layer_is_found(name: str, text: str) -> None:
    assert len(layer_violations([snippet(text, name)])) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("neurotrain", "def train():\n    from neurotrain.app.train import train"),
        ("neurotrain.losses.functional", "from neurotrain.batch import SegmentationMode\nimport torch"),
        ("neurotrain.losses.functional", "from . import inputs"),
        ("neurotrain.app.train", "from neurotrain.callbacks import MetricsCsv\nfrom neurotrain.data import Drive"),
        ("neurotrain.callbacks.tables", "import neurotrain.data\nfrom neurotrain.tasks import SegmentationTask"),
    ],
)
def test_an_allowed_layer_passes(name: str, text: str) -> None:
    assert layer_violations([snippet(text, name)]) == []


def test_each_room_has_one_layer() -> None:
    rooms = [room for layer in LAYERS for room in layer]
    assert len(rooms) == len(set(rooms))


def test_cycles_are_found() -> None:
    ring = [
        snippet("from neurotrain.data import b", "neurotrain.data.a"),
        snippet("def f():\n    import neurotrain.data.c", "neurotrain.data.b"),
        snippet("from .a import thing", "neurotrain.data.c"),
        snippet("from neurotrain.data.a import thing", "neurotrain.data.outside"),
    ]
    assert module_cycles(ring) == ["neurotrain.data.a <-> neurotrain.data.b <-> neurotrain.data.c"]
    assert module_cycles(ring[1:]) == []


def test_mutual_packages_are_found() -> None:
    modules = [
        snippet("from neurotrain.metrics.dice import f", "neurotrain.networks.unet"),
        snippet("f = 1", "neurotrain.metrics.dice"),
        snippet("from neurotrain.networks.output import o", "neurotrain.metrics.other"),
        snippet("o = 1", "neurotrain.networks.output"),
    ]
    assert module_cycles(modules) == []
    assert package_cycles(modules) == ["neurotrain.metrics <-> neurotrain.networks"]
    assert package_cycles(modules[:3]) == []


@pytest.mark.parametrize("text", ["import hydra.core", "from omegaconf import DictConfig", "import hydra_zen as zen"])
def test_hydra_below_app_is_found(text: str) -> None:
    assert len(configuration_violations([snippet(f"def f():\n    {text}", "neurotrain.tasks.x")])) == 1
    assert configuration_violations([snippet(text, "neurotrain.app.x")]) == []


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_imports_are_found(library: str) -> None:
    early = (
        f"import {library}",
        f"from {library}.sub import name",
        f"try:\n    import {library}\nfinally:\n    pass",
        f"class C:\n    import {library}",
        f"if True:\n    import {library}",
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import {library}",
    )
    late = (
        f"def f():\n    import {library}",
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {library}",
        f"import {library}_other",
    )
    assert [len(heavy_violations([snippet(text)])) for text in early] == [1] * len(early)
    assert [heavy_violations([snippet(text)]) for text in late] == [[]] * len(late)


def _loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    # -P: the working directory must not shadow what is installed.
    command = [sys.executable, "-P", "-W", "ignore", "-c", f"import sys; sys.path.insert(0, 'src')\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_neurotrain_is_light() -> None:
    loaded = _loaded_by("import neurotrain")
    assert "neurotrain" in loaded
    assert loaded.isdisjoint({"torch", "lightning", "numpy", "rich", "torchmetrics"} | HEAVY | {"hydra", "omegaconf"})


def test_the_command_line_loads_no_optional_library() -> None:
    loaded = _loaded_by(
        "from neurotrain.app.deferred import defer_torchmetrics; defer_torchmetrics()\n"
        "from neurotrain.app.launch import launch"
    )
    # matplotlib and PIL come with Lightning and torchmetrics where they are installed.
    assert "lightning" in loaded
    assert loaded.isdisjoint(HEAVY - {"matplotlib", "PIL"})
