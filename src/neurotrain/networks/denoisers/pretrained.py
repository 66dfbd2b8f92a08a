"""Denoisers of diffusers' own classes, told the time as their schedule counts it.

The class of diffusers stays whole inside, under ``model``: it is what is loaded, adapted and exported.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from neurotrain.networks.denoisers.base import LABEL, Denoiser
from neurotrain.noise import NoiseSchedule, Prediction

__all__ = ["ConditionalUNet", "DiffusersDenoiser", "FluxTransformer", "PlainUNet", "SD3Transformer"]

TEXT, POOLED, SIZE, GUIDANCE = "text", "pooled", "size", "guidance"
"""Channels: tokens ``(L, D)``, one vector of the whole text, sizes and crop of the picture, guidance scale."""


class DiffusersDenoiser(Denoiser):
    """A model of diffusers.

    Args:
        model: of the class that the subclass names.
        schedule: that it was trained with; says what it is told of the time.
        prediction: what it returns.
        condition: shape of each channel, without the batch axis; unlike a network of ours it needs them all.
    """

    axes: ClassVar[int] = 4
    """Of samples: five for videos ``(B, C, T, H, W)``."""

    def __init__(
        self,
        *,
        model: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        condition: Mapping[str, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.model = model
        self.schedule, self.prediction = schedule, prediction
        self.condition = dict(condition)
        self.channels = self.latent_channels(self.config)

    @property
    def config(self) -> Mapping[str, Any]:
        """Of the model, as ``config.json`` has it."""
        model: Any = self.model
        return model.config

    @staticmethod
    def latent_channels(config: Mapping[str, Any]) -> int:
        """Channels of a latent, from the model's configuration."""
        return int(config["in_channels"])

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict; see :meth:`Denoiser.forward`.

        Raises:
            ValueError: if a shape is wrong, or a channel missing or unknown.
        """
        self.check(x_t, t, condition, axes=self.axes)
        given = condition or {}
        for name in self.condition:
            if name not in given:
                raise ValueError(
                    f"{type(self.model).__name__} needs the channel {name!r}, which is absent: drop it nowhere"
                )
        model: Any = self.model
        dtype: torch.dtype = model.dtype
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}
        return self._predict(x_t.to(dtype), self.schedule.timestep(t), cast).to(x_t.dtype)

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Outputs of :meth:`feature_modules`, channels second."""
        found: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:  # noqa: ANN401 - of any module
            found.append(self._feature(output))

        hooks = [module.register_forward_hook(keep) for module in self.feature_modules()]
        try:
            self(x_t, t, condition)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    @abstractmethod
    def feature_modules(self) -> Sequence[nn.Module]:
        """Modules whose outputs a discriminator may see."""

    @abstractmethod
    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Call the model."""

    def _feature(self, output: Any) -> Tensor:  # noqa: ANN401 - tensors, or tuples of them
        """From what a module returns to ``(B, C, ...)``."""
        return output[0] if isinstance(output, tuple) else output


@final
class PlainUNet(DiffusersDenoiser):
    """``UNet2DModel``: pictures, steered by a class at most."""

    @staticmethod
    def conditions(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """The class, where the model has classes.

        Raises:
            ValueError: if it is steered by something else.
        """
        if config.get("class_embed_type") is not None:
            raise ValueError(f"class_embed_type={config['class_embed_type']!r}: only classes by number are known")
        return {LABEL: ()} if config.get("num_class_embeds") is not None else {}

    def feature_modules(self) -> Sequence[nn.Module]:
        """The middle of the U-Net."""
        model: Any = self.model
        return [model.mid_block]

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return self.model(x_t, timestep, class_labels=condition.get(LABEL), return_dict=False)[0]


@final
class ConditionalUNet(DiffusersDenoiser):
    """``UNet2DConditionModel``: latents, steered by text; Stable Diffusion 1.5, 2 and XL."""

    @staticmethod
    def conditions(config: Mapping[str, Any], *, tokens: int) -> dict[str, tuple[int, ...]]:
        """Channels that a model of this configuration needs.

        Args:
            config: of the model.
            tokens: length of every text.

        Raises:
            ValueError: if it needs something that is not known here.
        """
        found: dict[str, tuple[int, ...]] = {TEXT: (tokens, int(config["cross_attention_dim"]))}
        kind = config.get("addition_embed_type")
        if kind == "text_time":
            sizes = 6
            width = int(config["projection_class_embeddings_input_dim"]) - sizes * int(
                config["addition_time_embed_dim"]
            )
            found |= {POOLED: (width,), SIZE: (sizes,)}
        elif kind is not None:
            raise ValueError(f"addition_embed_type={kind!r}: known are 'text_time' and none")
        return found | ({GUIDANCE: ()} if config.get("time_cond_proj_dim") is not None else {})

    def feature_modules(self) -> Sequence[nn.Module]:
        """The middle of the U-Net."""
        model: Any = self.model
        return [model.mid_block]

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        added = {"text_embeds": condition[POOLED], "time_ids": condition[SIZE]} if POOLED in condition else None
        waves = None
        if GUIDANCE in condition:
            waves = guidance_waves(condition[GUIDANCE], width=int(self.config["time_cond_proj_dim"])).to(x_t.dtype)
        return self.model(
            x_t,
            timestep,
            encoder_hidden_states=condition[TEXT],
            added_cond_kwargs=added,
            timestep_cond=waves,
            return_dict=False,
        )[0]


@final
class SD3Transformer(DiffusersDenoiser):
    """``SD3Transformer2DModel``: Stable Diffusion 3 and 3.5."""

    @staticmethod
    def conditions(config: Mapping[str, Any], *, tokens: int) -> dict[str, tuple[int, ...]]:
        """Tokens of all encoders, one after the other, and one vector of the text."""
        return {TEXT: (tokens, int(config["joint_attention_dim"])), POOLED: (int(config["pooled_projection_dim"]),)}

    def feature_modules(self) -> Sequence[nn.Module]:
        """The block in the middle and the last but one, whose picture's tokens go on."""
        model: Any = self.model
        blocks = list(model.transformer_blocks)
        return [blocks[index] for index in sorted({len(blocks) // 2, max(len(blocks) - 2, 0)})]

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return self.model(
            hidden_states=x_t,
            encoder_hidden_states=condition[TEXT],
            pooled_projections=condition[POOLED],
            timestep=timestep,
            return_dict=False,
        )[0]

    def _feature(self, output: Any) -> Tensor:  # noqa: ANN401 - (tokens of the text, tokens of the picture)
        return output[1].transpose(1, 2)


@final
class FluxTransformer(DiffusersDenoiser):
    """``FluxTransformer2DModel``: latents are folded into tokens of 2 by 2 here, and unfolded."""

    @staticmethod
    def latent_channels(config: Mapping[str, Any]) -> int:
        """A quarter of the tokens' width."""
        return int(config["in_channels"]) // 4

    @staticmethod
    def conditions(config: Mapping[str, Any], *, tokens: int) -> dict[str, tuple[int, ...]]:
        """Tokens, one vector of the text, and the scale of guidance where the model was distilled for it."""
        found: dict[str, tuple[int, ...]] = {
            TEXT: (tokens, int(config["joint_attention_dim"])),
            POOLED: (int(config["pooled_projection_dim"]),),
        }
        return found | ({GUIDANCE: ()} if config.get("guidance_embeds") else {})

    def feature_modules(self) -> Sequence[nn.Module]:
        """The last block that keeps text and picture apart."""
        model: Any = self.model
        return [model.transformer_blocks[-1]]

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        batch, channels, height, width = x_t.shape
        if height % 2 or width % 2:
            raise ValueError(f"latents of {height} x {width}: sides must be even")
        tokens = x_t.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        rows = torch.arange(height // 2, device=x_t.device)[:, None].expand(-1, width // 2)
        columns = torch.arange(width // 2, device=x_t.device)[None].expand(height // 2, -1)
        places = torch.stack((torch.zeros_like(rows), rows, columns), -1).reshape(-1, 3).to(x_t.dtype)
        found: Tensor = self.model(
            hidden_states=tokens.reshape(batch, -1, 4 * channels),
            encoder_hidden_states=condition[TEXT],
            pooled_projections=condition[POOLED],
            timestep=(timestep / 1000).to(x_t.dtype),  # the model multiplies it again
            img_ids=places,
            txt_ids=places.new_zeros(condition[TEXT].shape[1], 3),
            guidance=condition.get(GUIDANCE),
            return_dict=False,
        )[0]
        tokens = found.reshape(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return tokens.reshape(batch, channels, height, width)

    def _feature(self, output: Any) -> Tensor:  # noqa: ANN401 - (tokens of the text, tokens of the picture)
        return output[1].transpose(1, 2)


def guidance_waves(scale: Tensor, *, width: int) -> Tensor:
    """Waves of a guidance scale w, of ``1000 (w - 1)``, as latent consistency models are told it.

    Args:
        scale: ``(B,)``.
        width: of the result, even.

    Returns:
        float32 ``(B, width)``.

    Reference:
        Luo et al., 2023 (arXiv:2310.04378), section 4.2; diffusers' ``get_guidance_scale_embedding``.
    """
    half = width // 2
    powers = torch.arange(half, device=scale.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    angle = (scale.float() - 1)[:, None] * 1000.0 * powers.exp()
    return torch.cat((angle.sin(), angle.cos()), 1)
