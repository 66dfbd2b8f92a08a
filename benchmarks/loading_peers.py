"""Other loaders at the same work: three sources by weight, batches of 64, two workers, each as its documents have it.

Every function yields batches for ever; closing the generator ends its workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from loading_data import NAMES, WEIGHTS, Photos, read_file
from PIL import Image
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

BATCH = 64
WORKERS = 2


class Files(Dataset[tuple[torch.Tensor, str]]):
    """Photos by path.

    Args:
        paths: of the files.
        decoder: ``PIL`` or ``simplejpeg``.
    """

    def __init__(self, paths: list[str], decoder: str) -> None:
        self._paths = paths
        self._decoder = decoder

    def __len__(self) -> int:
        """Files."""
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        """Pixels and path."""
        path = self._paths[index]
        if self._decoder == "simplejpeg":
            return torch.from_numpy(simplejpeg.decode_jpeg(read_file(path))), path
        return torch.from_numpy(pil_pixels(path)), path


def pil_pixels(path: str) -> np.ndarray:
    """Decoded by PIL, in memory that may be written to."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def torch_loader(photos: Photos, decoder: str) -> Iterator[Any]:
    """DataLoader over all files with a WeightedRandomSampler."""
    weights = [w / len(paths) for w, paths in zip(WEIGHTS, photos.paths, strict=True) for _ in paths]
    sampler = WeightedRandomSampler(weights, num_samples=len(weights))
    files = Files(photos.all, decoder)
    loader = DataLoader(files, BATCH, sampler=sampler, num_workers=WORKERS, persistent_workers=True, drop_last=True)
    while True:
        yield from loader


def combined_loader(photos: Photos) -> Iterator[Any]:
    """Lightning's CombinedLoader over one DataLoader a source, with a fixed part of the batch each: three workers."""
    from lightning.pytorch.utilities import CombinedLoader

    parts = [round(BATCH * weight) for weight in WEIGHTS]
    loaders = {
        name: DataLoader(
            Files(list(paths), "PIL"), part, shuffle=True, num_workers=1, persistent_workers=True, drop_last=True
        )
        for name, paths, part in zip(NAMES, photos.paths, parts, strict=True)
    }
    while True:
        for batch, _, _ in CombinedLoader(loaders, "max_size_cycle"):
            yield [torch.cat([images for images, _ in batch.values()])]


class _LoadBatch:
    def __init__(self, paths: list[str]) -> None:
        self._files = Files(paths, "PIL")

    def __call__(self, indices: list[int]) -> Any:  # noqa: ANN401 - a collated batch
        return torch.utils.data.default_collate([self._files[index] for index in indices])


def torchdata_nodes(photos: Photos) -> Iterator[Any]:
    """MultiNodeWeightedSampler, Batcher and ParallelMapper of processes."""
    from torchdata.nodes import Batcher, Loader, MultiNodeWeightedSampler, ParallelMapper, SamplerWrapper
    from torchdata.nodes.samplers.stop_criteria import StopCriteria

    starts = np.cumsum([0, *map(len, photos.paths)])
    nodes = {
        name: SamplerWrapper(_Shifted(len(paths), int(start)))
        for name, paths, start in zip(NAMES, photos.paths, starts, strict=False)
    }
    mixed = MultiNodeWeightedSampler(
        nodes, dict(zip(NAMES, WEIGHTS, strict=True)), stop_criteria=StopCriteria.CYCLE_FOREVER
    )
    loaded = ParallelMapper(
        Batcher(mixed, BATCH),
        _LoadBatch(photos.all),
        num_workers=WORKERS,
        method="process",
        max_concurrent=WORKERS,
        multiprocessing_context="fork",
    )
    yield from Loader(loaded)


class _Shifted(torch.utils.data.Sampler[int]):
    def __init__(self, length: int, start: int) -> None:
        self._length, self._start = length, start

    def __iter__(self) -> Iterator[int]:
        return iter((torch.randperm(self._length) + self._start).tolist())


