"""Annotated images as a part of the data: looked at more closely to verify them than to train on them."""

from __future__ import annotations

import torch

from neurotrain.batch import DetectionSample
from neurotrain.data.detection import CocoSource
from neurotrain.data.parts import SourcePart
from neurotrain.data.sources.base import SampleFormatError


class DetectionPart(SourcePart[DetectionSample]):
    """Entries of a source of annotated images; see :class:`neurotrain.data.parts.SourcePart` for the arguments."""

    def check(self, index: int, generator: torch.Generator) -> None:
        """Decode one entry and look at its boxes and masks.

        Raises:
            SampleFormatError: lists boxes without an area or outside of the image, and masks without a pixel.
        """
        sample = self.read(index, generator)
        if not isinstance(self.source, CocoSource):
            return
        row = self._row(index)
        found = self.source.flaws(row)
        if "masks" in sample:
            bare = sample["masks"].flatten(1).any(1).logical_not().nonzero().flatten().tolist()
            found += [f"annotation {self.source.objects(row)[place]['id']}: the mask has no pixel" for place in bare]
        if found:
            raise SampleFormatError("; ".join(found))
