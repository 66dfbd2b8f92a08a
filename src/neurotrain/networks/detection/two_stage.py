"""Detectors of two stages: regions are proposed, then classified, and, by Mask R-CNN, cut out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from neurotrain.networks.detection.backbones import Norm, build_backbone
from neurotrain.networks.detection.base import Detector, checked_settings
from neurotrain.networks.detection.weights import load_detector

_RATIOS = ((0.5, 1.0, 2.0),) * 5
_BOX_HEADS = ("roi_heads.box_predictor.",)
_MASK_HEADS = ("roi_heads.mask_predictor.mask_fcn_logits.",)
_BOX_LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


@final
class FasterRcnn(Detector):
    """Faster R-CNN over a feature pyramid.

    Which proposals a step learns from is drawn from torch's global generator, whose state checkpoints hold.

    Args:
        backbone: see :class:`neurotrain.networks.detection.Fcos`.
        norm: see :class:`neurotrain.networks.detection.Fcos`.
        channels: of the pyramid.
        head_channels: of the two layers that classify a region.
        finest_anchor: edge of the smallest anchor in pixels; each level doubles it.
        num_classes: number of labels, without the background.
        min_size: pixels that the shorter edge of an image is scaled to.
        max_size: pixels that the longer edge has at most.
        score_threshold: detections with a lower score are left out.
        nms_threshold: overlap from which on the worse of two detections of a class is left out.
        max_detections: of an image.
        trainable_layers: how many of the stem and the four stages of the backbone are trained, from the last on.
        backbone_weights: safetensors of the residual network.
        weights: safetensors of the whole detector.

    Raises:
        ValueError: if settings are out of range or have no effect together, or a file does not fit.
        FileNotFoundError: if there is no such file.

    Reference:
        Ren et al., 2015 (arXiv:1506.01497); Lin et al., 2017 (arXiv:1612.03144); torchvision's
        ``fasterrcnn_resnet50_fpn``.
    """

    loss_names = _BOX_LOSSES
    _first_label = 1

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        norm: Norm = "group",
        channels: int = 256,
        head_channels: int = 1024,
        finest_anchor: int = 32,
        num_classes: int = 80,
        min_size: int = 800,
        max_size: int = 1333,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        trainable_layers: int = 5,
        backbone_weights: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        from torchvision.models.detection.faster_rcnn import FasterRCNN

        settings = checked_settings(num_classes, min_size, max_size, score_threshold, nms_threshold, max_detections)
        body = build_backbone(
            backbone,
            norm=norm,
            channels=channels,
            trainable_layers=trainable_layers,
            pyramid="two_stage",
            weights=backbone_weights,
            loaded_later=weights is not None,
        )
        regions = _regions(channels, head_channels, finest_anchor, num_classes)
        network = FasterRCNN(body, **regions, **_renamed(settings))
        if weights is not None:
            load_detector(network, weights, heads=_BOX_HEADS)
        super().__init__(network=network, num_classes=num_classes)


@final
class MaskRcnn(Detector):
    """Mask R-CNN over a feature pyramid: Faster R-CNN with a mask for each detection.

    Which proposals a step learns from is drawn from torch's global generator, whose state checkpoints hold.

    Args:
        backbone: see :class:`neurotrain.networks.detection.Fcos`.
        norm: see :class:`neurotrain.networks.detection.Fcos`.
        channels: of the pyramid.
        head_channels: of the two layers that classify a region.
        mask_channels: of the four convolutions before a mask.
        finest_anchor: edge of the smallest anchor in pixels; each level doubles it.
        num_classes: number of labels, without the background.
        min_size: see :class:`FasterRcnn`.
        max_size: see :class:`FasterRcnn`.
        score_threshold: see :class:`FasterRcnn`.
        nms_threshold: see :class:`FasterRcnn`.
        max_detections: see :class:`FasterRcnn`.
        trainable_layers: see :class:`FasterRcnn`.
        backbone_weights: see :class:`FasterRcnn`.
        weights: see :class:`FasterRcnn`.

    Raises:
        ValueError: if settings are out of range or have no effect together, or a file does not fit.
        FileNotFoundError: if there is no such file.

    Reference:
        He et al., 2017 (arXiv:1703.06870); torchvision's ``maskrcnn_resnet50_fpn``.
    """

    loss_names = (*_BOX_LOSSES, "loss_mask")
    predicts_masks = True
    _first_label = 1

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        norm: Norm = "group",
        channels: int = 256,
        head_channels: int = 1024,
        mask_channels: int = 256,
        finest_anchor: int = 32,
        num_classes: int = 80,
        min_size: int = 800,
        max_size: int = 1333,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        trainable_layers: int = 5,
        backbone_weights: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        from torchvision.models.detection import mask_rcnn

        settings = checked_settings(num_classes, min_size, max_size, score_threshold, nms_threshold, max_detections)
        body = build_backbone(
            backbone,
            norm=norm,
            channels=channels,
            trainable_layers=trainable_layers,
            pyramid="two_stage",
            weights=backbone_weights,
            loaded_later=weights is not None,
        )
        if mask_channels < 1:
            raise ValueError(f"mask_channels={mask_channels}: must be at least 1")
        regions = _regions(channels, head_channels, finest_anchor, num_classes)
        regions["mask_head"] = mask_rcnn.MaskRCNNHeads(channels, (mask_channels,) * 4, 1)
        regions["mask_predictor"] = mask_rcnn.MaskRCNNPredictor(mask_channels, mask_channels, num_classes + 1)
        network = mask_rcnn.MaskRCNN(body, **regions, **_renamed(settings))
        if weights is not None:
            load_detector(network, weights, heads=(*_BOX_HEADS, *_MASK_HEADS))
        super().__init__(network=network, num_classes=num_classes)


def _regions(channels: int, head_channels: int, finest_anchor: int, num_classes: int) -> dict[str, Any]:
    """Anchors and the head of the boxes, as torchvision's detectors take them."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

    if head_channels < 1 or finest_anchor < 1:
        raise ValueError(f"head_channels={head_channels}, finest_anchor={finest_anchor}: must be at least 1")
    return {
        "rpn_anchor_generator": AnchorGenerator(tuple((finest_anchor * 2**level,) for level in range(5)), _RATIOS),
        "box_head": TwoMLPHead(channels * 7**2, head_channels),
        "box_predictor": FastRCNNPredictor(head_channels, num_classes + 1),
    }


def _renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """What torchvision calls the same settings where there are two stages."""
    sizes = ("min_size", "max_size")
    return {name if name in sizes else f"box_{name}": value for name, value in settings.items()}
