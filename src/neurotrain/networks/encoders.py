"""Pretrained encoders whose results are cached: autoencoders of images, encoders of texts.

Both are light until they are asked for a result: what identifies them is the bytes of their files, so a process that
only looks results up never loads a weight.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from neurotrain.documents import parse_json
from neurotrain.storage.extras import require

__all__ = ["DiffusersVAE", "HuggingFaceTextEncoder", "ImageEncoder", "PretrainedEncoder", "PromptEncoder"]

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]
"""What an encoder computes in."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKENIZER_FILES = ("*.json", "*.txt", "*.model")
_AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny")
_TEXT_CLASSES = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""Class of the text half by ``model_type``; every other one is loaded by transformers' own ``AutoModel``."""


class PretrainedEncoder(ABC):
    """Weights in a folder, or on the Hugging Face hub at one commit: safetensors only, no code of theirs is run.

    Args:
        path: a folder as ``save_pretrained`` writes it, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits; a branch could move under a cache.
        subfolder: of the weights below it.
        precision: of the weights and the computation; part of the fingerprint.
        device: to compute on; ``auto`` takes this process's GPU (``LOCAL_RANK``) where there is one.

    Raises:
        ValueError: if a name on the hub is not pinned, a folder is, or ``precision`` is unknown.
    """

    def __init__(
        self, *, path: str, revision: str | None, subfolder: str | None, precision: Precision, device: str
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r}: one of {', '.join(map(repr, get_args(Precision)))}")
        local = Path(path).expanduser().is_dir()
        if local and revision is not None:
            raise ValueError(f"revision={revision!r} has no effect: {path} is a folder of this machine")
        if not local and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
            raise ValueError(f"path={path!r}: neither a folder that is there nor owner/name on the hub")
        if not local and (revision is None or not _COMMIT.fullmatch(revision)):
            raise ValueError(f"revision={revision!r}: {path} on the hub needs a commit, 40 hexadecimal digits")
        self.path = path
        self.revision = revision
        self.subfolder = subfolder
        self.precision: Precision = precision
        self.device = device

    def fingerprint(self) -> str:
        """Identity of weights, configuration and settings: 32 hexadecimal digits; files are hashed, none is loaded."""
        return self._fingerprint

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides a result besides the files."""

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """What decides a result, in a fixed order."""

    @cached_property
    def root(self) -> Path:
        """The local folder; what is on the hub is downloaded once, without pickled weights."""
        folder = Path(self.path).expanduser()
        if self.revision is None:
            return folder
        require("huggingface_hub", extra="encoders", purpose=type(self).__name__)
        from huggingface_hub import snapshot_download

        below = [f"{name}/" for name in self._subfolders() if name] or [""]
        wanted = [f"{name}{kind}" for name in below for kind in ("*.safetensors", *_TOKENIZER_FILES)]
        return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=wanted))

    @property
    def target(self) -> torch.device:
        """Where it computes."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else _CPU

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]

    def __getstate__(self) -> dict[str, Any]:
        """Without weights: a copy loads its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("network", "tokenizer")}

    def _subfolders(self) -> tuple[str | None, ...]:
        return (self.subfolder,)

    @property
    def weights_folder(self) -> Path:
        """Where weights and their configuration lie."""
        return self.root if self.subfolder is None else self.root / self.subfolder

    def config(self) -> Mapping[str, Any]:
        """The configuration beside the weights.

        Raises:
            FileNotFoundError: if there is none.
        """
        path = self.weights_folder / "config.json"
        return parse_json(path.read_text(encoding="utf-8"), where=path)

    def weight_files(self) -> list[Path]:
        """The configuration, then the weights.

        Raises:
            FileNotFoundError: if there are no weights in safetensors.
        """
        weights = sorted(self.weights_folder.glob("*.safetensors"))
        if not weights:
            raise FileNotFoundError(
                f"{self.weights_folder} holds no *.safetensors; other kinds of weights are not read"
            )
        return [self.weights_folder / "config.json", *weights]

    @cached_property
    def _fingerprint(self) -> str:
        total = hashlib.blake2b(digest_size=16)
        told = {"class": type(self).__name__, "precision": self.precision, **self.settings()}
        total.update(json.dumps(told, sort_keys=True).encode())
        files = list(self.files())
        with ThreadPoolExecutor(max_workers=4) as threads:  # hashlib lets go of the interpreter's lock
            for path, digest in zip(files, threads.map(_digest, files), strict=True):
                total.update(hashlib.blake2b(path.name.encode(), digest_size=16).digest() + digest)
        return total.hexdigest()


class ImageEncoder(PretrainedEncoder):
    """Images to latents."""

    @abstractmethod
    def encode(self, image_BCHW: Tensor) -> Mapping[str, Tensor]:
        """Encode images, float32 in [-1, 1]; the latents are as the network gives them, neither scaled nor shifted."""


class PromptEncoder(PretrainedEncoder):
    """Texts to embeddings."""

    @abstractmethod
    def encode(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Encode texts, each for itself: all are padded to one fixed length."""


