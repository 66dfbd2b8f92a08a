"""From an image and its annotations to one typed sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurotrain.batch import DetectionSample
from neurotrain.data.datasets.coco import CocoObject, read_objects
from neurotrain.data.datasets.coco_masks import draw_masks
from neurotrain.data.decoders.base import MAX_PIXELS, Decoder, bytes_of
from neurotrain.data.decoders.pixels import decode_rgb
from neurotrain.data.sources.base import RawSample, SampleFormatError


class DetectionDecoder(Decoder[DetectionSample]):
    """Decodes ``image`` with its ``objects``; an image that comes without that field has none.

    Args:
        masks: whether the objects' masks are drawn too, for instance segmentation.
        max_pixels: pictures of more are refused.

    Raises:
        ValueError: if ``max_pixels`` is below 1.
    """

    def __init__(self, *, masks: bool = False, max_pixels: int = MAX_PIXELS) -> None:
        if max_pixels < 1:
            raise ValueError(f"max_pixels={max_pixels}: must be at least 1")
        self.masks = masks
        self.max_pixels = max_pixels

    def __call__(self, raw: RawSample, generator: torch.Generator) -> DetectionSample:
        """Decode one entry.

        Raises:
            SampleFormatError: if the image cannot be decoded or has another size than the annotations say, or a mask
                cannot be drawn.
        """
        pixels = decode_rgb(bytes_of(raw, "image"), uri=raw.uri, max_pixels=self.max_pixels)
        height, width = pixels.shape[:2]
        told = (raw.fields.get("height", height), raw.fields.get("width", width))
        if told != (height, width):
            raise SampleFormatError(
                f"{raw.uri}: has {width} x {height} pixels, its annotations say {told[1]} x {told[0]}"
            )
        text = raw.fields.get("objects", "[]")
        assert isinstance(text, str), "objects are JSON"
        objects = read_objects(text)
        xywh = torch.tensor([one["bbox"] for one in objects], dtype=torch.float64).reshape(-1, 4)
        sample: DetectionSample = {
            "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            "boxes": torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1),
            "labels": torch.tensor([one["label"] for one in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([one["iscrowd"] for one in objects], dtype=torch.int64),
            "area": torch.tensor([one["area"] for one in objects], dtype=torch.float64),
            "size": torch.tensor([height, width]),
            "id": raw.id,
            "source": raw.source,
        }
        return {**sample, "masks": _masks(objects, height, width, raw)} if self.masks else sample


def _masks(objects: list[CocoObject], height: int, width: int, raw: RawSample) -> Tensor:
    try:
        return draw_masks([one["segmentation"] for one in objects], height=height, width=width)
    except ValueError as error:
        raise SampleFormatError(f"{raw.uri}: {error}") from error
