"""A preparation of its own, with configuration inherited from ours."""

from __future__ import annotations

from neurotrain.data.decoders import ImagePreparation


class LetterboxFree(ImagePreparation):
    """Cinema pictures: always 2 to 1.

    Args:
        resolution: height of the target in pixels.
    """

    def __init__(self, *, resolution: float = 16) -> None:
        super().__init__(resolution=resolution, aspect="buckets", aspect_buckets=(2.0,), max_upscale=None)