def _photo_record(path: str) -> dict[str, Any]:
    return {"image": Image.open(path), "id": path}


def prepare_litdata(photos: Photos) -> None:
    """LitData's chunks, once."""
    import litdata

    for name, paths in zip(NAMES, photos.paths, strict=True):
        litdata.optimize(
            fn=_photo_record,
            inputs=list(paths),
            output_dir=str(photos.root / "litdata" / name),
            chunk_bytes="4MB",
            num_workers=1,
            start_method="fork",  # it sets the method of the whole process; its default would import this program anew
            verbose=False,
        )


def litdata_loader(photos: Photos) -> Iterator[Any]:
    """CombinedStreamingDataset over optimised chunks."""
    import litdata

    streams = [litdata.StreamingDataset(str(photos.root / "litdata" / name), shuffle=True) for name in NAMES]
    mixed = litdata.CombinedStreamingDataset(streams, weights=WEIGHTS, iterate_over_all=False)
    loader = litdata.StreamingDataLoader(
        mixed,
        batch_size=BATCH,
        num_workers=WORKERS,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    while True:
        yield from loader


def webdataset_loader(photos: Photos) -> Iterator[Any]:
    """RandomMix over tar shards."""
    import webdataset as wds

    streams = [
        wds.WebDataset(photos.shards(name), resampled=True, shardshuffle=False)
        .shuffle(200)
        .decode("rgb8")
        .to_tuple("jpg", "__key__")
        for name in NAMES
    ]
    mixed = wds.DataPipeline(wds.RandomMix(streams, list(WEIGHTS)), wds.batched(BATCH))
    yield from wds.WebLoader(mixed, batch_size=None, num_workers=WORKERS)


def prepare_huggingface(photos: Photos) -> None:
    """Parquet with embedded bytes, and the Arrow files that the library makes of it, once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, paths in zip(NAMES, photos.paths, strict=True):
        images = [{"bytes": read_file(path), "path": path} for path in paths]
        file = photos.root / "parquet" / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": images, "id": list(paths)}), file)
        _arrow(photos, name)


def _arrow(photos: Photos, name: str) -> Any:  # noqa: ANN401 - datasets.Dataset
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    file = str(photos.root / "parquet" / f"{name}.parquet")
    return datasets.Dataset.from_parquet(file, cache_dir=str(photos.root / "hub"))


def huggingface_loader(photos: Photos) -> Iterator[Any]:
    """interleave_datasets over memory-mapped Arrow in as many shards as workers, shuffled in a buffer."""
    import datasets

    streams = [
        _arrow(photos, name)
        .cast_column("image", datasets.Image(mode="RGB"))
        .to_iterable_dataset(num_shards=WORKERS)
        .shuffle(seed=0, buffer_size=200)
        for name in NAMES
    ]
    mixed = datasets.interleave_datasets(
        streams, probabilities=list(WEIGHTS), seed=0, stopping_strategy="all_exhausted"
    )
    loader = DataLoader(
        mixed.with_format("torch"),
        batch_size=BATCH,
        num_workers=WORKERS,
        drop_last=True,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    while True:
        yield from loader


def decode_alone(paths: list[str], decoder: str, repeats: int, both: Barrier) -> None:
    """What a process does in the decode-only limit: files lie in memory, pixels go nowhere.

    Args:
        paths: photos of this process.
        decoder: ``PIL`` or ``simplejpeg``.
        repeats: times to decode each.
        both: passed when the files are read, and again at the end.
    """
    from io import BytesIO

    blobs = [Path(path).read_bytes() for path in paths]
    both.wait()
    for _ in range(repeats):
        for blob in blobs:
            if decoder == "simplejpeg":
                simplejpeg.decode_jpeg(blob)
            else:
                with Image.open(BytesIO(blob)) as image:
                    np.asarray(image.convert("RGB"))
    both.wait()
