"""From pictures or videos and their captions to latents and conditions, by the parts of a pipeline of diffusers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from neurotrain.diffusion.adapter import Adapter, PreparedBatch
from neurotrain.diffusion.context import Condition, SharedContext
from neurotrain.networks.denoisers import Denoiser

__all__ = ["GUIDANCE", "Encoding", "PromptAdapter"]

GUIDANCE = "guidance"
"""Channel of the scale that distilled networks are told."""
_KEPT_PROMPTS = 4096


class Encoding(Protocol):
    """What the adapter asks of its family."""

    sample_key: ClassVar[str]
    """What a batch calls its samples."""

    @property
    def scale(self) -> float | tuple[float, ...]:
        """Of latents."""
        ...

    @property
    def shift(self) -> float | tuple[float, ...]:
        """Of latents."""
        ...

    @property
    def told_guidance(self) -> float | None:
        """Scale that networks which ask for one are told, where the method says none."""
        ...

    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Channels of prompts."""
        ...


class PromptAdapter(Adapter):
    """Pictures in [-1, 1] and their captions, or what caches hold of both, to latents and conditions.

    Args:
        context: what the roles share.
        family: encodes prompts.
        pipeline: of diffusers, without its denoiser.
        prompts: that samples are drawn with.
    """

    def __init__(
        self,
        *,
        context: SharedContext,
        family: Encoding,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: tuple[str, ...],
    ) -> None:
        super().__init__(context=context)
        self._family, self.pipeline, self._prompts = family, pipeline, prompts
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def prepare_batch(self, batch: Mapping[str, Any]) -> PreparedBatch:
        """Latents of ``image`` (of ``video``), or the cached ``latent``; conditions of ``caption``.

        Raises:
            ValueError: if the batch has neither of the one or lacks the other, or the size is another one.
        """
        key = self._family.sample_key
        if "latent" in batch:
            x0 = self._scaled(batch["latent"])
        elif key in batch:
            x0 = self.encode(batch[key])
        else:
            raise ValueError(f"the batch has neither {key!r} nor 'latent', only {', '.join(batch)}")
        if x0.shape[1:] != self.context.shape:
            raise ValueError(f"latents of shape {tuple(x0.shape[1:])}: the pipeline's are {self.context.shape}")
        if "caption" not in batch:
            raise ValueError(f"the batch has no 'caption', only {', '.join(batch)}")
        return PreparedBatch(x0, self.conditions(batch["caption"], device=x0.device))

    def encode(self, sample: Tensor) -> Tensor:
        """Mean of the autoencoder's distribution, shifted and scaled; without gradients."""
        vae = self._vae(sample.device)
        with torch.no_grad():
            latent = vae.encode(sample.to(vae.dtype)).latent_dist.mode()
        return self._scaled(latent.float())

    def decode(self, latent: Tensor) -> Tensor:
        """To pictures in [0, 1]."""
        vae = self._vae(latent.device)
        wide = latent / _by_channel(self._family.scale, latent) + _by_channel(self._family.shift, latent)
        with torch.no_grad():
            found: Tensor = vae.decode(wide.to(vae.dtype), return_dict=False)[0]
        return (found.float() * 0.5 + 0.5).clamp(0, 1)

    def draw_condition(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The prompts in turn, from a random one on."""
        first = int(torch.randint(len(self._prompts), (1,), generator=generator, device=generator.device))
        chosen = [self._prompts[(first + place) % len(self._prompts)] for place in range(count)]
        return self.conditions(chosen, device=generator.device)

    def conditions(self, prompts: Sequence[str], *, device: torch.device | str) -> dict[str, Tensor]:
        """Conditions of prompts, by channel; each prompt is encoded once and kept.

        Args:
            prompts: B texts.
            device: of the result.
        """
        missing = [text for text in dict.fromkeys(prompts) if text not in self._kept]
        if missing:
            for encoder in self.context.text_encoders.values():
                encoder.to(device)
            with torch.no_grad():
                found = self._family.encode_prompts(self.pipeline, missing, device=torch.device(device))
            for place, text in enumerate(missing):
                self._kept[text] = {name: value[place].cpu() for name, value in found.items()}
        chosen = [self._kept[text] for text in prompts]
        while len(self._kept) > max(_KEPT_PROMPTS, len(missing)):
            self._kept.popitem(last=False)
        return {name: torch.stack([one[name] for one in chosen]).to(device) for name in chosen[0]}

    def evaluate(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output."""
        return network(x_t, t, self._told(network, condition))

    def features(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> list[Tensor]:
        """What the network says of itself."""
        assert isinstance(network, Denoiser)
        return network.features(x_t, t, self._told(network, condition))

    def _told(self, network: nn.Module, condition: Condition) -> Condition:
        """With the pipeline's scale of guidance for a network that needs one, where the method has said none."""
        scale = self._family.told_guidance
        if scale is None or GUIDANCE in condition:
            return condition
        if not isinstance(network, Denoiser) or GUIDANCE not in network.condition:
            return condition
        like = next(iter(condition.values()))
        return {**condition, GUIDANCE: torch.full((len(like),), scale, device=like.device)}

    def _scaled(self, latent: Tensor) -> Tensor:
        return (latent - _by_channel(self._family.shift, latent)) * _by_channel(self._family.scale, latent)

    def _vae(self, device: torch.device) -> Any:  # noqa: ANN401 - of diffusers
        assert self.context.vae is not None
        return self.context.vae.to(device)


def _by_channel(value: float | tuple[float, ...], like: Tensor) -> float | Tensor:
    if not isinstance(value, tuple):
        return value
    return like.new_tensor(value).reshape(-1, *(1,) * (like.ndim - 2))
