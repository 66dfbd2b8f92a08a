"""Resolution, cropping, buckets and bounds of a backend as an image preparation of ours."""

from __future__ import annotations

from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.nodes import Node

RESOLUTIONS = ("pixel", "pixel_area", "area")
_CROPS = {"center": "centre", "centre": "centre", "random": "random", "corner": "corner"}
_BOUNDS = ("min_size", "min_area", "min_aspect", "max_aspect")


def preparation_of(backend: Backend) -> Node:
    """The preparation of a backend's images or clips; everything without a counterpart is told to its journal."""
    values = {**_resolution(backend), **_crop(backend), **_bounds(backend)}
    if backend.kind == "video" or backend.has("video"):
        return Node(group="data/preparation", name="VideoPreparation", values={**_clip(backend), **values})
    name = "AreaPreparation" if "min_area" in values else "ImagePreparation"
    return Node(group="data/preparation", name=name, values=values)


def is_screened(preparation: Node) -> bool:
    """Whether images may be left out for their size."""
    bounded = any(key in preparation.values for key in _BOUNDS)
    return bounded or preparation.values.get("max_upscale") is not None


def _resolution(backend: Backend) -> dict[str, Any]:
    kind, size = backend.option("resolution_type"), backend.option("resolution")
    if kind not in RESOLUTIONS:
        backend.refuse("resolution_type", f"{kind!r}: one of {', '.join(map(repr, RESOLUTIONS))}; or --set it")
        kind = "pixel"
    try:
        number = float(size)
    except (TypeError, ValueError):
        backend.refuse("resolution", f"{size!r}: expected a number; or --set resolution=NUMBER")
        number = 1.0 if kind == "area" else 512.0
    return {"resolution": int(number) if number.is_integer() and kind != "area" else number, "resolution_type": kind}


def _crop(backend: Backend) -> dict[str, Any]:
    keys = ("crop_style", "crop_aspect", "crop_aspect_buckets")
    if "crop" not in backend.values:
        backend.note("crop", "not given: taken as false, images keep their aspects")
    if not backend.flag("crop"):
        for key in keys:
            if backend.has(key):
                backend.note(key, "has no effect without crop=true")
            backend.option(key)
        return {"aspect": "preserve"}
    style = backend.choice("crop_style", ("random", "center", "corner", "face"), None)
    aspect = backend.choice("crop_aspect", ("square", "preserve", "closest", "random"), "square")
    if "crop_style" not in backend.values:
        backend.refuse("crop_style", "not given: say 'center', 'random' or 'corner'")
    if style == "face":
        backend.refuse("crop_style", "'face': faces are not looked for; one of 'center', 'random', 'corner'")
    if aspect == "random":
        backend.refuse("crop_aspect", "'random': an image has one target; one of 'square', 'preserve', 'closest'")
    values: dict[str, Any] = {
        "crop": _CROPS.get(style, "centre"),
        "aspect": "buckets" if aspect == "closest" else aspect,
    }
    buckets = backend.option("crop_aspect_buckets")
    if aspect == "closest":
        if not isinstance(buckets, list) or not all(isinstance(one, int | float) for one in buckets) or not buckets:
            backend.refuse("crop_aspect_buckets", f"{buckets!r}: crop_aspect='closest' needs a list like [1.0, 0.75]")
        else:
            values["aspect_buckets"] = [float(one) for one in buckets]
    elif buckets:
        backend.note("crop_aspect_buckets", f"has no effect with crop_aspect={aspect!r}")
    return values if values["aspect"] in ("square", "buckets") else {"crop": values["crop"], "aspect": "preserve"}


def _bounds(backend: Backend) -> dict[str, Any]:
    values: dict[str, Any] = {}
    smallest, kind = backend.option("minimum_image_size"), backend.option("resolution_type")
    if smallest not in (None, 0) and not isinstance(smallest, int | float):
        backend.refuse("minimum_image_size", f"{smallest!r}: expected a number")
    elif smallest:
        if kind == "pixel":
            values["min_size"] = int(smallest)
        else:
            values["min_area"] = float(smallest) if kind == "area" else smallest**2 / 1e6
    for theirs, ours in (("minimum_aspect_ratio", "min_aspect"), ("maximum_aspect_ratio", "max_aspect")):
        bound = backend.number(theirs)
        if bound is not None:
            values[ours] = bound
    threshold = backend.number("max_upscale_threshold")
    values["max_upscale"] = None if threshold is None else 1 + threshold
    for key in ("maximum_image_size", "target_downsample_size"):
        if backend.option(key):
            backend.note(
                key,
                "has no effect here: an image is always scaled until it just covers its target, then cut; there a "
                "large one may be cut without being scaled, or be scaled to another size first",
            )
    return values


def _clip(backend: Backend) -> dict[str, Any]:
    block = dict(backend.block("video"))
    frames, least = block.pop("num_frames", None), block.pop("min_frames", None)
    if not isinstance(frames, int):
        backend.refuse("video.num_frames", f"{frames!r}: say how many frames are trained on")
        frames = 1
    if least is not None and least > frames:
        backend.refuse("video.min_frames", f"{least}: videos are left out below num_frames={frames}, no other bound")
    if block.pop("bucket_strategy", "aspect_ratio") != "aspect_ratio":
        backend.refuse("video.bucket_strategy", "every clip has num_frames frames; only 'aspect_ratio'")
    if block.pop("is_i2v", None) is not None:
        backend.note("video.is_i2v", "has no effect here: it is about training")
    for key, value in block.items():
        if value is not None:
            backend.refuse(f"video.{key}", f"{value!r} has no counterpart; num_frames and min_frames have")
    return {"frames": frames}
