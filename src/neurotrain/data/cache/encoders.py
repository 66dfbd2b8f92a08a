"""What a cache asks of an encoder, how weights are identified, and how a stored distribution is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from neurotrain.data.cache.keys import Settings, canonical

LatentMode = Literal["mean", "sample"]
"""Which value of a distribution is used."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class LatentEncoder(Protocol):
    """Images to latents, for instance the encoder half of an autoencoder.

    An image's result must not depend on the others of its batch.
    """

    def fingerprint(self) -> str:
        """Identity of everything that decides the result, weights first: see :func:`weights_fingerprint`."""
        ...

    def encode(self, image_BCHW: Tensor) -> Mapping[str, Tensor]:
        """Encode images.

        Args:
            image_BCHW: float32 on the CPU, as the cache's preparation makes it.

        Returns:
            Tensors ``(B, ...)`` on any device: ``mean`` and ``logvar`` of a diagonal Gaussian, or ``latent``, and
            whatever else belongs to an image.
        """
        ...


class TextEncoder(Protocol):
    """Texts to embeddings.

    A text's result must not depend on the others of its batch: texts are padded to a fixed length, not to the longest.
    """

    def fingerprint(self) -> str:
        """Identity of everything that decides the result: weights, tokenizer, layer, length."""
        ...

    def encode(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Encode texts.

        Returns:
            Tensors ``(B, ...)`` on any device, by convention ``embedding`` ``(B, L, D)``, ``attention_mask``
            ``(B, L)``, ``pooled`` ``(B, D)``.
        """
        ...


def weights_fingerprint(module: nn.Module, *, config: Settings | None = None) -> str:
    """Identity of a network: every weight and buffer of its state, its structure, its configuration.

    Tensors are hashed by several threads; about 1 GB a second and core. Names, dtypes and shapes count, so the same
    weights in half precision are another network. The structure is what ``repr`` prints, which tells strides, kernels
    and activations that no weight does; a hyperparameter that neither a weight nor ``repr`` shows belongs into
    ``config``.

    Args:
        module: on any device.
        config: what else decides its output.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = weights_fingerprint(layer)
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(2)
        >>> weights_fingerprint(layer) == before
        False
    """
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    extra = {name: repr(value) for name, value in module.state_dict().items() if not isinstance(value, Tensor)}
    total = hashlib.blake2b(digest_size=16)
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    for text in (kind, _ADDRESS.sub("", repr(module)), canonical(config or {}), canonical(extra)):
        total.update(hashlib.blake2b(text.encode(), digest_size=16).digest())
    names = sorted(state)
    with ThreadPoolExecutor(max_workers=4) as threads:  # hashlib lets go of the interpreter's lock
        for name, digest in zip(names, threads.map(_tensor_digest, [state[name] for name in names]), strict=True):
            total.update(hashlib.blake2b(name.encode(), digest_size=16).digest() + digest)
    return total.hexdigest()


def draw_latent(
    tensors: Mapping[str, Tensor], *, mode: LatentMode = "mean", generator: torch.Generator | None = None
) -> Tensor:
    """The latent of an entry, or of a batch of them: ``mean``, or ``mean + exp(logvar / 2) * noise``.

    Computed in float32 whatever was stored: an exponential in half precision overflows, and noise loses its tails.

    Args:
        tensors: ``mean`` and ``logvar``, or ``latent``.
        mode: ``sample`` draws; a ``latent`` without a distribution can only be taken as it is.
        generator: of the sample's own, for ``sample``.

    Returns:
        float32, of the shape of ``mean`` or ``latent``.

    Raises:
        ValueError: if the tensors are not those, ``sample`` has no distribution or no generator, or ``mean`` has a
            generator, which it would not use.

    Reference:
        Kingma and Welling, 2014 (arXiv:1312.6114), section 2.4; ``logvar`` is limited to [-30, 20] as in the encoders
        of latent diffusion.

    Example:
        >>> draw_latent({"mean": torch.ones(1, 2, 2), "logvar": torch.zeros(1, 2, 2)}).sum()
        tensor(4.)
    """
    if (mode == "sample") != (generator is not None):
        raise ValueError(
            f"mode={mode!r} with generator={generator}: 'sample' needs the sample's own, 'mean' takes none"
        )
    if "mean" not in tensors:
        if "latent" not in tensors or mode == "sample":
            raise ValueError(f"mode={mode!r} needs 'mean' and 'logvar', the encoder gave {sorted(tensors)}")
        return tensors["latent"].float()
    mean = tensors["mean"].float()
    if generator is None:
        return mean
    if "logvar" not in tensors:
        raise ValueError(f"mode={mode!r} needs 'logvar' beside 'mean', the encoder gave {sorted(tensors)}")
    deviation = (0.5 * tensors["logvar"].float().clamp(-30.0, 20.0)).exp()
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return mean + deviation * noise


def _tensor_digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)} ".encode(), digest_size=16)
    if tensor.numel():
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.digest()
