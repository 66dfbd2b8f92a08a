"""A lower bound of an image's area, for data whose sizes are told in pixels of area."""

from __future__ import annotations

from collections.abc import Sequence

from neurotrain.data.decoders.preparation import Aspect, Crop, ImagePreparation, Interpolation, Resolution, at_least


class AreaPreparation(ImagePreparation):
    """Also leaves out images of too small an area, whatever their edges are.

    Args:
        min_area: megapixels below which images are left out.
        resolution: see :class:`~neurotrain.data.decoders.preparation.ImagePreparation`, as all that follow.
        resolution_type: likewise.
        aspect: likewise.
        aspect_buckets: likewise.
        multiple: likewise.
        crop: likewise.
        min_size: likewise.
        max_size: likewise.
        min_aspect: likewise.
        max_aspect: likewise.
        max_upscale: likewise.
        interpolation: likewise.

    Raises:
        ValueError: lists every setting that is out of its range or has no effect.

    Example:
        >>> AreaPreparation(min_area=0.01, resolution=64).screen([(200, 50), (100, 99)])
        ([0], {'area below min_area=0.01': 1})
    """

    def __init__(
        self,
        *,
        min_area: float,
        resolution: float = 512,
        resolution_type: Resolution = "pixel",
        aspect: Aspect = "square",
        aspect_buckets: Sequence[float] | None = None,
        multiple: int = 8,
        crop: Crop = "centre",
        min_size: int | None = None,
        max_size: int | None = None,
        min_aspect: float | None = None,
        max_aspect: float | None = None,
        max_upscale: float | None = 2.0,
        interpolation: Interpolation = "lanczos",
    ) -> None:
        self.min_area = min_area
        super().__init__(
            resolution=resolution,
            resolution_type=resolution_type,
            aspect=aspect,
            aspect_buckets=aspect_buckets,
            multiple=multiple,
            crop=crop,
            min_size=min_size,
            max_size=max_size,
            min_aspect=min_aspect,
            max_aspect=max_aspect,
            max_upscale=max_upscale,
            interpolation=interpolation,
        )

    def rejection(self, width: int, height: int) -> str | None:
        """Why an image of this size is left out; None where it is not."""
        if width * height < self.min_area * 1e6:
            return f"area {width * height / 1e6:g} below min_area={self.min_area}"
        return super().rejection(width, height)

    def screened(self, size: Sequence[int | None]) -> str | None:
        """Why an image of this size is left out, without its own values."""
        width, height = size[0], size[1]
        if width is not None and height is not None and width * height < self.min_area * 1e6:
            return f"area below min_area={self.min_area}"
        return super().screened(size)

    def _problems(self) -> list[str]:
        return [*at_least("min_area", self.min_area, 0, strict=True), *super()._problems()]
