"""COCO's instances as they are published: one JSON file of categories, images and annotated objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypedDict

from neurotrain.batch import Category
from neurotrain.data.datasets.problems import LISTED, DatasetError
from neurotrain.documents import parse_json

_SECTIONS = ("images", "annotations", "categories")


class CocoObject(TypedDict):
    """One annotation, its category as a label.

    Attributes:
        id: of the annotation.
        label: place of its category among all, from 0.
        bbox: left, top, width, height in pixels, as annotated.
        area: in pixels, as annotated; of the box where the file does not say.
        iscrowd: 1 for a crowd.
        segmentation: polygons, a run-length encoding, or None.
    """

    id: int
    label: int
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoImage:
    """One image of the file, whether or not it has objects.

    Attributes:
        id: its number.
        file_name: below the folder of images.
        height: in pixels.
        width: in pixels.
        objects: number of its objects, crowds included.
        crowds: how many of them are crowds.
        empty: how many of them have a box without an area.
        text: the objects as JSON, a list of :class:`CocoObject`; small, and shared by forked workers.
    """

    id: int
    file_name: str
    height: int
    width: int
    objects: int
    crowds: int
    empty: int
    text: str


@dataclass(frozen=True, kw_only=True)
class CocoInstances:
    """A whole file.

    Attributes:
        categories: sorted by their numbers, which may have gaps; labels are places in this order.
        images: sorted by their numbers.
    """

    categories: tuple[Category, ...]
    images: tuple[CocoImage, ...]


def parse_instances(data: bytes, *, uri: str) -> CocoInstances:
    """Read ``instances_*.json``.

    Args:
        data: the whole file.
        uri: of it, for messages.

    Returns:
        Every image, those without annotations too, with its objects in the order of the annotations' numbers.

    Raises:
        DatasetError: if it is no such file, or lists everything that cannot be put together: numbers that appear twice,
            annotations of unknown images or categories, boxes that are not four finite numbers.

    Example:
        >>> text = '''{"categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        ...     "images": [{"id": 9, "file_name": "9.jpg", "height": 4, "width": 6}],
        ...     "annotations": [{"id": 1, "image_id": 9, "category_id": 18, "bbox": [0, 0, 2, 3]}]}'''
        >>> found = parse_instances(text.encode(), uri="toy.json")
        >>> found.categories
        (Category(id=3, name='car'), Category(id=18, name='dog'))
        >>> read_objects(found.images[0].text)[0]["label"]
        1
    """
    sections = _sections(data, uri)
    problems: list[str] = []
    categories = _categories(sections["categories"], problems)
    labels = {category.id: label for label, category in enumerate(categories)}
    images = _by_number(sections["images"], ("file_name", "height", "width"), "image", problems)
    problems += [f"image {number}: {problem}" for number, item in images.items() if (problem := _unsized(item))]
    found = _by_number(sections["annotations"], ("image_id", "category_id", "bbox"), "annotation", problems)
    objects: list[tuple[int, CocoObject]] = []
    for number, item in found.items():
        problem = _misplaced(item, images, labels) or _unmeasured(item)
        if problem:
            problems.append(f"annotation {number}: {problem}")
        else:
            objects.append((item["image_id"], _object(number, item, labels)))
    if problems:
        lines = [f"{uri}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *problems[:LISTED]]
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise DatasetError("\n  ".join([*lines, *more]))
    objects.sort(key=lambda pair: (pair[0], pair[1]["id"]))
    grouped = {image: [one for _, one in group] for image, group in groupby(objects, key=lambda pair: pair[0])}
    return CocoInstances(
        categories=categories,
        images=tuple(_image(number, images[number], grouped.get(number, [])) for number in sorted(images)),
    )


def read_objects(text: str) -> list[CocoObject]:
    """The objects of :attr:`CocoImage.text`."""
    return parse_json(text)


def flaws(objects: Sequence[CocoObject], *, height: int, width: int) -> list[str]:
    """What is wrong with the boxes of one image: those without an area, and those that reach outside of it.

    Evaluation takes boxes as they are annotated, as COCO's own does; training cuts them to the image and leaves out
    those of which nothing remains.

    Args:
        objects: of the image.
        height: of the image.
        width: of the image.

    Returns:
        A sentence for each such box. A pixel of overhang is rounding, and no flaw.

    Example:
        >>> one = CocoObject(id=7, label=0, bbox=[3.0, 2.0, 0.0, 5.0], area=0.0, iscrowd=0, segmentation=None)
        >>> flaws([one], height=8, width=8)
        ['annotation 7: the box [3.0, 2.0, 0.0, 5.0] has no area']
    """
    found: list[str] = []
    for one in objects:
        x, y, w, h = one["bbox"]
        if w <= 0 or h <= 0:
            found.append(f"annotation {one['id']}: the box {one['bbox']} has no area")
        elif min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            found.append(f"annotation {one['id']}: the box {one['bbox']} reaches out of {width} x {height} pixels")
    return found


def _sections(data: bytes, uri: str) -> Mapping[str, list[Any]]:
    try:
        content = parse_json(data)
    except ValueError as error:
        raise DatasetError(f"{uri}: is no JSON ({error})") from error
    found = content if isinstance(content, dict) else {}
    for name in _SECTIONS:
        if not isinstance(found.get(name), list):
            raise DatasetError(
                f"{uri}: has no list {name!r}; instances of COCO have {', '.join(_SECTIONS)}, "
                f"this has {', '.join(map(repr, found)) or 'no keys'}"
            )
    return found


def _categories(listed: Iterable[Any], problems: list[str]) -> tuple[Category, ...]:
    found = _by_number(listed, ("name",), "category", problems)
    categories = tuple(Category(number, str(found[number]["name"])) for number in sorted(found))
    names = [category.name for category in categories]
    problems += [f"category {name!r}: appears twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if not categories:
        problems.append("there is no category")
    return categories


def _by_number(listed: Iterable[Any], keys: Sequence[str], what: str, problems: list[str]) -> dict[int, dict[str, Any]]:
    """Entries by their ``id``; those that lack a key are told."""
    found: dict[int, dict[str, Any]] = {}
    for place, item in enumerate(listed):
        number = item.get("id") if isinstance(item, dict) else None
        if not isinstance(number, int):
            problems.append(f"{what} at place {place}: has no number 'id'")
        elif missing := [key for key in keys if key not in item]:
            problems.append(f"{what} {number}: lacks {', '.join(map(repr, missing))}")
        elif number in found:
            problems.append(f"{what} {number}: appears twice")
        else:
            found[number] = item
    return found


def _unsized(item: Mapping[str, Any]) -> str:
    sizes = (item["height"], item["width"])
    if all(isinstance(size, int) and size > 0 for size in sizes):
        return ""
    return f"height={sizes[0]!r}, width={sizes[1]!r} are no numbers of pixels"


def _misplaced(item: Mapping[str, Any], images: Mapping[int, Any], labels: Mapping[int, int]) -> str:
    if item["image_id"] not in images:
        return f"of image {item['image_id']}, which is not in the file"
    if item["category_id"] not in labels:
        return f"of category {item['category_id']}, which is not in the file"
    return ""


def _unmeasured(item: Mapping[str, Any]) -> str:
    box, area = item["bbox"], item.get("area", 0)
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(n, int | float) for n in box)
    if not numbers or not all(map(math.isfinite, box)):
        return f"the box {box} is not four finite numbers"
    if not isinstance(area, int | float) or not math.isfinite(area):
        return f"the area {area} is no finite number"
    return "" if item.get("iscrowd", 0) in (0, 1) else f"iscrowd={item['iscrowd']} is neither 0 nor 1"


def _object(number: int, item: Mapping[str, Any], labels: Mapping[int, int]) -> CocoObject:
    box = [float(value) for value in item["bbox"]]
    return {
        "id": number,
        "label": labels[item["category_id"]],
        "bbox": box,
        "area": float(item.get("area", box[2] * box[3])),
        "iscrowd": int(item.get("iscrowd", 0)),
        "segmentation": item.get("segmentation"),
    }


def _image(number: int, item: Mapping[str, Any], objects: list[CocoObject]) -> CocoImage:
    return CocoImage(
        id=number,
        file_name=str(item["file_name"]),
        height=item["height"],
        width=item["width"],
        objects=len(objects),
        crowds=sum(one["iscrowd"] for one in objects),
        empty=sum(min(one["bbox"][2:]) <= 0 for one in objects),
        text=json.dumps(objects, separators=(",", ":")),
    )
