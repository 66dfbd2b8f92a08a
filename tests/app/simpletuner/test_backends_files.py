"""Files of data backends that run: converted, composed, built, and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from tiny_encoders import save_clip, save_vae

from neurotrain.app.cli import main
from neurotrain.app.data_commands import load_data
from neurotrain.data import MixtureDataModule
from neurotrain.data.cached_builds import build_caches

SQUARE = {"resolution": 16, "resolution_type": "pixel", "crop": True, "crop_style": "center", "crop_aspect": "square"}
PLAIN = {"type": "local", "caption_strategy": "textfile", **SQUARE}


def _photos(folder: Path, count: int, *, size: tuple[int, int] = (24, 20), start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(start)
    for number in range(start, start + count):
        pixels = noise.integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}\n")
    return folder


def _converted(folder: Path, backends: list[dict[str, Any]], *options: str) -> Path:
    """Write the file, convert it by the command, and return the YAML, where the working directory's are found."""
    source, output = folder / "multidatabackend.json", folder / "configs" / "data" / "mine.yaml"
    source.write_text(json.dumps(backends))
    output.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(SystemExit) as ended:
        main(["config", "convert", str(source), "-o", str(output), *options])
    assert ended.value.code == 0
    return output


def _module(*overrides: str) -> MixtureDataModule:
    module = load_data("mine", overrides)
    assert isinstance(module, MixtureDataModule)
    module.setup("fit")
    return module


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_folders_by_probability_with_an_evaluation_set(here: Path) -> None:
    backends = [
        {"id": "cats", "instance_data_dir": str(_photos(here / "cats", 6)), "probability": 0.75, **PLAIN},
        {"id": "more dogs", "instance_data_dir": str(_photos(here / "dogs", 6)), "probability": 0.25, **PLAIN},
        {"id": "held", "dataset_type": "eval", "instance_data_dir": str(_photos(here / "held", 2)), **PLAIN},
    ]
    _converted(here, backends)
    module = _module("data.batch_size=2", "data.samples_per_epoch=16")
    names = [batch["source"] for batch, _, _ in module.train_dataloader()]
    assert [one[0] for one in names].count("cats") == 6
    assert [one[0] for one in names].count("more_dogs") == 2
    (held,) = module.evaluation("validation").parts
    assert len(held) == 2
    batch = next(iter(module.train_dataloader()))[0]
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["caption"][0].startswith("picture ")


def test_repeats_see_every_sample_that_often_in_buckets(here: Path) -> None:
    folder = _photos(here / "photos", 4, size=(32, 16))
    _photos(folder, 4, size=(16, 32), start=4)
    settings = {"resolution": 16, "resolution_type": "pixel", "crop": False, "caption_strategy": "filename"}
    backend = {"id": "photos", "type": "local", "instance_data_dir": str(folder), "repeats": 1, **settings}
    _converted(here, [backend])
    module = _module("data.batch_size=2")
    batches = [batch for batch, _, _ in module.train_dataloader()]
    assert {tuple(batch["image"].shape) for batch in batches} == {(2, 3, 16, 32), (2, 3, 32, 16)}
    seen = [name for batch in batches for name in batch["id"]]
    assert sorted(seen) == sorted([str(number) for number in range(8)] * 2)


def test_small_images_are_left_out_by_area(here: Path) -> None:
    folder = _photos(here / "photos", 3, size=(40, 40))
    _photos(folder, 2, size=(16, 16), start=3)
    settings = {**PLAIN, "resolution_type": "pixel_area", "minimum_image_size": 32, "instance_data_dir": str(folder)}
    _converted(here, [{"id": "photos", **settings}])
    assert len(_module("data.batch_size=1").training()) == 3


def test_pairs_with_conditioning_and_captions_of_a_table(here: Path) -> None:
    _photos(here / "all" / "photos", 3)
    _photos(here / "all" / "canny", 3)
    rows = {"name": [f"{number}.png" for number in range(3)], "text": [f"row {number}" for number in range(3)]}
    pq.write_table(pa.table(rows), here / "all" / "rows.parquet")
    told = {
        "path": str(here / "all" / "rows.parquet"),
        "filename_column": "name",
        "caption_column": "text",
        "identifier_includes_extension": True,
    }
    main_backend = {**PLAIN, "caption_strategy": "parquet", "parquet": told, "conditioning_data": "edges"}
    backends = [
        {"id": "photos", "instance_data_dir": str(here / "all" / "photos"), **main_backend},
        {
            "id": "edges",
            "type": "local",
            "dataset_type": "conditioning",
            "conditioning_type": "controlnet",
            "source_dataset_id": "photos",
            "instance_data_dir": str(here / "all" / "canny"),
        },
    ]
    _converted(here, backends)
    batch = next(iter(_module("data.batch_size=3").train_dataloader()))[0]
    assert batch["conditioning/edges"].shape == batch["image"].shape == (3, 3, 16, 16)
    assert sorted(batch["caption"]) == ["row 0", "row 1", "row 2"]


