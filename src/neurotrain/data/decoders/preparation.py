"""How images of any size come to the sizes that a batch may have: pure functions of width and height, and of a draw."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

Resolution = Literal["pixel", "pixel_area", "area"]
"""What ``resolution`` counts: pixels of the shorter edge; the edge of a square of the same area; megapixels."""

Crop = Literal["centre", "random", "corner"]
"""Where an image is cut that has another aspect than its target: in the middle, anywhere, or from the top left."""

Aspect = Literal["square", "preserve", "buckets"]
"""Which aspect the target has: 1; the image's own; the nearest one of a list."""

Interpolation = Literal["bilinear", "bicubic", "lanczos"]


class Placement(NamedTuple):
    """Which part of an image becomes its target.

    Attributes:
        size: width and height of the target.
        box: left, top, right and bottom of the part, in pixels of the image; not always whole ones.
        scale: pixels of the target for one of the image, along both axes alike.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    scale: float


class ImagePreparation:
    """Scales an image so that it covers its target, and cuts off what is too much.

    Args:
        resolution: size of the target, in the unit of ``resolution_type``.
        resolution_type: what ``resolution`` counts.
        aspect: which aspect the target has.
        aspect_buckets: widths over heights that targets may have; ``aspect="buckets"`` takes the one that is nearest by
            its logarithm.
        multiple: width and height of the target are multiples of it.
        crop: where an image is cut.
        min_size: images whose shorter edge has fewer pixels are left out.
        max_size: images whose longer edge has more pixels are left out.
        min_aspect: images of a smaller width over height are left out.
        max_aspect: images of a larger one are left out.
        max_upscale: images that would be enlarged by a larger factor are left out.
        interpolation: of images; labels take the nearest pixel.

    Raises:
        ValueError: lists every setting that is out of its range or has no effect, each with its value and valid ones.

    Example:
        >>> prepare = ImagePreparation(resolution=512, aspect="preserve", multiple=64)
        >>> prepare.place(1024, 640, torch.Generator()).size
        (832, 512)
        >>> prepare.place(100, 100, torch.Generator())
        'upscale 5.12 above max_upscale=2.0'
    """

    def __init__(
        self,
        *,
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
        self.resolution = resolution
        self.resolution_type: Resolution = resolution_type
        self.aspect: Aspect = aspect
        self.aspect_buckets = None if aspect_buckets is None else tuple(aspect_buckets)
        self.multiple = multiple
        self.crop: Crop = crop
        self.min_size = min_size
        self.max_size = max_size
        self.min_aspect = min_aspect
        self.max_aspect = max_aspect
        self.max_upscale = max_upscale
        self.interpolation: Interpolation = interpolation
        if problems := self._problems():
            raise ValueError(f"{type(self).__name__}:\n  " + "\n  ".join(problems))

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns of an index that :meth:`screen` looks at."""
        return ("width", "height")

    @property
    def deterministic(self) -> bool:
        """True where no crop is drawn."""
        return self.crop != "random"

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size is brought to: what batches are grouped by."""
        return target_size(
            self._aspect_of(width, height),
            resolution=self.resolution,
            resolution_type=self.resolution_type,
            multiple=self.multiple,
        )

    def rejection(self, width: int, height: int) -> str | None:
        """Why an image of this size is left out; None where it is not."""
        return self._reason(width, height, named=True)

    def place(self, width: int, height: int, generator: torch.Generator) -> Placement | str:
        """Which part of an image becomes its target.

        Args:
            width: of the image, as it is seen.
            height: likewise.
            generator: source of a random crop; no other one draws a number.

        Returns:
            The placement, or why the image is left out.
        """
        reason = self.rejection(width, height)
        if reason is not None:
            return reason
        size = self.target(width, height)
        scale = cover_scale(width, height, size)
        free = (width - size[0] / scale, height - size[1] / scale)
        share = {"centre": (0.5, 0.5), "corner": (0.0, 0.0)}.get(self.crop)
        if share is None:
            drawn = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            share = (drawn[0], drawn[1])
        left, top = max(0.0, free[0] * share[0]), max(0.0, free[1] * share[1])
        # Rounding must not lead out of the image: the resampler refuses such a box.
        right, bottom = min(float(width), left + size[0] / scale), min(float(height), top + size[1] / scale)
        return Placement(size=size, box=(left, top, right, bottom), scale=scale)

    def apply(self, pixels: NDArray[np.uint8], placement: Placement, *, nearest: bool = False) -> NDArray[np.uint8]:
        """Cut and scale decoded pixels in one step.

        Args:
            pixels: uint8 ``(H, W)`` or ``(H, W, 3)``.
            placement: from :meth:`place`, for an image of that size.
            nearest: take the nearest pixel, as labels need it.

        Returns:
            uint8 of the target's size.
        """
        from PIL import Image

        height, width = pixels.shape[:2]
        if placement.box == (0, 0, width, height) and placement.size == (width, height):
            return pixels
        filters = {
            "bilinear": Image.Resampling.BILINEAR,
            "bicubic": Image.Resampling.BICUBIC,
            "lanczos": Image.Resampling.LANCZOS,
        }
        resample = Image.Resampling.NEAREST if nearest else filters[self.interpolation]
        return np.array(Image.fromarray(pixels).resize(placement.size, resample, box=placement.box))

    def screen(self, sizes: Iterable[Sequence[int | None]]) -> tuple[list[int], dict[str, int]]:
        """Which of many images are used.

        Args:
            sizes: width and height of each; None where nobody knows: such an image is left out.

        Returns:
            Positions of those that are used, and how many are left out by reason.

        Example:
            >>> ImagePreparation(resolution=64, min_size=32).screen([(64, 64), (64, 31), (None, None), (20, 8)])
            ([0], {'shorter edge below min_size=32': 2, 'size unknown': 1})
        """
        kept: list[int] = []
        counts: Counter[str] = Counter()
        for position, size in enumerate(sizes):
            reason = self.screened(size)
            if reason is None:
                kept.append(position)
            else:
                counts[reason] += 1
        return kept, dict(counts)

    def screened(self, size: Sequence[int | None]) -> str | None:
        """Why an image of this size is left out, without its own values: what is counted."""
        width, height = size[0], size[1]
        return "size unknown" if width is None or height is None else self._reason(width, height, named=False)

    def _aspect_of(self, width: int, height: int) -> float:
        if self.aspect == "square":
            return 1.0
        if self.aspect == "preserve":
            return width / height
        assert self.aspect_buckets is not None, "checked"
        return min(self.aspect_buckets, key=lambda bucket: abs(math.log(bucket * height / width)))

    def _reason(self, width: int, height: int, *, named: bool) -> str | None:
        """The first rule that an image breaks; with the image's own value where it is ``named``."""
        aspect = width / height
        scale = cover_scale(width, height, self.target(width, height))
        rules: list[tuple[str, float, str, float | None, bool]] = [
            ("shorter edge", min(width, height), "min_size", self.min_size, False),
            ("longer edge", max(width, height), "max_size", self.max_size, True),
            ("aspect", aspect, "min_aspect", self.min_aspect, False),
            ("aspect", aspect, "max_aspect", self.max_aspect, True),
            ("upscale", scale, "max_upscale", self.max_upscale, True),
        ]
        for what, value, key, bound, upper in rules:
            if bound is None or (value <= bound if upper else value >= bound):
                continue
            told = f" {value:g}" if named else ""
            return f"{what}{told} {'above' if upper else 'below'} {key}={bound}"
        return None

    def _problems(self) -> list[str]:
        """Everything wrong with the settings; a child adds its own."""
        problems = [
            *_unknown("resolution_type", self.resolution_type, get_args(Resolution)),
            *_unknown("aspect", self.aspect, get_args(Aspect)),
            *_unknown("crop", self.crop, get_args(Crop)),
            *_unknown("interpolation", self.interpolation, get_args(Interpolation)),
            *at_least("resolution", self.resolution, 0, strict=True),
            *at_least("multiple", self.multiple, 1),
            *at_least("min_size", self.min_size, 1),
            *at_least("max_size", self.max_size, 1),
            *at_least("min_aspect", self.min_aspect, 0, strict=True),
            *at_least("max_aspect", self.max_aspect, 0, strict=True),
            *at_least("max_upscale", self.max_upscale, 0, strict=True),
            *_reversed("size", self.min_size, self.max_size),
            *_reversed("aspect", self.min_aspect, self.max_aspect),
        ]
        if self.aspect == "buckets" and not self.aspect_buckets:
            problems.append(
                f"aspect_buckets={self.aspect_buckets}: aspect='buckets' needs a list like (1.0, 0.75, 1.33)"
            )
        if self.aspect != "buckets" and self.aspect_buckets is not None:
            problems.append(f"aspect_buckets={self.aspect_buckets}: has no effect with aspect={self.aspect!r}")
        problems += [f"aspect_buckets: {one} must be above 0" for one in self.aspect_buckets or () if not one > 0]
        if self.resolution_type == "area" and self.resolution > 100:
            problems.append(f"resolution={self.resolution}: counts megapixels with resolution_type='area', at most 100")
        if self.resolution_type == "pixel" and 0 < self.resolution < self.multiple:
            problems.append(f"resolution={self.resolution}: must be at least multiple={self.multiple}")
        return problems


