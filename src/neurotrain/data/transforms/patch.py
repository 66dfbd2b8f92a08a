"""Random patches with all of their geometry in one resampling, of which only the patch is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.transforms.base import Transform
from neurotrain.data.transforms.draws import check_probability
from neurotrain.data.transforms.geometry import check_2d, height_width, spatially

_TRIES = 64


class RandomPatch(Transform):
    """Cuts a patch around a random valid pixel and flips, turns, scales, shears and bends it.

    The centre is uniform over the valid pixels. With ``affine_probability`` the patch is sampled once, through the
    whole composed map (bilinear; labels and validity nearest): patch coordinate ``p`` reads the image at
    ``centre + R(angle) U p + elastic(p)`` with ``U = [[1 / scale_y, 0], [tan(shear), 1 / scale_x]] F``, ``F`` a random
    mirror. Otherwise it is an exact crop, moved into the image where it would stick out, under one of the eight exact
    symmetries of the square: not a single value is interpolated.

    Args:
        size: height and width of the patch, or its one side, in pixels.
        affine_probability: share of patches that are resampled.
        rotate: largest angle, in degrees; uniform in both directions.
        scale: range of the magnification of each axis, drawn log-uniformly; above 1 makes things larger.
        shear: largest shear angle, in degrees; uniform in both directions.
        elastic_sigma: standard deviation of the displacement at the nodes of a coarse grid, in pixels, between which
            it is interpolated bicubically; 0 leaves it out.
        elastic_spacing: distance of those nodes, in pixels.
        flip: whether mirrored patches occur.
        foreground_probability: share of patches whose centre is a valid pixel of a label above 0, if there is one.

    Raises:
        ValueError: if a number is out of range, or elastic is asked for with ``affine_probability=0``.

    Reference:
        The resampling follows Ronneberger et al., 2015 (arXiv:1505.04597), section 3.1 (random displacements on a
        coarse grid with bicubic interpolation).

    Example:
        >>> image, valid = torch.rand(3, 40, 50), torch.ones(40, 50, dtype=torch.bool)
        >>> sample = SegmentationSample(image=image, mask=valid.long(), valid=valid, id="a", source="toy")
        >>> patch = RandomPatch(size=(16, 24))(sample, torch.Generator().manual_seed(0))
        >>> patch["image"].shape, patch["mask"].shape
        (torch.Size([3, 16, 24]), torch.Size([16, 24]))
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 128,
        affine_probability: float = 0.5,
        rotate: float = 180.0,
        scale: tuple[float, float] = (0.78, 1.28),
        shear: float = 6.0,
        elastic_sigma: float = 0.0,
        elastic_spacing: int = 32,
        flip: bool = True,
        foreground_probability: float = 0.0,
    ) -> None:
        self._affine_probability = check_probability("affine_probability", affine_probability)
        self._foreground_probability = check_probability("foreground_probability", foreground_probability)
        if not 0 <= rotate <= 180 or not 0 <= shear < 90:
            raise ValueError(f"rotate={rotate}, shear={shear}: need angles in [0, 180] and [0, 90) degrees")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale={scale}: need 0 < low <= high")
        if elastic_sigma < 0 or elastic_spacing < 1:
            raise ValueError(
                f"elastic_sigma={elastic_sigma}, elastic_spacing={elastic_spacing}: need at least 0 and 1 pixels"
            )
        if elastic_sigma > 0 and affine_probability == 0:
            raise ValueError(f"elastic_sigma={elastic_sigma} has no effect with affine_probability=0")
        self._height, self._width = height_width(size)
        self._rotate, self._shear = math.radians(rotate), math.radians(shear)
        self._log_scale = (math.log(scale[0]), math.log(scale[1]))
        self._elastic_sigma, self._elastic_spacing = elastic_sigma, elastic_spacing
        self._flip = flip
        self._grid_2HW = _pixel_offsets(self._height, self._width)

    def __call__(self, sample: SegmentationSample, generator: torch.Generator) -> SegmentationSample:
        """Draw a patch.

        Raises:
            ValueError: if the image is not 2-D, or has no valid pixel.
        """
        check_2d(sample)
        foreground, affine = torch.rand(2, generator=generator).tolist()
        centre = self._draw_centre(sample, generator, foreground=foreground < self._foreground_probability)
        if affine < self._affine_probability:
            return _resample(sample, self._draw_map(centre, generator))
        return self._draw_crop(sample, centre, generator)

    def _draw_centre(
        self, sample: SegmentationSample, generator: torch.Generator, *, foreground: bool
    ) -> tuple[int, int]:
        valid = sample["valid"]
        if foreground:
            mask = sample["mask"]
            labelled = (mask > 0).any(0) if mask.ndim > valid.ndim else mask > 0
            found = draw_pixel(labelled & valid, generator)
            if found is not None:
                return found
        found = draw_pixel(valid, generator)
        if found is None:
            raise ValueError(f"{sample['id']!r} of {sample['source']!r} has no valid pixel to cut a patch around")
        return found

    def _draw_map(self, centre: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Rows and columns of the image that the patch reads, float32 ``(2, H, W)``."""
        turn, scale_y, scale_x, lean, mirror = torch.rand(5, generator=generator).tolist()
        low, high = self._log_scale
        angle, shear = (2 * turn - 1) * self._rotate, math.tan((2 * lean - 1) * self._shear)
        step_y, step_x = (math.exp(-(low + (high - low) * draw)) for draw in (scale_y, scale_x))
        sign = -1.0 if self._flip and mirror < 0.5 else 1.0
        sine, cosine = math.sin(angle), math.cos(angle)
        rows, columns = self._grid_2HW
        stretched_rows, stretched_columns = step_y * rows, (sign * step_x) * columns + shear * rows
        map_2HW = torch.stack(
            [
                torch.add(cosine * stretched_rows, stretched_columns, alpha=sine).add_(centre[0]),
                torch.add(cosine * stretched_columns, stretched_rows, alpha=-sine).add_(centre[1]),
            ]
        )
        return map_2HW if self._elastic_sigma == 0 else map_2HW.add_(self._draw_elastic(generator))

    def _draw_elastic(self, generator: torch.Generator) -> Tensor:
        nodes = [math.ceil(extent / self._elastic_spacing) + 1 for extent in (self._height, self._width)]
        coarse = torch.randn(1, 2, *nodes, generator=generator) * self._elastic_sigma
        fine = functional.interpolate(coarse, size=(self._height, self._width), mode="bicubic", align_corners=True)
        return fine[0]

    def _draw_crop(
        self, sample: SegmentationSample, centre: tuple[int, int], generator: torch.Generator
    ) -> SegmentationSample:
        symmetry = int(torch.randint(8 if self._flip else 4, (), generator=generator))
        turns, mirrored = symmetry % 4, symmetry >= 4
        height, width = (self._height, self._width) if turns % 2 == 0 else (self._width, self._height)
        crop = _crop(sample, centre, height, width)
        if turns:
            crop = spatially(crop, lambda part: torch.rot90(part, turns, (-2, -1)))
        return spatially(crop, lambda part: part.flip(-1)) if mirrored else crop


def draw_pixel(where: Tensor, generator: torch.Generator) -> tuple[int, int] | None:
    """Draw one of the True pixels, all equally probable.

    Rejection first, which costs microseconds where listing all pixels costs a millisecond; the list when it fails.

    Args:
        where: bool ``(H, W)``.
        generator: source of randomness.

    Returns:
        Row and column; None where nothing is True.
    """
    height, width = where.shape
    tries = torch.randint(height * width, (_TRIES,), generator=generator)
    rows, columns = tries // width, tries % width
    hits = where[rows, columns].nonzero()
    if len(hits):
        first = int(hits[0])
        return int(rows[first]), int(columns[first])
    pixels = where.nonzero()
    if not len(pixels):
        return None
    row, column = pixels[int(torch.randint(len(pixels), (), generator=generator))].tolist()
    return row, column


def _pixel_offsets(height: int, width: int) -> Tensor:
    """Offsets from the central pixel, ``(2, H, W)``: whole numbers, so that the plain map interpolates nothing."""
    rows = torch.arange(height, dtype=torch.float32) - height // 2
    columns = torch.arange(width, dtype=torch.float32) - width // 2
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def _resample(sample: SegmentationSample, map_2HW: Tensor) -> SegmentationSample:
    shape = sample["valid"].shape
    # Only the part of the image under the patch, with the neighbours that bilinear weights reach.
    low = [math.floor(value) for value in map_2HW.amin((1, 2)).tolist()]
    high = [math.floor(value) + 2 for value in map_2HW.amax((1, 2)).tolist()]
    starts = [min(max(first, 0), extent - 1) for first, extent in zip(low, shape, strict=True)]
    stops = [max(min(last, extent), start + 1) for last, extent, start in zip(high, shape, starts, strict=True)]
    window = sample["image"][:, starts[0] : stops[0], starts[1] : stops[1]]
    # Pixel i lies at (2 i + 1) / n - 1 in grid_sample's coordinates.
    grid = [(map_2HW[axis] - (starts[axis] - 0.5)) * (2 / (stops[axis] - starts[axis])) - 1 for axis in (1, 0)]
    image = functional.grid_sample(window[None], torch.stack(grid, dim=-1)[None], align_corners=False)[0]
    rows, columns = torch.floor(map_2HW + 0.5).long()
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    rows, columns = rows.clamp(0, shape[0] - 1), columns.clamp(0, shape[1] - 1)
    mask = sample["mask"][..., rows, columns].masked_fill_(~inside, 0)
    return {**sample, "image": image, "mask": mask, "valid": sample["valid"][rows, columns] & inside}


def _crop(sample: SegmentationSample, centre: tuple[int, int], height: int, width: int) -> SegmentationSample:
    windows: list[slice] = []
    widths: list[int] = []
    for middle, extent, wanted in zip(centre, sample["valid"].shape, (height, width), strict=True):
        start = min(max(middle - wanted // 2, 0), max(extent - wanted, 0))
        windows.append(slice(start, start + wanted))
        missing = max(wanted - extent, 0)
        widths = [missing // 2, missing - missing // 2, *widths]  # F.pad counts axes from the last one
    crop = spatially(sample, lambda part: part[(..., *windows)])
    return spatially(crop, lambda part: functional.pad(part, widths)) if any(widths) else crop
