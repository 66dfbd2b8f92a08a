"""Embeddings of texts, and captions that are dropped."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from cache_toys import ToySource, ToyTexts, contents, same

from neurotrain.data.cache import CacheMissError, TensorCache, TextEmbeddingCache, captions_of, drop_captions
from neurotrain.data.cache.keys import Settings


def texts_of(
    folder: Path, encoder: ToyTexts | str | None = None, settings: Settings | None = None
) -> TextEmbeddingCache:
    encoder = ToyTexts() if encoder is None else encoder
    return TextEmbeddingCache(cache=TensorCache(folder=folder), encoder=encoder, settings=settings, batch_size=4)


def test_each_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = ToyTexts()
    texts = texts_of(tmp_path / "c", encoder)
    found = texts.fetch(["cat", "dog", "cat", ""])
    assert encoder.seen == ["cat", "dog", ""]
    assert found[0]["attention_mask"].tolist() == [True] * 3 + [False] * 3
    found[0]["embedding"].zero_()
    assert found[2]["embedding"][0, 0] == ord("c")
    assert same(texts.fetch(["dog"])[0], found[1])
    assert encoder.seen == ["cat", "dog", ""]


def test_the_empty_caption_has_an_entry_of_its_own(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "c")
    report = texts.build(["a", "b", "a"])
    assert (report.total, report.encoded) == (3, 3)
    reader = texts.lookup_only()
    empty, letter = reader.fetch(["", "a"])
    assert not bool(empty["attention_mask"].any())
    assert not same(empty, letter)
    assert texts.key("") in contents(tmp_path / "c")


def test_captions_come_out_of_a_source_and_a_second_build_finds_them(tmp_path: Path) -> None:
    source = ToySource([bytes(6)] * 12)
    assert list(captions_of(source)) == [f"picture {index % 5}" for index in range(12)]
    texts = texts_of(tmp_path / "c")
    assert texts.build(source).encoded == 6
    again = texts_of(tmp_path / "c").build(source)
    assert (again.encoded, again.present) == (0, 6)
    assert texts.live_keys(source) == set(contents(tmp_path / "c"))
    with pytest.raises(ValueError, match="'title'"):
        texts.build(source, field="title")


def test_ranks_share_the_texts(tmp_path: Path) -> None:
    words = [f"word {number}" for number in range(30)]
    encoders = [ToyTexts(length=8) for _ in range(3)]
    for rank, encoder in enumerate(encoders):
        texts_of(tmp_path / "c", encoder).build(words, rank=rank, world_size=3)
    seen = [text for encoder in encoders for text in encoder.seen]
    assert sorted(seen) == sorted(["", *words])


@pytest.mark.parametrize("change", [{"encoder": ToyTexts(length=7)}, {"settings": {"template": "a photo of {}"}}])
def test_a_changed_encoder_or_setting_is_a_miss(tmp_path: Path, change: dict[str, object]) -> None:
    texts_of(tmp_path / "c").build(["a"])
    changed = texts_of(tmp_path / "c", **change)  # pyright: ignore[reportArgumentType]
    assert changed.get("a") is None
    assert texts_of(tmp_path / "c").get("a") is not None


def test_workers_look_up_and_miss_loudly(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "c")
    texts.build(["a"])
    reader: TextEmbeddingCache = pickle.loads(pickle.dumps(texts.lookup_only()))
    assert same(reader.fetch(["a"])[0], texts.get("a"))
    with pytest.raises(CacheMissError, match="1 of 2 texts are not cached, first 'b'"):
        reader.fetch(["a", "b"])
    with pytest.raises(CacheMissError, match="needs an encoder"):
        reader.build(["a"])


def test_captions_are_dropped_by_each_samples_own_draw() -> None:
    captions = [f"c{number}" for number in range(2000)]

    def dropped(probability: float, first: int = 0) -> list[str]:
        generators = [torch.Generator().manual_seed(first + number) for number in range(len(captions))]
        return drop_captions(captions, probability=probability, generators=generators)

    assert dropped(0.0) == captions
    assert set(dropped(1.0)) == {""}
    assert dropped(0.1) == dropped(0.1)
    assert dropped(0.1).count("") == pytest.approx(200, abs=50)
    assert all(text in ("", caption) for text, caption in zip(dropped(0.5), captions, strict=True))
    with pytest.raises(ValueError, match="probability=2"):
        dropped(2)
    with pytest.raises(ValueError, match="zip"):
        drop_captions(["a", "b"], probability=0.5, generators=[torch.Generator()])
