"""Losses over pixels against PyTorch, torchvision, MONAI and segmentation_models_pytorch, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.functional import binary_cross_entropy, cross_entropy, focal_loss

K = 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[(5, 6), (3, 4, 5)], ids=["2d", "3d"])
def spatial(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


def draw(channels: int, labels: int, target_shape: tuple[int, ...], spatial: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    logits = torch.randn(2, channels, *spatial, generator=generator()) * 3
    return logits, torch.randint(labels, (2, *target_shape, *spatial), generator=generator(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 0.0, 3.0)])
def test_cross_entropy_is_torchs(spatial: tuple[int, ...], smoothing: float, weights: tuple[float, ...] | None) -> None:
    logits, target = draw(K, K, (), spatial)
    valid = torch.rand(2, *spatial, generator=generator(2)) > 0.4
    expected = F.cross_entropy(
        logits,
        torch.where(valid, target, 255),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    actual = cross_entropy(logits, target, valid=valid, class_weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_torchs(spatial: tuple[int, ...], weighted: bool) -> None:
    logits, target = draw(3, 2, (3,), spatial)
    valid = torch.rand(2, *spatial, generator=generator(2)) > 0.4
    factors = torch.tensor([0.5, 2.0, 4.0]).view(1, 3, *[1] * len(spatial)) if weighted else None
    each = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=factors, reduction="none")
    actual = binary_cross_entropy(
        logits, target, mode="multilabel", valid=valid, pos_weight=[0.5, 2.0, 4.0] if weighted else None
    )
    torch.testing.assert_close(actual, each.movedim(1, 0)[:, valid].mean())


def test_smoothed_binary_cross_entropy_with_pos_weight_is_torchs(spatial: tuple[int, ...]) -> None:
    logits, target = draw(1, 2, (), spatial)
    soft = target.unsqueeze(1) * 0.8 + 0.1
    expected = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=torch.tensor(3.0))
    actual = binary_cross_entropy(logits, target, mode="binary", pos_weight=[3.0], label_smoothing=0.2)
    torch.testing.assert_close(actual, expected)


def test_binary_equals_softmax_of_two_classes(spatial: tuple[int, ...]) -> None:
    logits, target = draw(1, 2, (), spatial)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    valid = torch.rand(2, *spatial, generator=generator(2)) > 0.4
    for options in ({"class_weights": (0.3, 2.0)}, {"label_smoothing": 0.2}):
        sigmoid = binary_cross_entropy(logits, target, mode="binary", valid=valid, **options)
        torch.testing.assert_close(sigmoid, cross_entropy(two, target, valid=valid, **options))
    sigmoid = focal_loss(logits, target, mode="binary", valid=valid, class_weights=(0.3, 2.0), gamma=1.5)
    softmax = focal_loss(two, target, mode="multiclass", valid=valid, class_weights=(0.3, 2.0), gamma=1.5)
    torch.testing.assert_close(sigmoid, softmax)


def test_confident_logits_keep_their_small_loss() -> None:
    logits = torch.full((1, 1, 1, 2), 30.0)
    logits[..., 1] = -30.0
    value = binary_cross_entropy(logits, torch.tensor([[[1, 0]]]), mode="binary")
    assert value.item() == pytest.approx(math.exp(-30), rel=1e-5)


def test_binary_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[[0.0, math.log(3), 5.0]]]])  # p = 1/2, 3/4; the third pixel is masked
    target, valid = torch.tensor([[[1, 0, 255]]]), torch.tensor([[[True, True, False]]])
    plain = binary_cross_entropy(logits, target, mode="binary", valid=valid)
    assert plain.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    # Weights 1 for background and 3 for foreground: (3 log 2 + 1 log 4) / 4.
    weighted = binary_cross_entropy(logits, target, mode="binary", valid=valid, class_weights=(1, 3))
    assert weighted.item() == pytest.approx((3 * math.log(2) + math.log(4)) / 4)


def test_multilabel_weights_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    target = torch.zeros(1, 2, 1, 3, dtype=torch.int64)  # losses log 2 and log 4 by label
    value = binary_cross_entropy(logits, target, mode="multilabel", class_weights=(1, 3))
    assert value.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)


def test_class_of_weight_zero_alone_gives_zero() -> None:
    logits, target = draw(1, 1, (), (4, 4))
    for loss in (binary_cross_entropy, focal_loss):
        assert loss(logits, target, mode="binary", class_weights=(0, 1)).item() == 0
    two = torch.cat([logits, -logits], 1)
    assert cross_entropy(two, target, class_weights=(0, 1)).item() == 0
    assert focal_loss(two, target, mode="multiclass", class_weights=(0, 1)).item() == 0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_is_torchvisions(spatial: tuple[int, ...], gamma: float, alpha: float | None) -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, target = draw(1, 2, (), spatial)
    expected = sigmoid_focal_loss(logits[:, 0], target.float(), -1 if alpha is None else alpha, gamma, "mean")
    torch.testing.assert_close(focal_loss(logits, target, mode="binary", gamma=gamma, alpha=alpha), expected)


def test_sigmoid_focal_is_segmentation_models(spatial: tuple[int, ...]) -> None:
    from segmentation_models_pytorch.losses import FocalLoss

    logits, target = draw(2, 2, (2,), spatial)
    expected = FocalLoss("multilabel", gamma=2.0, class_weights=[1.0, 3.0])(logits, target)
    torch.testing.assert_close(focal_loss(logits, target, mode="multilabel", class_weights=(1, 3)), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_softmax_focal_is_monais(spatial: tuple[int, ...], gamma: float) -> None:
    from monai.losses import FocalLoss

    logits, target = draw(K, K, (), spatial)
    reference = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma)(logits, target.unsqueeze(1))
    # MONAI's mean counts K values a pixel, of which K - 1 are 0.
    torch.testing.assert_close(focal_loss(logits, target, mode="multiclass", gamma=gamma), reference * K)


def test_focal_of_gamma_zero_is_cross_entropy(spatial: tuple[int, ...]) -> None:
    logits, target = draw(K, K, (), spatial)
    torch.testing.assert_close(focal_loss(logits, target, mode="multiclass", gamma=0), cross_entropy(logits, target))


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
@pytest.mark.parametrize("scale", [0.0, 200.0])
def test_focal_gradient_stays_finite_where_it_is_saturated(mode: str, scale: float) -> None:
    channels = 1 if mode == "binary" else 2
    logits = (torch.ones(1, channels, 2, 2) * scale).requires_grad_()
    shifted = logits if mode == "binary" else logits * torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    for label in (0, 1):
        target = torch.full((1, 2, 2), label)
        loss = focal_loss(shifted, target, mode=mode, gamma=0.5)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [binary_cross_entropy, focal_loss])
def test_full_gradient_check(loss: object) -> None:
    logits = torch.randn(1, 2, 2, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    target = torch.randint(2, (1, 2, 2, 3), generator=generator(1))
    valid = torch.tensor([[[True, False, True], [True, True, True]]])
    assert callable(loss)
    assert torch.autograd.gradcheck(
        lambda z: loss(z, target, mode="multilabel", valid=valid, class_weights=(1, 2)), (logits,)
    )
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, target[:, 0], valid=valid), (logits,))
