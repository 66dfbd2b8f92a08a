"""The text tower of a network as an encoder whose results are stored ahead of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from neurotrain.networks.clip.base import ClipNetwork


@final
class ClipTextEncoder:
    """Texts to the features of a frozen text tower, for a cache of them: entries hold ``pooled`` ``(B, E)``.

    A data module that decodes with ``CachedDecoder`` gives batches with ``text_pooled``, which a task uses instead of
    its text tower. That tower must be this one: same weights, and frozen.

    Args:
        network: with its weights loaded, and with them its vocabulary.
    """

    def __init__(self, *, network: ClipNetwork) -> None:
        self._network = network.eval().requires_grad_(False)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fingerprint(self) -> str:
        """Identity of the text tower: every weight, the vocabulary, the kind of network; 32 hexadecimal digits."""
        total = hashlib.blake2b(type(self._network).__qualname__.encode(), digest_size=16)
        state: Mapping[str, Any] = self._network.towers()["text"].state_dict()
        for name in sorted(state):
            value, total_of = state[name], hashlib.blake2b(name.encode(), digest_size=16)
            if isinstance(value, Tensor):
                total_of.update(f"{value.dtype} {tuple(value.shape)}".encode())
                total_of.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                total_of.update(json.dumps(value, sort_keys=True).encode())
            total.update(total_of.digest())
        return total.hexdigest()

    def encode(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Encode texts.

        Returns:
            ``pooled``: float32 unit vectors ``(B, E)``.
        """
        network = self._network.to(self._device)
        with torch.no_grad():
            return {"pooled": network.encode_text(network.tokenize(texts).to(self._device))}
