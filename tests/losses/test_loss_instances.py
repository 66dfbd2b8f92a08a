"""Losses of instances: against slow loops, transformers and every assignment; under masks; by gradient."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from neurotrain.losses.functional import cross_entropy
from neurotrain.losses.instances import (
    DiscriminativeLoss,
    MaskSetLoss,
    MaskTarget,
    PanopticCentreLoss,
    centre_loss,
    centre_targets,
    discriminative_loss,
    mask_costs,
    mask_set_loss,
    matched,
    offset_loss,
)
from neurotrain.losses.instances.points import counted_points, read_points, undecided_points


def _numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INSTANCE = torch.tensor(
    [[[0, 3, 3, 9], [3, 3, 0, 9], [5, 0, 0, 9]], [[2, 2, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]], [[0] * 4] * 3]
)
"""Three instances, one, none."""


def _slow(embedding: Tensor, instance: Tensor, counted: Tensor) -> Tensor:
    """The paper's equations, pixel by pixel."""
    images = []
    for row in range(len(embedding)):
        names = sorted({int(name) for name in instance[row][counted[row]]} - {0})
        if not names:
            continue
        means, pull = [], 0.0
        for name in names:
            pixels = [embedding[row, :, y, x] for y, x in ((instance[row] == name) & counted[row]).nonzero().tolist()]
            mean = sum(pixels) / len(pixels)
            pull = pull + sum(max((mean - p).norm() - 0.2, torch.tensor(0.0)) ** 2 for p in pixels) / len(pixels)
            means.append(mean)
        push = [max(2 * 1.1 - (a - b).norm(), torch.tensor(0.0)) ** 2 for a, b in permutations(means, 2)]
        norm = sum(mean.norm() for mean in means) / len(means)
        images.append(pull / len(means) + 2 * sum(push) / max(1, len(push)) + 0.3 * norm)
    return sum(images) / len(images)


OPTIONS = {"pull_margin": 0.2, "push_margin": 1.1, "push_weight": 2.0, "norm_weight": 0.3}


def test_the_discriminative_loss_is_that_of_a_slow_loop() -> None:
    embedding = _numbers(3, 2, 3, 4, seed=0)
    everywhere = torch.ones(3, 3, 4, dtype=torch.bool)
    found = discriminative_loss(embedding, INSTANCE, **OPTIONS)
    torch.testing.assert_close(found, _slow(embedding, INSTANCE, everywhere))
    assert torch.equal(DiscriminativeLoss(**OPTIONS)(embedding, INSTANCE), found)
    assert torch.autograd.gradcheck(
        lambda x: discriminative_loss(x, INSTANCE, **OPTIONS), embedding.clone().requires_grad_()
    )
    volume, names = embedding[..., None].expand(-1, -1, -1, -1, 2), INSTANCE[..., None].expand(-1, -1, -1, 2)
    torch.testing.assert_close(discriminative_loss(volume, names, **OPTIONS), found)


def test_the_discriminative_loss_sees_nothing_of_what_does_not_count() -> None:
    embedding = _numbers(3, 2, 3, 4, seed=1)
    counted = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(3)) > 0.3
    dirty = embedding.masked_fill(~counted[:, None], float("nan")).requires_grad_()
    found = discriminative_loss(dirty, INSTANCE, valid_BS=counted, **OPTIONS)
    torch.testing.assert_close(found, _slow(embedding, INSTANCE, counted))
    found.backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()
    assert not dirty.grad.movedim(1, -1)[~(counted & (INSTANCE != 0))].any()
    leaf = dirty.detach().clone().requires_grad_()
    nothing = discriminative_loss(leaf, torch.zeros_like(INSTANCE), valid_BS=counted)
    nothing.backward()
    assert nothing.item() == 0.0
    assert leaf.grad is not None
    assert not leaf.grad.any()


