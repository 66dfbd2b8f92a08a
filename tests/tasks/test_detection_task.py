"""Detection end to end in memory: figures against pycocotools, crowds, empty images, resume, categories, masks."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import coco_files
import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from neurotrain.batch import Category, DetectionBatch
from neurotrain.callbacks import RunCheckpoint, find_last
from neurotrain.callbacks.detection_predictions import coco_results
from neurotrain.data import DetectionDataModule
from neurotrain.data.detection import CocoSource, DetectionDecoder
from neurotrain.data.transforms import Compose, DetectionCrop, DetectionFlip, DetectionToFloat
from neurotrain.networks.detection import Detection, Detector, FasterRcnn, Fcos, MaskRcnn
from neurotrain.storage import LocalStorage
from neurotrain.tasks import Constant, DetectionTask
from neurotrain.tasks.detection import evaluation_targets, training_targets

SMALL = {"backbone": "small", "channels": 64, "num_classes": 3, "min_size": 48, "max_size": 64}
FIGURES = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
FIGURES += ["mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coco_files.write_coco(tmp_path_factory.mktemp("detection") / "coco")


def _data(root: Path, *, masks: bool = False, **changes: Any) -> DetectionDataModule:  # noqa: ANN401
    storage = LocalStorage(root=root)
    held_out: dict[str, Any] = {"annotations": "annotations/instances_val2017.json", "images": "val2017"}
    given: dict[str, Any] = {
        "train": CocoSource(storage=storage),
        "validation": CocoSource(storage=storage, **held_out),
        "test": CocoSource(storage=storage, **held_out),
        "decoder": DetectionDecoder(masks=masks),
        "train_transform": DetectionToFloat(),
        "eval_transform": DetectionToFloat(),
        "batch_size": 2,
    }
    return DetectionDataModule(**given | changes)


def _task(network: Detector, lr: float = 2e-3, **changes: Any) -> DetectionTask:  # noqa: ANN401
    given: dict[str, Any] = {"optimizer": partial(torch.optim.AdamW, lr=lr), "schedule": Constant(), "num_classes": 3}
    return DetectionTask(network=network, **given | changes)


def _trainer(**changes: Any) -> Trainer:  # noqa: ANN401
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    given = {"accelerator": "cpu", "enable_model_summary": False, "log_every_n_steps": 1}
    return Trainer(**given | quiet | {"use_distributed_sampler": False} | changes)


class Oracle(Detector):
    """Finds what it was told, in the order in which images come; a network of one unused weight."""

    loss_names = ("nothing",)

    def __init__(self, answers: list[Detection], *, num_classes: int) -> None:
        super().__init__(network=nn.Linear(1, 1), num_classes=num_classes)
        self.answers = iter(answers)

    def forward(self, images: Any) -> list[Detection]:  # noqa: ANN401
        return [next(self.answers) for _ in images]


class MaskOracle(Oracle):
    """The same of masks."""

    predicts_masks = True


def _perturbed(targets: Any, classes: int, generator: torch.Generator) -> Detection:  # noqa: ANN401
    """Annotations moved a little, some of another class, some twice, some missed."""
    boxes = targets["boxes"].float()
    chosen = torch.randint(len(boxes), (len(boxes) + 2,), generator=generator) if len(boxes) else torch.zeros(0).long()
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)[chosen]
    moved = boxes[chosen] + 0.08 * size * torch.randn(len(chosen), 4, generator=generator)
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 0.5)
    labels = targets["labels"][chosen]
    other = torch.rand(len(chosen), generator=generator) < 0.15
    labels = torch.where(other, torch.randint(classes, labels.shape, generator=generator), labels)
    scores = torch.rand(len(chosen), generator=generator)
    order = scores.argsort(descending=True)
    found: Detection = {"boxes": moved[order], "scores": scores[order], "labels": labels[order]}
    if "masks" in targets:
        masks = targets["masks"].bool()[chosen[order]]
        moved_masks = [mask.roll((place % 5, place % 7), (0, 1)) for place, mask in enumerate(masks)]
        found["masks"] = torch.stack(moved_masks) if moved_masks else masks
    return found


def _scored(file: Path, results: list[dict[str, Any]], kind: str, images: list[int]) -> list[float]:
    """The figures that pycocotools prints."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
        scored = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), kind)
        scored.params.imgIds = images
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    assert any(coco.anns[one]["iscrowd"] for one in coco.getAnnIds(images))
    return scored.stats.tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools 2.0 under numpy 2
