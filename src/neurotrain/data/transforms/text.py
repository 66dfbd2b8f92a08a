"""Transforms of samples that are an image with its captions."""

from __future__ import annotations

import torch

from neurotrain.batch import ImageTextSample
from neurotrain.data.transforms.base import Transform


class ImageOneCaption(Transform[ImageTextSample]):
    r"""Takes one of several captions, anew at each visit; the image stays as it is.

    For training on what an ``ImageTextDecoder`` with ``choice="all"`` gives; evaluation, without it, sees them all.

    Example:
        >>> sample = {"image": torch.zeros(3, 1, 1), "caption": "a fox\nred fur", "id": "a", "source": "toy"}
        >>> ImageOneCaption()(sample, torch.Generator().manual_seed(0))["caption"] in ("a fox", "red fur")
        True
    """

    def __call__(self, sample: ImageTextSample, generator: torch.Generator) -> ImageTextSample:
        """Draw."""
        lines = sample["caption"].split("\n")
        return {**sample, "caption": lines[int(torch.randint(len(lines), (), generator=generator))]}
