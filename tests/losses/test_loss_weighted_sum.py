"""The weighted sum: its arithmetic, its names, and that it shares work without changing a bit of the result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neurotrain.losses import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    SegmentationLoss,
    WeightedSum,
)
from neurotrain.losses.inputs import LossInputs


def draw() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 5, 6, generator=generator)
    return (
        logits,
        torch.randint(2, (2, 5, 6), generator=generator),
        torch.rand(2, 5, 6, generator=generator) > 0.3,
    )


def terms() -> dict[str, SegmentationLoss]:
    return {
        "bce": BinaryCrossEntropyLoss(mode="binary"),
        "dice": DiceLoss(mode="binary"),
        "focal": FocalLoss(mode="binary"),
    }


def test_sum_and_gradient_are_those_of_the_terms_alone() -> None:
    logits, target, valid = draw()
    weights = {"focal": 2.0, "bce": 1.0, "dice": 0.25}
    together, apart = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = WeightedSum(losses=terms(), weights=weights)(together, target, valid)
    expected = torch.stack([weights[name] * loss(apart, target, valid) for name, loss in terms().items()]).sum()
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(together.grad, apart.grad)


def test_weights_are_one_when_not_given() -> None:
    logits, target, valid = draw()
    expected = torch.stack([loss(logits, target, valid) for loss in terms().values()]).sum()
    torch.testing.assert_close(WeightedSum(losses=terms())(logits, target, valid), expected)


def test_components_are_unweighted_ordered_and_combine_to_the_sum() -> None:
    logits, target, valid = draw()
    loss = WeightedSum(losses=terms(), weights={"bce": 3.0, "dice": 0.0, "focal": 1.0})
    parts = loss.components(logits, target, valid)
    assert list(parts) == ["bce", "dice", "focal"]
    for name, single in terms().items():
        assert torch.equal(parts[name], single(logits, target, valid))
    assert torch.equal(loss.combine(parts), loss(logits, target, valid))


def test_sums_nest() -> None:
    logits, target, valid = draw()
    inner = WeightedSum(losses=terms(), weights={"bce": 1.0, "dice": 0.5, "focal": 2.0})
    outer = WeightedSum(losses={"inner": inner, "dice": DiceLoss(mode="binary")}, weights={"inner": 2.0, "dice": 1.0})
    expected = 2 * inner(logits, target, valid) + DiceLoss(mode="binary")(logits, target, valid)
    torch.testing.assert_close(outer(logits, target, valid), expected)


def test_third_party_term_sees_checked_inputs_once() -> None:
    seen: list[LossInputs] = []

    class Mean(SegmentationLoss):
        def compute(self, inputs: LossInputs) -> Tensor:
            seen.append(inputs)
            return inputs.probabilities.sum() / inputs.count

    logits, target, valid = draw()
    value = WeightedSum(losses={"a": Mean(mode="binary"), "b": Mean(mode="binary")})(logits.bfloat16(), target, valid)
    assert seen[0] is seen[1]
    assert seen[0].logits.dtype == torch.float32
    torch.testing.assert_close(value, 2 * torch.sigmoid(logits.bfloat16().float())[valid.unsqueeze(1)].mean())


def test_terms_are_submodules() -> None:
    loss = WeightedSum(losses={"ce": CrossEntropyLoss(class_weights=(1.0, 2.0))})
    assert isinstance(loss.losses, nn.ModuleDict)
    assert [name for name, _ in loss.named_buffers()] == ["losses.ce.class_weights"]
    assert loss.mode == "multiclass"


def test_names_must_agree() -> None:
    with pytest.raises(ValueError, match=r"weights name \['bce', 'dise'\], but losses name \['bce', 'dice', 'focal'\]"):
        WeightedSum(losses=terms(), weights={"bce": 1.0, "dise": 1.0})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_unusable_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"weights\['dice'\]={weight}"):
        WeightedSum(losses=terms(), weights={"bce": 1.0, "dice": weight, "focal": 1.0})


def test_modes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"'a': 'binary', 'b': 'multiclass'"):
        WeightedSum(losses={"a": DiceLoss(mode="binary"), "b": DiceLoss(mode="multiclass")})


def test_no_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one loss"):
        WeightedSum(losses={})