@pytest.mark.parametrize(("kind", "count"), [("bbox", 79), ("segm", 16)])
def test_figures_of_the_whole_path_equal_pycocotools_on_the_real_thing(
    kind: str, count: int, shared_data: Path
) -> None:
    folder, annotations = shared_data / "COCO-MINI", "annotations/instances_val2017.json"
    masks = kind == "segm"
    source = CocoSource(
        storage=LocalStorage(root=folder), annotations=annotations, images="val2017", first=79 - count, count=count
    )
    data = _data(folder, masks=masks, train=source, test=source, validation=0)
    data.setup("test")
    generator = torch.Generator().manual_seed(0)
    samples = [evaluation_targets(batch, masks=masks) for batch in data.test_dataloader()]
    answers = [_perturbed(target, 80, generator) for targets in samples for target in targets]
    oracle = (MaskOracle if masks else Oracle)(answers, num_classes=80)
    task = _task(oracle, num_classes=80)
    (found,) = _trainer().test(task, datamodule=data, verbose=False)

    assert task.categories is not None
    names = source.table()["id"].to_pylist()
    results = [
        result
        for name, answer in zip(names, answers, strict=True)
        for result in coco_results(name, answer, task.categories, kind=kind)  # pyright: ignore
    ]
    prefix = "test/mask_" if masks else "test/"
    for name, wanted in zip(FIGURES, _scored(folder / annotations, results, kind, [*map(int, names)]), strict=True):
        # Where no object contributes pycocotools says -1, and this nothing.
        assert found[prefix + name] == pytest.approx(float("nan") if wanted == -1 else wanted, abs=1e-7, nan_ok=True)
    assert 0.2 < found[prefix + "map_50"] < 0.9


def test_crowds_and_bad_boxes_are_evaluated_but_not_trained_on() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 9.0], [3.0, 3.0, 3.0, 8.0], [-4.0, 2.0, 90.0, 8.0]]
    batch: DetectionBatch = {
        "image": [torch.zeros(3, 20, 30)],
        "boxes": [torch.tensor(boxes, dtype=torch.float64)],
        "labels": [torch.tensor([0, 1, 2, 1])],
        "iscrowd": [torch.tensor([0, 1, 0, 0])],
        "area": [torch.ones(4, dtype=torch.float64)],
        "size": torch.tensor([[20, 30]]),
        "id": ["a"],
        "source": ["toy"],
    }
    (target,) = training_targets(batch, masks=False)
    assert target["boxes"].tolist() == [[0.0, 0.0, 10.0, 10.0], [0.0, 2.0, 30.0, 8.0]]
    assert target["labels"].tolist() == [0, 1]
    (whole,) = evaluation_targets(batch, masks=False)
    assert whole["boxes"].tolist() == boxes
    assert whole["iscrowd"].tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"set data.decoder.masks=true"):
        training_targets(batch, masks=True)


