"""The command line's tools: data, caches, comparison of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from neurotrain.app.cli import main
from neurotrain.data.cache import TensorCache
from neurotrain.data.cache.keys import cache_key


def _main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    size = ["data.dataset.size=[64,64]", "data.dataset.train=3", "data.dataset.test=1"]
    place = ["--target", str(folder / "DRIVE-folder"), f"paths.data_dir={folder}"]
    assert _main("data", "convert", "synthetic_drive", "--layout", "folder", *place, *size) == 0
    return folder


def test_looks_at_a_converted_folder(laid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = f"paths.data_dir={laid}"
    assert _main("data", "scan", "drive_folder", here) == 0
    assert "train folder: 3 entries" in capsys.readouterr().out
    assert _main("data", "verify", "drive_folder", here) == 0
    assert "4 samples, none broken" in capsys.readouterr().out
    assert _main("data", "stats", "drive_folder", here) == 0
    told = capsys.readouterr().out
    assert "3x64x64" in told
    assert "labels: {0: " in told
    picture = tmp_path / "preview.png"
    size = "data.train_transform.steps.patch.size=32"
    assert _main("data", "preview", "drive_folder", here, size, "data.batch_size=3", "-o", str(picture)) == 0
    # Two columns of an image and its mask side by side, each 32 wide, with 2 pixels between.
    with Image.open(picture) as image:
        assert image.size == (2 * 66, 2 * 34)


def test_verify_lists_what_is_broken(laid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = sorted((laid / "DRIVE-folder" / "train" / "images").glob("*"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    try:
        assert _main("data", "verify", "drive_folder", f"paths.data_dir={laid}") == 1
    finally:
        broken.write_bytes(whole)
    told = capsys.readouterr().out
    assert "4 samples, 1 broken" in told
    assert broken.name in told


def test_a_mixture_is_not_converted_as_one(
    laid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROTRAIN_BUCKET", "none")
    somewhere = f"data.sources.huggingface.train.path={laid}"
    assert _main("data", "convert", "drive_mixture", "--layout", "folder", "--target", "nowhere", somewhere) == 2
    assert "convert its members one by one" in capsys.readouterr().err


def test_a_cache_is_told_verified_and_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TensorCache(folder=tmp_path / "cache") as cache:
        for number in range(4):
            cache.put(cache_key(str(number)), {"latent": torch.full((4, 8), float(number))})
    folder = str(tmp_path / "cache")
    assert _main("cache", "stats", folder) == 0
    assert "entries: 4" in capsys.readouterr().out
    assert _main("cache", "verify", folder) == 0
    assert _main("cache", "gc", folder, "--max-bytes", "0") == 0
    assert "corrupt: " in capsys.readouterr().out
    assert _main("cache", "stats", folder) == 0
    assert "entries: 0" in capsys.readouterr().out
    assert _main("cache", "stats", str(tmp_path / "nothing")) == 2


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, shift in (("a", 0.0), ("b", 0.05)):
        (tmp_path / run).mkdir()
        rows = "\n".join(f"{number},network,{0.7 + 0.01 * number + shift}" for number in range(8))
        (tmp_path / run / "test_samples.csv").write_text(f"id,observer,dice\n{rows}\n")
    assert _main("metrics", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "200") == 0
    told = capsys.readouterr().out
    assert "0.0500 [0.0500, 0.0500]" in told
    assert "0.007812" in told  # Wilcoxon's exact p of eight differences of one sign: 2 / 2**8


@pytest.mark.parametrize("arguments", [("data", "scan", "drive", "--threds"), ("cache", "stats", "x", "a=1")])
def test_unknown_arguments_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(*arguments) == 2
    assert "unrecognized arguments" in capsys.readouterr().err
