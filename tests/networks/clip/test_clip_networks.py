"""Networks of images and texts: what learns and what does not, LoRA merged, open_clip as it is, files."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neurotrain.networks.classification import ResNetSmall
from neurotrain.networks.clip import (
    ClipNetwork,
    ClipTextEncoder,
    DualEncoder,
    Frozen,
    LowRank,
    OpenClip,
    Prompts,
    TowerTuning,
    class_features,
    export,
    load_weights,
    merged_state,
)
from neurotrain.networks.text import TextTransformer, WordTokenizer

CAPTIONS = ["a cat and a dog", "a red ball"]


def dual(*, learned: bool = True, **options: Any) -> DualEncoder:  # noqa: ANN401 - of the constructor
    torch.manual_seed(0)
    tokenizer = WordTokenizer(size=300)
    if learned:
        tokenizer.learn(CAPTIONS)
    text = TextTransformer(tokenizer=tokenizer, width=8, layers=1, heads=2, length=12)
    return DualEncoder(image=ResNetSmall(widths=(4,), blocks=(1,), num_classes=6), text=text, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of open_clip, saved with random weights as one from the hub would be."""
    import open_clip

    made = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 9, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{made}", load_weights=False)
    torch.save(model.state_dict(), made / "open_clip_pytorch_model.bin")
    return made


def openclip(folder: Path, **options: Any) -> OpenClip:  # noqa: ANN401 - of the constructor
    return OpenClip(name=f"local-dir:{folder}", **options)


def inputs(network: ClipNetwork, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)), network.tokenize(CAPTIONS)


def step(network: ClipNetwork, optimizer: torch.optim.Optimizer | None = None) -> None:
    """One step of learning."""
    image, tokens = inputs(network)
    found = network(image, tokens)
    (found.scale * (found.image * found.text).sum() - (found.image @ found.text.T).square().sum()).backward()
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def test_features_are_unit_vectors_and_the_scale_is_held() -> None:
    network = dual(temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(*inputs(network))
    assert found.image.dtype == found.text.dtype == torch.float32
    torch.testing.assert_close(found.image.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found.text.norm(dim=1), torch.ones(2))
    assert found.scale.item() == pytest.approx(20.0)
    assert found.bias is None
    with torch.no_grad():
        network.log_scale.fill_(6.0)
    assert network.eval().scale().item() == pytest.approx(100.0)
    assert network.log_scale.item() == 6.0
    assert network.train().scale().item() == pytest.approx(100.0)
    network.scale().backward()
    assert network.log_scale.grad is not None
    assert network.log_scale.grad > 0


@pytest.mark.parametrize("frozen", ["image", "text"])
def test_frozen_really_freezes(frozen: str) -> None:
    network = dual(**{f"{frozen}_tuning": Frozen()})
    network.train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.AdamW([value for value in network.parameters() if value.requires_grad], lr=0.1)
    step(network, optimizer)
    changed = {
        name
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor) and (value != before[name]).any()
    }
    other = "text" if frozen == "image" else "image"
    # Statistics of batch norms count too: a frozen tower's stand still, the other one's move.
    assert not any(name.startswith(frozen) for name in changed)
    assert {name for name in changed if name.startswith(other)}
    assert all(not module.training for module in network.towers()[frozen].modules())
    assert all(parameter.grad is None for parameter in network.towers()[frozen].parameters())


def test_a_new_head_of_a_frozen_tower_learns_on_request() -> None:
    network = dual(text_tuning=Frozen(trained=("projection",))).train()
    learned = {name for name, value in network.text.named_parameters() if value.requires_grad}
    assert learned == {"projection.weight"}
    assert network.text.projection.training
    assert not network.text.encoder.training
    with pytest.raises(ValueError, match=r"trained='projektion' is no module.*projection"):
        dual(text_tuning=Frozen(trained=("projektion",)))


