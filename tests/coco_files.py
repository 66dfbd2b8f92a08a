"""A tiny data set in COCO's official layout: coloured rectangles, sparse numbers, a crowd, an image without objects."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 90, "name": "blue"}, {"id": 3, "name": "red"}, {"id": 18, "name": "green"}]
COLOURS = {3: (220, 30, 30), 18: (30, 200, 30), 90: (30, 30, 220)}
LABELS = {3: 0, 18: 1, 90: 2}
WIDTH, HEIGHT = 64, 48


def rectangle(number: int, image: int, category: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    """An annotation whose polygon is its box."""
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }


def crowd(number: int, image: int, category: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    """An annotation of a crowd, run-length encoded as COCO's are: not compressed."""
    x, y, w, h = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 1
    flat = np.concatenate([[0], mask.flatten(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    encoded = {"size": [HEIGHT, WIDTH], "counts": counts}
    box_of_floats = (float(x), float(y), float(w), float(h))
    return {**rectangle(number, image, category, box_of_floats), "iscrowd": 1, "segmentation": encoded}


def annotations(first: int) -> list[dict[str, Any]]:
    """Of four images, from number ``first`` on in steps of 7; the third has none."""
    images = [first + 7 * place for place in range(4)]
    return [
        rectangle(501, images[0], 3, (6.0, 8.0, 20.0, 16.0)),
        rectangle(502, images[0], 90, (36.0, 20.0, 18.0, 22.0)),
        rectangle(503, images[1], 18, (12.0, 10.0, 24.0, 24.0)),
        crowd(504, images[1], 3, (40, 2, 20, 40)),
        rectangle(505, images[3], 3, (30.0, 6.0, 22.0, 18.0)),
        rectangle(506, images[3], 18, (4.0, 22.0, 18.0, 20.0)),
    ]


def instances(first: int) -> dict[str, Any]:
    """The content of ``instances_*.json``."""
    images = [
        {"id": first + 7 * place, "file_name": f"{first + 7 * place:06d}.png", "height": HEIGHT, "width": WIDTH}
        for place in (2, 0, 3, 1)
    ]
    return {"categories": CATEGORIES, "images": images, "annotations": annotations(first)}


def picture(objects: list[dict[str, Any]], seed: int) -> bytes:
    """Rectangles of their category's colour on grey noise, as PNG."""
    pixels = np.random.default_rng(seed).integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for one in objects:
        x, y, w, h = map(int, one["bbox"])
        pixels[y : y + h, x : x + w] = COLOURS[one["category_id"]]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_coco(root: Path) -> Path:
    """Write ``train2017`` and ``val2017``, four images each, with their annotations; returns the folder."""
    (root / "annotations").mkdir(parents=True)
    for split, first in (("train2017", 100), ("val2017", 900)):
        content = instances(first)
        (root / split).mkdir()
        for image in content["images"]:
            objects = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            (root / split / image["file_name"]).write_bytes(picture(objects, image["id"]))
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
