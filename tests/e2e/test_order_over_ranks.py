"""Promise 2: one order of samples for any world size and workers; saved at 2 ranks, a run goes on at 1 or 4."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from neurotrain.data.loader import PlannedLoader
from neurotrain.data.mixture import Explicit, MixturePlan, SourcePlan
from neurotrain.data.plan import SampleKey, mix_seed

GLOBAL_BATCH, STEPS = 8, 9
SOURCES = {"a": 40, "b": 17, "c": 5}


class Named:
    """Names a sample and draws a number for it."""

    def load(self, key: SampleKey) -> dict[str, Any]:
        """A function of the key alone."""
        generator = torch.Generator().manual_seed(mix_seed(1, key.epoch, key.position))
        name = list(SOURCES)[key.source]
        return {"id": f"{name}{key.index}", "source": name, "draw": torch.rand(2, generator=generator)}


def _loader(*, rank: int, world_size: int, workers: int) -> PlannedLoader:
    plan = MixturePlan(
        sources=tuple(SourcePlan(name=name, length=length) for name, length in SOURCES.items()),
        weights=Explicit(weights={"a": 0.5, "b": 0.3, "c": 0.2}),
        samples_per_epoch=GLOBAL_BATCH * STEPS,
        global_batch=GLOBAL_BATCH,
    )
    size = GLOBAL_BATCH // world_size
    return PlannedLoader(
        dataset=Named(), plan=plan, batch_size=size, rank=rank, world_size=world_size, num_workers=workers
    )


def _rank(
    rank: int, world_size: int, workers: int, port: int, file: Path, state: dict[str, Any] | None, stop: int
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    loader = _loader(rank=rank, world_size=world_size, workers=workers)
    if state is not None:
        loader.load_state_dict(state)
    steps: list[Any] = []
    for step, batch in enumerate(loader):
        parts: list[Any] = [None] * world_size
        dist.all_gather_object(parts, list(zip(batch["id"], batch["draw"].tolist(), strict=True)))
        # A rank has every world_size-th sample: put back in the order of the plan.
        steps.append([sample for together in zip(*parts, strict=True) for sample in together])
        if step + 1 == stop:
            break
    if rank == 0:
        torch.save({"steps": steps, "state": loader.state_dict()}, file)
    loader.close()
    dist.destroy_process_group()


def _run(
    world_size: int, workers: int, folder: Path, *, state: dict[str, Any] | None = None, stop: int = STEPS
) -> dict[str, Any]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neurotrain.app.train", "neurotrain.data", "neurotrain.callbacks"])
    file = folder / f"{world_size}-{workers}.pt"
    ranks = [
        context.Process(target=_rank, args=(rank, world_size, workers, port, file, state, stop))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=120)
        assert process.exitcode == 0, process.exitcode
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run(1, 0, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (1, 3), (2, 0), (2, 1), (2, 3), (4, 0), (4, 1), (4, 3)])
def test_one_order(world_size: int, workers: int, alone: dict[str, Any], tmp_path: Path) -> None:
    assert len(alone["steps"]) == STEPS
    assert _run(world_size, workers, tmp_path)["steps"] == alone["steps"]


@pytest.mark.parametrize(("world_size", "workers"), [(1, 3), (4, 0)])
def test_saved_at_two_ranks_it_goes_on_at_others(
    world_size: int, workers: int, alone: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    first = _run(2, 1, tmp_path / "first", stop=4)
    rest = _run(world_size, workers, tmp_path, state=first["state"])
    assert first["steps"] + rest["steps"] == alone["steps"]


def test_another_global_batch_is_refused(alone: dict[str, Any]) -> None:
    plan = MixturePlan(sources=(SourcePlan(name="a", length=40),), samples_per_epoch=72, global_batch=4)
    other = PlannedLoader(dataset=Named(), plan=plan, batch_size=4)
    with pytest.raises(ValueError, match="global_batch=8, this loader has global_batch=4"):
        other.load_state_dict(alone["state"])