class DiffusersVAE(ImageEncoder):
    """The encoder half of an autoencoder of diffusers: ``AutoencoderKL``, ``AutoencoderDC`` or ``AutoencoderTiny``.

    Args:
        path: see :class:`PretrainedEncoder`.
        revision: see :class:`PretrainedEncoder`.
        subfolder: see :class:`PretrainedEncoder`; ``vae`` in a whole pipeline.
        precision: see :class:`PretrainedEncoder`.
        device: see :class:`PretrainedEncoder`.

    Raises:
        ValueError: see :class:`PretrainedEncoder`.

    Reference:
        Rombach et al., 2022 (arXiv:2112.10752), section 3.1: the latent of an image is a diagonal Gaussian.
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        subfolder: str | None = None,
        precision: Precision = "float32",
        device: str = "auto",
    ) -> None:
        super().__init__(path=path, revision=revision, subfolder=subfolder, precision=precision, device=device)

    def settings(self) -> dict[str, Any]:
        """Nothing but the files and the precision."""
        return {}

    def files(self) -> Sequence[Path]:
        """Configuration and weights."""
        return self.weight_files()

    @cached_property
    def network(self) -> nn.Module:
        """The autoencoder, in evaluation mode.

        Raises:
            ValueError: if the files are of another class.
        """
        require("diffusers", extra="encoders", purpose="DiffusersVAE")
        import diffusers

        name = self.config().get("_class_name")
        if name not in _AUTOENCODERS:
            raise ValueError(f"path={self.path!r}: holds a {name}, DiffusersVAE reads {', '.join(_AUTOENCODERS)}")
        loaded: Any = getattr(diffusers, name).from_pretrained(
            str(self.weights_folder), use_safetensors=True, local_files_only=True, torch_dtype=self.dtype
        )
        return loaded.to(self.target).eval().requires_grad_(False)

    def encode(self, image_BCHW: Tensor) -> Mapping[str, Tensor]:
        """Encode images.

        Args:
            image_BCHW: float32 in [-1, 1], height and width multiples of the network's downsampling.

        Returns:
            ``mean`` and ``logvar`` where the network has a distribution, else ``latent``: ``(B, c, h, w)``.
        """
        from diffusers.models.modeling_outputs import AutoencoderKLOutput

        network: Any = self.network
        with torch.no_grad():
            found = network.encode(image_BCHW.to(self.target, self.dtype))
        if isinstance(found, AutoencoderKLOutput):
            distribution: Any = found.latent_dist
            return {"mean": distribution.mean, "logvar": distribution.logvar}
        return {"latent": found[0]}


class HuggingFaceTextEncoder(PromptEncoder):
    """A text encoder of transformers with its tokenizer.

    A text that is longer than ``max_length`` is cut off there, which is said once.

    Args:
        path: see :class:`PretrainedEncoder`.
        revision: see :class:`PretrainedEncoder`.
        subfolder: see :class:`PretrainedEncoder`; ``text_encoder`` in a whole pipeline.
        tokenizer_subfolder: of the tokenizer; None: the weights' own folder. ``tokenizer`` in a whole pipeline.
        max_length: tokens of every text, padding included.
        layer: which hidden state is the embedding: -1 the last one as the network ends it (after its last norm), -2 the
            last but one, and so on.
        precision: see :class:`PretrainedEncoder`.
        device: see :class:`PretrainedEncoder`.

    Raises:
        ValueError: see :class:`PretrainedEncoder`; if ``max_length`` or ``layer`` is out of range.
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        subfolder: str | None = None,
        tokenizer_subfolder: str | None = None,
        max_length: int = 77,
        layer: int = -1,
        precision: Precision = "float32",
        device: str = "auto",
    ) -> None:
        super().__init__(path=path, revision=revision, subfolder=subfolder, precision=precision, device=device)
        if max_length < 1:
            raise ValueError(f"max_length={max_length}: must be at least 1")
        if layer >= 0:
            raise ValueError(f"layer={layer}: counted from the end, -1 is the last")
        self.tokenizer_subfolder = tokenizer_subfolder
        self.max_length = max_length
        self.layer = layer
        self._cut = False

    def settings(self) -> dict[str, Any]:
        """Length and layer."""
        return {"max_length": self.max_length, "layer": self.layer}

    def files(self) -> Sequence[Path]:
        """Configuration, weights, and everything of the tokenizer."""
        own = self.weight_files()
        told = sorted({path for kind in _TOKENIZER_FILES for path in self._tokenizer_folder.glob(kind)} - set(own))
        return [*own, *told]

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own hierarchy
        """The tokenizer."""
        require("transformers", extra="encoders", purpose="HuggingFaceTextEncoder")
        from transformers import AutoTokenizer

        folder = str(self._tokenizer_folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    @cached_property
    def network(self) -> nn.Module:
        """The encoder, in evaluation mode."""
        require("transformers", extra="encoders", purpose="HuggingFaceTextEncoder")
        import transformers

        config = self.config()
        projected = "CLIPTextModelWithProjection" in (config.get("architectures") or ())
        name = _TEXT_CLASSES.get(config.get("model_type", ""), "AutoModel")
        kind: Any = getattr(transformers, "CLIPTextModelWithProjection" if projected else name)
        loaded = kind.from_pretrained(
            str(self.weights_folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=self.dtype,
        )
        return loaded.to(self.target).eval().requires_grad_(False)

    def encode(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Encode texts.

        Returns:
            ``embedding`` ``(B, L, D)``; ``attention_mask`` bool ``(B, L)``, False on padding; ``pooled`` ``(B, E)``
            where the network has one.
        """
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        self._tell_cut(texts)
        mask: Tensor = tokens["attention_mask"]
        network: Any = self.network
        with torch.no_grad():
            found = network(
                input_ids=tokens["input_ids"].to(self.target),
                attention_mask=mask.to(self.target),
                output_hidden_states=True,
                return_dict=True,
            )
        last = found["last_hidden_state"]
        embedding = last if self.layer == -1 else found["hidden_states"][self.layer]
        pooled = found.get("text_embeds", found.get("pooler_output"))
        entry = {"embedding": embedding, "attention_mask": mask.bool()}
        return entry if pooled is None else {**entry, "pooled": pooled}

    @property
    def _tokenizer_folder(self) -> Path:
        return self.weights_folder if self.tokenizer_subfolder is None else self.root / self.tokenizer_subfolder

    def _subfolders(self) -> tuple[str | None, ...]:
        return (self.subfolder, self.tokenizer_subfolder)

    def _tell_cut(self, texts: Sequence[str]) -> None:
        if self._cut:
            return
        for text, ids in zip(texts, self.tokenizer(list(texts), verbose=False)["input_ids"], strict=True):
            if len(ids) > self.max_length:
                self._cut = True
                log.warning(
                    "texts are cut off at max_length=%d tokens, the first of %d: %.80r", self.max_length, len(ids), text
                )
                return


_CPU = torch.device("cpu")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
