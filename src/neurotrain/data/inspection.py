"""Looking at data without training: does everything decode, what is there, what does a batch look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurotrain.data.engine import is_mistake
from neurotrain.data.index.parallel import read_parallel
from neurotrain.data.parts import Part, naming
from neurotrain.data.planned_module import EvaluationSplit, PlannedDataModule, check_at_least
from neurotrain.data.weighted import WeightedCombinedLoader

LISTED = 10
_SPLITS: tuple[EvaluationSplit, ...] = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class BrokenSample:
    """One entry that cannot be read or decoded.

    Attributes:
        id: of the entry.
        uri: where it lies.
        reason: type and text of the error.
    """

    id: str
    uri: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What is known of one part.

    Attributes:
        split: ``train``, ``validation`` or ``test``.
        source: its name.
        count: entries.
        figures: of :func:`stats`, plain values.
        broken: of :func:`verify`.
    """

    split: str
    source: str
    count: int
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    broken: tuple[BrokenSample, ...] = ()

    def __str__(self) -> str:
        """One line, then a line a figure and the first broken entries."""
        lines = [f"{self.split} {self.source}: {self.count} entries"]
        lines += [f"  {name}: {value}" for name, value in self.figures.items()]
        lines += [f"  broken: {one.id} ({one.uri}): {one.reason}" for one in self.broken[:LISTED]]
        if len(self.broken) > LISTED:
            lines.append(f"  ... and {len(self.broken) - LISTED} more")
        return "\n".join(lines)


def parts_of(module: PlannedDataModule) -> Iterator[tuple[str, Part[Any]]]:
    """Set up every split of a data module and yield its parts with the split's name."""
    yield from (("train", part) for part in module.training().parts)
    for split in _SPLITS:
        yield from ((split, part) for part in module.evaluation(split).parts)


def scan(module: PlannedDataModule) -> list[PartReport]:
    """Find or build every index, decoding nothing.

    Args:
        module: any data module over sources.

    Returns:
        A report a part: count, bytes and what the index knows.
    """
    return [
        PartReport(split=split, source=part.name, count=len(part), figures=_known(part.table()))
        for split, part in parts_of(module)
    ]


def verify(module: PlannedDataModule, *, threads: int = 8) -> list[PartReport]:
    """Read and decode every entry of every split.

    Args:
        module: any data module over sources.
        threads: entries that are read at once.

    Returns:
        A report a part, with everything that is broken.
    """
    return [
        PartReport(split=split, source=part.name, count=len(part), broken=tuple(_broken(part, threads)))
        for split, part in parts_of(module)
    ]


def stats(module: PlannedDataModule, *, threads: int = 8) -> list[PartReport]:
    """Figures of decoded samples: sizes, mean and deviation of the intensities, labels, captions.

    Args:
        module: any data module over sources.
        threads: entries that are read at once.

    Returns:
        A report a part.

    Raises:
        SampleError: at the first entry that cannot be decoded: verify first.
    """
    reports: list[PartReport] = []
    for split, part in parts_of(module):
        moments, sizes, labels = _Moments(), Counter[str](), Counter[int]()
        for sample in _samples(part, threads):
            moments.add(sample.get("image"))
            sizes.update([_size(sample.get("image"))])
            labels.update(_labels(sample))
        figures = {**_known(part.table()), **moments.figures(), "sizes": dict(sizes.most_common(LISTED))}
        if labels:
            figures["labels"] = dict(sorted(labels.items()))
        reports.append(PartReport(split=split, source=part.name, count=len(part), figures=figures))
    return reports


def preview(module: PlannedDataModule, path: Path, *, count: int = 16) -> list[str]:
    """Draw what the network will see: the first training samples after all transforms, masks beside their images.

    Args:
        module: any data module over sources with an ``image``.
        path: PNG to write.
        count: samples to draw.

    Returns:
        ``source/id`` of each, in reading order.

    Raises:
        ValueError: if ``count`` is below 1.
    """
    from PIL import Image

    check_at_least(1, count=count)
    rows: list[NDArray[np.uint8]] = []
    names: list[str] = []
    loader = module.train_dataloader()
    for batch in cast("Iterable[Any]", loader.loader if isinstance(loader, WeightedCombinedLoader) else loader):
        for row in range(len(batch["id"])):
            tiles = [_tile(batch["image"][row])]
            if "boxes" in batch:
                tiles = [_boxed(tiles[0], batch["boxes"][row])]
            if isinstance(mask := batch.get("mask"), Tensor):
                tiles.append(_mask_tile(mask[row]))
            rows.append(np.concatenate(tiles, axis=1))
            names.append(f"{batch['source'][row]}/{batch['id'][row]}")
        if len(rows) >= count:
            break
    module.teardown("fit")
    Image.fromarray(_sheet(rows[:count])).save(path, format="PNG")
    return names[:count]