def test_caches_are_built_and_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROTRAIN_VAE", str(save_vae(here / "vae")))
    monkeypatch.setenv("NEUROTRAIN_TEXT_ENCODER", str(save_clip(here / "clip")))
    photos = {"instance_data_dir": str(_photos(here / "photos", 4)), "cache_dir_vae": "{env:LAB}/{model_family}/{id}"}
    monkeypatch.setenv("LAB", str(here / "cache"))
    texts = {"id": "texts", "type": "memory", "dataset_type": "text_embeds", "default": True}
    backends = [{"id": "photos", **PLAIN, **photos}, {**texts, "cache_dir": str(here / "cache" / "texts")}]
    _converted(here, backends, "--set", "model_family=tiny")
    length = [f"data.sources.photos.decoder.texts.encoder.{key}" for key in ("max_length=6",)]
    module = _module("data.batch_size=2", *length)
    assert [one.report.encoded for one in build_caches(module)] == [4, 5]
    assert (here / "cache" / "tiny" / "photos" / "cache.json").is_file()
    batch = next(iter(_module("data.batch_size=2", *length).train_dataloader()))[0]
    assert batch["latent"].shape == (2, 2, 16, 16)
    assert batch["text_embedding"].shape == (2, 6, 8)
    assert batch["latent"].dtype == torch.float32


def test_an_experiment_selects_the_data(here: Path) -> None:
    source = here / "multidatabackend.json"
    source.write_text(json.dumps([{"id": "a", "instance_data_dir": str(_photos(here / "a", 2)), **PLAIN}]))
    output = here / "configs" / "experiment" / "mine.yaml"
    output.parent.mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        main(["config", "convert", str(source), "-o", str(output)])
    assert ended.value.code == 0
    assert output.read_text().startswith("# @package _global_\n")
    from neurotrain.app.compose import compose

    values = compose("mine").values
    assert values["name"] == "mine"
    assert values["data"]["sources"]["a"]["train"]["storage"]["root"] == str(here / "a")


BUCKET = {
    "type": "aws",
    "aws_bucket_name": "lab",
    "aws_endpoint_url": "https://s3.example.org",
    "aws_access_key_id": "AKIA-VERY-SECRET",
    "aws_secret_access_key": "do-not-write-me",
    "aws_data_prefix": "photos",
}


def test_other_storages_compose_and_secrets_are_never_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = {
        "id": "hub",
        "type": "huggingface",
        "dataset_name": "owner/photos",
        "revision": "0" * 40,
        "caption_strategy": "huggingface",
        "caption_column": "text",
        **SQUARE,
    }
    table = {
        "id": "urls",
        "type": "csv",
        "csv_file": "lists/urls.csv",
        "csv_cache_dir": "downloads",
        "csv_caption_column": "caption",
        "caption_strategy": "csv",
        **SQUARE,
    }
    clip = {**SQUARE, "resolution_type": "pixel", "video": {"num_frames": 5, "min_frames": 5}}
    bucket = {**PLAIN, **BUCKET}
    backends = [
        {"id": "ours", **bucket, "start_epoch": 2, "end_step": 300},
        {"id": "theirs", **bucket, "aws_secret_access_key": "another", "aws_access_key_id": "${LAB_KEY}"},
        hub,
        table,
    ]
    text = _converted(here, backends).read_text()
    told = capsys.readouterr().err
    for secret in ("AKIA-VERY-SECRET", "do-not-write-me", "another"):
        assert secret not in text
        assert secret not in told
    variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "LAB_KEY", "AWS_SECRET_ACCESS_KEY_THEIRS"]
    for variable in variables:
        assert f"${{oc.env:{variable}}}" in text
        assert f"set ${variable}: " in told
        monkeypatch.setenv(variable, "x")
    assert isinstance(load_data("mine", []), MixtureDataModule)
    values = yaml.safe_load(text)
    assert values["members"]["ours"] == {"repeats": 1, "exhaustion": "drop", "start_epoch": 1, "stop_step": 300}
    clips = {"id": "clips", "dataset_type": "video", "instance_data_dir": str(here), **PLAIN, **clip}
    assert "_VideoSource" in _converted(here, [clips]).read_text()
    assert isinstance(load_data("mine", []), MixtureDataModule)
