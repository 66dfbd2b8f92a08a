"""Models, processors and tokenizers of Hugging Face out of a folder: safetensors only, no code of theirs is run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from neurotrain.networks.text import Tokenizer
from neurotrain.storage.extras import require

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_EXTRA = "vision-language"


def local_folder(path: str, *, revision: str | None) -> Path:
    """The folder of a model; what is on the hub is downloaded once, without pickled weights.

    Args:
        path: a folder, or ``owner/name``.
        revision: commit on the hub, 40 hexadecimal digits; None for a folder.

    Returns:
        A folder with a configuration and weights in safetensors.

    Raises:
        ValueError: if it is neither, a name is not pinned, or a folder is.
        FileNotFoundError: if it lacks configuration or weights.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} has no effect: {path} is a folder of this machine")
    elif path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ValueError(f"path={path!r}: neither a folder that is there nor owner/name on the hub")
    elif revision is None or not _COMMIT.fullmatch(revision):
        raise ValueError(f"revision={revision!r}: {path} on the hub needs a commit, 40 hexadecimal digits")
    else:
        require("huggingface_hub", extra=_EXTRA, purpose="HuggingFaceCaptioner")
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(path, revision=revision, allow_patterns=list(_WANTED)))
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} lacks config.json or *.safetensors; other kinds of weights are not read, for they may hold code"
        )
    return folder


def load_processor(folder: Path) -> Any:  # noqa: ANN401 - transformers' processors share no useful type
    """What makes inputs of images and texts.

    Raises:
        ValueError: if the folder has none.
        ImportError: if transformers is not installed.
    """
    require("transformers", extra=_EXTRA, purpose="HuggingFaceCaptioner")
    from transformers import AutoProcessor
    from transformers.processing_utils import ProcessorMixin

    found: Any = AutoProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if not isinstance(found, ProcessorMixin):
        raise ValueError(f"path={str(folder)!r}: holds a {type(found).__name__}, no processor of images with texts")
    processor: Any = found
    # Prompts of unequal length end at one place, from which all captions go on.
    processor.tokenizer.padding_side = "left"
    return processor


def image_token_of(processor: Any) -> str:  # noqa: ANN401 - see load_processor
    """What stands for an image in a prompt.

    Raises:
        ValueError: if the processor knows of none, as those of models that take no prompt.
    """
    try:
        return str(processor.image_token)
    except AttributeError as error:
        raise ValueError(
            f"{type(processor).__name__} has no image token: a model of LLaVA's class is needed"
        ) from error


def load_model(folder: Path, *, dtype: torch.dtype) -> nn.Module:
    """The network of ``AutoModelForImageTextToText``.

    Raises:
        ValueError: if the folder holds another kind of model.
    """
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=dtype
    )


def fingerprint(folder: Path) -> str:
    """Identity of a model: a digest of its configuration and its weights' bytes, 32 hexadecimal digits."""
    total = hashlib.blake2b(digest_size=16)
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return total.hexdigest()


@final
class ProcessorTokenizer(Tokenizer):
    """The tokenizer of a processor, as captions need it; its vocabulary is its own, there is nothing to learn.

    Args:
        tokenizer: of transformers, with a token for the end of a text.

    Raises:
        ValueError: if it has none.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - transformers' tokenizers share no useful type
        if tokenizer.eos_token_id is None:
            raise ValueError(f"{type(tokenizer).__name__} has no token for the end of a text")
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        self.end = int(tokenizer.eos_token_id)
        self.start = self._number(tokenizer.bos_token_id)
        self.pad = self._number(tokenizer.pad_token_id)
        self.unknown = self._number(tokenizer.unk_token_id)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without ``start`` and ``end``."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of tokens up to the first ``end``."""
        return str(self._tokenizer.decode(self._told(tokens), skip_special_tokens=True)).strip()

    def state(self) -> dict[str, Any]:
        """The number of tokens: the vocabulary lies with the model."""
        return {"size": self.size}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Check that a state has as many tokens.

        Raises:
            ValueError: if it has not.
        """
        if dict(state) != self.state():
            raise ValueError(f"the state is of another tokenizer: {dict(state)}, this one has {self.state()}")

    def _number(self, token: int | None) -> int:
        return self.end if token is None else int(token)
