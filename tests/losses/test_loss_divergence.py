"""Divergences: against torch's distributions, under a mask, by gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal
from torch.distributions import kl_divergence as reference

from neurotrain.losses.classification import distillation_loss
from neurotrain.losses.divergence import Direction, gaussian_kl, kl_divergence


def _logits(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_it_is_torchs_of_categorical_distributions_at_every_place(direction: Direction) -> None:
    own, target = _logits(2, 5, 3, 4, seed=0), _logits(2, 5, 3, 4, seed=1)
    pair = [Categorical(logits=x.movedim(1, -1) / 2.5) for x in (target, own)]
    wanted = 2.5**2 * reference(*(pair if direction == "forward" else pair[::-1])).mean()
    found = kl_divergence(own, target, temperature=2.5, direction=direction)
    torch.testing.assert_close(found, wanted)
    assert kl_divergence(own, own, direction=direction).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_gradient_reaches_the_prediction_alone(direction: Direction) -> None:
    own, target = _logits(2, 3, seed=2).requires_grad_(), _logits(2, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: kl_divergence(logits, target.detach(), temperature=1.7, direction=direction), own
    )
    kl_divergence(own, target, direction=direction).backward()
    assert target.grad is None


def test_at_one_place_it_is_the_loss_of_distillation() -> None:
    own, target = _logits(4, 6, seed=4), _logits(4, 6, seed=5)
    found = kl_divergence(own, target, temperature=4.0)
    torch.testing.assert_close(found, distillation_loss(own, target, temperature=4.0))


def test_what_does_not_count_reaches_neither_value_nor_gradient() -> None:
    own, target = _logits(2, 3, 4, 5, seed=6), _logits(2, 3, 4, 5, seed=7)
    valid = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(8)) > 0.4
    dirty = own.masked_fill(~valid[:, None], float("nan")).requires_grad_()
    found = kl_divergence(dirty, target.masked_fill(~valid[:, None], float("inf")), valid_BS=valid)
    places = [x.movedim(1, -1)[valid] for x in (own, target)]
    torch.testing.assert_close(found, kl_divergence(*places))
    found.backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()
    assert not dirty.grad.movedim(1, -1)[~valid].any()
    assert kl_divergence(dirty, target, valid_BS=torch.zeros_like(valid)).item() == 0.0


def test_the_gaussians_is_torchs_and_keeps_its_gradient() -> None:
    mean, log_variance = _logits(3, 4, 2, seed=9).requires_grad_(), _logits(3, 4, 2, seed=10).requires_grad_()
    unit = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 2)
    wanted = reference(Independent(Normal(mean, (log_variance / 2).exp()), 2), unit).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), wanted)
    assert torch.autograd.gradcheck(gaussian_kl, (mean, log_variance))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl_divergence(torch.zeros(2, 3), torch.zeros(2, 4)), "need"),
        (lambda: kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0), "temperature=0.0"),
        (lambda: kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), direction="back"), "direction='back'"),  # pyright: ignore
        (lambda: kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), valid_BS=torch.ones(2)), "expected bool"),
        (lambda: gaussian_kl(torch.zeros(2, 3), torch.zeros(2)), "need"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