def target_size(aspect: float, *, resolution: float, resolution_type: Resolution, multiple: int) -> tuple[int, int]:
    """Width and height of a target, each the nearest multiple, and at least one.

    Args:
        aspect: width over height.
        resolution: in the unit of ``resolution_type``.
        resolution_type: what it counts.
        multiple: of both edges.

    Returns:
        Width and height in pixels.

    Example:
        >>> target_size(16 / 9, resolution=1024, resolution_type="pixel_area", multiple=64)
        (1344, 768)
        >>> target_size(16 / 9, resolution=1.0, resolution_type="area", multiple=64)
        (1344, 768)
        >>> target_size(0.5, resolution=512, resolution_type="pixel", multiple=8)
        (512, 1024)
    """
    if resolution_type == "pixel":
        width, height = resolution * max(aspect, 1.0), resolution * max(1 / aspect, 1.0)
    else:
        area = resolution * 1e6 if resolution_type == "area" else resolution**2
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    # Half a multiple goes up, on every machine alike; Python's round would take the even one.
    return (
        max(1, math.floor(width / multiple + 0.5)) * multiple,
        max(1, math.floor(height / multiple + 0.5)) * multiple,
    )


def cover_scale(width: int, height: int, size: tuple[int, int]) -> float:
    """Factor by which an image covers a target, with no more than needed.

    Example:
        >>> cover_scale(200, 100, (50, 50))
        0.5
    """
    return max(size[0] / width, size[1] / height)


def _unknown(key: str, value: Any, choices: Sequence[str]) -> list[str]:  # noqa: ANN401 - whatever a user gave
    if value in choices:
        return []
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)[0]
    return [f"{key}={value!r}: must be one of {', '.join(map(repr, choices))}; nearest: {near!r}"]


def at_least(key: str, value: float | None, least: float, *, strict: bool = False) -> list[str]:
    """What is wrong with a number, in no or one line.

    Example:
        >>> at_least("frames", 0, 1)
        ['frames=0: must be at least 1']
    """
    if value is None or (value > least if strict else value >= least):
        return []
    return [f"{key}={value}: must be {'above' if strict else 'at least'} {least}"]


def _reversed(what: str, low: float | None, high: float | None) -> list[str]:
    if low is None or high is None or low <= high:
        return []
    return [f"min_{what}={low}: must not be above max_{what}={high}"]
