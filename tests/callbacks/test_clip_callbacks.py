"""Callbacks of images and texts: what is written, what is drawn, where words come from."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from safetensors import safe_open
from torch.utils.data import DataLoader

from neurotrain.callbacks import (
    ClipExport,
    ClipFigures,
    ClipPredictions,
    ClipSampleTable,
    LearnVocabulary,
    WeightAveraging,
)
from neurotrain.losses.contrastive import ClipLoss
from neurotrain.networks.classification import ResNetSmall
from neurotrain.networks.clip import DualEncoder
from neurotrain.networks.text import TextTransformer, WordTokenizer
from neurotrain.tasks import ClassificationTask, ClipTask, Constant

TEXTS = ["a red wall\na wall", "a green wall", "a blue wall\nwater", "a grey wall"]


@pytest.fixture
def task() -> ClipTask:
    torch.manual_seed(0)
    text = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=2, length=20)
    network = DualEncoder(image=ResNetSmall(widths=(4,), blocks=(1,), num_classes=6), text=text)
    factory = partial(torch.optim.SGD, lr=0.1)
    return ClipTask(network=network, loss=ClipLoss(), optimizer=factory, schedule=Constant())


def loader() -> Any:  # noqa: ANN401 - of torch
    image = torch.randn(4, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    rows = [slice(0, 3), slice(3, 4)]
    batches = [
        {
            "image": image[some],
            "caption": TEXTS[some],
            "id": ["p", "q", "r", "s"][some],
            "source": ["synthetic toy"] * len(TEXTS[some]),
        }
        for some in rows
    ]
    return DataLoader(batches, batch_size=None)  # pyright: ignore


def trainer(folder: Path, *callbacks: Any) -> Trainer:  # noqa: ANN401 - of Lightning
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", callbacks=list(callbacks), default_root_dir=folder, **quiet)


def test_captions_of_the_data_are_found_and_embeddings_written(task: ClipTask, tmp_path: Path) -> None:
    trainer(tmp_path, ClipPredictions(nearest=2)).predict(task, loader())
    with safe_open(tmp_path / "predictions" / "embeddings.safetensors", framework="pt") as file:
        image, text = file.get_tensor("image"), file.get_tensor("text")
        assert file.get_tensor("text_image").tolist() == [0, 0, 1, 2, 2, 3]
        captions = json.loads(file.metadata()["captions"])
        assert json.loads(file.metadata()["ids"]) == ["p", "q", "r", "s"]
    assert captions == [line for told in TEXTS for line in told.split("\n")]
    torch.testing.assert_close(text.norm(dim=1), torch.ones(6))
    with (tmp_path / "predictions" / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for number, row in enumerate(rows):
        place = (image[number // 2] @ text.T).topk(2).indices[number % 2]
        assert row["caption"] == captions[place]
        assert float(row["cosine"]) == pytest.approx(float(image[number // 2] @ text[place]), abs=1e-5)
        assert (row["own"] == "1") == (row["caption"] in TEXTS[number // 2].split("\n"))
    assert not (tmp_path / "predictions" / "labels.csv").exists()


def test_the_table_and_the_figures_are_of_the_test(task: ClipTask, tmp_path: Path) -> None:
    drawn = trainer(tmp_path, ClipSampleTable(), ClipFigures(count=2, answers=2, gallery=3))
    (figures,) = drawn.test(task, loader(), verbose=False)
    with (tmp_path / "test_samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["p", "p", "q", "r", "r", "s"]
    right = [row["image_rank"] == "1" for row in rows]
    assert right == [row["nearest_image"] == row["id"] for row in rows]
    assert sum(right) / 6 == pytest.approx(figures["test/text_to_image_recall_1"])
    of_images = {row["id"]: row["caption_rank"] == "1" for row in rows}
    assert sum(of_images.values()) / 4 == pytest.approx(figures["test/image_to_text_recall_1"])
    for row in rows:
        own = TEXTS["pqrs".index(row["id"])].split("\n")
        assert (row["nearest_caption"] in own) == of_images[row["id"]]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"similarity.png", "retrieval.png"}


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_what_is_exported_are_the_averaged_weights_with_their_words(task: ClipTask, tmp_path: Path) -> None:
    assert task.tokenizer is not None
    task.tokenizer.learn(line for told in TEXTS for line in told.split("\n"))
    average = WeightAveraging(decay=0.5)
    run = trainer(tmp_path, average, ClipExport())
    run.fit_loop.max_epochs = 1
    single = [{**batch, "caption": [text.split("\n")[0] for text in batch["caption"]]} for batch in loader()]
    run.fit(task, DataLoader(single, batch_size=None))  # pyright: ignore
    text = TextTransformer(tokenizer=WordTokenizer(size=300), width=8, layers=1, heads=2, length=20)
    image = ResNetSmall(widths=(4,), blocks=(1,), num_classes=6)
    again = DualEncoder(image=image, text=text, weights=tmp_path / "export" / "network.safetensors")
    assert again.tokenizer.state() == task.tokenizer.state()
    trained = dict(task.network.named_parameters())
    with average.ema.swap():
        for name, value in again.named_parameters():
            assert torch.equal(value, trained[name]), name
    assert any(not torch.equal(value, trained[name]) for name, value in again.named_parameters())
    with pytest.raises(ValueError, match="not of a ClassificationTask"):
        ClipExport().on_fit_start(run, object.__new__(ClassificationTask))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ClipFigures(count=-1), "count=-1"),
        (lambda: ClipFigures(count=8, gallery=4), "gallery=4"),
        (lambda: ClipPredictions(nearest=-1), "nearest=-1"),
        (lambda: ClipPredictions(nearest=0, candidates=Path("a.txt")), "no effect with nearest=0"),
    ],
)
def test_what_cannot_be_is_refused(build: Any, told: str) -> None:  # noqa: ANN401 - a constructor
    with pytest.raises(ValueError, match=told):
        build()


def test_candidates_must_be_there_and_words_need_a_tokenizer(task: ClipTask, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="candidates="):
        trainer(tmp_path, ClipPredictions(candidates=tmp_path / "none.txt")).predict(task, loader())
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no caption"):
        trainer(tmp_path, ClipPredictions(candidates=tmp_path / "empty.txt")).predict(task, loader())
    other = object.__new__(ClassificationTask)
    with pytest.raises(ValueError, match="ClassificationTask has no tokenizer"):
        LearnVocabulary().setup(trainer(tmp_path), other, "fit")
