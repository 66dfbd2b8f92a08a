"""Attention gates in the U-Net."""

from __future__ import annotations

import torch

from neurotrain.networks import UNet


def _network(**changes: object) -> UNet:
    torch.manual_seed(0)
    return UNet(widths=(4, 6, 8), **changes)  # pyright: ignore[reportArgumentType]


def test_open_gates_leave_the_network_as_it_is_without_them() -> None:
    plain, gated = _network().eval(), _network(attention_gates=True).eval()
    assert all(torch.equal(value, gated.state_dict()[name]) for name, value in plain.state_dict().items())
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        closed = gated(image)
        for gate in gated.gates:
            gate.weight_norm.bias.fill_(50.0)  # pyright: ignore
        torch.testing.assert_close(gated(image), plain(image))
        assert (closed - plain(image)).abs().max() > 1e-3


def test_gates_learn_in_two_and_three_dimensions_with_and_without_shortcuts() -> None:
    for dims, size in ((2, (20, 13)), (3, (9, 8, 12))):
        for residual in (True, False):
            network = _network(attention_gates=True, dims=dims, residual=residual, norm="group")
            network(torch.randn(1, 3, *size)).square().sum().backward()  # pyright: ignore
            learning = [p for gate in network.gates for p in gate.parameters()]
            assert all(p.grad is not None for p in learning)
            assert sum(float(p.grad.abs().sum()) for p in learning if p.grad is not None) > 0