def _set(seed: int, *, size: tuple[int, int] = (5, 6)) -> tuple[Tensor, Tensor, list[MaskTarget]]:
    classes, masks = _numbers(3, 4, 4, seed=seed), 2 * _numbers(3, 4, *size, seed=seed + 1)
    draw = torch.Generator().manual_seed(seed)
    targets = [
        MaskTarget(torch.randint(0, 3, (count,), generator=draw), torch.rand(count, *size, generator=draw) > 0.6)
        for count in (2, 3, 0)
    ]
    return classes, masks, targets


def _theirs() -> object:
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=3, class_weight=2.0, mask_weight=5.0, dice_weight=5.0, no_object_weight=0.1)
    return Mask2FormerLoss(config, {}).double()


def test_costs_and_parts_of_matched_masks_are_those_of_transformers() -> None:
    from transformers.models.mask2former import modeling_mask2former as theirs

    classes, masks, targets = _set(4)
    reference, pairs = _theirs(), []
    for row, target in enumerate(targets):
        logits, wanted = masks[row].flatten(1), target.masks.flatten(1).double()
        costs = (
            -2 * classes[row].softmax(1)[:, target.labels]
            + 5 * theirs.pair_wise_sigmoid_cross_entropy_loss(logits, wanted)
            + 5 * theirs.pair_wise_dice_loss(logits, wanted)
        )
        found = mask_costs(classes[row], logits, target.labels, wanted)
        torch.testing.assert_close(found, costs)
        pairs.append(matched(found))
    parts = mask_set_loss(classes, masks, targets)
    label = reference.loss_labels(classes, [target.labels for target in targets], pairs)["loss_cross_entropy"]  # pyright: ignore
    torch.testing.assert_close(parts["label"], label)
    own = torch.cat([masks[row, queries].flatten(1) for row, (queries, _) in enumerate(pairs)])
    true = torch.cat([t.masks[objects].flatten(1).double() for t, (_, objects) in zip(targets, pairs, strict=True)])
    torch.testing.assert_close(parts["mask"], theirs.sigmoid_cross_entropy_loss(own, true, 5))
    torch.testing.assert_close(parts["dice"], theirs.dice_loss(own, true, 5))
    total = 2 * parts["label"] + 5 * parts["mask"] + 5 * parts["dice"]
    torch.testing.assert_close(MaskSetLoss()(classes, masks, targets), total)


def test_with_points_it_is_transformers_at_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.mask2former import modeling_mask2former as theirs

    classes, masks, targets = _set(6)
    targets = [MaskTarget(labels, found.repeat_interleave(2, 1)) for labels, found in targets]  # finer than the logits
    reference = _theirs()
    # One row of points for all: neither side's order of draws then matters.
    row = torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = lambda first, count, dims, **_: row[:, :count].repeat(first, 1, 1)  # noqa: E731
    monkeypatch.setattr(theirs, "torch", SimpleNamespace(**{**vars(torch), "rand": drawn}))
    monkeypatch.setattr("neurotrain.losses.instances.points.random_points", lambda *call: drawn(*call[:3]))
    monkeypatch.setattr("neurotrain.losses.instances.mask_sets.random_points", lambda *call: drawn(*call[:3]))
    reference.num_points = reference.matcher.num_points = 60  # pyright: ignore
    labels, wanted = [t.labels for t in targets], [t.masks.double() for t in targets]
    pairs = reference.matcher(masks[:2], classes[:2], wanted[:2], labels[:2])  # pyright: ignore
    expected = reference.loss_masks(masks[:2], wanted[:2], pairs, 5)  # pyright: ignore
    parts = mask_set_loss(classes, masks, targets, points=60)
    torch.testing.assert_close(parts["mask"], expected["loss_mask"], check_dtype=False, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["dice"], expected["loss_dice"], check_dtype=False, rtol=1e-5, atol=1e-6)


def test_no_other_assignment_is_cheaper() -> None:
    costs = _numbers(5, 3, seed=8)
    queries, objects = matched(costs)
    best = min(sum(costs[row, column] for column, row in enumerate(rows)) for rows in permutations(range(5), 3))
    torch.testing.assert_close(costs[queries, objects].sum(), torch.as_tensor(best))
    assert sorted(objects.tolist()) == [0, 1, 2]
    more = matched(costs.T)
    assert len(more[0]) == 3
    spoilt = costs.clone()
    spoilt[0] = float("nan")
    assert 0 not in matched(spoilt)[0].tolist()


