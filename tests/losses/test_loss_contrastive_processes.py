"""Contrastive losses of two processes are those of one: value and every gradient, as distributed training has them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from neurotrain.losses.contrastive import ClipLoss, ContrastiveLoss, SigLipLoss, gathered

LOSSES: dict[str, ContrastiveLoss] = {
    "clip": ClipLoss(),
    "clip in chunks": ClipLoss(chunk_size=3),
    "siglip": SigLipLoss(),
    "siglip in chunks": SigLipLoss(chunk_size=3),
}
COUNT = 8
Found = dict[str, dict[str, Tensor]]


class Towers(nn.Module):
    """Two small towers with scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.text = nn.Linear(5, 4)
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def forward(self, image: Tensor, text: Tensor, loss: ContrastiveLoss) -> Tensor:
        features = [functional.normalize(tower, dim=1) for tower in (self.image(image), self.text(text))]
        bias = self.bias if loss.needs_bias else None
        found = loss(*features, scale=self.log_scale.exp(), bias=bias)
        return found if loss.needs_bias else found + 0.0 * self.bias


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(COUNT, 6, generator=draw), torch.randn(COUNT, 5, generator=draw)


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    found = {name.removeprefix("module."): value.grad for name, value in network.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {"loss": loss.detach(), **found}  # pyright: ignore[reportReturnType]


def work(rank: int, folder: str) -> Found:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    try:
        image, text = data()
        own = slice(rank * COUNT // 2, (rank + 1) * COUNT // 2)
        found: Found = {}
        for name, loss in LOSSES.items():
            network = DistributedDataParallel(Towers())
            found[name] = gradients(network, network(image[own], text[own], loss))
            torch.distributed.all_reduce(found[name]["loss"], op=torch.distributed.ReduceOp.SUM)
            found[name]["loss"] /= 2
        with pytest.raises(ValueError, match="processes have 1 to 2 rows"):
            gathered(torch.zeros(1 + rank, 3))
        return found
    finally:
        torch.distributed.destroy_process_group()


def work_beside(_: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.save(work(1, folder), Path(folder) / "1.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder = tmp_path_factory.mktemp("ranks")
    beside = torch.multiprocessing.spawn(work_beside, args=(str(folder),), nprocs=1, join=False)
    assert beside is not None
    own = work(0, str(folder))
    while not beside.join():
        pass
    return [own, torch.load(folder / "1.pt", weights_only=True)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_are_one(results: list[Found], name: str, rank: int) -> None:
    network = Towers()
    wanted = gradients(network, network(*data(), LOSSES[name]))
    found = results[rank][name]
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0.0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    assert all(value.abs().max() > 1e-4 for key, value in wanted.items() if key != "bias")
