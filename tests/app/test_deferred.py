"""What starts without heavy packages, and that they are whole once used: one fresh interpreter tells all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys, torch
from neurotrain.app.deferred import defer_compiler, defer_torchmetrics
defer_compiler(), defer_torchmetrics()
import neurotrain.app.train
unwanted = {"scipy.signal", "torchvision", "transformers", "torchmetrics.functional"}
told = {"heavy": sorted(unwanted & sys.modules.keys())}

from lightning.fabric.wrappers import _unwrap_compiled
network = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
before = network.weight.detach().clone()
def step():
    optimizer.zero_grad()
    network(torch.ones(4, 2)).sum().backward()
    optimizer.step()
torch.use_deterministic_algorithms(True)
step()
told["plain"] = [not torch.equal(before, network.weight), _unwrap_compiled(network) == (network, None)]
told["compiler"] = "torch._dynamo.eval_frame" in sys.modules
import torch._dynamo.utils as first
from torch._dynamo import utils as second
told["one module"] = first is second is sys.modules["torch._dynamo.utils"] and first.__spec__.loader is not None
compiled = torch.compile(network, backend="eager")
told["compiled"] = [
    torch.equal(compiled(torch.ones(3, 2)), network(torch.ones(3, 2))),
    _unwrap_compiled(compiled)[0] is network,
    "torch._dynamo.eval_frame" in sys.modules,
]
step()
told["whole compiler"] = [torch._inductor.config.deterministic, callable(torch._inductor.compile)]
told["compiler's types"] = [type(torch._dynamo).__name__, type(torch._inductor).__name__]

import lightning, torchmetrics
from torchmetrics import Metric, MetricCollection
version = torchmetrics.__version__
told["metrics wait"] = type(torchmetrics).__name__
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy
told["metrics"] = type(torchmetrics).__name__
told["one class"] = [
    issubclass(MeanMetric, Metric) and torchmetrics.Metric is Metric,
    torchmetrics.MetricCollection is MetricCollection and version == torchmetrics.__version__,
    issubclass(BinaryAccuracy, lightning.pytorch.core.module.Metric),
    set(torchmetrics.__all__) <= set(dir(torchmetrics)),
]
try:
    torchmetrics.MeanMetrik
except AttributeError as error:
    told["mistake"] = str(error)
accuracy = torchmetrics.functional.accuracy(torch.tensor([1, 0]), torch.tensor([1, 1]), task="binary")
told["accuracy"] = float(accuracy)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_lightning_starts_without_what_torchmetrics_imports(told: dict[str, Any]) -> None:
    assert told["heavy"] == []


def test_nothing_of_the_compiler_is_imported_before_something_is_compiled(told: dict[str, Any]) -> None:
    assert told["plain"] == [True, True]
    assert told["compiler"] is False
    assert told["one module"]
    assert told["compiled"] == [True, True, True]
    assert told["whole compiler"] == [True, True]
    assert told["compiler's types"] == ["module", "module"]


def test_torchmetrics_is_whole_once_it_is_used(told: dict[str, Any]) -> None:
    assert told["metrics wait"] != "module"
    assert told["metrics"] == "module"
    assert told["one class"] == [True] * 4
    assert "MeanMetrik" in told["mistake"]
    assert told["accuracy"] == 0.5
