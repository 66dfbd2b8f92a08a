"""Pretrained encoders: what the libraries give, what identifies them, what they refuse."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest
import torch
from tiny_encoders import save_clip, save_vae

from neurotrain.networks.encoders import DiffusersVAE, HuggingFaceTextEncoder

COMMIT = "0" * 40


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def test_vae_gives_the_librarys_distribution(vae: Path) -> None:
    from diffusers import AutoencoderKL

    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = DiffusersVAE(path=str(vae)).encode(image)
    with torch.no_grad():
        expected = AutoencoderKL.from_pretrained(str(vae)).eval().encode(image).latent_dist
    torch.testing.assert_close(found["mean"], expected.mean)
    torch.testing.assert_close(found["logvar"], expected.logvar)


def test_subfolder_and_precision(vae: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").symlink_to(vae)
    encoder = DiffusersVAE(path=str(tmp_path), subfolder="vae", precision="bfloat16")
    assert encoder.encode(torch.zeros(1, 3, 16, 16))["mean"].dtype == torch.bfloat16
    assert encoder.fingerprint() != DiffusersVAE(path=str(vae)).fingerprint()


def test_fingerprint_is_that_of_the_files(vae: Path, tmp_path: Path) -> None:
    first = DiffusersVAE(path=str(vae)).fingerprint()
    assert first == DiffusersVAE(path=str(vae)).fingerprint()
    same = save_vae(tmp_path / "same")
    assert DiffusersVAE(path=str(same)).fingerprint() == first
    other = save_vae(tmp_path / "other", seed=1)
    assert DiffusersVAE(path=str(other)).fingerprint() != first
    config = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps({**config, "norm_num_groups": 2}))
    assert DiffusersVAE(path=str(same)).fingerprint() != first


def test_text_embeddings_are_the_librarys(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModel

    texts = ["a red fox", ""]
    found = HuggingFaceTextEncoder(path=str(clip), max_length=6).encode(texts)
    tokens = AutoTokenizer.from_pretrained(clip)(texts, padding="max_length", max_length=6, return_tensors="pt")
    model = CLIPTextModel.from_pretrained(clip).eval()
    with torch.no_grad():
        expected = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], output_hidden_states=True
        )
    torch.testing.assert_close(found["embedding"], expected.last_hidden_state)
    torch.testing.assert_close(found["pooled"], expected.pooler_output)
    assert found["attention_mask"].tolist() == [[True] * 3 + [False] * 3, [False] * 6]
    earlier = HuggingFaceTextEncoder(path=str(clip), max_length=6, layer=-2)
    torch.testing.assert_close(earlier.encode(texts)["embedding"], expected.hidden_states[-2])
    assert earlier.fingerprint() != HuggingFaceTextEncoder(path=str(clip), max_length=6).fingerprint()


def test_a_text_does_not_depend_on_the_others_of_its_batch(clip: Path) -> None:
    encoder = HuggingFaceTextEncoder(path=str(clip), max_length=6)
    together = encoder.encode(["a fox", "a red fox picture"])["embedding"][0]
    torch.testing.assert_close(together, encoder.encode(["a fox"])["embedding"][0])


def test_cutting_a_text_is_said_once(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = HuggingFaceTextEncoder(path=str(clip), max_length=2)
    with caplog.at_level(logging.WARNING, logger="neurotrain"):
        assert encoder.encode(["a red fox"])["embedding"].shape == (1, 2, 8)
        encoder.encode(["a red fox"])
    assert [record.getMessage() for record in caplog.records] == [
        "texts are cut off at max_length=2 tokens, the first of 3: 'a red fox'"
    ]


def test_travels_without_weights(vae: Path) -> None:
    encoder = DiffusersVAE(path=str(vae))
    assert encoder.network is encoder.network
    assert len(pickle.dumps(encoder)) < 2000


def test_reads_safetensors_only(vae: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((vae / "config.json").read_bytes())
    torch.save({}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.safetensors"):
        DiffusersVAE(path=str(tmp_path)).fingerprint()


def test_refuses_another_class(clip: Path) -> None:
    with pytest.raises(ValueError, match="holds a None, DiffusersVAE reads AutoencoderKL"):
        DiffusersVAE(path=str(clip)).encode(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "owner/name"}, "needs a commit"),
        ({"path": "owner/name", "revision": "main"}, "revision='main'"),
        ({"path": "./nowhere"}, "neither a folder"),
        ({"path": "owner/name", "revision": COMMIT, "precision": "half"}, "precision='half'"),
        ({"path": ".", "revision": COMMIT}, "has no effect"),
    ],
)
def test_refuses_what_is_not_pinned_or_not_there(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusersVAE(**settings)  # pyright: ignore[reportArgumentType]