@pytest.mark.parametrize("kind", ["dual", "open_clip"])
def test_low_rank_begins_as_it_was_learns_its_own_and_merges(kind: str, folder: Path) -> None:
    def build(tuning: TowerTuning | None) -> ClipNetwork:
        options = {"image_tuning": tuning, "text_tuning": tuning}
        return dual(**options) if kind == "dual" else openclip(folder, **options)

    plain, tuned = build(None).eval(), build(LowRank(rank=2, alpha=3.0)).eval()
    image, tokens = inputs(plain)
    with torch.no_grad():
        for one, other in zip(plain(image, tokens)[:2], tuned(image, tokens)[:2], strict=True):
            torch.testing.assert_close(
                one, other, rtol=0.0, atol=1e-6
            )  # torch has a faster attention for plain weights
    learned = {name for name, value in tuned.named_parameters() if value.requires_grad}
    assert learned - {"log_scale"} == {name for name in learned if name.endswith((".up", ".down"))}
    assert (kind == "dual") or any("in_proj_weight" in name for name in learned)
    tuned.train()
    optimizer = torch.optim.SGD([value for value in tuned.parameters() if value.requires_grad], lr=0.5)
    for _ in range(3):
        step(tuned, optimizer)
    tuned.eval()
    merged = build(None).eval()
    merged.load_state_dict(merged_state(tuned.state_dict()))
    with torch.no_grad():
        wanted, found = tuned(image, tokens), merged(image, tokens)
        assert not torch.allclose(wanted.image, plain(image, tokens).image, atol=1e-3)
    torch.testing.assert_close(found.image, wanted.image, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(found.text, wanted.text, rtol=0.0, atol=1e-6)


def test_low_rank_is_what_the_paper_says_and_of_chosen_layers() -> None:
    tower = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(3, 2, 3))
    weight = tower[0].weight.detach().clone()
    LowRank(rank=2, alpha=6.0, only="^0$").apply(tower)
    assert [name for name, value in tower.named_parameters() if value.requires_grad] == [
        "0.parametrizations.weight.0.down",
        "0.parametrizations.weight.0.up",
    ]
    change: Any = tower[0].get_submodule("parametrizations.weight.0")
    nn.init.normal_(change.up)
    torch.testing.assert_close(tower[0].weight, weight + 3.0 * change.up @ change.down)
    with pytest.raises(ValueError, match="only='encoder'"):
        LowRank(only="encoder").apply(tower)
    with pytest.raises(ValueError, match="no pattern"):
        LowRank(only="(")
    with pytest.raises(ValueError, match="rank=0"):
        LowRank(rank=0)


def test_statistics_stand_still_beside_low_rank() -> None:
    network = dual(image_tuning=LowRank(rank=1)).train()
    before = {name: value.clone() for name, value in network.image.named_buffers() if "running" in name}
    step(network)
    assert before
    assert all(torch.equal(value, dict(network.image.named_buffers())[name]) for name, value in before.items())


def test_it_is_open_clips_network(folder: Path) -> None:
    import open_clip

    handlers = list(logging.getLogger().handlers)
    ours = openclip(folder).eval()
    assert logging.getLogger().handlers == handlers
    theirs: Any = open_clip.create_model(f"local-dir:{folder}").eval()
    image, tokens = inputs(ours)
    assert torch.equal(tokens, open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS))
    with torch.no_grad():
        found = ours(image, tokens)
        wanted = theirs(image, tokens)
    torch.testing.assert_close(found.image, wanted[0])
    torch.testing.assert_close(found.text, wanted[1])
    torch.testing.assert_close(found.scale, wanted[2])
    assert ours.features == 12
    from_file = openclip(folder, weights=folder / "open_clip_pytorch_model.bin").eval()
    with torch.no_grad():
        assert torch.equal(from_file(image, tokens).text, found.text)


def test_open_clip_reads_what_was_tuned_here(folder: Path, tmp_path: Path) -> None:
    from open_clip.factory import create_model

    ours = openclip(folder, text_tuning=LowRank(rank=1), length=7).train()
    optimizer = torch.optim.SGD([value for value in ours.parameters() if value.requires_grad], lr=0.5)
    for _ in range(2):
        step(ours, optimizer)
    ours.eval()
    ours.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors"}
    theirs: Any = create_model(f"local-dir:{tmp_path}").eval()
    again = openclip(tmp_path).eval()
    image, tokens = inputs(ours)
    with torch.no_grad():
        wanted = ours(image, tokens)
        torch.testing.assert_close(theirs(image, tokens)[1], wanted.text, rtol=0.0, atol=1e-6)
        torch.testing.assert_close(again(image, tokens).scale, wanted.scale)