def test_it_learns_its_images_and_tells_every_part_of_the_loss(root: Path) -> None:
    seed_everything(0, verbose=False)
    source = CocoSource(storage=LocalStorage(root=root), count=2)
    trainer = _trainer(max_epochs=20, check_val_every_n_epoch=20)
    task = _task(Fcos(**SMALL, head_depth=1), lr=4e-3)
    trainer.fit(task, datamodule=_data(root, train=source, validation=source))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = [logged[f"train/loss_{name}"] for name in ("classification", "bbox_regression", "bbox_ctrness")]
    assert logged["train/loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert logged["val/map_50"] > 0.8
    assert "val/map_per_class" not in logged


def test_mask_rcnn_trains_and_its_masks_are_scored(root: Path) -> None:
    seed_everything(0, verbose=False)
    network = MaskRcnn(**SMALL | {"channels": 16}, head_channels=16, mask_channels=8, finest_anchor=8, max_detections=5)
    source = CocoSource(storage=LocalStorage(root=root), count=2)
    trainer = _trainer(max_epochs=6, check_val_every_n_epoch=6)
    data = _data(root, masks=True, train=source)
    task = _task(network, lr=4e-3)
    before = _mask_loss(task, data)
    trainer.fit(task, datamodule=data)
    assert _mask_loss(task, data) < 0.8 * before
    (found,) = trainer.test(task, datamodule=data, verbose=False)
    assert {"test/map", "test/mask_map", "test/mask_map_50"} <= set(found)
    assert set(task.figures) == {"bbox", "segm"}
    (predicted, *_) = trainer.predict(task, datamodule=data) or []
    one = predicted["detections"][0]  # pyright: ignore
    assert one["masks"].shape == (len(one["scores"]), 48, 64)
    results = coco_results("9", one, task.categories or (), kind="segm")
    assert len(results) == len(one["scores"])
    assert all(result["segmentation"]["size"] == [48, 64] and "bbox" not in result for result in results)


def _mask_loss(task: DetectionTask, data: DetectionDataModule) -> float:
    data.setup("fit")
    torch.manual_seed(0)
    with torch.no_grad():
        losses = [
            task.train().network.losses(batch["image"], training_targets(batch, masks=True))["loss_mask"]
            for batch in data.train_dataloader()
        ]
    return float(torch.stack(losses).mean())


class Stop(Callback):
    """Ends a run after a step, as a crash would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


def test_stopped_within_an_epoch_and_resumed_it_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    """Two stages draw their proposals from the global generator, and the transforms from their own."""

    def run(folder: Path, stop: int | None = None, ckpt: Path | None = None) -> dict[str, Tensor]:
        seed_everything(0, verbose=False)
        task = _task(FasterRcnn(**SMALL | {"channels": 16}, head_channels=16, finest_anchor=8))
        steps = {"crop": DetectionCrop(), "flip": DetectionFlip(), "float": DetectionToFloat()}
        source = CocoSource(storage=LocalStorage(root=root), count=2)
        data = _data(root, train=source, train_transform=Compose(steps=steps), validation=0, batch_size=1, seed=3)
        callbacks: list[Callback] = [RunCheckpoint(every_n_steps=1)]
        callbacks += [] if stop is None else [Stop(stop)]
        trainer = _trainer(max_epochs=2, default_root_dir=folder, callbacks=callbacks, enable_checkpointing=True)
        expected = contextlib.nullcontext() if stop is None else pytest.raises(InterruptedError)
        with expected, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
            warnings.filterwarnings("ignore", message="You defined a `validation_step`")
            trainer.fit(task, datamodule=data, ckpt_path=ckpt, weights_only=True)
        return task.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=3)
    last = find_last(tmp_path / "parts" / "checkpoints")
    assert last is not None
    resumed = run(tmp_path / "parts", ckpt=last)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_categories_travel_in_checkpoints_and_are_compared(root: Path, tmp_path: Path) -> None:
    task = _task(Fcos(**SMALL, head_depth=1))
    (predicted, *_) = _trainer().predict(task, datamodule=_data(root)) or []
    assert len(predicted["detections"]) == 4  # pyright: ignore
    assert task.categories == (Category(3, "red"), Category(18, "green"), Category(90, "blue"))
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    fresh = _task(Fcos(**SMALL, head_depth=1))
    fresh.on_load_checkpoint(checkpoint)
    assert fresh.categories == task.categories
    checkpoint["categories"][1]["name"] = "dog"
    with pytest.raises(ValueError, match=r"label 1 is .*'dog'.* there and .*'green'"):
        task.on_load_checkpoint(checkpoint)
    wrong = _task(Fcos(**SMALL | {"num_classes": 4}, head_depth=1), num_classes=4)
    with pytest.raises(ValueError, match=r"the data have 3 categories: set model.num_classes=3"):
        _trainer().predict(wrong, datamodule=_data(root))
    with pytest.raises(ValueError, match=r"network.num_classes=3, num_classes=5"):
        _task(Fcos(**SMALL, head_depth=1), num_classes=5)


def test_images_that_were_scaled_on_their_way_to_evaluation_are_refused(root: Path) -> None:
    class Halved(DetectionToFloat):
        def __call__(self, sample: Any, generator: torch.Generator) -> Any:  # noqa: ANN401
            found = super().__call__(sample, generator)
            return {**found, "image": found["image"][:, ::2, ::2]}

    task = _task(Fcos(**SMALL, head_depth=1))
    with pytest.raises(ValueError, match=r"'900' has \[24, 32\] pixels, stored are \[48, 64\]"):
        _trainer().test(task, datamodule=_data(root, eval_transform=Halved()), verbose=False)