@pytest.mark.parametrize("points", [None, 50])
def test_masks_of_pixels_are_respected_by_value_and_gradient(points: int | None) -> None:
    classes, masks, targets = _set(10)
    valid = torch.ones(3, 5, 6, dtype=torch.bool)
    valid[:, :, 4:] = False
    dirty = masks.masked_fill(~valid[:, None], float("nan")).requires_grad_()
    other = [MaskTarget(t.labels, t.masks ^ ~valid[0]) for t in targets]  # another truth where nothing counts

    def parts(found: list[MaskTarget]) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(1)
        return mask_set_loss(classes, dirty, found, valid_BS=valid, points=points, generator=draw)

    first, second = parts(targets), parts(other)
    for name in first:
        assert torch.equal(first[name], second[name])
    if points is None:
        cut = mask_set_loss(classes, masks[..., :4], [MaskTarget(t.labels, t.masks[..., :4]) for t in targets])
        for name in first:
            torch.testing.assert_close(first[name], cut[name])
    (first["mask"] + first["dice"]).backward()
    assert dirty.grad is not None
    assert dirty.grad.isfinite().all()
    assert not dirty.grad[..., 4:].any()
    assert dirty.grad[0].any()


def test_gradients_of_matched_masks_are_those_of_differences() -> None:
    classes, masks, targets = _set(12, size=(2, 3))
    classes, masks, targets = classes[1:], masks[1:], targets[1:]
    loss = MaskSetLoss(no_object=0.4)
    leaves = (classes.clone().requires_grad_(), masks.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda c, m: loss(c, m, targets), leaves)


def test_images_without_objects_teach_that_there_is_none() -> None:
    classes, masks, _ = _set(14)
    classes.requires_grad_(), masks.requires_grad_()
    nothing = [MaskTarget(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, 6))] * 3
    for points in (None, 9):
        parts = mask_set_loss(classes, masks, nothing, points=points)
        assert parts["mask"].item() == parts["dice"].item() == 0.0
        torch.testing.assert_close(parts["label"], -classes.log_softmax(2)[..., 3].mean())
    sum(parts.values()).backward()
    assert masks.grad is not None
    assert not masks.grad.any()


def test_more_points_lie_where_the_prediction_is_undecided() -> None:
    logits = torch.linspace(-4, 4, 16).expand(2, 16, 16).clone()
    draw = torch.Generator().manual_seed(0)
    points = undecided_points(logits, 200, generator=draw)
    assert points.shape == (2, 200, 2)
    near = read_points(logits, points).abs() < 4 / 3
    assert near[:, :150].all()  # a third of all drawn are that near, and three times as many are drawn
    assert not near[:, 150:].all()
    again = undecided_points(logits, 200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(points, again)
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[:, :, :8] = False
    kept = undecided_points(logits, 200, valid_MS=valid, generator=draw)[:, :150]
    assert counted_points(valid, kept).all()
    assert (kept[..., 0] > 0.5).all()


def test_points_of_volumes_are_read_along_the_right_axes() -> None:
    ramp = torch.arange(4.0)[:, None, None].expand(4, 5, 6)
    place = torch.tensor([[[0.5, 0.5, 0.375]]])  # the last axis first
    assert read_points(ramp[None], place).item() == pytest.approx(1.0)


def test_centres_and_offsets_by_hand() -> None:
    instance = torch.tensor([[[7, 7, 0, 2], [7, 7, 0, 0]]])
    found = centre_targets(instance, sigma=0.5)
    assert found.things.tolist() == [[[True, True, False, True], [True, True, False, False]]]
    assert found.offset[0, 0].tolist() == [[0.5, 0.5, 0, 0], [-0.5, -0.5, 0, 0]]
    assert found.offset[0, 1].tolist() == [[0.5, -0.5, 0, 0], [0.5, -0.5, 0, 0]]
    assert found.heat[0, 0, 0, 3].item() == 1.0
    # (0, 2) is 1 from the second centre and sqrt(0.25 + 2.25) from the first: the nearer one counts.
    torch.testing.assert_close(found.heat[0, 0, 0, 2], torch.tensor(-1 / 0.5).exp())
    hidden = centre_targets(instance, sigma=0.5, valid_BS=torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1]]]).bool())
    assert not hidden.things[0, 0, 3]
    assert hidden.heat[0, 0, 0, 3] < 0.001


