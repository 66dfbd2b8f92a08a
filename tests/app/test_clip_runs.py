"""The experiment of images and texts as shipped, on generated data: both command lines, every layout, resuming."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning import seed_everything
from PIL import Image
from safetensors import safe_open

import neurotrain
from neurotrain.app.cli import lightning_cli
from neurotrain.app.convert import to_lightning_cli

COUNT = 8
CLIP = ["model=clip", "callbacks=clip", "model.network.text.tokenizer.size=1024", "callbacks.figures=null"]


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's layout with two captions an image, and the same images in tables."""
    root = tmp_path_factory.mktemp("captioned")
    (root / "COCO-MINI" / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / "COCO-MINI" / split).mkdir()
        images, annotations = [], []
        for number in range(COUNT):
            name = f"{number:012d}.jpg"
            (root / "COCO-MINI" / split / name).write_bytes(_png(number))
            images.append({"id": number, "file_name": name, "width": 32, "height": 32})
            for text in (f"{split} number {number}", f"a picture of {number} things"):
                annotations.append({"id": len(annotations), "image_id": number, "caption": text})
        told = {"images": images, "annotations": annotations}
        (root / "COCO-MINI" / "annotations" / f"captions_{split}.json").write_text(json.dumps(told))
    pairs = root / "pairs"
    pairs.mkdir()
    for split in ("train", "test"):
        texts = [f"{split} number {number}" for number in range(COUNT)]
        for number in range(COUNT):
            (pairs / f"{number}.png").write_bytes(_png(number))
        lines = [f"{number}.png,{text}" for number, text in enumerate(texts)]
        (pairs / f"{split}.csv").write_text("\n".join(["image,caption", *lines]))
        cells = [{"bytes": _png(number), "path": f"{number}.png"} for number in range(COUNT)]
        pq.write_table(pa.table({"image": cells, "text": texts}), pairs / f"{split}-0.parquet")
    return root


def _small(data: Path, run: Path) -> list[str]:
    return [
        f"paths.data_dir={data}",
        f"paths.run_dir={run}",
        "data.batch_size=4",
        "data.eval_batch_size=4",
        "data.samples_per_epoch=8",
        "data.decoder.preparation.resolution=32",
        "data.decoder.preparation.multiple=16",
        "trainer.max_epochs=1",
        "trainer.check_val_every_n_epoch=1",
        "trainer.log_every_n_steps=1",
        "callbacks.checkpoint.every_n_steps=1",
        "model.network.image.name=test_resnet",
        "model.network.image.num_classes=16",
        "model.network.text.width=16",
        "model.network.text.layers=1",
    ]


@pytest.fixture(scope="session")
def fitted(captioned: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a run
    run = tmp_path_factory.mktemp("runs") / "fitted"
    overrides = [*_small(captioned, run), "callbacks.figures.count=2"]
    return neurotrain.train(neurotrain.compose("coco_clip", overrides))


def test_two_steps_leave_figures_words_and_scores(fitted: Any) -> None:  # noqa: ANN401 - a run
    assert fitted.trainer.global_step == 2
    words = fitted.model.tokenizer.words
    # Words of the training captions, and of no held-out one.
    assert {" train2017", " number", " 7"} <= set(words)
    assert " val2017" not in words
    for name in ("image_to_text_recall_1", "text_to_image_recall_1", "clip_accuracy", "text_to_image_median_rank"):
        assert f"test/{name}" in fitted.metrics
    written = {path.relative_to(fitted.directory).as_posix() for path in fitted.directory.rglob("*")}
    assert written >= {"figures/similarity.png", "figures/retrieval.png", "figures/curves.png", "summary.json"}
    with (fitted.directory / "test_samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * COUNT
    recall = sum(row["image_rank"] == "1" for row in rows) / len(rows)
    assert recall == pytest.approx(fitted.metrics["test/text_to_image_recall_1"])
    assert all((row["image_rank"] == "1") == (row["nearest_image"] == row["id"]) for row in rows)


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_the_other_command_line_ends_with_equal_weights(fitted: Any, captioned: Path, tmp_path: Path) -> None:  # noqa: ANN401
    config = neurotrain.compose("coco_clip", _small(captioned, tmp_path))
    values = to_lightning_cli(config, run_dir=tmp_path)
    for log in values["trainer"]["logger"]:
        log["init_args"]["directory"] = str(tmp_path)
    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    seed_everything(config.values["seed"], workers=True, verbose=False)
    cli: Any = lightning_cli(["--config", str(file), f"--trainer.default_root_dir={tmp_path}"], run=False)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    theirs = cli.model.state_dict()
    for name, value in fitted.model.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name]) or name == "running", name
        else:
            assert value == theirs[name], name


