"""Soft skeleton and centerline Dice against MONAI, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurotrain.losses.functional import centerline_dice_loss
from neurotrain.losses.topology import soft_skeleton

SPATIAL = [(12, 14), (7, 8, 9)]


def smooth_image(channels: int, spatial: tuple[int, ...]) -> Tensor:
    noise = torch.randn(2, channels, *spatial, generator=torch.Generator().manual_seed(0))
    pool = torch.nn.functional.avg_pool2d if len(spatial) == 2 else torch.nn.functional.avg_pool3d
    return pool(noise, 3, stride=1, padding=1) * 4


@pytest.mark.parametrize("spatial", SPATIAL, ids=["2d", "3d"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_skeleton_is_monais(spatial: tuple[int, ...], iterations: int) -> None:
    from monai.losses.cldice import soft_skel

    image = torch.sigmoid(smooth_image(2, spatial))
    torch.testing.assert_close(soft_skeleton(image, iterations=iterations), soft_skel(image, iterations))


@pytest.mark.parametrize("spatial", SPATIAL, ids=["2d", "3d"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_loss_is_monais(spatial: tuple[int, ...], iterations: int) -> None:
    from monai.losses import SoftclDiceLoss

    logits = smooth_image(1, spatial)
    target = (smooth_image(1, spatial).flip(0) > 0)[:, 0].long()
    reference = SoftclDiceLoss(iter_=iterations, smooth=1e-12, sigmoid=True)(logits, target.unsqueeze(1).float())
    actual = centerline_dice_loss(logits, target, mode="binary", iterations=iterations, per_sample=True)
    torch.testing.assert_close(actual, reference)


def test_pooled_loss_is_that_of_one_image_beside_the_other() -> None:
    logits = smooth_image(1, (12, 14))
    target = (logits.flip(0) > 0)[:, 0].long()
    # A column of background between them keeps the structures apart, at the border too.
    logits[..., 0] = logits[..., -1] = -60.0
    target[..., 0] = target[..., -1] = 0
    beside = centerline_dice_loss(torch.cat(list(logits), -1)[None], torch.cat(list(target), -1)[None], mode="binary")
    torch.testing.assert_close(centerline_dice_loss(logits, target, mode="binary"), beside)


def vessel(rows: slice, *, gap: slice | None = None) -> Tensor:
    mask = torch.zeros(1, 9, 20, dtype=torch.int64)
    mask[:, rows, 2:18] = 1
    if gap is not None:
        mask[:, :, gap] = 0
    return mask


def certain(mask: Tensor) -> Tensor:
    return mask.unsqueeze(1) * 120.0 - 60.0


def test_broken_line_costs_more_than_thin_one() -> None:
    target = vessel(slice(3, 6))
    thin = centerline_dice_loss(certain(vessel(slice(4, 5))), target, mode="binary")
    broken = centerline_dice_loss(certain(vessel(slice(3, 6), gap=slice(8, 11))), target, mode="binary")
    same = centerline_dice_loss(certain(target), target, mode="binary")
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert thin < broken


def test_loss_by_hand() -> None:
    # Lines of width 1 are their own skeletons. Labels: 6 pixels; prediction: 3 of them and 1 beside.
    target, predicted = torch.zeros(1, 5, 8, dtype=torch.int64), torch.zeros(1, 5, 8, dtype=torch.int64)
    target[0, 1, 1:7] = 1
    predicted[0, 1, 1:4] = 1
    predicted[0, 3, 6] = 1
    precision, sensitivity = (3 + 1) / (4 + 1), (3 + 1) / (6 + 1)
    value = centerline_dice_loss(certain(predicted), target, mode="binary", iterations=1)
    assert value.item() == pytest.approx(1 - 2 * precision * sensitivity / (precision + sensitivity))


def test_tube_in_a_volume_thins_to_its_axis() -> None:
    tube = torch.zeros(1, 1, 7, 7, 11)
    tube[..., 2:5, 2:5, :] = 1
    skeleton = soft_skeleton(tube, iterations=2)
    axis = torch.zeros_like(tube)
    axis[..., 3, 3, :] = 1
    assert torch.equal(skeleton[..., 2:-2], axis[..., 2:-2])


def test_empty_labels_and_prediction_agree() -> None:
    empty = torch.zeros(1, 6, 6, dtype=torch.int64)
    assert centerline_dice_loss(torch.full((1, 1, 6, 6), -200.0), empty, mode="binary").item() == 0


def test_full_gradient_check() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(2, (1, 4, 4), generator=generator)
    valid = torch.rand(1, 4, 4, generator=generator) > 0.2
    assert torch.autograd.gradcheck(
        lambda z: centerline_dice_loss(z, target, mode="binary", valid=valid, iterations=1), (logits,)
    )


def test_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="iterations=-1"):
        soft_skeleton(torch.zeros(1, 1, 3, 3), iterations=-1)
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        soft_skeleton(torch.zeros(3, 3))
