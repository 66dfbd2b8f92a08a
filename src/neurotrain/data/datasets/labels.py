"""From the values that a mask stores to the labels that they mean."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor

from neurotrain.batch import SegmentationMode
from neurotrain.data.datasets.decoding import PixelError, binary_of

_DEFAULT_MAP: Mapping[SegmentationMode, Mapping[int, int]] = {
    "binary": {255: 1},
    "multilabel": {255: 1},
    "multiclass": {},
}


def labels_of(
    values: Tensor,
    *,
    mode: SegmentationMode,
    num_classes: int,
    label_map: Mapping[int, int] | None = None,
    ignore_value: int | None = None,
) -> Tensor:
    """Labels of one mask.

    Args:
        values: int64, as stored.
        mode: how they are to be read; each label of a multilabel mask is one of two values.
        num_classes: of a multiclass mask, background included.
        label_map: from stored value to label; values that it does not name stay. When not given, binary and multilabel
            masks hold 0 and 255, or 0 and 1.
        ignore_value: stored value of pixels that do not count; they get label 0.

    Returns:
        int64 of the same shape.

    Raises:
        PixelError: if a value is no label.

    Example:
        >>> labels_of(torch.tensor([0, 7, 255]), mode="multiclass", num_classes=3, label_map={7: 2}, ignore_value=255)
        tensor([0, 2, 0])
    """
    classes = num_classes if mode == "multiclass" else 2
    if label_map is None and ignore_value is None and mode != "multiclass":
        return binary_of(values).long()
    stored, where = values.unique(return_inverse=True)
    known = _DEFAULT_MAP[mode] if label_map is None else label_map
    mapped = [0 if value == ignore_value else known.get(value, value) for value in map(int, stored.tolist())]
    wrong = [int(value) for value, label in zip(stored, mapped, strict=True) if not 0 <= label < classes]
    if wrong:
        found = ", ".join(map(str, wrong[:8]))
        raise PixelError(f"holds {found}: no label of {mode} (0 to {classes - 1}) and not named by label_map")
    return torch.tensor(mapped, dtype=torch.int64)[where]


def check_classes(mode: SegmentationMode, num_classes: int, class_names: tuple[str, ...] | None) -> None:
    """Compare mode, number and names of classes.

    Raises:
        ValueError: if they do not fit together.
    """
    modes = get_args(SegmentationMode)
    if mode not in modes:
        near = difflib.get_close_matches(str(mode), modes, n=1, cutoff=0.0)[0]
        raise ValueError(f"mode={mode!r}: one of {', '.join(modes)}; nearest: {near!r}")
    least, most = {"binary": (1, 1), "multiclass": (2, num_classes), "multilabel": (1, num_classes)}[mode]
    if not least <= num_classes <= most:
        raise ValueError(
            f"num_classes={num_classes}: {mode} has at least {least} and binary exactly 1; nearest: {least}"
        )
    if class_names is None and mode == "multilabel":
        raise ValueError("class_names=None: multilabel masks lie in one folder a label, their names are needed")
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(f"class_names={tuple(class_names)!r}: {num_classes} names are needed, one a class")
