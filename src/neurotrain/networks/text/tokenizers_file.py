"""Adapter to the tokenizers of Hugging Face: the file ``tokenizer.json`` that every model of theirs has."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

from neurotrain.networks.text.tokenizer import Tokenizer
from neurotrain.storage.extras import require


@final
class TokenizersFile(Tokenizer):
    """A tokenizer out of a ``tokenizer.json`` of the library ``tokenizers``; only data is read, no code is run.

    Its own template, which may put special tokens around a text, is not used: ``start`` and ``end`` stand there. What
    ``decode`` gives back is up to the file.

    Args:
        path: of the file.
        start: name of the special token before a text, as the file has it. The defaults are those of CLIP.
        end: after a text.
        pad: fills a batch up.
        unknown: of what has no other token.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no tokenizer, or has no token of such a name.

    Reference:
        https://huggingface.co/docs/tokenizers
    """

    def __init__(
        self,
        *,
        path: Path,
        start: str = "<|startoftext|>",
        end: str = "<|endoftext|>",
        pad: str = "<|endoftext|>",
        unknown: str = "<|endoftext|>",
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"path={str(path)!r}: no such file")
        content = path.read_text(encoding="utf-8")
        self._tokenizer = _parsed(content, path)
        self._digest = hashlib.sha256(content.encode()).hexdigest()
        self.size = int(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self.start, self.end = self._number("start", start), self._number("end", end)
        self.pad, self.unknown = self._number("pad", pad), self._number("unknown", unknown)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without ``start`` and ``end``."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens up to the first ``end``."""
        return str(self._tokenizer.decode(self._told(tokens), skip_special_tokens=False)).strip()

    def state(self) -> dict[str, Any]:
        """The file's digest: its vocabulary is not kept twice."""
        return {"sha256": self._digest}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state is of the same file.

        Raises:
            ValueError: if it is not.
        """
        if dict(state) != self.state():
            raise ValueError(f"the state is of another tokenizer: {dict(state)}, this file has {self.state()}")

    def _number(self, key: str, name: str) -> int:
        number = self._tokenizer.token_to_id(name)
        if number is None:
            special = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]
            near = difflib.get_close_matches(name, special, n=3, cutoff=0.2) or special[:3]
            raise ValueError(f"{key}={name!r} is no token of the file; special ones: {', '.join(near) or 'none'}")
        return int(number)


def _parsed(content: str, path: Path) -> Any:  # noqa: ANN401 - a class of a compiled library
    require("tokenizers", extra="clip", purpose="TokenizersFile")
    from tokenizers import Tokenizer as Parsed

    try:
        return Parsed.from_str(content)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"path={str(path)!r}: no tokenizer: {error}") from error
