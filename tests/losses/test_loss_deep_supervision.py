"""A loss over several heads: weights by hand, labels at the resolution of each, gradients to all of them."""

from __future__ import annotations

import pytest
import torch

from neurotrain.losses import CrossEntropyLoss, DeepSupervisionLoss, DiceLoss


def test_heads_weigh_less_and_less() -> None:
    generator = torch.Generator().manual_seed(0)
    fine, middle, coarse = (torch.randn(2, 3, n, n, n // 2, generator=generator) for n in (8, 4, 2))
    target = torch.randint(3, (2, 8, 8, 4), generator=generator)
    valid = torch.rand(2, 8, 8, 4, generator=generator) > 0.2
    plain = CrossEntropyLoss()
    found = DeepSupervisionLoss(loss=plain, decay=0.5).over_heads(fine, (middle, coarse), target, valid)
    # The nearest voxel to the centre of a coarse one: of 0..7 the places 1, 3, 5, 7; of 0..3 likewise.
    half = target[:, 1::2, 1::2, 1::2], valid[:, 1::2, 1::2, 1::2]
    quarter = target[:, 2::4, 2::4, 2::4], valid[:, 2::4, 2::4, 2::4]
    expected = (plain(fine, target, valid) + plain(middle, *half) / 2 + plain(coarse, *quarter) / 4) / 1.75
    torch.testing.assert_close(found, expected)


def test_regions_are_taken_at_the_nearest_voxel_too_and_gradients_reach_every_head() -> None:
    heads = [torch.zeros(1, 2, n, n, n, requires_grad=True) for n in (4, 2)]
    target = torch.zeros(1, 2, 4, 4, 4, dtype=torch.int64)
    target[:, 1, 2:] = 1
    DeepSupervisionLoss(loss=DiceLoss(mode="multilabel")).over_heads(heads[0], (heads[1],), target).backward()
    assert all(head.grad is not None and head.grad.abs().sum() > 0 for head in heads)


def test_without_further_heads_it_is_the_loss() -> None:
    logits, target = torch.randn(1, 2, 4, 4, 4), torch.ones(1, 4, 4, 4, dtype=torch.int64)
    loss = DiceLoss(mode="multiclass")
    deep = DeepSupervisionLoss(loss=loss, decay=0.3)
    torch.testing.assert_close(deep.over_heads(logits, (), target), loss(logits, target))


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        DeepSupervisionLoss(loss=CrossEntropyLoss(), decay=decay)
