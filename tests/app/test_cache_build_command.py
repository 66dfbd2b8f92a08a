"""``neurotrain cache build`` on a shipped data configuration, as ranks run it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_encoders import save_clip, save_vae

from neurotrain.app.cli import main

COUNT = 5


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official layout with generated pictures, and encoders named by the environment."""
    root = tmp_path / "COCO-MINI"
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    noise = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = noise.integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(root / "train2017" / f"{number}.png")
    told = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(COUNT)],
        "annotations": [
            {"image_id": number, "caption": caption}
            for number in range(COUNT)
            for caption in (f"picture {number % 3}", "a red fox")
        ],
    }
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps(told))
    monkeypatch.setenv("NEUROTRAIN_VAE", str(save_vae(tmp_path / "vae")))
    monkeypatch.setenv("NEUROTRAIN_TEXT_ENCODER", str(save_clip(tmp_path / "clip")))
    return tmp_path


def _build(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, tuple[int, int]]:
    size = ["data.decoder.latents.prepare.preparation.resolution=16", "data.decoder.texts.encoder.max_length=6"]
    with pytest.raises(SystemExit) as ended:
        main(["cache", "build", "coco_latents", f"paths.data_dir={folder}", *size, *options])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    found = re.findall(r"(\w+) of coco: (\d+) encoded, (\d+) present", told.out)
    return {name: (int(encoded), int(present)) for name, encoded, present in found}


def test_builds_what_a_configuration_names_and_shares_it_among_ranks(
    coco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    first = _build(coco, capsys)
    monkeypatch.setenv("RANK", "1")
    second = _build(coco, capsys)
    # Three captions, one for all, and the empty one.
    assert first["latents"][0] + second["latents"][0] == COUNT
    assert first["texts"][0] + second["texts"][0] == 5
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert _build(coco, capsys) == {"latents": (0, COUNT), "texts": (0, 5)}
    assert _build(coco, capsys, "--texts") == {"texts": (0, 5)}


def test_says_what_names_no_cache(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["cache", "build", "synthetic_drive", "data.dataset.train=3", "data.dataset.size=[64,64]"])
    assert ended.value.code == 2
    assert "names no cache" in capsys.readouterr().err
