"""Folders of models that bring code, pickles or a moving target: none is run, none is followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from canaries import Canary
from tiny_encoders import save_clip
from torch import nn

from neurotrain.diffusion.families.folders import PipelineFolder
from neurotrain.networks.captioning import HuggingFaceCaptioner
from neurotrain.networks.classification import Timm
from neurotrain.networks.clip.openclip import OpenClip
from neurotrain.networks.encoders import DiffusersVAE, HuggingFaceTextEncoder
from neurotrain.storage.tensors import CheckpointError

COMMIT = "0" * 40

PINNED: dict[str, Callable[[str | None], object]] = {
    "a text encoder": lambda revision: HuggingFaceTextEncoder(path="owner/name", revision=revision),
    "an autoencoder": lambda revision: DiffusersVAE(path="owner/name", revision=revision),
    "a captioner": lambda revision: HuggingFaceCaptioner(path="owner/name", revision=revision),
    "a pipeline": lambda revision: PipelineFolder(path="owner/name", revision=revision),
    "timm": lambda revision: Timm(name="hf-hub:owner/name" + ("" if revision is None else f"@{revision}")),
}


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "0" * 39, "0" * 40 + "\n", "refs/pr/1"])
@pytest.mark.parametrize("name", PINNED)
def test_what_may_move_is_refused(name: str, revision: str | None) -> None:
    with pytest.raises(ValueError, match=r"needs a commit, .*40 hexadecimal digits"):
        PINNED[name](revision)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import open_clip

    made = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 9, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{made}", load_weights=False)
    torch.save(model.state_dict(), made / "open_clip_pytorch_model.bin")
    return made


def with_code(source: Path, folder: Path, canary: Canary, **files: dict[str, str]) -> Path:
    """A copy of a folder with a module that fires the canary, and ``auto_map`` in some of its files."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    code = f"open({str(canary.path)!r}, 'w').close()\nclass Evil: pass\nclass EvilConfig: pass\n"
    (folder / "evil.py").write_text(code)
    for name, mapped in files.items():
        path = folder / f"{name}.json"
        told = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**told, "auto_map": mapped}))
    return folder


def test_code_beside_a_text_encoder_is_not_run(text: Path, tmp_path: Path, canary: Canary) -> None:
    folder = with_code(
        text,
        tmp_path / "evil",
        canary,
        config={"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil"},
        tokenizer_config={"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    )
    encoder = HuggingFaceTextEncoder(path=str(folder), max_length=8)
    assert isinstance(encoder.network, nn.Module)
    assert type(encoder.tokenizer).__module__.startswith("transformers.")


def test_a_model_of_the_folders_own_kind_is_refused(text: Path, tmp_path: Path, canary: Canary) -> None:
    folder = with_code(text, tmp_path / "evil", canary, config={"AutoConfig": "evil.EvilConfig"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "architectures": ["Evil"]}))
    encoder = HuggingFaceTextEncoder(path=str(folder), max_length=8)
    with pytest.raises(ValueError, match=r"trust_remote_code|evil"):
        _ = encoder.network


def test_pickled_weights_of_a_text_encoder_are_not_read(text: Path, tmp_path: Path, canary: Canary) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(text, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": canary}, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.safetensors"):
        HuggingFaceTextEncoder(path=str(folder), max_length=8).fingerprint()
    with pytest.raises(OSError, match="safetensors"):
        _ = HuggingFaceTextEncoder(path=str(folder), max_length=8).network


OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "code of the tokenizer": (
        {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}},
        r"tokenizer_kwargs\.trust_remote_code is refused",
    ),
    "another file for the merges": (
        {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, r"tokenizer_kwargs\.bpe_path is refused"
    ),
    "a text tower on the hub": ({"hf_model_name": "owner/name"}, "nothing is downloaded"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_open_clip(name: str, contrastive: Path, tmp_path: Path, canary: Canary) -> None:
    options, reason = OPTIONS[name]
    folder = with_code(contrastive, tmp_path / "evil", canary)
    file = folder / "open_clip_config.json"
    told = json.loads(file.read_text())
    told["model_cfg"]["text_cfg"] |= options
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=reason):
        OpenClip(name=f"local-dir:{folder}")


def test_code_beside_open_clip(contrastive: Path, tmp_path: Path, canary: Canary) -> None:
    mapped = {"AutoTokenizer": "evil.Evil"}
    folder = with_code(contrastive, tmp_path / "evil", canary, tokenizer_config=mapped)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: auto_map names code of the folder"):
        OpenClip(name=f"local-dir:{folder}")


@pytest.mark.parametrize("given", [False, True])
def test_pickled_weights_of_open_clip(given: bool, contrastive: Path, tmp_path: Path, canary: Canary) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(contrastive, folder)
    path = folder / "open_clip_pytorch_model.bin"
    torch.save({"state_dict": {"x": canary}}, path)
    with pytest.raises(CheckpointError, match=r"open_clip_pytorch_model\.bin: refused: it would call posix\.system"):
        OpenClip(name=f"local-dir:{folder}", weights=path if given else None)


def test_pickled_parts_of_a_pipeline(tmp_path: Path, canary: Canary) -> None:
    from neurotrain.diffusion.families.base import PipelineContract
    from neurotrain.diffusion.families.folders import PipelineContractError

    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    torch.save({"x": canary}, tmp_path / "unet" / "diffusion_pytorch_model.bin")
    contract = PipelineContract(required=("unet",), optional=(), replaced=(), left_out=())
    with pytest.raises(PipelineContractError, match="'unet' has pickled weights only"):
        PipelineFolder(path=str(tmp_path)).check(contract, classes={})
