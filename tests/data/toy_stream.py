"""A stream of numbers in small tar shards, and loaders over it."""

# ruff: noqa: ANN401 - settings of any kind are passed on

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from neurotrain.data.decoders import Decoder
from neurotrain.data.sources import RawSample, SampleFormatError, StreamingSource, WebDatasetStream
from neurotrain.data.stream_loader import StreamLoader
from neurotrain.data.stream_reader import Preparation
from neurotrain.storage import LocalStorage

SHARDS, EACH = 4, 12
TOTAL = SHARDS * EACH


class Numbers(Decoder[Mapping[str, Any]]):
    """The number of a sample and a random one; some do as they are told."""

    def __init__(self, *, bad: tuple[int, ...] = (), deadly: int = -1, slow: int = -1) -> None:
        self.bad, self.deadly, self.slow = bad, deadly, slow

    def __call__(self, raw: RawSample, generator: torch.Generator) -> dict[str, Any]:
        number = int(str(raw.fields["caption"]))
        if number in self.bad:
            raise SampleFormatError(f"{raw.uri}: spoilt")
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.slow:
            time.sleep(60)
        return {"id": raw.id, "number": torch.tensor(number), "draw": torch.rand(2, generator=generator)}


def write_shards(folder: Path, sizes: tuple[int, ...] = (EACH,) * SHARDS, broken: tuple[int, ...] = ()) -> Path:
    first = 0
    for shard, size in enumerate(sizes):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number in range(first, first + size):
                text = b"\xff\xff" if number in broken else str(number).encode()
                member = tarfile.TarInfo(f"s{number:03d}.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
        first += size
    return folder


def stream(folder: Path, **settings: Any) -> WebDatasetStream:
    given = {"shuffle_buffer": 5, "seed": 3, **settings}
    return WebDatasetStream(name="toy", storage=LocalStorage(root=folder), **given)


def loader(
    folder: Path, *, source: StreamingSource | None = None, decoder: Any = None, **settings: Any
) -> StreamLoader:
    given = {"batch_size": 4, "samples_per_epoch": TOTAL, **settings}
    prepare = Preparation(decoder=decoder or Numbers(), seed=7)
    return StreamLoader(source=source or stream(folder), prepare=prepare, **given)


def plain(batches: Any) -> list[Any]:
    return [(batch["number"].tolist(), batch["draw"].tolist()) for batch in batches]
