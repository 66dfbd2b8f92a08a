"""Masks of COCO's objects: polygons and run-length encodings, drawn as COCO's own library draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurotrain.metrics.functional.rle import decode_masks, encode_masks, runs_from_coco, runs_to_coco
from neurotrain.storage.extras import require

_LEAST = 6
"""Numbers of the smallest polygon: three corners."""


def draw_masks(segmentations: Sequence[Any], *, height: int, width: int) -> Tensor:
    """Dense masks of one image's objects.

    Args:
        segmentations: of each object, a list of polygons ``[x, y, x, y, ...]``, whose union is meant, or a run-length
            encoding, compressed or not.
        height: of the image.
        width: of the image.

    Returns:
        uint8 ``(N, H, W)`` in {0, 1}; ``(0, H, W)`` where there is no object.

    Raises:
        ValueError: says which object has none, or one that cannot be drawn.

    Example:
        >>> draw_masks([{"size": [2, 2], "counts": [1, 3]}], height=2, width=2).tolist()
        [[[0, 1], [1, 1]]]
    """
    encoded = [_encoded(item, place, height, width) for place, item in enumerate(segmentations)]
    if not encoded:
        return torch.zeros(0, height, width, dtype=torch.uint8)
    for place, item in enumerate(encoded):
        if [int(length) for length in item["size"]] != [height, width]:
            raise ValueError(f"object {place}: its mask is of {item['size']} pixels, the image of {[height, width]}")
    return decode_masks(runs_from_coco(encoded)).to(torch.uint8)


def compressed_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Masks as COCO's results have them: ``{"size": [H, W], "counts": text}``.

    Args:
        masks: bool or integer ``(N, H, W)``.

    Example:
        >>> compressed_masks(torch.tensor([[[0, 1], [1, 1]]]))
        [{'size': [2, 2], 'counts': '13'}]
    """
    plain = runs_to_coco(encode_masks(masks))
    height, width = masks.shape[-2:]
    packed = [_library().frPyObjects(item, height, width) for item in plain]
    return [{"size": [height, width], "counts": item["counts"].decode("ascii")} for item in packed]


def _encoded(item: Any, place: int, height: int, width: int) -> dict[str, Any]:  # noqa: ANN401 - as the file has it
    if isinstance(item, dict):
        return item
    if not isinstance(item, list) or not item:
        raise ValueError(f"object {place}: has neither polygons nor a run-length encoding")
    for polygon in item:
        if not isinstance(polygon, list) or len(polygon) < _LEAST or len(polygon) % 2:
            raise ValueError(f"object {place}: {polygon} is no polygon: needs x and y of three corners or more")
    if not np.isfinite(np.concatenate([np.asarray(polygon, float) for polygon in item])).all():
        raise ValueError(f"object {place}: a polygon has corners that are no finite numbers")
    return _library().merge(_library().frPyObjects(item, height, width))


def _library() -> Any:  # noqa: ANN401 - its stubs know neither plain run-length encodings nor mappings
    require("pycocotools", extra="detection", purpose="masks of COCO")
    from pycocotools import mask

    return mask
