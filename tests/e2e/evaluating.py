"""One test set evaluated by one or several processes: tasks, networks and samples that are functions of their number.

Two ways of dealing samples out: ``planned``, the product's loader, whose shares are disjoint, and ``padded``, torch's
``DistributedSampler`` as Lightning puts it in, which evaluates some samples twice where the processes do not divide.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurotrain.data.loader import PlannedLoader
from neurotrain.data.plan import EpochPlan, SampleKey, mix_seed
from neurotrain.inference import FullImage
from neurotrain.losses import BinaryCrossEntropyLoss
from neurotrain.losses.classification import ClassificationCrossEntropy
from neurotrain.losses.contrastive import ClipLoss
from neurotrain.metrics.functional.ranking import auroc
from neurotrain.networks import UNet
from neurotrain.networks.captioning import Captioner
from neurotrain.networks.classification import ResNetSmall
from neurotrain.networks.clip import DualEncoder
from neurotrain.networks.detection import Detection, Detector
from neurotrain.networks.text import TextTransformer, WordTokenizer
from neurotrain.tasks import CaptioningTask, ClassificationTask, ClipTask, Constant, DetectionTask, SegmentationTask

Dealt = Literal["planned", "padded"]
WORDS = ("a", "cat", "dog", "bird", "sits", "runs", "here", "there", "and", "red")


def _draw(index: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(mix_seed(7, index)))


def _classified(index: int) -> dict[str, Any]:
    image = _draw(index, 1, 8, 8)
    image[0, index % 5] += 0.5 * float(image[0, 0, 0])
    return {"image": image, "label": index % 5}


def _segmented(index: int) -> dict[str, Any]:
    image = _draw(index, 1, 16, 16)
    mask = torch.zeros(16, 16, dtype=torch.int64)
    if index % 11:  # some images have nothing in them
        mask[2 + index % 5 : 9, 3 : 8 + index % 7] = 1
    image[0] += 0.7 * mask
    return {"image": image, "mask": mask, "valid": torch.ones(16, 16, dtype=torch.bool)}


def _detected(index: int) -> dict[str, Any]:
    """Boxes in the first rows of an image; equal scores are frequent, so that their order matters."""
    numbers = _draw(index, 4, 6)
    corner, size = 30 * numbers[:, :2], 4 + 12 * numbers[:, 2:4]
    found = torch.cat([corner, corner + size], dim=1)
    image = torch.zeros(3, 64, 64)
    image[0, :4, :4] = found + 3 * (numbers[:, 4:5] - 0.4)
    image[1, :4, 0] = (10 * numbers[:, 5]).round() / 10
    image[1, :4, 1] = torch.arange(4) % 2
    shown = found[: 1 + index % 4]
    return {
        "image": image,
        "boxes": shown,
        "labels": torch.arange(len(shown)) % 2,
        "iscrowd": torch.zeros(len(shown), dtype=torch.int64),
        "area": (shown[:, 2] - shown[:, 0]) * (shown[:, 3] - shown[:, 1]),
        "size": torch.tensor([64, 64]),
    }


def _captioned(index: int) -> dict[str, Any]:
    numbers = _draw(index, 2, 7)
    texts = [" ".join(WORDS[int(number * len(WORDS))] for number in row[: 4 + index % 3]) for row in numbers]
    return {"image": _draw(index + 10**6, 3, 8, 8), "caption": "\n".join(texts[: 1 + index % 2])}


class _Reader(Detector):
    """Finds the boxes that are written into the image."""

    loss_names = ("nothing",)

    def __init__(self) -> None:
        super().__init__(network=nn.Linear(1, 1), num_classes=2)

    def forward(self, images: Sequence[Tensor]) -> list[Detection]:
        return [
            {"boxes": image[0, :4, :4], "scores": image[1, :4, 0], "labels": image[1, :4, 1].long()} for image in images
        ]


class _Chooser(Captioner):
    """Says for each of six places the word that a layer chooses by the image."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.length = WordTokenizer(size=280, words=tuple(f" {word}" for word in WORDS)), 12
        self.said = nn.Linear(192, 6 * 280)

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        places = torch.arange(tokens_BL.shape[1] - 1) % 6
        return self._logits(image_BCHW)[:, places]

    def generate(self, image_BCHW: Tensor, *, beams: int = 1, length_penalty: float = 1.0) -> list[str]:
        logits = self._logits(image_BCHW)[..., 258 : 258 + len(WORDS)]
        return [" ".join(WORDS[word] for word in row) for row in logits.argmax(2).tolist()]

    def _logits(self, image_BCHW: Tensor) -> Tensor:
        return self.said(image_BCHW.flatten(1)).view(-1, 6, 280)


def _clip_network() -> DualEncoder:
    tokenizer = WordTokenizer(size=280, words=tuple(f" {word}" for word in WORDS))
    text = TextTransformer(tokenizer=tokenizer, width=16, layers=1, heads=2, length=16)
    return DualEncoder(image=ResNetSmall(widths=(8,), blocks=(1,), num_classes=8), text=text)


