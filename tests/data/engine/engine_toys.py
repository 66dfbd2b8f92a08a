"""Sources of samples that tell who made them, break, hang or die as told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurotrain.data.engine import BatchRequest, SampleName, worker_number
from neurotrain.data.plan import EpochPlan, SampleKey
from neurotrain.storage import TransientError


class Toy:
    """Images of numbers, a label, an id and the worker; 10 entries a source unless told otherwise."""

    def __init__(self, *, entries: int = 10, size: int = 4) -> None:
        self.entries, self.size = entries, size

    def load(self, key: SampleKey) -> dict[str, Any]:
        draw = np.random.default_rng([key.epoch, key.position]).integers(1000)
        return {
            "image": np.full((self.size, self.size, 3), key.index % 256, np.uint8),
            "label": torch.tensor(key.index),
            "draw": np.int64(draw),
            "id": str(key.index),
            "source": "ab"[key.source % 2],
            "key": tuple(key),
        }

    def identify(self, key: SampleKey) -> SampleName:
        return SampleName(id=str(key.index), uri=f"toy://{key.source}/{key.index}", source="ab"[key.source % 2])

    def count(self, source: int) -> int:
        return self.entries


class Direct(Toy):
    """Writes into the batch where it can, and counts that."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.written = 0

    def load_into(self, key: SampleKey, out: Mapping[str, np.ndarray]) -> dict[str, Any]:
        sample = self.load(key)
        if "image" in out and out["image"].shape == sample["image"].shape:
            out["image"][...] = sample["image"]
            sample["image"] = out["image"]
            self.written += 1
        return {**sample, "written": self.written}


class Growing(Toy):
    """Each batch of two has images of its own size, the largest in the middle."""

    def load(self, key: SampleKey) -> dict[str, Any]:
        size = (3, 50, 200, 7, 1)[key.position // 2 % 5]
        return {**super().load(key), "image": np.full((size, size), key.position, np.float32)}


class Moody(Toy):
    """Some entries are bad for ever, some for the first tries in a process, and some end or stop the worker."""

    def __init__(
        self,
        *,
        bad: Sequence[int] = (),
        shaky: Mapping[int, int] | None = None,
        deadly: Sequence[int] = (),
        slow: Mapping[int, float] | None = None,
        only_in_workers: bool = True,
        **settings: int,
    ) -> None:
        super().__init__(**settings)
        self.bad, self.deadly = frozenset(bad), frozenset(deadly)
        self.shaky, self.slow = dict(shaky or {}), dict(slow or {})
        self.loads = 0

    def load(self, key: SampleKey) -> dict[str, Any]:
        self.loads += 1
        if key.index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow.get(key.index, 0.0))
        if self.shaky.get(key.index, 0):
            self.shaky[key.index] -= 1
            raise TransientError(f"toy://{key.source}/{key.index}", "busy")
        if key.index in self.bad:
            raise ValueError(f"entry {key.index} is truncated")
        return super().load(key)

    def counters(self) -> dict[str, int]:
        return {"loads": self.loads}


class Whole:
    """Makes batches at once."""

    def load_batch(self, request: BatchRequest) -> dict[str, Any]:
        return {"index": torch.from_numpy(request.index.copy()), "worker": worker_number()}


PLAN = EpochPlan(count=10, samples_per_epoch=24, seed=2)


def plain(batch: Any) -> Any:  # noqa: ANN401
    """A batch as nested lists, which compare."""
    if isinstance(batch, dict):
        return {name: plain(value) for name, value in batch.items()}
    if isinstance(batch, torch.Tensor | np.ndarray):
        return batch.tolist()
    return batch


def no_shared_files() -> list[str]:
    """Names in the folder of shared memory that look like ours or torch's."""
    folder = Path("/dev/shm")
    return [path.name for path in folder.glob("*") if path.name.startswith(("torch_", "neurotrain", "psm_"))]
