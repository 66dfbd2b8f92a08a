"""Sets of masks: each true object is matched with one prediction, the others are to say that they are none.

Shape legend: ``B`` images, ``Q`` predictions (queries) an image, ``K`` classes, of which "no object" is one more (``E``
together), ``*spatial`` two or three axes (``S`` in suffixes), ``G`` objects of one image, ``M`` matched pairs of all
images, ``P`` pixels or points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neurotrain.losses.instances.points import counted_points, random_points, read_points, undecided_points
from neurotrain.losses.options import bounded


class MaskTarget(NamedTuple):
    """The objects of one image.

    Attributes:
        labels: int64 ``(G,)`` in ``[0, K)``.
        masks: bool or {0, 1} ``(G, *spatial)``.
    """

    labels: Tensor
    masks: Tensor


class MaskSetWeights(NamedTuple):
    """What each part counts, in the matching and in the loss.

    Attributes:
        label: of the class.
        mask: of the cross-entropy of pixels.
        dice: of the overlap.
    """

    label: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


def mask_costs(
    class_logits_QE: Tensor,
    mask_logits_QP: Tensor,
    labels_G: Tensor,
    masks_GP: Tensor,
    *,
    weights: MaskSetWeights = MaskSetWeights(),  # noqa: B008 - immutable
    counted_P: Tensor | None = None,
) -> Tensor:
    r"""What it costs to take each prediction for each object: ``-w_l p_{label} + w_m bce + w_d (1 - dice)``.

    Args:
        class_logits_QE: the last class is "no object".
        mask_logits_QP: at P pixels or points.
        labels_G: classes of the objects.
        masks_GP: floats in [0, 1] at the same places.
        weights: see :class:`MaskSetWeights`.
        counted_P: bool ``(P,)``, False where a place does not count; all count when None.

    Returns:
        fp32 (fp64 for fp64 logits) ``(Q, G)``, without gradient.

    Reference:
        Cheng et al., 2022 (arXiv:2112.01527), section 3.3; as in its reference code.
    """
    with torch.no_grad():
        label_QG = -_exact(class_logits_QE).softmax(1)[:, labels_G]
        logits_QP = _exact(mask_logits_QP)
        masks_GP = masks_GP.to(logits_QP.dtype)
        if counted_P is not None:
            logits_QP, masks_GP = logits_QP[:, counted_P], masks_GP[:, counted_P]
        both_QG = logits_QP @ masks_GP.T
        cross_QG = (F.softplus(logits_QP).sum(1)[:, None] - both_QG) / max(1, logits_QP.shape[1])
        share_QP = logits_QP.sigmoid()
        sums_QG = share_QP.sum(1)[:, None] + masks_GP.sum(1)
        dice_QG = 1 - (2 * share_QP @ masks_GP.T + 1) / (sums_QG + 1)
        return weights.label * label_QG + weights.mask * cross_QG + weights.dice * dice_QG


def matched(costs_QG: Tensor) -> tuple[Tensor, Tensor]:
    """Pair predictions with objects so that the sum of costs is least; as many pairs as there are of the fewer.

    Args:
        costs_QG: ``(Q, G)``. What is not finite counts as the worst: a loss of NaN then tells of it, not the matching.

    Returns:
        Numbers of predictions, ascending, and of their objects: int64, on the device of the costs.

    Example:
        >>> matched(torch.tensor([[1.0, 0.0], [9.0, 8.0], [2.0, 3.0]]))
        (tensor([0, 2]), tensor([1, 0]))
    """
    from scipy.optimize import linear_sum_assignment

    # Far below the greatest number: sums of several of them must stay finite.
    worst = 1e30
    costs = costs_QG.detach().double().nan_to_num(worst, worst, worst).cpu().numpy()
    queries, objects = (torch.from_numpy(found).long() for found in linear_sum_assignment(costs))
    return queries.to(costs_QG.device), objects.to(costs_QG.device)


def mask_set_loss(
    class_logits_BQE: Tensor,
    mask_logits_BQS: Tensor,
    targets: Sequence[MaskTarget],
    *,
    valid_BS: Tensor | None = None,
    weights: MaskSetWeights = MaskSetWeights(),  # noqa: B008 - immutable
    no_object: float = 0.1,
    points: int | None = None,
    objects: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Match, then: cross-entropy of all classes, and cross-entropy and Dice of the matched masks.

    Args:
        class_logits_BQE: ``(B, Q, K + 1)``, any floating dtype; the last class is "no object".
        mask_logits_BQS: ``(B, Q, *spatial)``.
        targets: B of them; their masks are of the logits' size, or with ``points`` of any one size.
        valid_BS: bool ``(B, *spatial)`` of the masks' size, False where a pixel does not count (whatever the logits
            hold there); all count when None.
        weights: of the matching; the parts that are returned are not multiplied by them.
        no_object: weight of "no object" in the cross-entropy of classes, above 0.
        points: places that are read of a mask instead of all pixels: drawn at random for the matching, for the loss
            three quarters of them where the prediction is undecided. None: all pixels.
        objects: what the sums over masks are divided by, such as their mean number over several processes; None: the
            number of true objects here, at least 1.
        generator: of the points; None: torch's own.

    Returns:
        ``label``, ``mask`` and ``dice``: scalars in fp32 (fp64 for fp64 logits), not weighted.

    Raises:
        ValueError: if shapes do not fit, or a number is out of range.

    Reference:
        Cheng et al., 2021 (arXiv:2107.06278), section 3.2; Cheng et al., 2022 (arXiv:2112.01527), section 3.3, for
        the points.
    """
    bounded("no_object", no_object, low=0, open_low=True)
    _check(class_logits_BQE, mask_logits_BQS, targets, valid_BS, points)
    pairs = [
        _match(classes, masks, target, None if valid_BS is None else valid_BS[row], weights, points, generator)
        for row, (classes, masks, target) in enumerate(zip(class_logits_BQE, mask_logits_BQS, targets, strict=True))
    ]
    if objects is None:
        objects = torch.tensor(max(1, sum(len(target.labels) for target in targets)))
    mask, dice = _mask_parts(*_paired(mask_logits_BQS, targets, pairs, valid_BS), points, generator)
    objects = objects.to(mask)
    label = _label_part(class_logits_BQE, targets, pairs, no_object)
    return {"label": label, "mask": mask / objects, "dice": dice / objects}


