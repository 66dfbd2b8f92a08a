"""How fast batches come: our engine against other loaders and against the decoder alone.

All load the same generated photos (JPEG, 128 x 128) of three sources, weights .5/.3/.2, batches of 64, two workers,
each with the decoder that it comes with; ours with the exact plan, quarantine, ledger and position on. The decode-only
limit is two processes that decode from memory into nowhere. Times are per sample, so less is better: a goal of
``1 / 2.5`` is 2.5 times the speed. MosaicML Streaming pins versions that this environment cannot have and is left out.

Mixing alone yields batches of 64 ids that lie in memory; the peers make theirs as simply as they can.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from harness import Options, Result, interleaved, is_installed, left_out, main
from loading_data import NAMES, WEIGHTS, Photos, PhotoSource, make_photos
from loading_peers import (
    BATCH,
    WORKERS,
    combined_loader,
    decode_alone,
    huggingface_loader,
    litdata_loader,
    prepare_huggingface,
    prepare_litdata,
    torch_loader,
    torchdata_nodes,
    webdataset_loader,
)

from neurotrain.data import LocalDataModule, MixtureDataModule
from neurotrain.data.decoders import ImageDecoder
from neurotrain.data.engine import BatchRequest, Quarantine
from neurotrain.data.index import load_manifest, save_manifest
from neurotrain.data.loader import PlannedLoader
from neurotrain.data.mixture import Explicit, MixturePlan, SourcePlan
from neurotrain.data.sources import FolderSource
from neurotrain.storage import LocalStorage

WARM_UP, BATCHES, PHOTOS = 10, 150, 5000
QUICK_WARM_UP, QUICK_BATCHES, QUICK_PHOTOS = 5, 20, 1000  # all candidates once: about 20,000 photos
ENTRIES = 1_000_000
FAR = 10**7
US = 1e6

PEERS: dict[str, tuple[str, str, float, Callable[[Photos], Iterator[Any]]]] = {
    "DataLoader, PIL": ("torch", "plain DataLoader, PIL", 1 / 2.5, partial(torch_loader, decoder="PIL")),
    "DataLoader, simplejpeg": (
        "simplejpeg",
        "DataLoader with our decoder",
        1.0,
        partial(torch_loader, decoder="simplejpeg"),
    ),
    "torchdata nodes": ("torchdata", "nodes of processes, PIL", 1.0, torchdata_nodes),
    "CombinedLoader": ("lightning", "Lightning's, three workers, PIL", 1.0, combined_loader),
    "LitData": ("litdata", "CombinedStreamingDataset", 1 / 3.5, litdata_loader),
    "WebDataset": ("webdataset", "RandomMix, PIL", 1 / 4.5, webdataset_loader),
    "Hugging Face": ("datasets", "interleave_datasets, PIL", 1.0, huggingface_loader),
}


def ours(photos: Photos) -> Iterator[Any]:
    """Our loader: everything on."""
    with TemporaryDirectory() as folder:
        loader = PlannedLoader(
            dataset=PhotoSource(photos),
            plan=_plan(tuple(map(len, photos.paths)), samples=len(photos.all)),
            batch_size=BATCH,
            num_workers=WORKERS,
            persistent_workers=True,
            quarantine=Quarantine(),
            ledger=Path(folder),
            sources=NAMES,
        )
        try:
            epoch = 0
            while True:
                loader.set_epoch(epoch)
                yield from loader
                epoch += 1
        finally:
            loader.close()


def ours_from_folders(photos: Photos) -> Iterator[Any]:
    """Our data modules as a configuration makes them: index, storage with etags, decoder, mixture."""
    members = {
        name: LocalDataModule(
            train=FolderSource(name=name, storage=LocalStorage(root=photos.root / "jpeg" / name)),
            decoder=ImageDecoder(),
        )
        for name in NAMES
    }
    module = MixtureDataModule(
        sources=members,
        weights=Explicit(weights=dict(zip(NAMES, WEIGHTS, strict=True))),
        batch_size=BATCH,
        num_workers=WORKERS,
        samples_per_epoch=len(photos.all),
        quarantine=Quarantine(),
    )
    loader = module.train_dataloader().loader
    try:
        epoch = 0
        while True:
            loader.set_epoch(epoch)
            yield from loader
            epoch += 1
    finally:
        loader.close()


def time_per_sample(make: Callable[[], Iterator[Any]], *, batches: int, warm_up: int) -> float:
    """Microseconds a sample in steady state: workers are started and warmed up before."""
    with closing(make()) as stream:  # pyright: ignore[reportArgumentType] - generators can be closed
        for _ in range(warm_up):
            batch = next(stream)
        started = time.perf_counter()
        for _ in range(batches):
            batch = next(stream)
        passed = time.perf_counter() - started
    images = batch["image"] if isinstance(batch, dict) else batch[0]
    assert len(images) == BATCH, f"a batch of {len(images)}"
    return passed / (batches * BATCH) * US


def limit(photos: Photos, decoder: str, repeats: int) -> float:
    """Microseconds a photo when as many processes as there are workers do nothing but decode."""
    context = multiprocessing.get_context("fork")
    parts = [photos.all[number::WORKERS] for number in range(WORKERS)]
    all_of_us = context.Barrier(WORKERS + 1)
    processes = [context.Process(target=decode_alone, args=(part, decoder, repeats, all_of_us)) for part in parts]
    for process in processes:
        process.start()
    all_of_us.wait()
    started = time.perf_counter()
    all_of_us.wait()
    passed = time.perf_counter() - started
    for process in processes:
        process.join()
    return passed / (len(photos.all) * repeats) * US


def _plan(sizes: tuple[int, ...], samples: int) -> MixturePlan:
    sources = tuple(SourcePlan(name=name, length=size) for name, size in zip(NAMES, sizes, strict=True))
    weights = Explicit(weights=dict(zip(NAMES, WEIGHTS, strict=True)))
    return MixturePlan(sources=sources, weights=weights, samples_per_epoch=samples, global_batch=BATCH)


class _Ids:
    """Ids in memory, a whole batch at once."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        names = [f"{name}/{number}" for name, size in zip(NAMES, sizes, strict=True) for number in range(size)]
        self._ids = np.array(names, object)
        self._starts = np.cumsum([0, *sizes[:-1]])

    def load_batch(self, request: BatchRequest) -> list[str]:
        """Ids of one batch."""
        return self._ids.take(self._starts.take(request.source) + request.index).tolist()


