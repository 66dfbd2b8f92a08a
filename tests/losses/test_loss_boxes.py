"""Losses of boxes: against torchvision and torch, by hand, at boxes without area, under a mask, by gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.boxes import BoxLoss, BoxMeasure, box_l1_loss, box_overlap_loss

MEASURES: tuple[BoxMeasure, ...] = ("iou", "giou", "diou", "ciou")


def _boxes(count: int, seed: int, scale: float = 10.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(2, count, 2, generator=draw, dtype=torch.float64)
    return torch.cat((corner, corner + side + 0.1), 1) * scale


@pytest.mark.parametrize("measure", MEASURES)
def test_overlaps_and_their_gradients_are_torchvisions(measure: BoxMeasure) -> None:
    from torchvision import ops

    theirs = {
        "giou": ops.generalized_box_iou_loss,
        "diou": ops.distance_box_iou_loss,
        "ciou": ops.complete_box_iou_loss,
        "iou": lambda boxes, target, reduction: (1 - ops.box_iou(boxes, target).diagonal()).mean(),
    }[measure]
    own, other = _boxes(40, 0).requires_grad_(), _boxes(40, 0).requires_grad_()
    target = _boxes(40, 1)
    found, wanted = box_overlap_loss(own, target, measure=measure), theirs(other, target, reduction="mean")
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_l1_is_torchs_summed_over_a_box(beta: float) -> None:
    own, target = _boxes(7, 2).requires_grad_(), _boxes(7, 3)
    found = box_l1_loss(own, target, beta=beta)
    wanted = F.smooth_l1_loss(own, target, beta=beta) * 4
    torch.testing.assert_close(found, wanted)
    assert torch.autograd.gradcheck(lambda boxes: box_l1_loss(boxes, target, beta=beta), own)


@pytest.mark.parametrize("measure", ["iou", "giou", "diou"])  # ciou holds a part of itself constant
def test_gradients_are_those_of_differences(measure: BoxMeasure) -> None:
    own, target = _boxes(5, 4).requires_grad_(), _boxes(5, 5)
    assert torch.autograd.gradcheck(lambda boxes: box_overlap_loss(boxes, target, measure=measure), own)


def test_by_hand() -> None:
    box, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2.0, 0, 4, 4]])
    # Union 12, hull 16, diagonal 32, centres (1, 1) and (3, 2), side ratios 1 and 1/2.
    v = 4 / torch.pi**2 * (torch.atan(torch.tensor(0.5)) - torch.pi / 4) ** 2
    wanted = {"iou": 1.0, "giou": 1 + 4 / 16, "diou": 1 + 5 / 32, "ciou": float(1 + 5 / 32 + v * v / (1 + v))}
    for measure in MEASURES:
        assert box_overlap_loss(box, target, measure=measure).item() == pytest.approx(wanted[measure], rel=1e-6)
    assert box_overlap_loss(target, target, measure="ciou").item() == 0.0


@pytest.mark.parametrize("measure", MEASURES)
def test_boxes_without_area_and_exchanged_corners_have_finite_gradients(measure: BoxMeasure) -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [3, 3, 1, 1], [0, 0, 2, 2], [5, 5, 5, 5]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1], [5, 5, 5, 5]])
    loss = box_overlap_loss(boxes, target, measure=measure)
    loss.backward()
    assert loss.isfinite()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("measure", [None, *MEASURES])
def test_a_pair_that_does_not_count_reaches_neither_value_nor_gradient(measure: BoxMeasure | None) -> None:
    def loss(boxes: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        if measure is None:
            return box_l1_loss(boxes, target, valid_N=valid)
        return box_overlap_loss(boxes, target, measure=measure, valid_N=valid)

    boxes, target = _boxes(6, 6), _boxes(6, 7)
    valid = torch.tensor([True, False, True, True, False, True])
    dirty = boxes.masked_fill(~valid[:, None], float("nan")).requires_grad_()
    found = loss(dirty, target.masked_fill(~valid[:, None], float("nan")), valid)
    torch.testing.assert_close(found, loss(boxes[valid], target[valid]))
    found.backward()
    assert dirty.grad is not None
    assert not dirty.grad[~valid].any()
    assert dirty.grad[valid].any()
    for empty, mask in ((dirty.detach(), torch.zeros_like(valid)), (dirty.detach()[:0], None)):
        leaf = empty.clone().requires_grad_()
        nothing = loss(leaf, leaf.detach().clone(), mask)
        nothing.backward()
        assert nothing.item() == 0.0
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_the_module_is_the_weighted_sum_and_half_precision_is_raised() -> None:
    boxes, target = _boxes(4, 8).float(), _boxes(4, 9).float()
    wanted = 5 * box_l1_loss(boxes, target) + 2 * box_overlap_loss(boxes, target)
    torch.testing.assert_close(BoxLoss()(boxes, target), wanted)
    alone = BoxLoss(l1_weight=0.0, overlap_weight=1.0, measure="ciou")
    assert torch.equal(alone(boxes, target), box_overlap_loss(boxes, target, measure="ciou"))
    assert BoxLoss()(boxes.bfloat16(), target).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_l1_loss(torch.zeros(2, 4), torch.zeros(3, 4)), r"need \(N, 4\)"),
        (lambda: box_l1_loss(torch.zeros(2, 4), torch.zeros(2, 4), beta=-1.0), "beta=-1.0"),
        (lambda: box_l1_loss(torch.zeros(2, 4), torch.zeros(2, 4), valid_N=torch.ones(2)), "expected bool"),
        (lambda: box_overlap_loss(torch.zeros(2, 4), torch.zeros(2, 4), measure="gio"), "did you mean 'giou'"),  # pyright: ignore
        (lambda: box_overlap_loss(torch.zeros(2, 4).int(), torch.zeros(2, 4)), "expected a floating one"),
        (lambda: BoxLoss(measure="area"), "measure='area'"),  # pyright: ignore
        (lambda: BoxLoss(l1_weight=0.0, overlap_weight=0.0), "nothing would be left"),
        (lambda: BoxLoss(l1_weight=0.0, beta=1.0), "no effect"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
