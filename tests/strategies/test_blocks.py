"""What repeats in a network is found, recomputed and compiled, whatever its class."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurotrain.networks import UNet
from neurotrain.networks.classification import ResNetSmall
from neurotrain.strategies.blocks import blocks_of, compile_blocks, recompute_activations


def _network() -> ResNetSmall:
    torch.manual_seed(0)
    return ResNetSmall(widths=(4, 8), blocks=(1, 1), num_classes=3)


def test_blocks_of_a_network_are_its_repeated_parts() -> None:
    assert list(blocks_of(_network())) == ["stages.0", "stages.1"]
    names = list(blocks_of(UNet(widths=(4, 8))))
    assert names == ["encoder.0", "encoder.1", "decoder.0"]


def test_small_blocks_are_left_to_the_rest() -> None:
    sizes = {name: sum(p.numel() for p in block.parameters()) for name, block in blocks_of(_network()).items()}
    assert sizes["stages.0"] < sizes["stages.1"]
    assert list(blocks_of(_network(), min_parameters=sizes["stages.1"])) == ["stages.1"]


def test_recomputed_blocks_run_twice_and_leave_gradients_and_statistics_as_they_are() -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    plain, spared = _network(), _network()
    assert recompute_activations(spared) == ["stages.0", "stages.1"]
    calls = {"plain": 0, "spared": 0}
    for name, network in (("plain", plain), ("spared", spared)):
        network.stages[1].conv1.register_forward_pre_hook(partial(_count, calls, name))
        network(images).square().sum().backward()
    assert calls == {"plain": 1, "spared": 2}
    assert list(spared.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(spared.state_dict()[name], value), name
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_recomputed_blocks_hold_fewer_activations() -> None:
    held = {}
    for name, prepare in (("plain", blocks_of), ("spared", recompute_activations)):
        network, sizes = _network(), []
        prepare(network)
        with torch.autograd.graph.saved_tensors_hooks(partial(_note, sizes), lambda tensor: tensor):
            network(torch.zeros(4, 3, 8, 8)).sum()
        held[name] = sum(sizes)
    assert held["spared"] < 0.5 * held["plain"]


def test_blocks_are_compiled_and_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:  # noqa: ANN401
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    plain, compiled = _network().eval(), _network().eval()
    assert compile_blocks(compiled) == ["stages.0", "stages.1"]
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(compiled(images), plain(images), atol=1e-6)
    assert graphs
    assert list(compiled.state_dict()) == list(plain.state_dict())
    torch._dynamo.reset()


def test_a_task_without_blocks_has_its_largest_part_changed() -> None:
    task = nn.ModuleDict({"head": nn.Linear(2, 1), "network": nn.Linear(2, 2)})
    assert recompute_activations(task) == ["network"]


def _count(calls: dict[str, int], name: str, *_: object) -> None:
    calls[name] += 1


def _note(sizes: list[int], tensor: Tensor) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        sizes.append(tensor.numel())
    return tensor
