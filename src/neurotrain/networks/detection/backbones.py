"""Backbones by name: a residual network with a feature pyramid, of torchvision or our small one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from neurotrain.networks.detection.small import WIDTHS, SmallResNet, group_norm
from neurotrain.networks.detection.weights import load_backbone

Norm = Literal["batch", "group", "frozen"]
"""``batch``: over the batch, which wants some 8 images a step; ``group``: of each image alone; ``frozen``: the
statistics of the loaded weights, never updated."""

SMALL = "small"
NAMES = (
    SMALL, "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
"""``small`` is :class:`~neurotrain.networks.detection.small.SmallResNet`, the others are torchvision's."""

Pyramid = Literal["one_stage", "one_stage_fine", "two_stage"]
"""Levels by their strides: 8 to 128, 4 to 64, and 4 to 32 with one pooled from the last."""


def build_backbone(
    name: str,
    *,
    norm: Norm,
    channels: int,
    trainable_layers: int,
    pyramid: Pyramid,
    weights: Path | None,
    loaded_later: bool,
) -> nn.Module:
    """Make a residual network with a feature pyramid on top.

    Args:
        name: of :data:`NAMES`.
        norm: of torchvision's networks; ``small`` has group norm.
        channels: of every level of the pyramid.
        trainable_layers: how many of the stem and the four stages are trained, from the last on.
        pyramid: which levels.
        weights: safetensors of the residual network alone, such as one that was trained to classify.
        loaded_later: whether the whole detector's weights are loaded afterwards.

    Returns:
        A module that maps images to an ordered dictionary of maps.

    Raises:
        ValueError: if the name is unknown, or settings have no effect together.
        FileNotFoundError: if there is no such file.
    """
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    _check(name, norm, trainable_layers, weighted=weights is not None or loaded_later)
    body, widths = _body(name, norm)
    if weights is not None:
        load_backbone(body, weights)
    _freeze(body, trainable_layers)
    stages = (2, 3, 4) if pyramid == "one_stage" else (1, 2, 3, 4)
    # Of the fine pyramid the fifth level is pooled, so that there are not six to look at.
    extra = LastLevelP6P7(channels, channels) if pyramid == "one_stage" else LastLevelMaxPool()
    layer: Callable[..., nn.Module] | None = group_norm if norm == "group" else None
    return BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": str(place) for place, stage in enumerate(stages)},
        in_channels_list=[widths[stage - 1] for stage in stages],
        out_channels=channels,
        extra_blocks=extra,
        norm_layer=layer,
    )


def _body(name: str, norm: Norm) -> tuple[nn.Module, tuple[int, ...]]:
    if name == SMALL:
        return SmallResNet(), WIDTHS
    from torchvision.models import get_model
    from torchvision.ops import FrozenBatchNorm2d

    layers: dict[str, Any] = {"batch": nn.BatchNorm2d, "group": group_norm, "frozen": FrozenBatchNorm2d}
    body: Any = get_model(name, weights=None, norm_layer=layers[norm])
    last = body.fc.in_features
    return body, (last // 8, last // 4, last // 2, last)


def _freeze(body: nn.Module, trainable_layers: int) -> None:
    stem = ("stem", "conv1", "bn1")
    trained = [("layer4",), ("layer3",), ("layer2",), ("layer1",), stem][:trainable_layers]
    names = {name for group in trained for name in group}
    for name, parameter in body.named_parameters():
        if name.partition(".")[0] not in names:
            parameter.requires_grad_(False)


def _check(name: str, norm: Norm, trainable_layers: int, *, weighted: bool) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise ValueError(f"backbone={name!r}: must be one of {', '.join(NAMES)}; nearest: {near!r}")
    if norm not in get_args(Norm):
        raise ValueError(f"norm={norm!r}: must be one of {', '.join(map(repr, get_args(Norm)))}")
    if name == SMALL and norm != "group":
        raise ValueError(f"norm={norm!r} has no effect on backbone='small', which has group norm: use norm='group'")
    if not 0 <= trainable_layers <= 5:
        raise ValueError(f"trainable_layers={trainable_layers}: must be from 0 to 5")
    if not weighted and (norm == "frozen" or trainable_layers < 5):
        raise ValueError(
            f"norm={norm!r}, trainable_layers={trainable_layers}: random weights would be frozen; give weights or "
            "backbone_weights, or train everything (norm='batch' or 'group', trainable_layers=5)"
        )
