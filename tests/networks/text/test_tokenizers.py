"""Tokenizers: every text comes back, the vocabulary travels as plain data, a file of Hugging Face is what it was."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from neurotrain.networks.text import Tokenizer, TokenizersFile, WordTokenizer

CAPTIONS = ["A man rides a horse.", "A horse, a man and a dog!", "Two dogs  play"]


def test_words_are_numbered_by_frequency_behind_special_tokens_and_bytes() -> None:
    tokenizer = WordTokenizer(size=264)
    assert tokenizer.learn(CAPTIONS)
    # " a" five times, then " horse" and " man" twice; of those that occur once the first in alphabetical order.
    assert tokenizer.words == (" a", " horse", " man", " and")
    assert tokenizer.encode("a man") == [260, 262]
    assert tokenizer.encode("A é") == [260, *(4 + byte for byte in " é".encode())]


def test_every_text_comes_back_up_to_case_and_white_space() -> None:
    draw = random.Random(0)
    alphabet = "aB z.,!'\"_-\n\t日本é🙂0"
    tokenizers = [WordTokenizer(size=300), WordTokenizer(size=300, lowercase=False)]
    for tokenizer in tokenizers:
        tokenizer.learn(CAPTIONS)
    for text in [*CAPTIONS, "", *("".join(draw.choices(alphabet, k=draw.randrange(20))) for _ in range(200))]:
        plain = " ".join(text.split())
        for tokenizer, wanted in zip(tokenizers, (plain.lower(), plain), strict=True):
            tokens = tokenizer.batch([text, "x"], length=200)[0].tolist()
            assert tokenizer.decode(tokens) == wanted
            assert max(tokens) < tokenizer.size


def test_without_bytes_unknown_words_are_one_token() -> None:
    tokenizer = WordTokenizer(size=20, byte_fallback=False)
    tokenizer.learn(CAPTIONS)
    assert tokenizer.encode("a zebra") == [4, tokenizer.unknown]
    assert tokenizer.decode(tokenizer.encode("a zebra")) == "a <unknown>"


def test_rare_words_are_not_learned() -> None:
    tokenizer = WordTokenizer(min_count=2)
    tokenizer.learn(CAPTIONS)
    assert set(tokenizer.words) == {" a", " horse", " man"}


def test_batches_keep_the_end_and_fill_up_behind_it() -> None:
    tokenizer = WordTokenizer(size=300)
    tokenizer.learn(CAPTIONS)
    tokens = tokenizer.batch(["a man rides a horse", "a"], length=5)
    assert tokens.dtype == torch.int64
    assert tokens[0, [0, -1]].tolist() == [tokenizer.start, tokenizer.end]
    assert tokens[1].tolist() == [tokenizer.start, 260, tokenizer.end, tokenizer.pad, tokenizer.pad]
    assert tokenizer.batch(["a"], length=5).shape == (1, 3)
    assert tokenizer.batch(["a"], length=5, fixed=True).shape == (1, 5)
    with pytest.raises(ValueError, match="length=2"):
        tokenizer.batch(["a"], length=2)


def test_a_vocabulary_travels_in_a_file_and_in_a_state(tmp_path: Path) -> None:
    first = WordTokenizer(size=300)
    first.learn(CAPTIONS)
    first.save(tmp_path / "words.json")
    state = json.loads(json.dumps(first.state()))
    second = WordTokenizer(size=300)
    second.load_state(state)
    for other in (second, WordTokenizer(size=300, vocabulary=tmp_path / "words.json")):
        assert other.words == first.words
        assert not other.learn(["something else"])
        assert other.words == first.words
    with pytest.raises(ValueError, match=r"size=300, this tokenizer has 301"):
        WordTokenizer(size=301).load_state(state)
    with pytest.raises(ValueError, match="state holds words"):
        second.load_state({"sha256": "0"})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 260}, "size=260"),
        ({"words": (" a", " a")}, "1 of them different"),
        ({"min_count": 0}, "min_count=0"),
        ({"words": (" a",), "vocabulary": Path("words.json")}, "give one of them"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        WordTokenizer(**options)  # pyright: ignore


def test_numbers_of_no_token_are_refused() -> None:
    with pytest.raises(ValueError, match="token 300 lies outside"):
        WordTokenizer(size=300).decode([300])
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        WordTokenizer(vocabulary=Path("none.json"))


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import decoders, models, pre_tokenizers, trainers

    theirs = Theirs(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    theirs.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(CAPTIONS, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    theirs.save(str(path))
    return path


def test_a_file_of_the_tokenizers_library_is_used_as_it_is(tokenizer_json: Path) -> None:
    from tokenizers import Tokenizer as Theirs

    ours, theirs = TokenizersFile(path=tokenizer_json), Theirs.from_file(str(tokenizer_json))
    assert isinstance(ours, Tokenizer)
    assert ours.size == theirs.get_vocab_size()
    text = "A man rides two horses."
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.decode(ours.batch([text, "a"], length=40)[0].tolist()) == text
    assert not ours.learn(["new"])
    ours.load_state(ours.state())
    with pytest.raises(ValueError, match="another tokenizer"):
        ours.load_state({"sha256": "0"})
    with pytest.raises(ValueError, match=r"pad='<pad>' is no token of the file.*endoftext"):
        TokenizersFile(path=tokenizer_json, pad="<pad>")


def test_what_is_no_tokenizer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        TokenizersFile(path=tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no tokenizer"):
        TokenizersFile(path=tmp_path / "other.json")
