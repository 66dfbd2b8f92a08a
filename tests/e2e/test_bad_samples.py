"""Promise 4: a bad sample costs itself, and an unreliable server costs time."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from servers import CREDENTIALS, FaultProxy, Faults, start_moto, start_proxy

from neurotrain.batch import SegmentationBatch
from neurotrain.data import LocalDataModule, MixtureDataModule, S3DataModule
from neurotrain.data.decoders import SegmentationDecoder
from neurotrain.data.engine import Quarantine, TooManyBadSamplesError
from neurotrain.data.sources import FolderSource
from neurotrain.storage import LocalStorage, RetryPolicy, S3Storage, Storage

COUNT, BATCH = 150, 10
RATES = {"503": 0.05, "stall": 0.01}


class Counting(LightningModule):
    """Learns next to nothing and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[str] = []

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> torch.Tensor:
        self.seen += [f"{source}/{name}" for source, name in zip(batch["source"], batch["id"], strict=True)]
        return self.layer(batch["image"].mean().view(1, 1)).sum()

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        """Nothing is held out."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def _fill(storage: Storage, *, bad: set[int]) -> None:
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        for folder, levels in (("images", 256), ("masks", 2)):
            pixels = draw.integers(0, levels, (16, 16, 3) if folder == "images" else (16, 16), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels * (255 if levels == 2 else 1)).save(file, format="PNG")
            whole = file.getvalue()
            spoilt = folder == "images" and number in bad
            storage.write(f"{folder}/{number:03d}.png", whole[: len(whole) // 2] if spoilt else whole)


def _source(name: str, storage: Storage) -> FolderSource:
    return FolderSource(name=name, storage=storage, image="images", mask="masks")


def _module(
    local: Storage, remote: Storage, *, num_workers: int = 0, quarantine: Quarantine | None = None
) -> MixtureDataModule:
    members = {
        "disk": LocalDataModule(train=_source("disk", local), decoder=SegmentationDecoder()),
        "bucket": S3DataModule(train=_source("bucket", remote), decoder=SegmentationDecoder()),
    }
    return MixtureDataModule(sources=members, batch_size=BATCH, num_workers=num_workers, quarantine=quarantine)


def _fit(module: MixtureDataModule, folder: Path) -> Counting:
    task = Counting()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        use_distributed_sampler=False,
        limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=module)
    return task


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    with start_moto() as moto, start_proxy(moto.url) as proxy:
        moto.make_bucket("lab")
        yield proxy


def _bucket(proxy: FaultProxy, prefix: str) -> S3Storage:
    retry = RetryPolicy(attempts=8, first_wait=0.01, longest_wait=0.1, read_timeout=1.0, seed=0)
    return S3Storage(bucket="lab", prefix=prefix, endpoint_url=proxy.url, retry=retry, **CREDENTIALS)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.all_kills), 2])
def test_the_run_completes_and_the_ledger_names_every_bad_sample(
    proxy: FaultProxy, tmp_path: Path, workers: int
) -> None:
    draw = random.Random(3)
    bad = {name: set(draw.sample(range(COUNT), 2)) for name in ("disk", "bucket")}  # over 1 % of each
    local, remote = LocalStorage(root=tmp_path / "disk"), _bucket(proxy, f"workers{workers}")
    proxy.use(Faults())
    _fill(local, bad=bad["disk"])
    _fill(remote, bad=bad["bucket"])
    proxy.use(Faults(rates=RATES, seed=5, only="GET"))
    task = _fit(
        _module(local, remote, num_workers=workers, quarantine=Quarantine(max_bad_share=0.05)), tmp_path / "run"
    )
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    ledger = [json.loads(line) for line in lines]
    assert {(entry["source"], int(entry["id"])) for entry in ledger} == {
        (name, number) for name, numbers in bad.items() for number in numbers
    }
    assert all(entry["uri"] and entry["reason"] and entry["replacement"] for entry in ledger)
    assert {fault for _, fault in proxy.injected} == set(RATES)
    # Nothing else is missing: every good sample was seen, the places of the bad ones were taken by others.
    good = {f"{name}/{number:03d}" for name in bad for number in range(COUNT) if number not in bad[name]}
    assert set(task.seen) == good
    assert len(task.seen) == 2 * COUNT


def test_too_many_bad_samples_stop_the_run_with_the_list(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.use(Faults())
    local, remote = LocalStorage(root=tmp_path / "disk"), _bucket(proxy, "many")
    _fill(local, bad=set(range(20)))
    _fill(remote, bad=set())
    with pytest.raises(TooManyBadSamplesError, match=r"disk/0\d\d .*images/0\d\d\.png") as caught:
        _fit(_module(local, remote, quarantine=Quarantine(max_bad_share=0.01)), tmp_path / "run")
    assert len(caught.value.bad) == 4  # 1 % of 300 samples is 3


def test_without_a_quarantine_the_first_bad_sample_ends_the_run(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.use(Faults())
    local, remote = LocalStorage(root=tmp_path / "disk"), _bucket(proxy, "strict")
    _fill(local, bad={0})
    _fill(remote, bad=set())
    with pytest.raises(Exception, match=r"sample '000' of disk .*images/000\.png"):
        _fit(_module(local, remote), tmp_path / "run")
