from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_llava import PROMPT, save_tiny_llava

from neurotrain.networks.captioning import HuggingFaceCaptioner, Lora
from neurotrain.networks.captioning.base import told_tokens

# peft 0.21 asks transformers 5.23 by an older name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CAPTIONS = ["a red cat", "the blue dog on grass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("llava"))


def _network(folder: Path, **changes: object) -> HuggingFaceCaptioner:
    torch.manual_seed(1)
    given: dict[str, object] = {"path": str(folder), "prompt": PROMPT, "length": 8}
    return HuggingFaceCaptioner(**given | changes)  # pyright: ignore[reportArgumentType]


def _images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _loss(network: HuggingFaceCaptioner, captions: list[str]) -> torch.Tensor:
    tokens = network.tokenize(captions)
    valid = told_tokens(tokens, end=network.tokenizer.end)[:, 1:]
    return torch.nn.functional.cross_entropy(network(_images(), tokens)[valid], tokens[:, 1:][valid])


def _train(network: HuggingFaceCaptioner, steps: int, lr: float = 0.03) -> list[float]:
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    losses: list[float] = []
    for _ in range(steps):
        loss = _loss(network, CAPTIONS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_loss_is_the_librarys_own_of_prompt_and_caption(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = _network(folder).eval()
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(str(folder)),
        AutoProcessor.from_pretrained(str(folder)),
    )
    texts = [f"{PROMPT} {caption} </s>" for caption in CAPTIONS]
    processor.tokenizer.padding_side = "right"
    inputs = processor(images=list(_images()), text=texts, return_tensors="pt", padding=True)
    prompt = processor(images=list(_images()[:1]), text=[PROMPT], return_tensors="pt")["input_ids"].shape[1]
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :prompt] = -100
    with torch.no_grad():
        torch.testing.assert_close(_loss(network, CAPTIONS), model(**inputs, labels=labels).loss)


def test_lora_learns_alone_writes_and_is_exported_merged_and_apart(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    network = _network(
        folder,
        lora=Lora(rank=8, alpha=16, dropout=0.0, targets=("q_proj", "v_proj", "up_proj", "down_proj")),
        trained=("multi_modal_projector",),
    )
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name or "multi_modal_projector" in name for name in learning)
    assert not any("vision_tower" in name for name in learning)
    frozen = {name: p.clone() for name, p in network.named_parameters() if not p.requires_grad}
    losses = _train(network, steps=25)
    assert losses[-1] < 0.3 * losses[0]
    assert all(torch.equal(frozen[name], p) for name, p in network.named_parameters() if name in frozen)
    network.eval()
    written = network.generate(_images(), beams=2)
    with torch.no_grad():
        expected = network(_images(), network.tokenize(CAPTIONS))

    state = network.state_dict()
    assert {name for name in state if not name.endswith("extra_state")} == learning
    fresh = _network(
        folder,
        lora=Lora(rank=8, alpha=16, dropout=0.0, targets=("q_proj", "v_proj", "up_proj", "down_proj")),
        trained=("multi_modal_projector",),
    ).eval()
    fresh.load_state_dict(state)
    network.export(tmp_path / "merged")
    merged = _network(tmp_path / "merged").eval()
    network.export(tmp_path / "adapter", merged=False)
    assert {path.suffix for path in (tmp_path / "adapter").iterdir()} >= {".safetensors", ".json"}
    base = AutoModelForImageTextToText.from_pretrained(str(folder))
    apart = _network(folder).eval()
    apart.model = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        for other in (fresh, merged, apart):
            torch.testing.assert_close(other(_images(), network.tokenize(CAPTIONS)), expected, rtol=1e-4, atol=1e-5)
    assert merged.generate(_images(), beams=2) == written


def test_all_weights_learn_by_heart_and_a_checkpoint_of_other_ones_is_refused(folder: Path, tmp_path: Path) -> None:
    network = _network(folder)
    _train(network, steps=25, lr=0.02)
    network.eval()
    assert network.generate(_images()) == CAPTIONS
    assert network.generate(_images(), beams=3) == CAPTIONS
    other = _network(save_tiny_llava(tmp_path / "other", seed=9), trained=("multi_modal_projector",))
    with pytest.raises(ValueError, match="trained on other weights"):
        _network(folder, trained=("multi_modal_projector",)).load_state_dict(other.state_dict())


def test_mistakes_are_told_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"prompt": "describe it :"}, "'<image>'"),
        ({"path": "owner/name"}, "needs a commit"),
        ({"path": str(tmp_path / "none")}, "neither a folder"),
        ({"revision": "0" * 40}, "has no effect"),
        ({"trained": ("projector",)}, "multi_modal_projector"),
        ({"lora": Lora(targets=("c_attn",))}, "q_proj"),
        ({"precision": "float8"}, "did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            _network(folder, **changes)
    with pytest.raises(ValueError, match="train_transform"):
        _network(folder).generate(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="there is no LoRA"):
        _network(folder).export(tmp_path / "x", merged=False)


def test_pickled_weights_and_code_in_the_folder_are_not_read(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    weights = pickled / "model.safetensors"
    weights.rename(pickled / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        _network(pickled)
    remote = tmp_path / "remote"
    shutil.copytree(folder, remote)
    config = json.loads((remote / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Evil", "AutoConfig": "evil.Config"}
    (remote / "config.json").write_text(json.dumps(config))
    (remote / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    _network(remote)
    assert not (tmp_path / "ran").exists()
