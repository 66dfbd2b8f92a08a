"""What ``stage=predict`` reads, and how its results are laid back over the images as they are on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.batch import SegmentationSample
from neurotrain.data.datasets.base import Record
from neurotrain.data.datasets.decoding import EXTENSIONS, image_size
from neurotrain.data.datasets.problems import DatasetError, Problem
from neurotrain.data.transforms import Transform

Placement = Literal["padded", "scaled"]
"""How an image lies in its transformed self: in the first corner, or stretched over all of it."""


def find_images(source: str) -> tuple[Record, ...]:
    """Find the images to predict: their headers are read, their pixels are not.

    Args:
        source: a folder (looked at without its subfolders), a glob (``photos/**/*.tif``) or one image; ``~`` is the
            home folder. In folders and globs, hidden files and those without an image's ending are left out.

    Returns:
        At least one record without labels, sorted by id; the id is the file's name without its ending.

    Raises:
        DatasetError: if nothing is found; or lists files of one id and files that are no image.
        ValueError: if ``source`` is empty or no valid glob.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.tif"):
        ...         Image.new("RGB", (8, 6)).save(Path(folder, name))
        ...     [record.id for record in find_images(folder)]
        ['a', 'b']
    """
    files = _files(source)
    records: dict[str, Record] = {}
    problems: list[Problem] = []
    for file in sorted(files):
        key = _unpacked(file).stem
        if key in records:
            detail = f"would be predicted as {key!r}, and so would {records[key].image}"
            problems.append(Problem(kind="duplicate", path=file, detail=detail))
        records.setdefault(key, Record(id=key, image=file))
        try:
            image_size(file)
        except DatasetError as error:
            problems += error.problems
    if problems:
        raise DatasetError.listing(f"source={source}", problems)
    return tuple(sorted(records.values(), key=lambda record: record.id))


def placement(sample: SegmentationSample, steps: Sequence[Transform]) -> Placement:
    """How ``steps`` move the pixels of an image.

    Every pixel's number is sent through them as its label: labels are only ever taken from the nearest pixel.

    Args:
        sample: an image as it is on disk; its mask is not read.
        steps: deterministic transforms.

    Returns:
        ``padded`` where the whole image lies in the first corner, ``scaled`` where it is stretched over everything.

    Raises:
        ValueError: if it is neither (a crop, a turn): what is computed there does not cover the image.
    """
    height, width = sample["valid"].shape
    numbers = torch.arange(1, height * width + 1).reshape(height, width)  # 0 is what padding has
    moved: SegmentationSample = {**sample, "mask": numbers}
    for step in steps:
        moved = step(moved, torch.Generator())
    found = moved["mask"]
    if torch.equal(found[:height, :width], numbers):
        return "padded"
    rows, columns = (_nearest(new, old) for new, old in zip(found.shape, (height, width), strict=True))
    if torch.equal(found, numbers[rows[:, None], columns]):
        return "scaled"
    raise ValueError(
        f"eval_transform turns {sample['id']!r} of {height} x {width} pixels into {found.shape[0]} x {found.shape[1]} "
        "and does not keep all of it in place: predictions would not lie over the image; use Identity, Resize or "
        "PadToMultiple"
    )


def laid_back(part: Tensor, *, size: tuple[int, int], placed: Placement) -> Tensor:
    """Undo a placement.

    Args:
        part: float (interpolated where scaled) or bool (nearest pixel) ``(..., h, w)``.
        size: height and width of the image on disk.
        placed: from :func:`placement`.

    Returns:
        ``(..., H, W)`` of the same type.

    Example:
        >>> laid_back(torch.tensor([[True, False]]), size=(1, 4), placed="scaled")
        tensor([[ True,  True, False, False]])
    """
    if placed == "padded":
        return part[..., : size[0], : size[1]]
    if not part.is_floating_point():
        rows, columns = (_nearest(new, old) for new, old in zip(size, part.shape[-2:], strict=True))
        return part[..., rows[:, None], columns]
    flat = part.reshape(1, -1, *part.shape[-2:])
    scaled = functional.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    return scaled.reshape(*part.shape[:-2], *size)


def _files(source: str) -> list[Path]:
    if not source.strip():
        raise ValueError(f"source={source!r}: expected a folder, a glob or one image")
    path = Path(source).expanduser()
    if path.is_dir():
        found, kind = [file for file in path.iterdir() if _is_image(file)], "folder"
    elif path.exists():
        return [path]
    elif any(mark in source for mark in "*?["):
        start = Path(path.anchor)
        found, kind = [file for file in start.glob(str(path.relative_to(start))) if _is_image(file)], "glob"
    else:
        raise DatasetError.single("missing", path, f"no such folder or image (source={source})")
    if not found:
        raise DatasetError.single("missing", path, f"no image in this {kind} (source={source})")
    return found


def is_image_name(name: str) -> bool:
    """Whether a file of that name is an image, and not hidden."""
    return not name.startswith(".") and _unpacked(Path(name)).suffix.lower() in EXTENSIONS


def _is_image(file: Path) -> bool:
    return file.is_file() and is_image_name(file.name)


def _unpacked(file: Path) -> Path:
    """The name without ``.gz``, which a reader unpacks."""
    return file.with_suffix("") if file.suffix.lower() == ".gz" else file


def _nearest(new: int, old: int) -> Tensor:
    """Which of ``old`` pixels is nearest to the centre of each of ``new`` ones, as ``Resize`` takes labels."""
    return ((torch.arange(new) + 0.5) * (old / new)).long().clamp_(max=old - 1)
