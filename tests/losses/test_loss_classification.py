"""Losses of whole images: against torch, timm and torchvision, by hand, and where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.classification import (
    ClassificationCrossEntropy,
    ClassificationFocal,
    MultilabelCrossEntropy,
    classification_cross_entropy,
    classification_focal_loss,
    distillation_loss,
    multilabel_cross_entropy,
)


def _logits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(7, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


CLASSES = torch.tensor([0, 1, 2, 3, 4, 1, 1])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(weights: Tensor | None, smoothing: float) -> None:
    wanted = F.cross_entropy(_logits(), CLASSES, weight=weights, label_smoothing=smoothing)
    found = classification_cross_entropy(_logits(), CLASSES, class_weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)


def test_cross_entropy_of_soft_targets_is_timms() -> None:
    from timm.loss import SoftTargetCrossEntropy

    target = torch.softmax(_logits(1), 1)
    torch.testing.assert_close(
        classification_cross_entropy(_logits(), target), SoftTargetCrossEntropy()(_logits(), target)
    )


def test_a_soft_target_on_one_class_is_that_class_with_weights_too() -> None:
    sure = F.one_hot(CLASSES, 5).float()
    for options in ({}, {"class_weights": WEIGHTS, "label_smoothing": 0.2}):
        torch.testing.assert_close(
            classification_cross_entropy(_logits(), sure, **options),
            classification_cross_entropy(_logits(), CLASSES, **options),
        )


def test_focal_by_hand_and_without_focus_it_is_cross_entropy() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]])  # p = 3/4
    found = classification_focal_loss(logits, torch.tensor([0]), gamma=2.0)
    assert found.item() == pytest.approx(-(0.25**2) * math.log(0.75), rel=1e-5)
    torch.testing.assert_close(
        classification_focal_loss(_logits(), CLASSES, gamma=0.0, class_weights=WEIGHTS),
        F.cross_entropy(_logits(), CLASSES, weight=WEIGHTS),
    )


def test_multilabel_is_torchs_and_smoothing_pulls_to_one_half() -> None:
    target = (torch.rand(7, 5, generator=torch.Generator().manual_seed(2)) > 0.5).long()
    found = multilabel_cross_entropy(_logits(), target, pos_weight=WEIGHTS)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(_logits(), target.float(), pos_weight=WEIGHTS))
    assert multilabel_cross_entropy(torch.zeros(1, 2), torch.ones(1, 2), label_smoothing=1.0).item() == pytest.approx(
        math.log(2)
    )


def test_distillation_by_hand() -> None:
    student, teacher = _logits(0, torch.float64), _logits(1, torch.float64)
    p, q = torch.softmax(teacher / 3, 1), torch.softmax(student / 3, 1)
    wanted = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=3.0), wanted)


def test_distillation_reaches_the_student_only_and_pulls_it_to_the_teacher() -> None:
    student, teacher = _logits().requires_grad_(), _logits(1).requires_grad_()
    distillation_loss(student, teacher, temperature=1.0).backward()
    assert teacher.grad is None
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.softmax(1) - teacher.softmax(1)).detach() / 7)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: classification_cross_entropy(x, CLASSES, class_weights=WEIGHTS, label_smoothing=0.1),
        lambda x: classification_focal_loss(x, CLASSES, gamma=0.5),
        lambda x: multilabel_cross_entropy(x, F.one_hot(CLASSES, 5), label_smoothing=0.1),
        lambda x: distillation_loss(x, _logits(1, torch.float64)),
    ],
)
def test_gradients(loss: object) -> None:
    assert torch.autograd.gradcheck(loss, _logits(0, torch.float64).requires_grad_())  # pyright: ignore


@pytest.mark.parametrize("value", [30.0, 1e4])
def test_confident_logits_keep_finite_losses_and_gradients(value: float) -> None:
    for loss in (ClassificationCrossEntropy(), ClassificationFocal(gamma=0.5)):
        logits = torch.tensor([[value, 0.0]], requires_grad=True)
        for label in (0, 1):
            found = loss(logits, torch.tensor([label]))
            (gradient,) = torch.autograd.grad(found, logits)
            assert found.isfinite()
            assert gradient.isfinite().all()


def test_half_precision_is_reduced_in_fp32() -> None:
    logits = _logits().bfloat16()
    assert ClassificationCrossEntropy()(logits, CLASSES).dtype == torch.float32
    assert MultilabelCrossEntropy()(logits, F.one_hot(CLASSES, 5)).dtype == torch.float32
    assert distillation_loss(logits, logits).dtype == torch.float32


def test_a_batch_without_a_weighted_class_gives_zero() -> None:
    logits = _logits().requires_grad_()
    loss = ClassificationCrossEntropy(class_weights=(1.0, 1.0, 1.0, 0.0, 1.0))(logits, torch.full((7,), 3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classification_cross_entropy(_logits(), CLASSES[:3]), "target classes"),
        (lambda: classification_cross_entropy(_logits(), torch.rand(7, 4)), "probabilities"),
        (lambda: classification_cross_entropy(_logits(), CLASSES, class_weights=torch.ones(3)), "class_weights"),
        (lambda: ClassificationCrossEntropy(label_smoothing=1.5), "label_smoothing"),
        (lambda: ClassificationFocal(gamma=-1.0), "gamma"),
        (lambda: multilabel_cross_entropy(_logits(), CLASSES), "multilabel"),
        (lambda: distillation_loss(_logits(), _logits(), temperature=0.0), "temperature"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
