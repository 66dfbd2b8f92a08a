"""A dataset that lives in memory and tells what was read."""

from __future__ import annotations

from pathlib import Path

import torch

from neurotrain.batch import SegmentationSample
from neurotrain.data.datasets.base import Record, Scan, SegmentationDataset


class Toy(SegmentationDataset):
    """Noise of 40 x 36 pixels; valid inside a margin of 3; id ``train<number>`` or ``test<number>``."""

    name = "toy"
    class_names = ("thing",)
    synthetic = True

    def __init__(self, *, train: int = 6, test: int = 3, groups: int | None = None, broken: str | None = None) -> None:
        super().__init__(root=Path("toy"))
        self.counts = {"train": train, "test": test}
        self.groups = groups
        self.broken = broken
        self.reads: list[str] = []

    def records(self, split: str) -> tuple[Record, ...]:
        return tuple(
            Record(
                id=f"{split}{number}",
                image=Path(f"{split}{number}.png"),
                mask=Path(f"{split}{number}_mask.png"),
                group=None if self.groups is None else str(number % self.groups),
            )
            for number in range(self.counts[split])
        )

    def read(self, record: Record) -> SegmentationSample:
        self.reads.append(record.id)
        if record.id == self.broken:
            raise OSError("cannot be decoded")
        generator = torch.Generator().manual_seed(sum(record.id.encode()))
        image = torch.rand(3, 40, 36, generator=generator)
        valid = torch.zeros(40, 36, dtype=torch.bool)
        valid[3:-3, 3:-3] = True
        return {"image": image, "mask": (image[0] > 0.8).long(), "valid": valid, "id": record.id, "source": self.name}

    def fingerprint(self) -> str:
        return f"{self.counts}"

    def _scan(self, split: str) -> Scan:
        raise NotImplementedError