def test_pictures_of_a_folder_find_captions_of_a_file_and_classes(fitted: Any, captioned: Path, tmp_path: Path) -> None:  # noqa: ANN401
    (tmp_path / "candidates.txt").write_text("train2017 number 3\n\na picture of 2 things\n")
    overrides = [
        *_small(captioned, tmp_path / "predict"),
        "stage=predict",
        f"ckpt={fitted.directory / 'checkpoints' / 'last.ckpt'}",
        f"source={captioned / 'pairs'}",
        f"callbacks.predictions.candidates={tmp_path / 'candidates.txt'}",
        "model.class_names=[cat,dog]",
        "model/prompts=medical",
        "callbacks.predictions.probabilities=true",
    ]
    run = neurotrain.train(neurotrain.compose("coco_clip", overrides))
    with (run.directory / "predictions" / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(number) for number in range(COUNT) for _ in range(2)]
    assert {row["caption"] for row in rows} == {"train2017 number 3", "a picture of 2 things"}
    assert {row["own"] for row in rows} == {"0"}
    assert float(rows[0]["cosine"]) >= float(rows[1]["cosine"])
    assert run.model.tokenizer.words == fitted.model.tokenizer.words  # pyright: ignore
    with (run.directory / "predictions" / "labels.csv").open() as file:
        labels = list(csv.DictReader(file))
    assert [row["id"] for row in labels] == [str(number) for number in range(COUNT)]
    for row in labels:
        shares = {name: float(row[f"p({name})"]) for name in ("cat", "dog")}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["label"] == max(shares, key=lambda name: shares[name])
    with safe_open(run.directory / "predictions" / "embeddings.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"image"}
        assert file.get_tensor("image").shape == (COUNT, 16)


def test_resumed_in_the_middle_of_an_epoch_it_ends_as_the_whole_run(
    fitted: Any,  # noqa: ANN401 - a run
    captioned: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(fitted.directory, tmp_path / "part")
    for path in (tmp_path / "part" / "checkpoints").glob("*.ckpt"):
        if path.name != "step-00000001.ckpt":
            path.unlink()
    overrides = [*_small(captioned, tmp_path / "part"), "callbacks.figures=null", "resume=last", "test=false"]
    part = neurotrain.train(neurotrain.compose("coco_clip", overrides))
    left, right = (torch.load(run.directory / "checkpoints/last.ckpt", weights_only=True) for run in (part, fitted))
    assert left["global_step"] == right["global_step"] == 2
    averages = [
        next(v for k, v in run["callbacks"].items() if "WeightAveraging" in k)["average"] for run in (left, right)
    ]
    for ours, theirs in ((left["state_dict"], right["state_dict"]), averages):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            same = torch.equal(value, ours[name]) if isinstance(value, torch.Tensor) else value == ours[name]
            assert same, name


@pytest.mark.parametrize(
    "overrides",
    [
        ["model/loss=siglip", "model.network.bias=-10.0"],
        ["model/tuning@model.network.image_tuning=frozen", "model/prompts=general", "model.class_names=[cat]"],
        ["model/network=open_clip", "model/tuning@model.network.image_tuning=low_rank"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_choice_composes(overrides: list[str]) -> None:
    if "model/network=open_clip" in overrides:
        # Composed alone: the experiment's settings are of the other network.
        transforms = ["transform@data.train_transform=captioned_clip", "transform@data.eval_transform=clip_whole"]
        neurotrain.compose(None, ["data=coco_pairs", "model=clip", "callbacks=clip", *transforms, *overrides])
    else:
        neurotrain.compose("coco_clip", overrides)


def test_tables_and_parquet_files_of_pairs_train_together(captioned: Path, tmp_path: Path) -> None:
    small = [value for value in _small(captioned, tmp_path / "run") if not value.startswith("data.decoder")]
    for source in ("table", "parquet"):
        small.append(f"data.sources.{source}.decoder.preparation.resolution=32")
        small.append(f"data.sources.{source}.decoder.preparation.multiple=16")
    run = neurotrain.train(neurotrain.compose(None, ["data=pairs_mixture", *CLIP, *small]))
    assert run.trainer.global_step == 2
    assert {" train", " 7"} <= set(run.model.tokenizer.words)  # pyright: ignore
    assert run.data.summary()["sources"] == {  # pyright: ignore
        "train": {"table": COUNT, "parquet": COUNT},
        "test": {"table": COUNT},
    }


def test_stored_features_of_a_frozen_open_clip_train(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.save(
        open_clip.create_model(f"local-dir:{folder}", load_weights=False).state_dict(),
        folder / "open_clip_pytorch_model.bin",
    )
    monkeypatch.setenv("NEUROTRAIN_CLIP", str(folder))
    small = [
        value.replace("data.decoder", "data.decoder.beside")
        for value in _small(captioned, tmp_path / "run")
        if not value.startswith("model")
    ]
    overrides = [
        *(value for value in CLIP if value != "model.network.text.tokenizer.size=1024"),
        "data=coco_pairs_cached",
        "data.decoder.on_miss=encode",
        f"data.decoder.texts.cache.folder={tmp_path / 'cache'}",
        "model/network=open_clip",
        f"model.network.name=local-dir:{folder}",
        "model/tuning@model.network.text_tuning=frozen",
        *small,
    ]
    run = neurotrain.train(neurotrain.compose(None, overrides))
    assert run.trainer.global_step == 2
    assert 0 < run.metrics["test/clip_accuracy"] <= 1
