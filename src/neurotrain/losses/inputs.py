"""What every segmentation loss reads, derived once from logits, labels and validity mask.

Shape legend: ``B`` batch, ``K`` channels of the logits, ``*spatial`` two or three axes (``S`` in names).

Masking happens here and nowhere else. Masked logits are replaced *before* any nonlinearity, so that a NaN there reaches
neither the value nor the gradient. A very negative logit together with target 0 makes sigmoid, softplus and their
derivatives exactly 0, so sigmoid losses need no further multiplication by the mask.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.losses.options import check_mode

# exp(-1e4) underflows to 0 in float64 too, and 0 * -1e4 stays finite, which -inf would not.
MASKED_LOGIT = -1e4
IGNORED_LABEL = -100


class LossInputs:
    """Checked inputs of a loss; each derived tensor is computed on first use and shared by all losses of a sum.

    Attributes:
        mode: how ``target`` reads.
        num_classes: classes that ``class_weights`` speak of: 2 for binary, K else.
        spatial_dims: spatial axes of a ``(B, K, *spatial)`` tensor.
        valid: bool ``(B, 1, *spatial)``, or None where every pixel counts.
        logits: float32 (float64 for float64 logits) ``(B, K, *spatial)``; :data:`MASKED_LOGIT` at masked pixels.
    """

    def __init__(self, logits: Tensor, target: Tensor, *, mode: SegmentationMode, valid: Tensor | None = None) -> None:
        """Check shapes and types, and put masked logits out of play.

        Args:
            logits: floating ``(B, K, *spatial)``; K = 1 for binary, at least 2 for multiclass.
            target: integer or bool labels ``(B, *spatial)``, or ``(B, K, *spatial)`` for multilabel. A label outside
                the classes in a *counted* pixel is the caller's error; looking for it would cost a pass on every step.
            mode: see :data:`neurotrain.batch.SegmentationMode`.
            valid: bool ``(B, *spatial)``, True where a pixel counts; all count when None.

        Raises:
            ValueError: if a shape, a dtype or the mode does not fit, naming both sides.
        """
        check_mode(mode)
        _check_logits(logits, mode)
        _check_labels(logits, target, mode, valid)
        self.mode = mode
        self.num_classes = 2 if mode == "binary" else logits.shape[1]
        self.spatial_dims = tuple(range(2, logits.ndim))
        self.valid = None if valid is None else valid.unsqueeze(1)
        # Sums over a million pixels need fp32 even where the network ran in half precision.
        exact = logits if logits.dtype == torch.float64 else logits.float()
        self.logits = exact if self.valid is None else torch.where(self.valid, exact, MASKED_LOGIT)
        self._target = target

    @cached_property
    def labels(self) -> Tensor:
        """Multiclass labels, int64 ``(B, *spatial)``; :data:`IGNORED_LABEL` at masked pixels."""
        assert self.mode == "multiclass"
        labels_BS = self._target.long()
        return labels_BS if self.valid is None else torch.where(self.valid[:, 0], labels_BS, IGNORED_LABEL)

    @cached_property
    def membership(self) -> Tensor:
        """1 where a pixel belongs to the class of the channel, else 0; 0 at masked pixels; dtype of the logits."""
        if self.mode == "multiclass":
            classes_K = torch.arange(self.num_classes, device=self.labels.device)
            classes_1K1 = classes_K.view(1, -1, *[1] * len(self.spatial_dims))
            # By way of uint8 and of int32 below: CPUs convert bool and int64 to float one at a time.
            return (self.labels.unsqueeze(1) == classes_1K1).view(torch.uint8).to(self.logits.dtype)
        target_BKS = self._target.unsqueeze(1) if self.mode == "binary" else self._target
        membership_BKS = target_BKS.to(torch.int32).to(self.logits.dtype)
        return membership_BKS if self.counted is None else membership_BKS * self.counted

    @cached_property
    def counted(self) -> Tensor | None:
        """``valid`` as 0 and 1 in the dtype of the logits, ``(B, 1, *spatial)``, or None where every pixel counts."""
        return None if self.valid is None else self.valid.view(torch.uint8).to(self.logits.dtype)

    @cached_property
    def negative_margin(self) -> Tensor:
        """``(1 - 2y) z`` of sigmoid modes: softplus of it is the cross-entropy, sigmoid of it the error; exactly."""
        assert self.mode != "multiclass"
        return torch.rsub(self.membership, 1, alpha=2) * self.logits

    @cached_property
    def probabilities(self) -> Tensor:
        """Sigmoid or softmax of the logits, ``(B, K, *spatial)`` in ``[0, 1]``; 0 at masked pixels."""
        if self.mode != "multiclass":
            return torch.sigmoid(self.logits)
        probabilities_BKS = torch.softmax(self.logits, dim=1)
        return probabilities_BKS if self.valid is None else torch.where(self.valid, probabilities_BKS, 0.0)

    @cached_property
    def count(self) -> Tensor | int:
        """Number of pixels that count, at least 1 so that a mean over none of them is 0."""
        return self.logits.numel() // self.logits.shape[1] if self.counted is None else self.counted.sum().clamp_min(1)

    @cached_property
    def has_pixels(self) -> Tensor | None:
        """1 for each sample with at least one counted pixel, else 0; ``(B,)``, or None where every pixel counts."""
        return None if self.valid is None else self.valid.flatten(1).any(1).to(self.logits.dtype)


def _check_logits(logits: Tensor, mode: SegmentationMode) -> None:
    shape = tuple(logits.shape)
    if logits.ndim not in (4, 5) or 0 in shape:
        raise ValueError(f"logits have shape {shape}, expected a non-empty (B, K, H, W) or (B, K, D, H, W)")
    if not logits.is_floating_point():
        raise ValueError(f"logits have dtype {logits.dtype}, expected a floating one")
    if mode == "binary" and logits.shape[1] != 1:
        raise ValueError(f"logits have shape {shape}: mode='binary' takes K=1 channel, got K={logits.shape[1]}")
    if mode == "multiclass" and logits.shape[1] < 2:
        raise ValueError(f"logits have shape {shape}: mode='multiclass' takes K>=2 channels, got K={logits.shape[1]}")


def _check_labels(logits: Tensor, target: Tensor, mode: SegmentationMode, valid: Tensor | None) -> None:
    pixels = (logits.shape[0], *logits.shape[2:])
    expected = tuple(logits.shape) if mode == "multilabel" else pixels
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, expected {expected} for mode={mode!r} "
            f"and logits of shape {tuple(logits.shape)}"
        )
    if target.is_floating_point() or target.is_complex():
        raise ValueError(f"target has dtype {target.dtype}, expected integer labels")
    if valid is None:
        return
    if tuple(valid.shape) != pixels:
        raise ValueError(f"valid has shape {tuple(valid.shape)}, expected {pixels} for logits {tuple(logits.shape)}")
    if valid.dtype != torch.bool:
        raise ValueError(f"valid has dtype {valid.dtype}, expected torch.bool")