def test_open_clip_by_name_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'ViT-B32' is no network of open_clip; nearest: ViT-B-32"):
        OpenClip(name="ViT-B32")
    with pytest.raises(FileNotFoundError, match="open_clip_config"):
        OpenClip(name=f"local-dir:{tmp_path}")
    with pytest.raises(ValueError, match=r"'ViT-B-16-SigLIP': its tokenizer is on the hub.*local-dir:FOLDER"):
        OpenClip(name="ViT-B-16-SigLIP")
    with pytest.raises(ValueError, match=r"text tower is 'roberta-base' on the hub"):
        OpenClip(name="roberta-ViT-B-32")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"text_cfg": {}}}')
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        OpenClip(name=f"local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="no such file"):
        OpenClip(name="ViT-B-32", weights=tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["exported", "checkpoint"])
def test_weights_travel_with_their_vocabulary(kind: str, tmp_path: Path) -> None:
    first = dual(text_tuning=LowRank(rank=1), bias=-10.0).train()
    step(first, torch.optim.SGD([value for value in first.parameters() if value.requires_grad], lr=0.5))
    path = tmp_path / ("first.safetensors" if kind == "exported" else "last.ckpt")
    if kind == "exported":
        export(first, path)
    else:
        state = {f"network.{name}": value for name, value in first.state_dict().items()}
        torch.save({"state_dict": {**state, "running": torch.zeros(2)}}, path)
    second = dual(learned=False, weights=path, bias=0.0)
    assert second.tokenizer.state() == first.tokenizer.state()
    image, tokens = inputs(first)
    with torch.no_grad():
        torch.testing.assert_close(
            second.eval()(image, second.tokenize(CAPTIONS)).text, first.eval()(image, tokens).text, rtol=0, atol=1e-6
        )
    with pytest.raises(ValueError, match="do not fit DualEncoder"):
        dual(weights=path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_weights(first, tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        export(first, tmp_path / "first.bin")


def test_stored_features_stand_for_a_frozen_tower_only() -> None:
    network = dual(text_tuning=Frozen()).train()
    encoder = ClipTextEncoder(network=dual())
    stored = encoder.encode(CAPTIONS)["pooled"]
    image, tokens = inputs(network)
    torch.testing.assert_close(network(image, None, stored).text, network(image, tokens).text)
    with pytest.raises(ValueError, match="the text tower learns"):
        dual()(image, None, stored)
    with pytest.raises(ValueError, match=r"stored features \(2, 5\)"):
        network(image, None, stored[:, :5])
    with pytest.raises(ValueError, match="not both"):
        network(image, tokens, stored)
    other = dual()
    assert encoder.fingerprint() == ClipTextEncoder(network=other).fingerprint()
    with torch.no_grad():
        other.text.projection.weight[0, 0] += 1
    assert encoder.fingerprint() != ClipTextEncoder(network=other).fingerprint()
    assert encoder.fingerprint() != ClipTextEncoder(network=dual(learned=False)).fingerprint()


def test_a_class_is_the_mean_of_its_sentences() -> None:
    network = dual().eval()
    prompts = Prompts(templates=("{}", "a red {}"))
    found = class_features(network, ["cat", "ball"], prompts=prompts)
    with torch.no_grad():
        sentences = network.encode_text(network.tokenize(["ball", "a red ball"]))
    torch.testing.assert_close(found[1], nn.functional.normalize(sentences.mean(0), dim=0))
    assert Prompts(templates="medical").about("edema")[0] == "edema"
    assert len(set(Prompts().templates)) == len(Prompts().templates) > 10
    for bad, told in ((("a photo",), "needs {} once"), ((), "at least one"), ("imagenet", "templates='imagenet'")):
        with pytest.raises(ValueError, match=told):
            Prompts(templates=bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one"):
        class_features(network, [], prompts=prompts)