def test_centre_losses_are_those_of_a_slow_loop_and_leave_out_what_does_not_count() -> None:
    wanted = centre_targets(INSTANCE, sigma=1.5)
    heat, offset = _numbers(3, 1, 3, 4, seed=20), _numbers(3, 2, 3, 4, seed=21)
    valid = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(22)) > 0.3
    spots = valid.nonzero().tolist()
    slow = sum((heat[b, 0, y, x] - wanted.heat[b, 0, y, x]) ** 2 for b, y, x in spots) / len(spots)
    dirty = heat.masked_fill(~valid[:, None], float("nan")).requires_grad_()
    found = centre_loss(dirty, wanted.heat, valid_BS=valid)
    torch.testing.assert_close(found, slow)
    things = wanted.things.nonzero().tolist()
    slow = sum((offset[b, :, y, x] - wanted.offset[b, :, y, x]).abs().sum() for b, y, x in things) / len(things)
    spoilt = offset.masked_fill(~wanted.things[:, None], float("nan")).requires_grad_()
    way = offset_loss(spoilt, wanted.offset, wanted.things)
    torch.testing.assert_close(way, slow)
    (found + way).backward()
    assert dirty.grad is not None
    assert spoilt.grad is not None
    assert not dirty.grad[~valid[:, None]].any()
    assert not spoilt.grad.movedim(1, -1)[~wanted.things].any()
    assert spoilt.grad.movedim(1, -1)[wanted.things].all()
    assert offset_loss(offset, wanted.offset, torch.zeros_like(valid)).item() == 0.0
    assert torch.autograd.gradcheck(lambda x: centre_loss(x, wanted.heat), heat.clone().requires_grad_())


def test_the_panoptic_loss_is_its_three_parts() -> None:
    logits, heat, offset = (_numbers(3, k, 3, 4, seed=30 + k) for k in (5, 1, 2))
    target = torch.randint(0, 5, (3, 3, 4), generator=torch.Generator().manual_seed(3))
    valid = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(4)) > 0.3
    wanted = centre_targets(INSTANCE, sigma=2.0, valid_BS=valid)
    expected = (
        3 * cross_entropy(logits, target, valid=valid)
        + 7 * centre_loss(heat, wanted.heat, valid_BS=valid)
        + 0.5 * offset_loss(offset, wanted.offset, wanted.things)
    )
    loss = PanopticCentreLoss(semantic_weight=3.0, centre_weight=7.0, offset_weight=0.5, sigma=2.0)
    torch.testing.assert_close(loss(logits, heat, offset, target, INSTANCE, valid), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discriminative_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 4).long()), "expected integers"),
        (lambda: discriminative_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3)), "expected integers"),
        (lambda: DiscriminativeLoss(push_margin=-1.0), "push_margin=-1.0"),
        (lambda: mask_set_loss(*_set(1)[:2], []), "0 targets"),
        (lambda: mask_set_loss(_numbers(3, 4, 4, seed=0), _numbers(3, 4, 9, 9, seed=0), _set(1)[2]), "one size"),
        (lambda: mask_set_loss(*_set(1), points=0), "points=0"),
        (lambda: MaskSetLoss(no_object=0.0), "no_object=0.0"),
        (lambda: centre_targets(torch.zeros(1, 2, 2).long(), sigma=0.0), "sigma=0.0"),
        (lambda: offset_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 2).bool()), "an axis"),
    ],
)
def test_mistakes_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # pyright: ignore
