"""Detectors of one stage: a class and a box for every place of a feature pyramid."""

from __future__ import annotations

from pathlib import Path
from typing import final

from neurotrain.networks.detection.backbones import Norm, Pyramid, build_backbone, group_norm
from neurotrain.networks.detection.base import Detector, checked_settings
from neurotrain.networks.detection.weights import load_detector

_STRIDES = {"one_stage": (8, 16, 32, 64, 128), "one_stage_fine": (4, 8, 16, 32, 64)}
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # of RetinaNet's anchors, each 4 strides and up
_RATIOS = (0.5, 1.0, 2.0)
_LOGITS = ("head.classification_head.cls_logits.",)


@final
class Fcos(Detector):
    """FCOS: without anchors; every place inside of an object tells how far its edges are.

    Args:
        backbone: ``small``, or one of torchvision's residual networks, see
            :data:`neurotrain.networks.detection.backbones.NAMES`.
        norm: of the backbone, see :data:`neurotrain.networks.detection.backbones.Norm`.
        channels: of the pyramid and the heads: 64, 96, 128 and so on.
        head_depth: convolutions before each output of the heads.
        fine: whether the pyramid begins at stride 4 rather than 8, for small objects; four times the work of the heads.
        num_classes: number of labels.
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
        Tian et al., 2019 (arXiv:1904.01355); torchvision's ``fcos_resnet50_fpn``.

    Example:
        >>> import torch
        >>> network = Fcos(backbone="small", channels=64, num_classes=2, min_size=64, max_size=64).eval()
        >>> sorted(network([torch.zeros(3, 40, 50)])[0])
        ['boxes', 'labels', 'scores']
    """

    loss_names = ("classification", "bbox_regression", "bbox_ctrness")

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        norm: Norm = "group",
        channels: int = 256,
        head_depth: int = 4,
        fine: bool = False,
        num_classes: int = 80,
        min_size: int = 800,
        max_size: int = 1333,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
        trainable_layers: int = 5,
        backbone_weights: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOS, FCOSHead

        if head_depth < 1 or channels < 64 or channels % 32:
            # With 32 channels the head's 32 groups would normalise single numbers where a level is one place.
            raise ValueError(f"head_depth={head_depth}, channels={channels}: need at least 1, and 64, 96, 128, ...")
        settings = checked_settings(num_classes, min_size, max_size, score_threshold, nms_threshold, max_detections)
        pyramid: Pyramid = "one_stage_fine" if fine else "one_stage"
        body = build_backbone(
            backbone,
            norm=norm,
            channels=channels,
            trainable_layers=trainable_layers,
            pyramid=pyramid,
            weights=backbone_weights,
            loaded_later=weights is not None,
        )
        anchors = AnchorGenerator(tuple((stride,) for stride in _STRIDES[pyramid]), ((1.0,),) * 5)
        head = FCOSHead(channels, 1, num_classes, head_depth)
        network = FCOS(body, num_classes, anchor_generator=anchors, head=head, **settings)
        if weights is not None:
            load_detector(network, weights, heads=_LOGITS)
        super().__init__(network=network, num_classes=num_classes)


@final
class RetinaNet(Detector):
    """RetinaNet: nine anchors at every place, told apart by the focal loss.

    Args:
        backbone: see :class:`Fcos`.
        norm: see :class:`Fcos`; with ``group`` it is the heads' too.
        channels: of the pyramid and the heads.
        fine: see :class:`Fcos`.
        num_classes: see :class:`Fcos`.
        min_size: see :class:`Fcos`.
        max_size: see :class:`Fcos`.
        score_threshold: see :class:`Fcos`.
        nms_threshold: see :class:`Fcos`.
        max_detections: see :class:`Fcos`.
        trainable_layers: see :class:`Fcos`.
        backbone_weights: see :class:`Fcos`.
        weights: see :class:`Fcos`.

    Raises:
        ValueError: if settings are out of range or have no effect together, or a file does not fit.
        FileNotFoundError: if there is no such file.

    Reference:
        Lin et al., 2017 (arXiv:1708.02002); torchvision's ``retinanet_resnet50_fpn``.
    """

    loss_names = ("classification", "bbox_regression")

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        norm: Norm = "group",
        channels: int = 256,
        fine: bool = False,
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
        from torchvision.models.detection import retinanet
        from torchvision.models.detection.anchor_utils import AnchorGenerator

        settings = checked_settings(num_classes, min_size, max_size, score_threshold, nms_threshold, max_detections)
        pyramid: Pyramid = "one_stage_fine" if fine else "one_stage"
        body = build_backbone(
            backbone,
            norm=norm,
            channels=channels,
            trainable_layers=trainable_layers,
            pyramid=pyramid,
            weights=backbone_weights,
            loaded_later=weights is not None,
        )
        sizes = tuple(tuple(int(4 * stride * scale) for scale in _SCALES) for stride in _STRIDES[pyramid])
        head = retinanet.RetinaNetHead(
            channels, len(_SCALES) * len(_RATIOS), num_classes, norm_layer=group_norm if norm == "group" else None
        )
        network = retinanet.RetinaNet(
            body, num_classes, anchor_generator=AnchorGenerator(sizes, (_RATIOS,) * 5), head=head, **settings
        )
        if weights is not None:
            load_detector(network, weights, heads=_LOGITS)
        super().__init__(network=network, num_classes=num_classes)
