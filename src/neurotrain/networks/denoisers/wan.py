"""Wan's transformer of diffusers: videos, steered by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

from torch import Tensor, nn

from neurotrain.networks.denoisers.pretrained import TEXT, DiffusersDenoiser

__all__ = ["WanTransformer"]


@final
class WanTransformer(DiffusersDenoiser):
    """``WanTransformer3DModel``: latents ``(B, C, T, H, W)`` of Wan 2.1, and of 2.2 where one transformer does all."""

    axes: ClassVar[int] = 5

    @staticmethod
    def conditions(config: Mapping[str, Any], *, tokens: int) -> dict[str, tuple[int, ...]]:
        """The tokens of the text.

        Args:
            config: of the model.
            tokens: length of every text.

        Raises:
            ValueError: if it is steered by a picture too.
        """
        for name in ("image_dim", "added_kv_proj_dim"):
            if config.get(name) is not None:
                raise ValueError(f"{name}={config[name]!r}: the transformer is steered by a picture, not by text alone")
        return {TEXT: (tokens, int(config["text_dim"]))}

    def feature_modules(self) -> Sequence[nn.Module]:
        """The block in the middle and the last."""
        model: Any = self.model
        blocks = list(model.blocks)
        return [blocks[index] for index in sorted({len(blocks) // 2, len(blocks) - 1})]

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return self.model(
            hidden_states=x_t, timestep=timestep, encoder_hidden_states=condition[TEXT], return_dict=False
        )[0]

    def _feature(self, output: Any) -> Tensor:  # noqa: ANN401 - tokens of the video
        return output.transpose(1, 2)