def _match(
    class_logits_QE: Tensor,
    mask_logits_QS: Tensor,
    target: MaskTarget,
    valid_S: Tensor | None,
    weights: MaskSetWeights,
    points: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    logits_QS, masks_GS = mask_logits_QS.detach(), target.masks.float()
    if not len(masks_GS):
        none = torch.zeros(0, dtype=torch.int64, device=logits_QS.device)
        return none, none
    if points is None:
        counted_P = None if valid_S is None else valid_S.flatten()
        flat = (class_logits_QE, logits_QS.flatten(1), target.labels, masks_GS.flatten(1))
        return matched(mask_costs(*flat, weights=weights, counted_P=counted_P))
    place_1Pd = random_points(1, points, logits_QS.ndim - 1, logits_QS, generator)
    logits_QP, masks_GP = (
        read_points(_exact(maps), place_1Pd.expand(len(maps), -1, -1)) for maps in (logits_QS, masks_GS)
    )
    counted_P = None if valid_S is None else counted_points(valid_S[None], place_1Pd)[0]
    read = (class_logits_QE, logits_QP, target.labels, masks_GP)
    return matched(mask_costs(*read, weights=weights, counted_P=counted_P))


def _paired(
    mask_logits_BQS: Tensor,
    targets: Sequence[MaskTarget],
    pairs: Sequence[tuple[Tensor, Tensor]],
    valid_BS: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, true masks and what counts, of the matched pairs of all images: ``(M, *spatial)`` each."""
    logits_MS = torch.cat([mask_logits_BQS[row, queries] for row, (queries, _) in enumerate(pairs)])
    masks_MS = torch.cat([target.masks[own] for target, (_, own) in zip(targets, pairs, strict=True)])
    if valid_BS is None:
        return logits_MS, masks_MS, None
    counts = torch.tensor([len(own) for _, own in pairs], device=valid_BS.device)
    return logits_MS, masks_MS, valid_BS.repeat_interleave(counts, 0)


def _mask_parts(
    logits_MS: Tensor,
    masks_MS: Tensor,
    valid_MS: Tensor | None,
    points: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Sums over the matched pairs of the cross-entropy's mean over pixels, and of one minus Dice."""
    logits_MS = _exact(logits_MS)
    if not len(logits_MS):
        return logits_MS.sum(), logits_MS.sum()  # 0, and still part of the graph
    masks_MS = masks_MS.to(logits_MS.dtype)
    if points is None:
        logits_MP, masks_MP = logits_MS.flatten(1), masks_MS.flatten(1)
        counted_MP = None if valid_MS is None else valid_MS.flatten(1)
    else:
        places_MPd = undecided_points(logits_MS, points, valid_MS=valid_MS, generator=generator)
        logits_MP, masks_MP = read_points(logits_MS, places_MPd), read_points(masks_MS, places_MPd)
        counted_MP = None if valid_MS is None else counted_points(valid_MS, places_MPd)
    count: Tensor | int = logits_MP.shape[1]
    if counted_MP is not None:
        # A logit far below 0 with target 0: no loss, no gradient, no share, and no NaN from what was there.
        logits_MP = torch.where(counted_MP, logits_MP, -1e4)
        masks_MP = torch.where(counted_MP, masks_MP, 0.0)
        count = counted_MP.sum(1).clamp_min(1)
    cross_MP = F.binary_cross_entropy_with_logits(logits_MP, masks_MP, reduction="none")
    share_MP = logits_MP.sigmoid()
    dice_M = 1 - (2 * (share_MP * masks_MP).sum(1) + 1) / (share_MP.sum(1) + masks_MP.sum(1) + 1)
    return (cross_MP.sum(1) / count).sum(), dice_M.sum()


def _label_part(
    class_logits_BQE: Tensor,
    targets: Sequence[MaskTarget],
    pairs: Sequence[tuple[Tensor, Tensor]],
    no_object: float,
) -> Tensor:
    logits_BQE = _exact(class_logits_BQE)
    classes = logits_BQE.shape[2]
    labels_BQ = torch.full(logits_BQE.shape[:2], classes - 1, device=logits_BQE.device)
    for row, (target, (queries, own)) in enumerate(zip(targets, pairs, strict=True)):
        labels_BQ[row, queries] = target.labels[own].to(labels_BQ)
    weight_E = logits_BQE.new_ones(classes)
    weight_E[-1] = no_object
    return F.cross_entropy(logits_BQE.flatten(0, 1), labels_BQ.flatten(), weight=weight_E)


def _check(
    class_logits_BQE: Tensor,
    mask_logits_BQS: Tensor,
    targets: Sequence[MaskTarget],
    valid_BS: Tensor | None,
    points: int | None,
) -> None:
    if points is not None and points < 1:
        raise ValueError(f"points={points}: must be at least 1, or None for all pixels")
    shapes = f"classes {tuple(class_logits_BQE.shape)}, masks {tuple(mask_logits_BQS.shape)}"
    if class_logits_BQE.ndim != 3 or mask_logits_BQS.ndim not in (4, 5):
        raise ValueError(f"{shapes}: expected (B, Q, K + 1) and (B, Q, *spatial)")
    if class_logits_BQE.shape[:2] != mask_logits_BQS.shape[:2] or class_logits_BQE.shape[2] < 2:
        raise ValueError(f"{shapes}: B and Q must agree, and there must be a class beside 'no object'")
    if len(targets) != len(class_logits_BQE):
        raise ValueError(f"{len(targets)} targets for {shapes}: one for each image")
    sizes = {tuple(target.masks.shape[1:]) for target in targets}
    if valid_BS is not None:
        sizes.add(tuple(valid_BS.shape[1:]))
    if points is None:
        sizes.add(tuple(mask_logits_BQS.shape[2:]))
    if len(sizes) != 1 or any(len(target.labels) != len(target.masks) for target in targets):
        raise ValueError(
            f"{shapes}, targets and valid of sizes {sorted(sizes)}: one size for all, as many labels as masks"
        )


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
