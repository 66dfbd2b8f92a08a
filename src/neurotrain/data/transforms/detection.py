"""Joint transforms of images, boxes and masks, through torchvision's v2; objects that a cut leaves nothing of are gone.

torchvision draws from the global generator: it is seeded from that of the call meanwhile, and put back. What is
annotated as the area of an object is for evaluation, where nothing is cut or scaled, and is not changed here.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neurotrain.batch import DetectionSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability, happens

_OBJECTS = ("boxes", "labels", "iscrowd", "area", "masks")
"""Fields with a row for each object."""


class DetectionTransform(Transform[DetectionSample], ABC):
    """Changes the image and, in step with it, boxes and masks."""


class DetectionFlip(DetectionTransform):
    """Mirrors image, boxes and masks left to right, or not.

    Args:
        probability: of mirroring.

    Raises:
        ValueError: if it is outside [0, 1].
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
        """Mirror."""
        from torchvision.transforms.v2 import functional

        if not happens(self._probability, generator):
            return sample
        return _applied(functional.horizontal_flip, sample)


class DetectionCrop(DetectionTransform):
    """Cuts out a part that overlaps with some object, as SSD does; objects whose centre is outside are gone.

    Args:
        probability: of cutting at all.
        min_scale: smallest edge of the part, of the image's.
        max_scale: largest edge.

    Raises:
        ValueError: if the probability is outside [0, 1], or the scales are not 0 < min <= max <= 1.

    Reference:
        Liu et al., 2016 (arXiv:1512.02325), section 2.2.
    """

    def __init__(self, *, probability: float = 0.5, min_scale: float = 0.3, max_scale: float = 1.0) -> None:
        if not 0 < min_scale <= max_scale <= 1:
            raise ValueError(f"min_scale={min_scale}, max_scale={max_scale}: need 0 < min <= max <= 1")
        self._probability = check_probability("probability", probability)
        self._scales = (min_scale, max_scale)

    def __call__(self, sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
        """Cut."""
        from torchvision.transforms import v2

        if not happens(self._probability, generator) or not len(sample["boxes"]):
            return sample
        crop = v2.RandomIoUCrop(min_scale=self._scales[0], max_scale=self._scales[1])
        return _without_empty(_drawn(crop, sample, generator))


class DetectionZoomOut(DetectionTransform):
    """Places the image somewhere on a larger canvas of one colour, so that objects become smaller.

    Args:
        probability: of doing so.
        max_scale: largest edge of the canvas, of the image's.
        fill: red, green and blue of the canvas, 0 to 255.

    Raises:
        ValueError: if a number is out of range.

    Reference:
        Liu et al., 2016 (arXiv:1512.02325), section 3.6.
    """

    def __init__(
        self, *, probability: float = 0.5, max_scale: float = 2.0, fill: tuple[int, int, int] = (124, 116, 104)
    ) -> None:
        if max_scale < 1 or not all(0 <= value <= 255 for value in fill):
            raise ValueError(f"max_scale={max_scale}, fill={fill}: need at least 1, and colours of 0 to 255")
        self._probability = check_probability("probability", probability)
        self._max_scale, self._fill = max_scale, fill

    def __call__(self, sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
        """Enlarge the canvas.

        Raises:
            ValueError: if the image is not uint8: it must come before :class:`DetectionToFloat`.
        """
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        _check_uint8(sample, self)
        if not happens(self._probability, generator):
            return sample
        fill: Any = {tv_tensors.Image: list(self._fill), "others": 0}
        return _drawn(v2.RandomZoomOut(fill=fill, side_range=(1.0, self._max_scale), p=1.0), sample, generator)


class DetectionColour(DetectionTransform):
    """Changes brightness, contrast, saturation, hue and the order of the channels, each or none of them.

    Args:
        probability: of each change.

    Raises:
        ValueError: if it is outside [0, 1].

    Reference:
        Liu et al., 2016 (arXiv:1512.02325), section 3.6; Howard, 2013 (arXiv:1312.5402).
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        self._probability = check_probability("probability", probability)

    def __call__(self, sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
        """Recolour.

        Raises:
            ValueError: if the image is not uint8: it must come before :class:`DetectionToFloat`.
        """
        from torchvision.transforms import v2

        _check_uint8(sample, self)
        distort = v2.RandomPhotometricDistort(p=self._probability)
        return {**sample, "image": _drawn(distort, sample, generator)["image"]}


class DetectionToFloat(DetectionTransform):
    """``image / 255``: what a detector takes, which scales and normalises it itself.

    Example:
        >>> found = DetectionToFloat()({"image": torch.full((3, 1, 1), 255, dtype=torch.uint8)}, torch.Generator())
        >>> found["image"].flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    @property
    def deterministic(self) -> bool:
        """True."""
        return True

    def __call__(self, sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
        """Convert.

        Raises:
            ValueError: if the image is not uint8.
        """
        _check_uint8(sample, self)
        return {**sample, "image": sample["image"].float() / 255}


def _check_uint8(sample: DetectionSample, transform: DetectionTransform) -> None:
    if sample["image"].dtype != torch.uint8:
        raise ValueError(f"{sample['id']!r} is {sample['image'].dtype}: {type(transform).__name__} works on uint8")


def _applied(transform: Callable[[Any], Any], sample: DetectionSample) -> DetectionSample:
    """What one transform of torchvision makes of the image, the boxes and the masks."""
    from torchvision import tv_tensors

    height, width = sample["image"].shape[-2:]
    given: dict[str, Any] = {"image": tv_tensors.Image(sample["image"])}
    boxes: Any = sample["boxes"]
    # Of torchvision's tensors several arguments are keywords that its stubs do not tell.
    given["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))  # pyright: ignore
    if "masks" in sample:
        given["masks"] = tv_tensors.Mask(sample["masks"])
    return {**sample, **_plain(transform, given)}  # pyright: ignore[reportReturnType] - the same keys


def _plain(transform: Callable[[Any], Any], given: dict[str, Any]) -> dict[str, Tensor]:
    """Transformed; without torchvision's types, which workers could not hand over."""
    if isinstance(transform, torch.nn.Module):
        changed = transform(given)
    else:
        changed = {name: transform(value) for name, value in given.items()}
    return {name: value.as_subclass(Tensor) for name, value in changed.items()}


def _drawn(transform: Callable[[Any], Any], sample: DetectionSample, generator: torch.Generator) -> DetectionSample:
    """Apply a transform that draws from the global generator, which is seeded meanwhile."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return _applied(transform, sample)


def _without_empty(sample: DetectionSample) -> DetectionSample:
    """Cut boxes to the image; objects of which no pixel remains are left out of every field."""
    height, width = sample["image"].shape[-2:]
    limit = torch.tensor([width, height, width, height], dtype=sample["boxes"].dtype)
    boxes = sample["boxes"].clamp(min=0).minimum(limit)
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    fields: dict[str, Any] = {**sample, "boxes": boxes}
    kept = {name: value[keep] for name, value in fields.items() if name in _OBJECTS}
    return {**sample, **kept}  # pyright: ignore[reportReturnType] - the same keys