def _outspoken(network: nn.Module, kind: str, factor: float) -> nn.Module:
    """Let an untrained network's last layer say different things of different images, and nothing on average."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    images = torch.stack([SAMPLES[kind](index)["image"] for index in range(32)])
    assert last.bias is not None
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.sub_(network.eval()(images).transpose(0, 1).flatten(1).mean(1))
    return network.train()


def _task(kind: str) -> LightningModule:
    optimizer: Any = {"optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": Constant()}
    if kind == "classification":
        network = ResNetSmall(in_channels=1, num_classes=5, widths=(4, 8), blocks=(1, 1))
        return ClassificationTask(
            network=_outspoken(network, kind, 30),
            loss=ClassificationCrossEntropy(),
            num_classes=5,
            top_k=2,
            **optimizer,
        )
    if kind == "segmentation":
        network = UNet(in_channels=1, widths=(4, 8))
        given: Any = {
            "loss": BinaryCrossEntropyLoss(mode="binary"),
            "inferer": FullImage(),
            "threshold": 0.5,
            **optimizer,
        }
        return SegmentationTask(network=_outspoken(network, kind, -30), **given)
    if kind == "detection":
        return DetectionTask(network=_Reader(), num_classes=2, **optimizer)
    if kind == "retrieval":
        return ClipTask(network=_clip_network(), loss=ClipLoss(), **optimizer)
    return CaptioningTask(network=_Chooser(), **optimizer)


SAMPLES: dict[str, Callable[[int], dict[str, Any]]] = {
    "classification": _classified,
    "segmentation": _segmented,
    "detection": _detected,
    "retrieval": _captioned,
    "captioning": _captioned,
}
_RAGGED = ("boxes", "labels", "iscrowd", "area")


class _Numbered(Dataset[dict[str, Any]]):
    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count = kind, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**SAMPLES[self.kind](index), "id": f"n{index * 7919 % self.count}", "source": "numbers"}

    def load(self, key: SampleKey) -> dict[str, Any]:
        return self[key.index]


def _collate(kind: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        listed = kind == "detection" and name in ("image", *_RAGGED)
        stacked = isinstance(values[0], Tensor) and not listed
        numbers = isinstance(values[0], int)
        batch[name] = torch.stack(values) if stacked else torch.tensor(values) if numbers else values
    return batch


class _Data(LightningDataModule):
    def __init__(self, kind: str, count: int, dealt: Dealt, batch_size: int) -> None:
        super().__init__()
        self.kind, self.dealt, self.batch_size = kind, dealt, batch_size
        self.numbered = _Numbered(kind, count)

    def test_dataloader(self) -> Any:  # noqa: ANN401
        if self.dealt == "padded":
            collate = partial(_collate, self.kind)
            return DataLoader(self.numbered, batch_size=self.batch_size, collate_fn=collate)
        assert self.trainer is not None
        return PlannedLoader(
            dataset=self.numbered,
            plan=EpochPlan(count=len(self.numbered), shuffle=False),
            batch_size=self.batch_size,
            collate=partial(_collate, self.kind),
            drop_last=False,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )


def evaluated(kind: str, *, count: int, world_size: int, dealt: Dealt, batch_size: int) -> dict[str, float]:
    """Test a fresh task on ``count`` samples in this process and its peers; figures in float64 where they are."""
    seed_everything(3, verbose=False)
    task = _task(kind)
    trainer = Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=DDPStrategy(process_group_backend="gloo") if world_size > 1 else "auto",
        use_distributed_sampler=dealt == "padded",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = _Data(kind, count, dealt, batch_size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*DistributedSampler.*|.*does not have many workers.*")
        trainer.test(task, datamodule=data, verbose=False)
    figures = {f"logged {name}": float(value) for name, value in trainer.callback_metrics.items()}
    return figures | {name: float(value) for name, value in _exact(task, count).items()}


def _exact(task: LightningModule, count: int) -> dict[str, Tensor]:
    if isinstance(task, DetectionTask):
        return {name: value for name, value in task.figures["bbox"].items() if value.ndim == 0}
    if isinstance(task, ClipTask):
        return task.retrieval.compute()
    assert isinstance(task, ClassificationTask | SegmentationTask | CaptioningTask)
    figures = dict(task.report.compute())
    if isinstance(task, ClassificationTask):
        with task.report.sync_context(should_sync=torch.distributed.is_initialized()):
            ids, probabilities, labels = task.report.gathered()
        assert len(ids) == count, f"{len(ids)} images were counted, not {count}"
        areas = [auroc(probabilities[:, index], labels == index) for index in range(task.num_classes)]
        figures["auroc"] = torch.stack(areas).mean()
    return figures


def _rank(
    rank: int, world_size: int, port: int, file: str, jobs: list[tuple[str, Dealt]], given: dict[str, int]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    if world_size > 1:
        os.environ.update(NODE_RANK="0", LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    found = {f"{kind} {dealt}": evaluated(kind, dealt=dealt, world_size=world_size, **given) for kind, dealt in jobs}
    if rank == 0:
        torch.save(found, file)
    if world_size > 1:
        torch.distributed.destroy_process_group()


def evaluate_over_processes(
    world_size: int, folder: Path, jobs: list[tuple[str, Dealt]], *, count: int, batch_size: int, deadline: float
) -> dict[str, dict[str, float]]:
    """Evaluate in forked processes, all jobs in one set of them, and return the figures of the first rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["evaluating"])
    file = folder / f"{world_size}.pt"
    given = {"count": count, "batch_size": batch_size}
    ranks = [
        context.Process(target=_rank, args=(rank, world_size, port, str(file), jobs, given))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=deadline)
    for process in ranks:
        if process.is_alive():
            process.kill()
            process.join()
    assert [process.exitcode for process in ranks] == [0] * world_size
    return torch.load(file, weights_only=True)
