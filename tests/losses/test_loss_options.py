"""What losses refuse, each with the key and the value in the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from neurotrain.losses import (
    BinaryCrossEntropyLoss,
    BoundaryLoss,
    CenterlineDiceLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    TverskyLoss,
    functional,
)

LOGITS, LABELS = torch.zeros(2, 1, 4, 5), torch.zeros(2, 4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DiceLoss, {"mode": "binry"}, r"mode='binry'.*did you mean 'binary'\?"),
        (CrossEntropyLoss, {"mode": "binary"}, r"mode='binary' is not defined for CrossEntropyLoss.*\['multiclass'\]"),
        (BinaryCrossEntropyLoss, {"mode": "multiclass"}, r"mode='multiclass' is not defined for Bin.*'multilabel'"),
        (DiceLoss, {"mode": "binary", "smooth": 0}, r"smooth=0 lies outside \(0, inf\)"),
        (TverskyLoss, {"mode": "binary", "smooth": float("nan")}, "smooth=nan"),
        (TverskyLoss, {"mode": "binary", "alpha": -1.0}, "alpha=-1.0"),
        (TverskyLoss, {"mode": "binary", "beta": -1.0}, "beta=-1.0"),
        (TverskyLoss, {"mode": "binary", "gamma": 0.0}, r"gamma=0.0 lies outside \(0, inf\)"),
        (FocalLoss, {"mode": "binary", "gamma": -0.5}, r"gamma=-0.5 lies outside \[0, inf\)"),
        (FocalLoss, {"mode": "binary", "alpha": 1.5}, r"alpha=1.5 lies outside \[0, 1\]"),
        (FocalLoss, {"mode": "multiclass", "alpha": 0.5}, "alpha=0.5 has no effect in mode='multiclass'"),
        (CrossEntropyLoss, {"label_smoothing": 1.1}, "label_smoothing=1.1"),
        (BinaryCrossEntropyLoss, {"mode": "binary", "label_smoothing": -0.1}, "label_smoothing=-0.1"),
        (CenterlineDiceLoss, {"mode": "binary", "iterations": -1}, "iterations=-1"),
        (BoundaryLoss, {"mode": "binary", "spacing": (1.0, 0.0)}, "spacing=0.0"),
        (DiceLoss, {"mode": "multiclass", "class_weights": (1.0, -1.0)}, r"class_weights=\(1.0, -1.0\)"),
        (DiceLoss, {"mode": "multiclass", "class_weights": (0.0, 0.0)}, "positive sum"),
        (DiceLoss, {"mode": "multiclass", "class_weights": ()}, r"class_weights=\(\)"),
        (DiceLoss, {"mode": "binary", "class_weights": (1.0, 2.0)}, r"class_weights=\(1.0, 2.0\) has no effect"),
        (DiceLoss, {"mode": "multilabel", "include_background": False}, "no effect in mode='multilabel'"),
        (
            DiceLoss,
            {"mode": "multiclass", "include_background": False, "class_weights": (1.0, 0.0)},
            r"class_weights=\(1.0, 0.0\) leave no weight",
        ),
        (FocalLoss, {"mode": "binary", "class_weights": (1.0, 2.0, 3.0)}, r"not \(2,\).*background, foreground"),
        (BinaryCrossEntropyLoss, {"mode": "binary", "pos_weight": (float("inf"),)}, r"pos_weight=\(inf,\)"),
    ],
)
def test_constructor_refuses(cls: Callable[..., object], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**options)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (functional.cross_entropy, {"mode": "binary"}, "mode='binary' is not defined for cross_entropy"),
        (functional.binary_cross_entropy, {"mode": "multiclass"}, "mode='multiclass'"),
        (functional.dice_loss, {"mode": "multi-label"}, "did you mean 'multilabel'"),
        (functional.dice_loss, {"mode": "binary", "smooth": -1.0}, "smooth=-1.0"),
        (functional.dice_loss, {"mode": "binary", "class_weights": torch.ones(1)}, r"class_weights=\[1.0\]"),
        (functional.tversky_loss, {"mode": "binary", "gamma": 0.0}, "gamma=0.0"),
        (functional.focal_loss, {"mode": "binary", "alpha": 2.0}, "alpha=2.0"),
        (functional.focal_loss, {"mode": "binary", "class_weights": (1.0,)}, r"shape \(1,\), not \(2,\)"),
        (functional.binary_cross_entropy, {"mode": "binary", "pos_weight": (1.0, 2.0)}, r"pos_weight=\[1.0, 2.0\]"),
        (functional.binary_cross_entropy, {"mode": "binary", "label_smoothing": 2.0}, "label_smoothing=2.0"),
        (functional.centerline_dice_loss, {"mode": "binary", "iterations": -2}, "iterations=-2"),
        (functional.boundary_loss, {"mode": "binary", "spacing": (1.0,)}, r"spacing=\(1.0,\)"),
    ],
)
def test_function_refuses(function: Callable[..., object], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(LOGITS, LABELS, **options)


@pytest.mark.parametrize("loss", [DiceLoss, FocalLoss, BoundaryLoss, CrossEntropyLoss])
def test_weights_of_wrong_length_are_refused(loss: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"class_weights=\[1.0, 2.0\] has shape \(2,\), not \(3,\)"):
        loss(mode="multiclass", class_weights=(1.0, 2.0))(torch.zeros(2, 3, 4, 5), LABELS)


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("binary", {"logits": torch.zeros(2, 2, 4, 5)}, r"\(2, 2, 4, 5\): mode='binary' takes K=1 channel, got K=2"),
        ("multiclass", {}, "mode='multiclass' takes K>=2 channels, got K=1"),
        ("binary", {"logits": torch.zeros(2, 4, 5)}, r"logits have shape \(2, 4, 5\)"),
        ("binary", {"logits": torch.zeros(0, 1, 4, 5)}, r"logits have shape \(0, 1, 4, 5\), expected a non-empty"),
        ("binary", {"logits": torch.zeros(2, 1, 4, 5, dtype=torch.int64)}, "dtype torch.int64, expected a floating"),
        ("binary", {"target": LABELS.unsqueeze(1)}, r"target has shape \(2, 1, 4, 5\), expected \(2, 4, 5\)"),
        ("multilabel", {}, r"target has shape \(2, 4, 5\), expected \(2, 1, 4, 5\) for mode='multilabel'"),
        ("binary", {"target": LABELS.float()}, "target has dtype torch.float32, expected integer"),
        ("binary", {"valid": torch.ones(2, 1, 4, 5).bool()}, r"valid has shape \(2, 1, 4, 5\), expected \(2, 4, 5\)"),
        ("binary", {"valid": torch.ones(2, 4, 5)}, "valid has dtype torch.float32, expected torch.bool"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(mode: str, changes: dict[str, torch.Tensor], message: str) -> None:
    inputs = {"logits": LOGITS, "target": LABELS, **changes}
    with pytest.raises(ValueError, match=message):
        DiceLoss(mode=mode)(**inputs)  # type: ignore[arg-type]


def test_weights_follow_the_module() -> None:
    loss = BinaryCrossEntropyLoss(mode="binary", class_weights=(1.0, 2.0), pos_weight=(3.0,)).to("meta")
    assert loss.class_weights is not None
    assert loss.pos_weight is not None
    assert {loss.class_weights.device.type, loss.pos_weight.device.type} == {"meta"}