def _known(table: pa.Table) -> dict[str, Any]:
    """What an index says in its columns."""
    figures: dict[str, Any] = {}
    if "size" in table.column_names:
        figures["bytes"] = _computed("sum", table["size"])
    for name in ("width", "height", "frames"):
        if name in table.column_names:
            bounds = _computed("min_max", table[name])
            figures[name] = f"{bounds['min']} to {bounds['max']}"
    for name in ("label", "split"):
        if name in table.column_names:
            counts = pc.call_function("value_counts", [table[name]]).to_pylist()
            figures[f"{name}s in the index"] = {entry["values"]: entry["counts"] for entry in counts[:LISTED]}
    if "caption" in table.column_names:
        lengths = pc.call_function("utf8_length", [table["caption"]])
        figures["characters a caption"] = round(_computed("mean", lengths) or 0.0, 1)
    return figures


def _computed(function: str, column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - a plain value
    return pc.call_function(function, [column]).as_py()


def _broken(part: Part[Any], threads: int) -> Iterator[BrokenSample]:
    def look(index: int) -> BrokenSample | None:
        try:
            part.check(index, torch.Generator().manual_seed(index))
        except Exception as error:
            if is_mistake(error):
                raise
            name = part.identify(index)
            return BrokenSample(id=name.id, uri=name.uri, reason=f"{type(error).__name__}: {error}")
        return None

    found = read_parallel(look, range(len(part)), threads=threads, label=f"verify {part.name}")
    yield from (one for one in found if one is not None)


def _samples(part: Part[Any], threads: int) -> Iterator[Mapping[str, Any]]:
    def read(index: int) -> Mapping[str, Any]:
        with naming(part, index):
            return part.read(index, torch.Generator().manual_seed(index))

    yield from read_parallel(read, range(len(part)), threads=threads, label=f"read {part.name}")


class _Moments:
    """Mean and deviation over all pixels, channel by channel, in double precision."""

    def __init__(self) -> None:
        self.count, self.sum, self.square = 0, torch.zeros(0), torch.zeros(0)

    def add(self, image: Tensor | None) -> None:
        """One image ``(C, *spatial)``."""
        if image is None:
            return
        flat = image.double().flatten(1)
        if not self.count:
            self.sum, self.square = torch.zeros(len(flat)).double(), torch.zeros(len(flat)).double()
        if len(flat) != len(self.sum):
            raise ValueError(f"images of {len(self.sum)} and of {len(flat)} channels in one source")
        self.count += flat.shape[1]
        self.sum += flat.sum(1)
        self.square += flat.square().sum(1)

    def figures(self) -> dict[str, list[float]]:
        """``mean`` and ``deviation`` of each channel."""
        if not self.count:
            return {}
        mean = self.sum / self.count
        deviation = (self.square / self.count - mean.square()).clamp(min=0).sqrt()
        return {"mean": [round(v, 5) for v in mean.tolist()], "deviation": [round(v, 5) for v in deviation.tolist()]}


def _size(image: Tensor | None) -> str:
    return "none" if image is None else "x".join(map(str, image.shape))


def _labels(sample: Mapping[str, Any]) -> Mapping[int, int]:
    """Labels of one sample: its class, its objects of each class, or the pixels of each class that count."""
    label, mask = sample.get("label"), sample.get("mask")
    if isinstance(label, int):
        return {label: 1}
    if isinstance(objects := sample.get("labels"), Tensor):
        values, counts = objects.unique(return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    if not isinstance(mask, Tensor):
        return {}
    valid = sample.get("valid")
    counted = mask[..., valid] if isinstance(valid, Tensor) else mask
    values, counts = counted.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _tile(image: Tensor) -> NDArray[np.uint8]:
    """An image as it looks, whatever its range: stretched between its own extremes unless it is uint8."""
    if image.dtype != torch.uint8:
        low, high = image.amin(), image.amax()
        image = ((image - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
    pixels = image[:3] if image.shape[0] >= 3 else image[:1].repeat(3, 1, 1)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _boxed(tile: NDArray[np.uint8], boxes: Tensor) -> NDArray[np.uint8]:
    """The tile with a frame around each object."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(tile)
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in boxes.tolist():
        if right > left and bottom > top:
            draw.rectangle((left, top, right, bottom), outline=(255, 64, 0), width=2)
    return np.array(picture)


def _mask_tile(mask: Tensor) -> NDArray[np.uint8]:
    """Labels as grey levels; of a multilabel mask, where any label is."""
    flat = mask.amax(0) if mask.ndim == 3 else mask
    grey = (flat * (255 // max(int(flat.max()), 1))).to(torch.uint8)
    return np.repeat(grey.numpy()[..., None], 3, axis=2)


def _sheet(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Tiles in a near-square grid on black; smaller ones in their upper left corner."""
    columns = max(int(np.ceil(np.sqrt(len(tiles) / 2))), 1)
    height, width = (max(tile.shape[axis] for tile in tiles) + 2 for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * height, number % columns * width
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet
