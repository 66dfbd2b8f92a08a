"""Dice and Tversky against MONAI and segmentation_models_pytorch, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.losses.functional import dice_loss, tversky_loss

MODES: list[SegmentationMode] = ["binary", "multiclass", "multilabel"]
CHANNELS = {"binary": 1, "multiclass": 3, "multilabel": 2}


def draw(mode: str, spatial: tuple[int, ...] = (5, 6)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels = CHANNELS[mode]
    logits = torch.randn(3, channels, *spatial, generator=generator)
    shape = (3, channels, *spatial) if mode == "multilabel" else (3, *spatial)
    return logits, torch.randint(channels if mode == "multiclass" else 2, shape, generator=generator)


def monai_arguments(mode: str, target: Tensor) -> tuple[dict[str, bool], Tensor]:
    multiclass = mode == "multiclass"
    options = {"softmax": multiclass, "to_onehot_y": multiclass, "sigmoid": not multiclass}
    return options, target if mode == "multilabel" else target.unsqueeze(1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("spatial", [(5, 6), (3, 4, 5)], ids=["2d", "3d"])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_is_monais(mode: SegmentationMode, per_sample: bool, spatial: tuple[int, ...], smooth: float) -> None:
    from monai.losses import DiceLoss

    logits, target = draw(mode, spatial)
    options, labels = monai_arguments(mode, target)
    reference = DiceLoss(batch=not per_sample, smooth_nr=smooth, smooth_dr=smooth, **options)
    actual = dice_loss(logits, target, mode=mode, per_sample=per_sample, smooth=smooth)
    torch.testing.assert_close(actual, reference(logits, labels))


def test_dice_without_background_and_with_weights_is_monais() -> None:
    from monai.losses import DiceLoss

    logits, target = draw("multiclass")
    options, labels = monai_arguments("multiclass", target)
    reference = DiceLoss(include_background=False, batch=True, smooth_nr=1, smooth_dr=1, weight=[0.5, 1.5], **options)
    # MONAI multiplies by weights and divides by their number; these sum to it.
    actual = dice_loss(logits, target, mode="multiclass", include_background=False, class_weights=(9, 0.5, 1.5))
    torch.testing.assert_close(actual, reference(logits, labels))


@pytest.mark.parametrize("mode", MODES)
def test_dice_is_segmentation_models(mode: SegmentationMode) -> None:
    from segmentation_models_pytorch.losses import DiceLoss

    logits, target = draw(mode)
    # Its Dice is Tversky's, so that its smooth stands beside TP where ours stands beside 2 TP.
    reference = DiceLoss(mode, smooth=0.5)(logits, target if mode != "binary" else target.unsqueeze(1))
    torch.testing.assert_close(dice_loss(logits, target, mode=mode), reference)


def test_dice_with_ignored_label_is_segmentation_models() -> None:
    from segmentation_models_pytorch.losses import DiceLoss

    logits, target = draw("binary")
    valid = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    target = torch.where(valid, target, 255)
    reference = DiceLoss("binary", smooth=0.5, ignore_index=255)(logits, target.unsqueeze(1))
    torch.testing.assert_close(dice_loss(logits, target, mode="binary", valid=valid), reference)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_sample", [False, True])
def test_tversky_is_monais(mode: SegmentationMode, per_sample: bool) -> None:
    from monai.losses import TverskyLoss

    logits, target = draw(mode)
    options, labels = monai_arguments(mode, target)
    reference = TverskyLoss(alpha=0.2, beta=0.9, smooth_nr=0.5, smooth_dr=0.5, batch=not per_sample, **options)
    actual = tversky_loss(logits, target, mode=mode, alpha=0.2, beta=0.9, smooth=0.5, per_sample=per_sample)
    torch.testing.assert_close(actual, reference(logits, labels))


def test_focal_tversky_is_segmentation_models() -> None:
    from segmentation_models_pytorch.losses import TverskyLoss

    logits, target = draw("binary")
    reference = TverskyLoss("binary", smooth=1.0, alpha=0.3, beta=0.7, gamma=0.75)(logits, target.unsqueeze(1))
    torch.testing.assert_close(tversky_loss(logits, target, mode="binary", gamma=0.75), reference)


@pytest.mark.parametrize("mode", MODES)
def test_balanced_tversky_is_dice(mode: SegmentationMode) -> None:
    logits, target = draw(mode)
    tversky = tversky_loss(logits, target, mode=mode, alpha=0.5, beta=0.5, smooth=0.5)
    torch.testing.assert_close(tversky, dice_loss(logits, target, mode=mode))


def certain(labels: list[int]) -> Tensor:
    return torch.tensor([labels]).unsqueeze(1).unsqueeze(1) * 80.0 - 40.0


def test_dice_by_hand_pooled_and_per_sample() -> None:
    logits = torch.cat([certain([1, 1, 0, 0]), certain([0, 0, 0, 1])])
    target = torch.tensor([[[1, 0, 0, 0]], [[0, 0, 0, 1]]])
    # Sample 1: 1 - (2 + 1) / (3 + 1) = 1/4; sample 2: 0. Pooled: 1 - (4 + 1) / (5 + 1) = 1/6.
    assert dice_loss(logits, target, mode="binary", per_sample=True).item() == pytest.approx(1 / 8)
    assert dice_loss(logits, target, mode="binary").item() == pytest.approx(1 / 6)


def test_tversky_by_hand() -> None:
    logits, target = certain([1, 1, 1, 0, 0, 0]), torch.tensor([[[1, 0, 0, 1, 0, 0]]])
    # TP 1, FP 2, FN 1: 1 - (1 + 1) / (1 + 0.3 * 2 + 0.7 + 1) = 13/33; then to the power 2.
    assert tversky_loss(logits, target, mode="binary").item() == pytest.approx(13 / 33)
    assert tversky_loss(logits, target, mode="binary", gamma=2).item() == pytest.approx((13 / 33) ** 2)


def test_class_weights_by_hand() -> None:
    logits = torch.cat([certain([1, 1]), certain([0, 0])], 1)
    target = torch.ones(1, 2, 1, 2, dtype=torch.int64)
    # Losses 0 and 1 - 1 / 3 by label.
    assert dice_loss(logits, target, mode="multilabel", class_weights=(1, 3)).item() == pytest.approx(2 / 3 * 3 / 4)


def test_absent_class_scores_full_agreement() -> None:
    empty = torch.zeros(1, 1, 4, dtype=torch.int64)
    for loss in (dice_loss, tversky_loss):
        assert loss(torch.full((1, 1, 1, 4), -200.0), empty, mode="binary").item() == 0


@pytest.mark.parametrize("gamma", [0.5, 0.75, 1.0, 2.0])
def test_focal_tversky_gradient_is_finite_at_perfection(gamma: float) -> None:
    target = torch.tensor([[[1, 0, 0, 1]]])
    logits = (target.unsqueeze(1) * 400.0 - 200.0).requires_grad_()
    loss = tversky_loss(logits, target, mode="binary", gamma=gamma)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", [dice_loss, tversky_loss])
def test_full_gradient_check(mode: SegmentationMode, loss: object) -> None:
    logits, target = draw(mode, (2, 3))
    valid = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(1)) > 0.3
    options = {"gamma": 1.5} if loss is tversky_loss else {"per_sample": True}
    assert callable(loss)
    assert torch.autograd.gradcheck(
        lambda z: loss(z, target, mode=mode, valid=valid, **options), (logits.double().requires_grad_(),)
    )


def test_large_batches_of_half_precision_do_not_saturate() -> None:
    # 2^18 pixels of probability 1/2: a bf16 sum would stop growing near 256.
    logits = torch.zeros(1, 1, 512, 512, dtype=torch.bfloat16)
    target = torch.ones(1, 512, 512, dtype=torch.int64)
    assert dice_loss(logits, target, mode="binary").item() == pytest.approx(1 / 3, abs=1e-4)
