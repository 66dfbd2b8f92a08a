"""Signed distance maps by brute force, and the boundary loss by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurotrain.losses.boundary import signed_distance_map
from neurotrain.losses.functional import boundary_loss


def by_brute_force(inside: Tensor, counted: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Distances from all pixels to all others, without any distance transform."""
    points = torch.cartesian_prod(*[torch.arange(n) * side for n, side in zip(inside.shape, spacing, strict=True)])
    apart = torch.cdist(points.double(), points.double())
    foreground, background = (inside & counted).flatten(), (~inside & counted).flatten()
    outward, inward = apart[:, foreground].amin(1), apart[:, background].amin(1) - min(spacing)
    distance = outward * background - inward * foreground
    return distance.view(inside.shape).float()


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6)], ids=["2d", "3d"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("anisotropic", [False, True])
def test_map_is_that_of_brute_force(shape: tuple[int, ...], masked: bool, anisotropic: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(2, 2, *shape, generator=generator) > 0.7
    valid = torch.rand(2, *shape, generator=generator) > 0.3 if masked else None
    spacing = (2.0, 0.5, 1.25)[: len(shape)] if anisotropic else None
    actual = signed_distance_map(inside, valid=valid, spacing=spacing)
    for sample in range(2):
        counted = torch.ones(shape, dtype=torch.bool) if valid is None else valid[sample]
        for channel in range(2):
            expected = by_brute_force(inside[sample, channel], counted, spacing or (1.0,) * len(shape))
            torch.testing.assert_close(actual[sample, channel], expected)


def test_class_that_fills_none_or_all_has_no_border() -> None:
    filled = torch.tensor([0, 1]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert (signed_distance_map(filled) == 0).all()
    # The only background is masked.
    almost = torch.ones(1, 1, 2, 2)
    almost[..., 0, 0] = 0
    valid = torch.tensor([[[False, True], [True, True]]])
    assert (signed_distance_map(almost, valid=valid) == 0).all()


def test_loss_by_hand() -> None:
    # Distances of [0, 0, 1, 1]: 2, 1, 0, -1; probabilities 1/2, 1, 1/2, 1.
    logits = torch.tensor([0.0, 60.0, 0.0, 60.0]).view(1, 1, 1, 4)
    target = torch.tensor([[[0, 0, 1, 1]]])
    assert boundary_loss(logits, target, mode="binary").item() == pytest.approx((1 + 1 + 0 - 1) / 4)
    # Without the first pixel: (1 + 0 - 1) / 3.
    valid = torch.tensor([[[False, True, True, True]]])
    assert boundary_loss(logits, target, mode="binary", valid=valid).item() == pytest.approx(0, abs=1e-7)
    # Three times the size, three times the distance.
    assert boundary_loss(logits, target, mode="binary", spacing=(3, 3)).item() == pytest.approx(3 * 1 / 4)


def test_multiclass_weights_and_background() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(1, 3, 5, 5, generator=generator), torch.randint(3, (1, 5, 5), generator=generator)
    classes = torch.stack([target == label for label in range(3)], 1)
    each = (torch.softmax(logits, 1) * signed_distance_map(classes)).mean((0, 2, 3))
    torch.testing.assert_close(boundary_loss(logits, target, mode="multiclass"), each.mean())
    weighted = boundary_loss(logits, target, mode="multiclass", class_weights=(5, 1, 3), include_background=False)
    torch.testing.assert_close(weighted, (each[1] + 3 * each[2]) / 4)


def test_farther_mistake_costs_more() -> None:
    target = torch.zeros(1, 5, 12, dtype=torch.int64)
    target[:, 1:4, 1:4] = 1
    near, far = (torch.full((1, 1, 5, 12), -60.0) for _ in range(2))
    near[..., 2, 5] = far[..., 2, 10] = 60.0
    assert boundary_loss(near, target, mode="binary") < boundary_loss(far, target, mode="binary")


def test_full_gradient_check() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(3, (1, 3, 4), generator=generator)
    valid = torch.rand(1, 3, 4, generator=generator) > 0.2
    assert torch.autograd.gradcheck(lambda z: boundary_loss(z, target, mode="multiclass", valid=valid), (logits,))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, float("inf"))])
def test_refuses_bad_spacing(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing="):
        signed_distance_map(torch.zeros(1, 1, 3, 3), spacing=spacing)
