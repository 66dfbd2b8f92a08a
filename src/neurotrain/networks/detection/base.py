"""What every detector does: losses of images with their objects, detections in images."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar, NotRequired, TypedDict

from torch import Tensor, nn

_MASK_FROM = 0.5
"""Probability from which on a pixel belongs to a mask, as in Mask R-CNN."""


class DetectionTarget(TypedDict):
    """Objects of one image to learn from.

    Attributes:
        boxes: float32 ``(N, 4)``, left, top, right and bottom in pixels, inside of the image, of positive area.
        labels: int64 ``(N,)``, from 0.
        masks: uint8 ``(N, H, W)``, for detectors of masks.
    """

    boxes: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


class Detection(TypedDict):
    """What was found in one image, best first.

    Attributes:
        boxes: float32 ``(N, 4)``, left, top, right and bottom in pixels of the given image.
        scores: float32 ``(N,)`` in [0, 1].
        labels: int64 ``(N,)``, from 0.
        masks: bool ``(N, H, W)`` of the given image's size, of detectors of masks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: NotRequired[Tensor]


class Detector(nn.Module, ABC):
    """One of torchvision's detectors behind labels that begin at 0; images are scaled and normalised inside.

    Attributes:
        num_classes: number of labels, without any background.
        loss_names: keys of :meth:`losses`.
        predicts_masks: whether targets need masks, and detections have them.
    """

    loss_names: ClassVar[tuple[str, ...]]
    predicts_masks: ClassVar[bool] = False
    _first_label: ClassVar[int] = 0  # 1 where the network keeps 0 for the background

    def __init__(self, *, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes

    def losses(self, images: Sequence[Tensor], targets: Sequence[DetectionTarget]) -> dict[str, Tensor]:
        """Parts of the loss, whose sum is to be minimised.

        Args:
            images: float ``(3, H, W)`` in [0, 1], of any sizes.
            targets: one for each; an image without objects is one to find nothing in.

        Returns:
            A scalar for each of :attr:`loss_names`.

        Raises:
            RuntimeError: outside of training mode, in which the network computes no losses.
            ValueError: if a label is out of range.
        """
        if not self.training:
            raise RuntimeError(f"{type(self).__name__} computes losses in training mode only: call .train() first")
        shifted: list[dict[str, Any]] = []
        for target in targets:
            labels = target["labels"]
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise ValueError(
                    f"labels are {labels.unique().tolist()}; num_classes={self.num_classes} allows 0 to K - 1"
                )
            shifted.append({**target, "labels": labels + self._first_label})
        return self.network(list(images), shifted)

    def forward(self, images: Sequence[Tensor]) -> list[Detection]:
        """Find objects.

        Args:
            images: float ``(3, H, W)`` in [0, 1], of any sizes.

        Returns:
            One for each, in its own pixels.

        Raises:
            RuntimeError: in training mode, in which the network detects nothing.
        """
        if self.training:
            raise RuntimeError(f"{type(self).__name__} detects in evaluation mode only: call .eval() first")
        return [self._detection(found) for found in self.network(list(images))]

    def _detection(self, found: dict[str, Tensor]) -> Detection:
        detection: Detection = {
            "boxes": found["boxes"],
            "scores": found["scores"],
            "labels": found["labels"] - self._first_label,
        }
        return {**detection, "masks": found["masks"][:, 0] > _MASK_FROM} if self.predicts_masks else detection


def checked_settings(
    num_classes: int, min_size: int, max_size: int, score_threshold: float, nms_threshold: float, max_detections: int
) -> dict[str, Any]:
    """What all of torchvision's detectors are told, by its own names.

    Raises:
        ValueError: names the first number that makes no detector.
    """
    for name, value in (("num_classes", num_classes), ("min_size", min_size), ("max_detections", max_detections)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if max_size < min_size:
        raise ValueError(f"max_size={max_size} is below min_size={min_size}: it bounds the longer edge")
    for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: must be in [0, 1]")
    return {
        "min_size": min_size,
        "max_size": max_size,
        "score_thresh": score_threshold,
        "nms_thresh": nms_threshold,
        "detections_per_img": max_detections,
    }
