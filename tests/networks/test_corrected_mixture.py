"""A network that begins as the exact denoiser."""

from __future__ import annotations

import torch

from neurotrain.networks.denoisers import PointMLP
from neurotrain.networks.gaussian_mixture import CorrectedMixture, GaussianMixture
from neurotrain.noise import CosineSchedule, FlowSchedule, convert


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, 2, generator=generator), torch.linspace(0.01, 0.99, 20)


def test_it_begins_as_the_closed_form_whatever_the_schedule() -> None:
    x_t, t = _batch()
    mixture = GaussianMixture()
    for schedule in (FlowSchedule(), CosineSchedule()):
        network = CorrectedMixture(mixture=mixture, schedule=schedule, width=8, depth=1)
        exact = mixture.mean_of_data(x_t, schedule.alpha(t), schedule.sigma(t))
        data = convert(network(x_t, t), x_t, t, schedule=schedule, source=network.prediction, target="x0")
        torch.testing.assert_close(data, exact, atol=2e-4, rtol=1e-4)


def test_what_is_trained_is_the_correction() -> None:
    x_t, t = _batch()
    network = CorrectedMixture(mixture=GaussianMixture(), schedule=FlowSchedule(), width=8, depth=1, scalars=("step",))
    network(x_t, t, {"step": t}).square().sum().backward()
    with_gradient = {name for name, value in network.named_parameters() if value.grad is not None}
    assert {"correction.head.weight", "correction.head.bias"} <= with_gradient
    assert all(name.startswith("correction.") for name, _ in network.named_parameters())
    assert [part.shape for part in network.features(x_t, t)] == [(20, 8)]


def test_a_smaller_embedding_of_the_time_changes_nothing_else() -> None:
    x_t, t = _batch()
    whole, small = PointMLP(width=32, depth=2), PointMLP(width=32, depth=2, embedding=8)
    assert small(x_t, t).shape == whole(x_t, t).shape
    assert {name for name, _ in small.named_parameters()} == {name for name, _ in whole.named_parameters()}
    count = [sum(value.numel() for value in network.parameters()) for network in (whole, small)]
    assert count[1] < 0.6 * count[0]
    assert not torch.equal(small(x_t, t), small(x_t, 0.5 * t))
