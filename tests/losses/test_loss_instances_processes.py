"""Masks of two processes count as those of one, however many objects each has."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

from neurotrain.losses.instances import MaskSetLoss, MaskTarget


def _data() -> tuple[Tensor, Tensor, list[MaskTarget]]:
    draw = torch.Generator().manual_seed(0)
    classes, masks = torch.randn(2, 4, 3, generator=draw), torch.randn(2, 4, 5, 6, generator=draw)
    targets = [MaskTarget(torch.arange(count) % 2, torch.rand(count, 5, 6, generator=draw) > 0.5) for count in (3, 1)]
    return classes, masks, targets


def _gradient(rows: slice, *, everywhere: bool) -> dict[str, Tensor]:
    """Value and gradient of the parts over masks, of some of the images."""
    classes, masks, targets = _data()
    leaf = masks[rows].clone().requires_grad_()
    parts = MaskSetLoss().components(classes[rows], leaf, targets[rows], everywhere=everywhere)
    value = parts["mask"] + parts["dice"]
    value.backward()
    assert leaf.grad is not None
    return {"value": value.detach(), "gradient": leaf.grad}


def _work(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    try:
        found = _gradient(slice(rank, rank + 1), everywhere=True)
        if rank == 0:
            _gradient(slice(0, 1), everywhere=False)  # without the other one, as in evaluation: it must not wait
        torch.save(found, folder / f"{rank}.pt")
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def test_the_mean_over_processes_is_that_of_all_images(tmp_path: Path) -> None:
    beside = multiprocessing.get_context("fork").Process(target=_work, args=(1, tmp_path))
    beside.start()
    _work(0, tmp_path)
    beside.join(timeout=120)
    assert beside.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    wanted = _gradient(slice(0, 2), everywhere=False)
    torch.testing.assert_close((found[0]["value"] + found[1]["value"]) / 2, wanted["value"])
    gradient = torch.cat([each["gradient"] for each in found]) / 2  # as DistributedDataParallel takes the mean
    torch.testing.assert_close(gradient, wanted["gradient"])