def _mixing(batches: int, options: Options) -> Iterator[Result]:
    sizes = (2000, 2000, 1000)

    def per_batch(make: Callable[[], Iterator[Any]]) -> float:
        stream = make()
        for _ in range(20):
            next(stream)
        started = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return (time.perf_counter() - started) / batches * US

    def mixed() -> Iterator[Any]:
        return iter(PlannedLoader(dataset=_Ids(sizes), plan=_plan(sizes, (batches + 40) * BATCH), batch_size=BATCH))

    def plain() -> Iterator[Any]:
        ids = [f"{number}" for number in range(sum(sizes))]
        loader = torch.utils.data.DataLoader(ids, BATCH, shuffle=True, collate_fn=list, drop_last=True)
        while True:
            yield from loader

    candidates = {"ours": partial(per_batch, mixed), "plain": partial(per_batch, plain)}
    measured = interleaved(candidates, rounds=7, options=options)
    yield Result(
        name="mixing alone, ids in memory",
        ours=measured["ours"],
        peer=measured["plain"],
        peer_name="plain DataLoader, one source, no weights",
        unit="us a batch",
        goal=20.0,
        limits="ours",
    )


def _resuming() -> Iterator[Result]:
    plan = _plan((ENTRIES // 2, ENTRIES // 4, ENTRIES // 4), samples=(FAR + 100) * BATCH)

    def until_first_batch(step: int) -> float:
        loader = PlannedLoader(dataset=_Ids((ENTRIES // 2, ENTRIES // 4, ENTRIES // 4)), plan=plan, batch_size=BATCH)
        state = {**loader.state_dict(), "batch": step}
        started = time.perf_counter()
        loader.load_state_dict(state)
        next(iter(loader))
        return (time.perf_counter() - started) * 1000

    near, far = (min(until_first_batch(step) for _ in range(5)) for step in (10, FAR))
    yield Result(
        name="resume of a mixture of 1M entries at step 10^7",
        ours=far,
        peer=near,
        peer_name="ours at step 10",
        unit="ms",
        goal=1.25,
    )


def _index() -> Iterator[Result]:
    """Seconds until the index of a million files is there and its last entry was named."""
    numbers = pa.array(np.arange(ENTRIES)).cast(pa.string())
    keys = pc.call_function("binary_join_element_wise", [numbers, pa.array([".jpg"] * ENTRIES), ""])
    table = pa.table({"id": numbers, "uri": keys, "key": keys, "size": np.full(ENTRIES, 5000)})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.arrow"
        save_manifest(path, table)
        started = time.perf_counter()
        manifest = load_manifest(path)
        assert manifest.table.column("id")[ENTRIES - 1].as_py() == str(ENTRIES - 1)
        passed = time.perf_counter() - started
    yield Result(
        name="start with an index of 1M entries",
        ours=passed,
        peer=None,
        peer_name="no peer: a limit",
        unit="s",
        goal=2.0,
        limits="ours",
    )


def _telemetry(photos: Photos, per_sample: float) -> Result:
    loader = PlannedLoader(
        dataset=PhotoSource(photos),
        plan=_plan(tuple(map(len, photos.paths)), samples=len(photos.all)),
        batch_size=BATCH,
        num_workers=WORKERS,
        sources=NAMES,
    )
    iterator = iter(loader)
    next(iterator)
    started = time.perf_counter()
    for _ in range(100):
        loader.telemetry()
    each = (time.perf_counter() - started) / 100 * US
    loader.close()
    return Result(
        name="telemetry each 50 steps",
        ours=each / (50 * BATCH * per_sample) * 100,
        peer=None,
        peer_name="share of the loading time",
        unit="%",
        goal=1.0,
        limits="ours",
    )


def benchmark(options: Options) -> Iterator[Result]:
    """Yield every row."""
    batches = QUICK_BATCHES if options.quick else BATCHES
    timed = partial(time_per_sample, batches=batches, warm_up=QUICK_WARM_UP if options.quick else WARM_UP)
    yield from _mixing(2000, options)
    yield from _resuming()
    yield from _index()
    with TemporaryDirectory() as folder, _quietly():
        photos = make_photos(Path(folder) / "photos", QUICK_PHOTOS if options.quick else PHOTOS)
        installed = {name: peer for name, peer in PEERS.items() if is_installed(peer[0])}
        if "LitData" in installed:
            prepare_litdata(photos)
        if "Hugging Face" in installed:
            prepare_huggingface(photos)
        repeats = max(1, batches * BATCH // len(photos.all))
        candidates: dict[str, Callable[[], float]] = {
            "ours": partial(timed, partial(ours, photos)),
            "folders": partial(timed, partial(ours_from_folders, photos)),
            "limit": lambda: limit(photos, "simplejpeg", repeats),
            "limit, PIL": lambda: limit(photos, "PIL", repeats),
        }
        for name, (_, _, _, make) in installed.items():
            candidates[name] = partial(timed, partial(make, photos))
        measured = interleaved(candidates, rounds=2 if options.quick else 5, options=options)
        yield from _compared(measured, installed)
        yield _telemetry(photos, measured["ours"])


def _compared(measured: dict[str, float], installed: dict[str, Any]) -> Iterator[Result]:
    mine, unit = measured["ours"], "us a sample"
    limits = {"limit": ("simplejpeg", 1 / 0.8), "limit, PIL": ("PIL", 1.0)}
    for key, (decoder, goal) in limits.items():
        yield Result(
            name=f"against decoding alone, {decoder}",
            ours=mine,
            peer=measured[key],
            peer_name=f"{WORKERS} processes, {US / measured[key]:,.0f} a second",
            unit=unit,
            goal=goal,
        )
    for name, (_, told, goal, _) in PEERS.items():
        if name not in installed:
            yield left_out(name=f"against {name}", ours=mine, peer_name=told, unit=unit, goal=goal)
            continue
        peer_name = f"{told}, {US / measured[name]:,.0f} a second"
        yield Result(name=f"against {name}", ours=mine, peer=measured[name], peer_name=peer_name, unit=unit, goal=goal)
    if "DataLoader, PIL" in measured:
        yield Result(
            name="FolderSource and ImageDecoder, as configured",
            ours=measured["folders"],
            peer=measured["DataLoader, PIL"],
            peer_name="plain DataLoader, PIL",
            unit=unit,
            goal=1.0,
        )
    yield left_out(name="against MosaicML", ours=mine, peer_name="Streaming, own environment", unit=unit, goal=1.0)


@contextmanager
def _quietly() -> Iterator[None]:
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    logging.getLogger("litdata").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main(benchmark, description="Loading: ours against other loaders and the decoder alone")
