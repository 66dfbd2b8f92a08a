"""Segmentation losses as pure functions.

Every function takes ``logits (B, K, *spatial)``, 2-D or 3-D, and returns a scalar: float32, or float64 for float64
logits; in ``[0, 1]`` for losses over regions, at least 0 for the others unless they say so. What they share:

* ``target``: integer labels ``(B, *spatial)``; ``(B, K, *spatial)`` in {0, 1} for multilabel. A label outside the
  classes is allowed where it is masked only.
* ``mode``: ``binary`` (K = 1, sigmoid), ``multiclass`` (softmax over K classes) or ``multilabel`` (K sigmoids).
* ``valid``: bool ``(B, *spatial)``. A masked pixel contributes neither value nor gradient, whatever it holds. A batch
  without counted pixels has loss 0 and gradient 0; where a mean is taken over samples, one without any is left out.
* ``class_weights``: non-negative, and normalised by what they weigh, so that only their ratios matter. K of them; in
  ``binary`` two (background, foreground) for losses over pixels and none for losses over regions.
* They raise ``ValueError`` for a mode that a loss has no definition for, a shape or dtype that does not fit, weights of
  the wrong length, an option outside its range, and an option that would have no effect.

The modules of the same names are in :mod:`neurotrain.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.losses import boundary, overlap, pixelwise, topology
from neurotrain.losses.inputs import LossInputs
from neurotrain.losses.options import (
    BINARY_MODES,
    MULTICLASS_MODES,
    check_mode,
    check_region_options,
    weight_tensor,
)

__all__ = [
    "binary_cross_entropy",
    "boundary_loss",
    "centerline_dice_loss",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "tversky_loss",
]

Weights = Sequence[float] | Tensor | None


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode = "multiclass",
    valid: Tensor | None = None,
    class_weights: Weights = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Softmax cross-entropy, :math:`\sum_i w_{y_i} (-\log p_{i, y_i}) / \sum_i w_{y_i}` over the counted pixels.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``.
        mode: ``multiclass``; the sigmoid modes have :func:`binary_cross_entropy`.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: K weights :math:`w`.
        label_smoothing: share in ``[0, 1]`` of each label that is spread evenly over all classes.

    Reference:
        ``torch.nn.functional.cross_entropy``; smoothing as in Szegedy et al., 2016 (arXiv:1512.00567), section 7.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))  # log 4
        tensor(1.3863)
    """
    check_mode(mode, allowed=MULTICLASS_MODES, owner="cross_entropy")
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return pixelwise.softmax_cross_entropy(inputs, weights, label_smoothing)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    pos_weight: Weights = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Sigmoid cross-entropy, the mean of :math:`-v y \log p - (1 - y) \log(1 - p)` over counted pixels and labels.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: ``binary`` or ``multilabel``.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: two weights by the pixel's class (binary), or K by label (multilabel); the mean is weighted.
        pos_weight: K factors :math:`v` of the positive term; above 1 they favour recall. Not normalised.
        label_smoothing: :math:`\epsilon` in ``[0, 1]``: :math:`y` becomes :math:`(1 - \epsilon) y + \epsilon / 2`.

    Reference:
        ``torch.nn.functional.binary_cross_entropy_with_logits``; with two ``class_weights`` it equals
        :func:`cross_entropy` of the logits ``(0, z)``.

    Example:
        >>> import torch
        >>> binary_cross_entropy(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64), mode="binary")
        tensor(0.6931)
    """
    check_mode(mode, allowed=BINARY_MODES, owner="binary_cross_entropy")
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return pixelwise.sigmoid_cross_entropy(inputs, weights, weight_tensor("pos_weight", pos_weight), label_smoothing)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    r"""Cross-entropy with its easy pixels turned down, the mean of :math:`-a_t (1 - p_t)^\gamma \log p_t`.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: any; ``p_t`` is the probability of the true class, of the softmax in ``multiclass``.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: as in :func:`cross_entropy` and :func:`binary_cross_entropy`.
        gamma: at least 0; 0 gives the cross-entropy.
        alpha: in ``[0, 1]``, for the sigmoid modes: :math:`a_t` is ``alpha`` for positives and ``1 - alpha`` for
            negatives, not normalised; 1 for both when None.

    Reference:
        Lin et al., 2017 (arXiv:1708.02002), equations 4 and 5; ``torchvision.ops.sigmoid_focal_loss``.

    Example:
        >>> import torch
        >>> focal_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2, dtype=torch.int64), mode="binary")  # log(2) / 4
        tensor(0.1733)
    """
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return pixelwise.focal(inputs, weights, gamma, alpha)


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    per_sample: bool = False,
    smooth: float = 1.0,
    include_background: bool = True,
) -> Tensor:
    r"""Soft Dice, :math:`1 - (2 \sum p y + s) / (\sum p + \sum y + s)`, averaged over classes.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: any.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: K weights of the mean over classes; None in ``binary``.
        per_sample: whether each sample has a Dice of its own, averaged after, or all pixels of the batch share one.
        smooth: :math:`s`, above 0; what a class absent from labels and prediction scores as full agreement with.
        include_background: whether class 0 is averaged in; False in ``multiclass`` only.

    Reference:
        Drozdzal et al., 2016 (arXiv:1608.04117); ``monai.losses.DiceLoss`` with
        ``smooth_nr = smooth_dr = smooth`` and ``batch = not per_sample``.

    Example:
        >>> import torch
        >>> target = torch.ones(1, 2, 2, dtype=torch.int64)
        >>> dice_loss(torch.zeros(1, 1, 2, 2), target, mode="binary")  # 1 - (2 * 2 + 1) / (2 + 4 + 1)
        tensor(0.2857)
    """
    check_mode(mode)
    check_region_options(mode, class_weights, include_background)
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return overlap.dice(inputs, weights, per_sample, smooth, include_background)


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    per_sample: bool = False,
    smooth: float = 1.0,
    include_background: bool = True,
) -> Tensor:
    r"""Dice with its two errors weighed apart, :math:`(1 - T)^\gamma`, averaged over classes.

    :math:`T = (TP + s) / (TP + \alpha FP + \beta FN + s)` with soft counts. ``alpha = beta = 0.5`` and ``smooth / 2``
    give :func:`dice_loss`.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: any.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: as in :func:`dice_loss`.
        alpha: price of a false positive, at least 0.
        beta: price of a false negative, at least 0; above ``alpha`` it favours recall.
        gamma: focal exponent, above 0, of each class's (and sample's) loss; below 1 it stresses those already good.
            The paper's :math:`\gamma` is the reciprocal.
        per_sample: as in :func:`dice_loss`.
        smooth: :math:`s`, above 0.
        include_background: as in :func:`dice_loss`.

    Reference:
        Salehi et al., 2017 (arXiv:1706.05721), its best setting as default; focal exponent: Abraham and Khan, 2018
        (arXiv:1810.07842). ``monai.losses.TverskyLoss`` with ``smooth_nr = smooth_dr = smooth``.

    Example:
        >>> import torch
        >>> target = torch.ones(1, 2, 2, dtype=torch.int64)
        >>> tversky_loss(torch.zeros(1, 1, 2, 2), target, mode="binary")  # 1 - (2 + 1) / (2 + 0.7 * 2 + 1)
        tensor(0.3182)
    """
    check_mode(mode)
    check_region_options(mode, class_weights, include_background)
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return overlap.tversky(inputs, weights, alpha, beta, gamma, per_sample, smooth, include_background)


def centerline_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    iterations: int = 3,
    per_sample: bool = False,
    smooth: float = 1.0,
    include_background: bool = True,
) -> Tensor:
    r"""Soft clDice: one minus the harmonic mean of topology precision and sensitivity, averaged over classes.

    :math:`T_p = (\sum S_p y + s) / (\sum S_p + s)`, :math:`T_s = (\sum S_y p + s) / (\sum S_y + s)` with the soft
    skeletons (:func:`neurotrain.losses.topology.soft_skeleton`) :math:`S_p` of the probabilities and :math:`S_y` of the
    labels. Masked pixels are background to both skeletons. It says nothing about width: use it beside
    :func:`dice_loss`.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: any.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: as in :func:`dice_loss`.
        iterations: erosions of the skeleton, at least 0; the largest radius of the structures, in pixels.
        per_sample: as in :func:`dice_loss`.
        smooth: :math:`s`, above 0.
        include_background: as in :func:`dice_loss`.

    Reference:
        Shit et al., 2021 (arXiv:2003.07311), algorithm 2; reference code ``jocpae/clDice``.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 5, 7, dtype=torch.int64)
        >>> target[:, 1:4] = 1
        >>> middle = torch.full((1, 1, 5, 7), -40.0)
        >>> middle[:, :, 2] = 40  # a vessel drawn too thin, with the right centerline
        >>> round(centerline_dice_loss(middle, target, mode="binary").item(), 6)
        0.0
    """
    check_mode(mode)
    check_region_options(mode, class_weights, include_background)
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return topology.centerline_dice(inputs, weights, iterations, per_sample, smooth, include_background)


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: SegmentationMode,
    valid: Tensor | None = None,
    class_weights: Weights = None,
    spacing: Sequence[float] | None = None,
    include_background: bool = True,
) -> Tensor:
    r"""Mean over counted pixels of :math:`\phi p`, with :math:`\phi` the signed distance to the label's border.

    It is negative for a good prediction, and blind to samples in which a class is absent: use it beside a loss over
    regions. The distance maps (:func:`neurotrain.losses.boundary.signed_distance_map`) are computed on the CPU.

    Args:
        logits: ``(B, K, *spatial)``.
        target: integer labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel.
        mode: any.
        valid: bool ``(B, *spatial)``; every pixel counts when None.
        class_weights: as in :func:`dice_loss`.
        spacing: positive size of a pixel along each spatial axis (millimetres for medical volumes); 1 when None.
        include_background: as in :func:`dice_loss`.

    Reference:
        Kervadec et al., 2019 (arXiv:1812.07032), the integral of ``phi s``; reference code ``LIVIAETS/boundary-loss``.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[0, 0, 0, 1]]])  # distances 3, 2, 1, 0
        >>> boundary_loss(torch.zeros(1, 1, 1, 4), target, mode="binary")
        tensor(0.7500)
    """
    check_mode(mode)
    check_region_options(mode, class_weights, include_background)
    inputs = LossInputs(logits, target, mode=mode, valid=valid)
    weights = weight_tensor("class_weights", class_weights)
    return boundary.boundary(inputs, weights, spacing, include_background)
