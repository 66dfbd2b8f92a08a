"""Predictions on disk: values and sizes by hand, in every mode."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callback_toys import Fixed, make_trainer
from PIL import Image
from torch import Tensor, nn

from neurotrain.callbacks import SegmentationPredictions
from neurotrain.data import SegmentationDataModule
from neurotrain.data.datasets import ImageMaskFolder, SegmentationDataset, SyntheticDrive
from neurotrain.data.transforms import CentreCrop, Identity, PadToMultiple, RandomPatch, Resize, Transform
from neurotrain.inference import FullImage
from neurotrain.losses import BinaryCrossEntropyLoss
from neurotrain.tasks import Constant, SegmentationTask


class Channels(nn.Module):
    """The image's first channels, from [0, 1] to logits."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.gain = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x[:, : self.count] - 0.5)


def _task(mode: Any = "binary", classes: int = 1, **settings: Any) -> SegmentationTask:  # noqa: ANN401
    return SegmentationTask(
        network=Channels(classes),
        loss=BinaryCrossEntropyLoss(mode="binary"),
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        schedule=Constant(),
        inferer=FullImage(divisor=1),
        mode=mode,
        num_classes=classes,
        threshold=None if mode == "multiclass" else 0.7,
        **settings,
    )


def _predict(
    folder: Path,
    task: SegmentationTask,
    dataset: SegmentationDataset,
    *,
    source: Path | None = None,
    eval_transform: Transform | None = None,
    probabilities: bool = False,
) -> list[Any]:
    data = SegmentationDataModule(
        dataset=dataset,
        train_transform=RandomPatch(size=8),
        eval_transform=eval_transform or Identity(),
        source=None if source is None else str(source),
    )
    callback = SegmentationPredictions(probabilities=probabilities)
    made = make_trainer(folder, [callback], enable_checkpointing=False).predict(task, datamodule=data)
    assert made is not None
    return made


def _photo(path: Path, *, height: int = 10, width: int = 14) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "predictions").iterdir())


def test_binary_of_the_test_split_is_what_the_task_says_inside_the_field_of_view(tmp_path: Path) -> None:
    dataset = SyntheticDrive(root=tmp_path / "data", train=1, test=2, size=(64, 60))
    made = _predict(tmp_path, _task(), dataset, probabilities=True)
    records = dataset.records("test")
    assert _names(tmp_path) == sorted(f"{record.id}{kind}.png" for record in records for kind in ("", "_probability"))
    for record, batch in zip(records, made, strict=True):
        valid = dataset.read(record)["valid"].numpy()
        labels = _read(tmp_path / "predictions" / f"{record.id}.png")
        assert (labels.dtype, labels.shape) == (np.uint8, (64, 60))
        assert np.array_equal(labels, np.where(valid, batch["labels"][0].numpy() * 255, 0))
        assert set(np.unique(labels)) == {0, 255}
        values = _read(tmp_path / "predictions" / f"{record.id}_probability.png")
        assert (values.dtype, values.shape) == (np.uint16, (64, 60))
        expected = np.where(valid, batch["probabilities"][0, 0].double().numpy() * 65535, 0)
        assert np.abs(values - expected).max() <= 0.5


def test_multiclass_by_hand(tmp_path: Path) -> None:
    pixels = _photo(tmp_path / "in" / "a.png")
    dataset = ImageMaskFolder(root=tmp_path, mode="multiclass", num_classes=3)
    _predict(tmp_path, _task("multiclass", 3), dataset, source=tmp_path / "in", probabilities=True)
    assert np.array_equal(_read(tmp_path / "predictions" / "a.png"), pixels.argmax(2))
    logits = np.exp(8 * (pixels / 255 - 0.5))
    expected = (1 - logits[..., 0] / logits.sum(2)) * 65535
    assert np.abs(_read(tmp_path / "predictions" / "a_probability.png") - expected).max() < 1
    assert len(_names(tmp_path)) == 2


def test_multilabel_by_hand(tmp_path: Path) -> None:
    pixels = _photo(tmp_path / "in" / "a.png")
    names = ("disc", "optic/cup")
    dataset = ImageMaskFolder(root=tmp_path, mode="multilabel", num_classes=2, class_names=names)
    task = _task("multilabel", 2, class_names=names)
    _predict(tmp_path, task, dataset, source=tmp_path / "in", probabilities=True)
    assert _names(tmp_path) == [
        "a_disc.png", "a_disc_probability.png", "a_optic_cup.png", "a_optic_cup_probability.png",
    ]  # fmt: skip
    probability = 1 / (1 + np.exp(-8 * (pixels / 255 - 0.5)))
    for channel, name in enumerate(("disc", "optic_cup")):
        labels = _read(tmp_path / "predictions" / f"a_{name}.png")
        assert np.array_equal(labels, np.where(probability[..., channel] > 0.7, 255, 0))


@pytest.mark.parametrize("eval_transform", [PadToMultiple(multiple=16), Resize(size=(20, 28))])
def test_pictures_have_the_size_that_the_image_has_on_disk(eval_transform: Transform, tmp_path: Path) -> None:
    pixels = np.zeros((10, 14, 3), dtype=np.uint8)
    pixels[:, :7] = 255
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    dataset = ImageMaskFolder(root=tmp_path)
    (batch,) = _predict(tmp_path, _task(), dataset, source=tmp_path / "in", eval_transform=eval_transform)
    assert batch["labels"].shape != (1, 10, 14)
    assert np.array_equal(_read(tmp_path / "predictions" / "a.png"), pixels[..., 0])


def test_a_crop_cannot_be_laid_over_the_image(tmp_path: Path) -> None:
    _photo(tmp_path / "in" / "a.png")
    with pytest.raises(ValueError, match="eval_transform turns 'a'"):
        _predict(
            tmp_path, _task(), ImageMaskFolder(root=tmp_path), source=tmp_path / "in", eval_transform=CentreCrop(size=4)
        )


def _batch(*ids: str, shape: tuple[int, ...] = (4, 5)) -> dict[str, Any]:
    count = len(ids)
    return {
        "image": torch.ones(count, 1, *shape),
        "mask": torch.zeros(count, *shape, dtype=torch.long),
        "valid": torch.ones(count, *shape, dtype=torch.bool),
        "id": list(ids),
        "source": ["toy"] * count,
    }


def _predict_batch(folder: Path, batch: dict[str, Any]) -> None:
    trainer = make_trainer(folder, [SegmentationPredictions()], enable_checkpointing=False)
    trainer.predict(_task(), Fixed([batch]))


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    _predict_batch(tmp_path, _batch("../../a\\b", "my photo (1)"))
    assert _names(tmp_path) == [".._.._a_b.png", "my photo (1).png"]
    assert sorted(path.parent for path in tmp_path.rglob("*.png")) == [tmp_path / "predictions"] * 2


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a:b' and 'a/b' would both"):
        _predict_batch(tmp_path, _batch("a:b", "a/b"))


def test_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' has 3 spatial axes"):
        _predict_batch(tmp_path, _batch("a", shape=(2, 4, 5)))


def test_more_classes_than_an_8_bit_picture_has_values_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [SegmentationPredictions()], enable_checkpointing=False)
    with pytest.raises(ValueError, match="num_classes=257"):
        trainer.predict(_task("multiclass", 257), Fixed([_batch("a")]))


def test_a_file_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(image: Image.Image, path: Path, **settings: str) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", breaks)
    with pytest.raises(OSError, match="disk full"):
        _predict_batch(tmp_path, _batch("a"))
    assert not (tmp_path / "predictions" / "a.png").exists()
