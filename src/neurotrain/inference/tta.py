"""Test-time augmentation: the mean prediction over the symmetries of the image grid.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` predicted channels, ``*spatial`` two or three axes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.inference.inferer import Inferer, Predictor
from neurotrain.networks.blocks import check_choice


@final
@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """A quarter turn of the last two axes, repeated, and then a flip.

    Attributes:
        turns: number of quarter turns, 0 to 3; only 2-D images are turned.
        flipped: axes to flip, counted from the end (negative).

    Example:
        >>> image = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> symmetry = Symmetry(turns=1, flipped=(-1,))
        >>> torch.equal(symmetry.undo(symmetry.apply(image)), image)
        True
    """

    turns: int = 0
    flipped: tuple[int, ...] = ()

    def apply(self, image: Tensor) -> Tensor:
        """Transform ``(B, C, *spatial)``; odd numbers of turns swap height and width."""
        turned = torch.rot90(image, self.turns, (-2, -1)) if self.turns else image
        return turned.flip(self.flipped) if self.flipped else turned

    def undo(self, image: Tensor) -> Tensor:
        """Inverse of ``apply``: no resampling, hence exact."""
        unflipped = image.flip(self.flipped) if self.flipped else image
        return torch.rot90(unflipped, -self.turns, (-2, -1)) if self.turns else unflipped


def symmetries(group: Literal["none", "flips", "d4"], *, dims: int) -> tuple[Symmetry, ...]:
    """Elements of a group of symmetries, the identity first.

    Args:
        group: ``"none"`` (1 element), ``"flips"`` (every set of axes: 4 in 2-D, 8 in 3-D) or ``"d4"`` (quarter turns
            and flips of the square, 8; 2-D only).
        dims: number of spatial axes.

    Returns:
        The elements, all different.

    Raises:
        ValueError: if the group is unknown or not defined for ``dims``.

    Example:
        >>> [len(symmetries(group, dims=2)) for group in ("none", "flips", "d4")]
        [1, 4, 8]
    """
    check_choice("group", group, ("none", "flips", "d4"))
    if group == "none":
        return (Symmetry(),)
    if group == "flips":
        axes = range(-dims, 0)
        sets = itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(dims + 1))
        return tuple(Symmetry(flipped=flipped) for flipped in sets)
    if dims != 2:
        raise ValueError(f"group='d4' is the symmetry of a square, the image has {dims} spatial axes: use 'flips'")
    return tuple(Symmetry(turns=turns, flipped=flipped) for flipped in ((), (-1,)) for turns in range(4))


@final
@dataclass(frozen=True, kw_only=True)
class TestTimeAugmentation(Inferer):
    """Mean of the probabilities over a group of symmetries, each prediction mapped back exactly, and over scales.

    Attributes:
        inferer: how each transformed image is predicted.
        group: ``"none"``, ``"flips"`` or ``"d4"``; see ``symmetries``.
        scales: magnifications at which the image is predicted under each symmetry, above 0; 1 is the image itself,
            without resampling. Image and probabilities are resampled linearly.

    Raises:
        ValueError: if the group is unknown, or there is no scale, or one is not above 0.

    Example:
        >>> from neurotrain.inference.inferer import FullImage
        >>> infer = TestTimeAugmentation(inferer=FullImage())
        >>> image = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(1, 1, 8, 8)
        >>> torch.equal(infer(lambda x: x, image), image)
        True

    Reference:
        Wang et al., 2019 (doi:10.1016/j.neucom.2019.01.103), section 3.2.
    """

    # Keeps pytest from taking the class for a test because of its name.
    __test__: ClassVar[bool] = False

    inferer: Inferer
    group: Literal["none", "flips", "d4"] = "d4"
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse an unknown group or an impossible scale."""
        check_choice("group", self.group, ("none", "flips", "d4"))
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales={self.scales}: expected at least one magnification, each above 0")

    def __call__(self, predictor: Predictor, image: Tensor) -> Tensor:
        """Predict every pixel; see ``Inferer``. The mean is in float32 at least.

        Raises:
            ValueError: if ``group="d4"`` and the image is a volume.
        """
        elements = symmetries(self.group, dims=image.ndim - 2)
        total: Tensor | None = None
        for scale in self.scales:
            scaled = image if scale == 1 else _resampled(image, [max(1, round(n * scale)) for n in image.shape[2:]])
            for symmetry in elements:
                predicted = symmetry.undo(self.inferer(predictor, symmetry.apply(scaled)))
                # Half-precision sums would round the mean away.
                predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
                predicted = predicted if scale == 1 else _resampled(predicted, list(image.shape[2:]))
                total = predicted if total is None else total + predicted
        assert total is not None, "every group has the identity"
        return total / (len(elements) * len(self.scales))


def _resampled(x: Tensor, size: list[int]) -> Tensor:
    """Resample ``(B, C, *spatial)`` linearly; averaging where it shrinks, in 2-D, where torch can."""
    if x.ndim == 4:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
    return functional.interpolate(x, size=size, mode="trilinear", align_corners=False)
