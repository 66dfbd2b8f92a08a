from __future__ import annotations

import pytest
import torch

from neurotrain.networks.captioning import TransformerCaptioner
from neurotrain.networks.captioning.base import told_tokens
from neurotrain.networks.classification import Timm
from neurotrain.networks.text import WordTokenizer

WORDS = (" a", " cat", " dog", " sits", " runs", " on", " grass")
CAPTIONS = ["a cat sits", "a dog runs on grass"]


def _network(name: str = "test_resnet", **changes: object) -> TransformerCaptioner:
    torch.manual_seed(0)
    given: dict[str, object] = {
        "image": Timm(name=name, num_classes=0),
        "tokenizer": WordTokenizer(size=270, words=WORDS),
        "width": 16,
        "layers": 2,
        "heads": 4,
        "length": 9,
        "dropout": 0.0,
    }
    return TransformerCaptioner(**given | changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 2, "norm": "rms", "activation": "swiglu"}])
def test_a_step_with_memory_gives_the_logits_of_the_whole_caption(changes: dict[str, object]) -> None:
    network = _network(**changes).eval()
    image, tokens = torch.randn(2, 3, 64, 64), network.tokenize(CAPTIONS)
    with torch.no_grad():
        whole = network(image, tokens)
        seen = network.look(image)
        memories = [layer.memory(seen, capacity=9) for layer in network.layers]  # pyright: ignore
        for place in range(tokens.shape[1] - 1):
            x = network.embed(tokens[:, place : place + 1], start=place)
            for layer, memory in zip(network.layers, memories, strict=True):
                x = layer(x, causal=True, memory=memory)
            torch.testing.assert_close(network.logits(x)[:, 0], whole[:, place], rtol=1e-4, atol=1e-5)


def test_words_do_not_see_what_comes_after_them_nor_other_images() -> None:
    network = _network().eval()
    image, tokens = torch.randn(2, 3, 64, 64), network.tokenize(CAPTIONS)
    changed = tokens.clone()
    changed[:, 4:] = 7
    with torch.no_grad():
        before, after = network(image, tokens), network(image, changed)
        alone = network(image[:1], tokens[:1])
    assert torch.equal(before[:, :4], after[:, :4])
    torch.testing.assert_close(before[:1], alone, rtol=1e-4, atol=1e-5)
    other = network(image.flip(0), tokens)
    assert (other - before).abs().max() > 1e-3


def test_what_it_learns_by_heart_it_writes_greedily_and_by_beams() -> None:
    network = _network().train()
    image, tokens = torch.randn(2, 3, 32, 32), network.tokenize(CAPTIONS)
    valid = told_tokens(tokens, end=network.tokenizer.end)[:, 1:]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network(image, tokens)[valid], tokens[:, 1:][valid])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.train()  # its statistics of these two images are those of evaluation only after many steps
    assert network.generate(image) == CAPTIONS
    assert network.generate(image, beams=3) == CAPTIONS


def test_a_caption_is_cut_at_the_length_and_the_vocabulary_travels_with_the_weights() -> None:
    network = _network(length=5)
    assert network.tokenize(["a cat sits on grass"]).shape == (1, 5)
    fresh = _network(tokenizer=WordTokenizer(size=270), length=5)
    fresh.load_state_dict(network.state_dict())
    assert fresh.tokenizer.decode(network.tokenize(["a dog"])[0].tolist()) == "a dog"


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_any_encoder_of_timm_is_looked_at(name: str) -> None:
    network = _network(name).eval()
    size = 160 if name == "test_vit" else 64
    seen = network.look(torch.zeros(1, 3, size, size))
    assert seen.shape[0] == 1
    assert seen.shape[2] == 16


def test_an_encoder_that_does_not_learn_stays_as_it_is() -> None:
    network = _network(train_image=False).train()
    assert not network.image.training
    assert network.layers.training
    assert not any(parameter.requires_grad for parameter in network.image.parameters())


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image\.num_classes=10"):
        _network(image=Timm(name="test_resnet"))
    with pytest.raises(ValueError, match="width=6"):
        _network(width=6)
    with pytest.raises(ValueError, match="expected \\(batch, 3, height, width\\)"):
        _network().generate(torch.zeros(1, 1, 64, 64))
