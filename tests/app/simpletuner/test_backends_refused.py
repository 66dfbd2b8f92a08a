"""Files of data backends that do not fit: every problem is named, by backend and key, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neurotrain.app.cli import main
from neurotrain.app.simpletuner import BackendsError, Conversion, convert_backends

BASE = {
    "type": "local",
    "instance_data_dir": "photos",
    "caption_strategy": "filename",
    "resolution": 512,
    "resolution_type": "pixel",
    "crop": True,
    "crop_style": "center",
    "crop_aspect": "square",
}
TEXTS = {"id": "texts", "type": "local", "dataset_type": "text_embeds", "default": True, "cache_dir": "cache"}


def _convert(*backends: dict[str, Any], **options: str) -> Conversion:
    return convert_backends(backends, options=options, environment={"HOME": "/home/me"})


def _problems(*backends: dict[str, Any]) -> list[str]:
    with pytest.raises(BackendsError) as caught:
        _convert(*backends)
    return list(caught.value.problems)


def _one(**changes: Any) -> list[str]:  # noqa: ANN401
    return _problems({"id": "a", **BASE, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"croped": True}, "a.croped: unknown key; nearest: 'crop'"),
        ({"type": "gcs"}, "a.type: 'gcs' is none of 'local', 'aws', 'csv', 'huggingface', 'memory'"),
        ({"type": "memory"}, "a.type: 'memory' is for text_embeds and image_embeds only"),
        ({"dataset_type": "audio"}, "a.dataset_type: 'audio' is none of 'image', 'video', 'conditioning'"),
        ({"crop_style": "face"}, "a.crop_style: 'face'"),
        ({"crop_aspect": "random"}, "a.crop_aspect: 'random'"),
        ({"crop_aspect": "closest"}, "a.crop_aspect_buckets: None"),
        ({"resolution_type": "megapixel"}, "a.resolution_type: 'megapixel': one of 'pixel', 'pixel_area', 'area'"),
        ({"resolution": "big"}, "a.resolution: 'big'"),
        ({"caption_strategy": "blip"}, "a.caption_strategy: 'blip': one of 'textfile'"),
        ({"caption_strategy": "instanceprompt"}, "a.instance_prompt: None"),
        ({"caption_strategy": "parquet"}, "a.parquet.path: None"),
        ({"prepend_instance_prompt": True}, "a.prepend_instance_prompt: True"),
        ({"caption_shuffle": {"enable": True}}, "a.caption_shuffle: {'enable': True}"),
        ({"is_regularisation_data": True}, "a.is_regularisation_data: True: it is about training"),
        ({"delete_unwanted_images": True}, "a.delete_unwanted_images: True: nothing is ever deleted"),
        ({"max_num_samples": 10}, "a.max_num_samples: 10"),
        ({"repeats": -1}, "a.repeats: -1"),
        ({"repeats": "3"}, "a.repeats: expected a whole number, got '3'"),
        ({"start_epoch": 2}, "a.start_epoch: no backend takes part at the start"),
        ({"start_step": 5, "end_step": 5}, "a.end_step: 5: it would never take part"),
        ({"text_embeds": "nobody"}, "a.text_embeds: there is no such backend; 'nobody'"),
        (
            {"cache_dir_vae": "{model_family}/x"},
            "a.cache_dir_vae: variable {model_family} is not set: give it by --set",
        ),
        ({"instance_data_dir": "${DATA}/x"}, "a.instance_data_dir: variable ${DATA} is not set: set it in the env"),
        ({"dataset_type": "video"}, "a.video.num_frames: None"),
        ({"dataset_type": "video", "video": {"num_frames": 5, "max_frames": 9}}, "a.video.max_frames: 9"),
        ({"crop": "yes"}, "a.crop: expected true or false, got 'yes'"),
        ({"conditioning": [{"type": "canny"}]}, "a.conditioning: [{'type': 'canny'}]"),
    ],
)
def test_names_backend_key_and_value(changes: dict[str, Any], message: str) -> None:
    assert any(problem.startswith(message) for problem in _one(**changes)), _one(**changes)


def test_switches_that_are_off_are_fine() -> None:
    off = {"prepend_instance_prompt": False, "caption_shuffle": {"enable": False}, "max_num_samples": None}
    assert _convert({"id": "a", **BASE, **off, "grounding": {"enabled": False}}).notes == ()


def test_all_problems_at_once() -> None:
    found = _problems({"id": "a", **BASE, "croped": 1, "crop_style": "face"}, {"id": "b", **BASE, "resolution": None})
    assert [problem.split(":")[0] for problem in found] == ["a.crop_style", "b.resolution", "a.croped"]


def test_references_that_lead_nowhere_or_in_a_circle() -> None:
    edges = {"type": "local", "dataset_type": "conditioning", "instance_data_dir": "edges"}
    (circle,) = _problems(
        {"id": "a", **BASE, "conditioning_data": "x"},
        {"id": "x", **edges, "conditioning_data": "y"},
        {"id": "y", **edges, "conditioning_data": "x"},
    )
    assert circle in (
        "backends need each other in a circle: x -> y -> x",
        "backends need each other in a circle: y -> x -> y",
    )
    (wrong,) = _problems({"id": "a", **BASE, "image_embeds": "b"}, {"id": "b", **BASE})
    assert wrong == "a.image_embeds: 'b' has dataset_type='image', expected image_embeds"
    (gone,) = _problems({"id": "a", **BASE, "text_embeds": "texts"}, {**TEXTS, "disabled": True})
    assert gone == "a.text_embeds: 'texts' is disabled"
    assert "a.id: occurs twice" in _problems({"id": "a", **BASE}, {"id": "a", **BASE})
    assert (
        "texts.default: no text_embeds backend has default=true"
        in _problems({"id": "a", **BASE}, {**TEXTS, "default": False})[0]
    )


def test_order_puts_caches_before_conditioning_before_images() -> None:
    images = {"id": "a", **BASE, "conditioning_data": ["m"], "image_embeds": "vae", "cache_dir_vae": "latents"}
    mask = {"id": "m", "type": "local", "dataset_type": "conditioning", "conditioning_type": "mask"}
    store = {"id": "vae", "type": "local", "dataset_type": "image_embeds"}
    found = _convert(images, {**mask, "instance_data_dir": "masks", "source_dataset_id": "a"}, store, TEXTS)
    order = list(found.order)
    assert order.index("a") > max(order.index(name) for name in ("m", "vae"))
    decoder = found.node.values["sources"]["a"].values["decoder"]
    assert decoder.values["beside"].values["conditioning"] == {"m": "mask"}
    assert decoder.values["latents"].values["cache"].values["folder"] == "latents"


def test_differences_are_told() -> None:
    told = _convert(
        {
            **{"id": "a", **BASE, "cache_dir_vae": "x", "crop_style": "random", "maximum_image_size": 2048},
            **{"target_downsample_size": 1024, "skip_file_discovery": "vae", "metadata_backend": "discovery"},
        },
        TEXTS,
    ).notes
    keys = [note.partition(":")[0] for note in told]
    assert keys == [
        "a.maximum_image_size",
        "a.target_downsample_size",
        "a.cache_dir_vae",
        "a.skip_file_discovery",
        "a.metadata_backend",
    ]


def test_options_of_the_trainer_fill_in() -> None:
    bare = {"id": "a", "type": "local", "instance_data_dir": "{env:HOME}/x", "caption_strategy": "filename"}
    found = _convert(bare, resolution="512", resolution_type="pixel", train_batch_size="4")
    member = found.node.values["sources"]["a"]
    assert member.values["decoder"].values["preparation"].values["resolution"] == 512
    assert member.values["train"].values["storage"].values["root"] == "/home/me/x"
    assert found.node.values["batch_size"] == 4


def test_members_must_hold_the_same_fields() -> None:
    found = _problems({"id": "a", **BASE, "cache_dir_vae": "x"}, {"id": "b", **BASE, "vae_cache_disable": True}, TEXTS)
    assert found[0].startswith("samples of all backends must hold the same fields")


def test_the_command_ends_with_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "multidatabackend.json"
    source.write_text(json.dumps([{"id": "a", **BASE, "croped": 1, "max_num_samples": 2}]))
    with pytest.raises(SystemExit) as ended:
        main(["config", "convert", str(source)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "2 problems" in told
    assert "a.croped" in told
    assert "a.max_num_samples" in told
    source.write_text("{}")
    with pytest.raises(SystemExit):
        main(["config", "convert", str(source)])
    assert "expected a list of backends" in capsys.readouterr().err
