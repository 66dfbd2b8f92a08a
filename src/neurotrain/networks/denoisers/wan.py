"""Wan's transformer of diffusers: videos, steered by text; as it is, or looking back only.

Shape legend: ``B`` batch, ``L`` tokens, ``H`` heads, ``d`` width of a head.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurotrain.networks.blocks.attention import KeysValues
from neurotrain.networks.denoisers.causal_video import CausalDenoiser, Past, frame_times
from neurotrain.networks.denoisers.pretrained import TEXT, DiffusersDenoiser
from neurotrain.noise import NoiseSchedule, Prediction

__all__ = ["CausalWanTransformer", "WanDenoiser", "WanTransformer", "look_back"]


class WanDenoiser(DiffusersDenoiser):
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


@final
class WanTransformer(WanDenoiser):
    """As it was trained: every frame sees every other one, and all have one time."""


@final
class CausalWanTransformer(WanDenoiser, CausalDenoiser):
    """Frames of a chunk see each other and the chunks before, by the same weights; see :func:`look_back`.

    Times are one a sample, or one a frame ``(B, 1, T, 1, 1)``: the model itself knows times of tokens.

    Args:
        model: ``WanTransformer3DModel``; its attention looks back only from here on.
        schedule: that it was trained with.
        prediction: what it returns.
        condition: shape of each channel.
        frames: T of a whole video, in latents.
        chunk: latent frames that are made together.

    Raises:
        ValueError: if ``chunk`` does not divide ``frames``, or tokens reach over chunks.

    Reference:
        Yin et al., 2024 (arXiv:2412.07772); Huang et al., 2025 (arXiv:2506.08009).
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction,
        condition: Mapping[str, tuple[int, ...]],
        frames: int,
        chunk: int,
    ) -> None:
        super().__init__(model=model, schedule=schedule, prediction=prediction, condition=condition)
        check_chunk(chunk, frames=frames, folded=int(self.config["patch_size"][0]))
        self.frames, self.chunk = frames, chunk
        self._sight = look_back(model, chunk=chunk)

    def check(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None, *, axes: int) -> None:
        """See :meth:`Denoiser.check`; times may be those of frames."""
        if x_t.ndim == axes:
            t = frame_times(t, x_t)[:, 0]
        super().check(x_t, t, condition, axes=axes)

    def extend(
        self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None, *, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """See :meth:`CausalDenoiser.extend`."""
        if x_t.ndim != self.axes or x_t.shape[2] != self.chunk:
            raise ValueError(f"samples of shape {tuple(x_t.shape)}: expected {self.chunk} frames, those of a chunk")
        _, down, right = self.config["patch_size"]
        folded = int(self.config["patch_size"][0])
        places = (x_t.shape[3] // down) * (x_t.shape[4] // right)
        start = 0 if past is None else past[0].keys.shape[2] // places * folded
        if start >= (self.frames or 0):
            raise ValueError(f"the video is over: {start} of {self.frames} frames are there")
        with self._sight.behind(past) as present:
            found = self(x_t, t, condition)
        return found, tuple(present)

    def _predict(self, x_t: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        if timestep.ndim > 1:
            folded, down, right = self.config["patch_size"]
            places = (x_t.shape[3] // down) * (x_t.shape[4] // right)
            # The frames of a token are of one chunk, which has one time.
            timestep = frame_times(timestep, x_t)[:, ::folded].repeat_interleave(places, 1)
        return super()._predict(x_t, timestep, condition)


def check_chunk(chunk: int, *, frames: int, folded: int, role: str | None = None) -> None:
    """Refuse chunks that a video or its tokens do not divide into.

    Args:
        chunk: latent frames that are made together.
        frames: of a whole video.
        folded: latent frames of a token.
        role: whose chunk it is, for the message.

    Raises:
        ValueError: names the three.
    """
    if chunk < 1 or frames % chunk or chunk % folded:
        whose = "" if role is None else f" of role {role!r}"
        raise ValueError(
            f"chunk={chunk}{whose}: expected a divisor of the {frames} latent frames, and a multiple of the {folded} "
            "of a token"
        )


class Sight:
    """How far the self-attention of one model sees; all its layers look here.

    Args:
        chunk: latent frames that see each other.
    """

    def __init__(self, *, chunk: int) -> None:
        self._chunk = chunk
        self._places = 0
        """Tokens of a chunk, in the call that is under way."""
        self._past: Past | None = None
        self._present: list[KeysValues] | None = None
        self._rotary: tuple[Tensor, Tensor] | None = None

    def begin(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401 - of diffusers
        """Before each call of the model: its tokens, and their places behind the past.

        Raises:
            ValueError: if the model would compute parts again in the backward pass, when its past is another one.
        """
        if model.gradient_checkpointing:
            raise ValueError("gradient checkpointing asks the attention again when its past is gone: turn it off")
        x_t: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        folded, down, right = model.config.patch_size
        frame = (x_t.shape[3] // down) * (x_t.shape[4] // right)
        self._places = max(self._chunk // folded, 1) * frame
        self._rotary = None
        if self._past is not None:
            before = self._past[0].keys.shape[2]
            whole = x_t.new_empty(()).expand(*x_t.shape[:2], x_t.shape[2] + before // frame * folded, *x_t.shape[3:])
            cos, sin = model.rope(whole)  # reads the shape alone
            self._rotary = cos[:, before:], sin[:, before:]

    @contextmanager
    def behind(self, past: Past | None) -> Generator[list[KeysValues]]:
        """Let calls look at a past; yields what will be the past behind them, layer by layer."""
        self._past, self._present = past, []
        try:
            yield self._present
        finally:
            self._past = self._present = None

    def attend(self, place: int, queries_BHLd: Tensor, new: KeysValues, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attention of one layer.

        Args:
            place: of the layer.
            queries_BHLd: not yet turned.
            new: of the same tokens, not yet turned.
            rotary: cosine and sine of tokens without a past.

        Returns:
            ``(B, H, L, d)``.
        """
        turn = rotary if self._rotary is None else self._rotary
        queries_BHLd, keys = (_turned(part, turn) for part in (queries_BHLd, new.keys))
        seen = KeysValues(keys, new.values)
        if self._past is not None:
            past = self._past[place]
            seen = KeysValues(torch.cat((past.keys, keys), 2), torch.cat((past.values, new.values), 2))
        if self._present is not None:
            self._present.append(seen)
        before = seen.keys.shape[2] - queries_BHLd.shape[2]
        found: list[Tensor] = []
        start = 0
        # Chunk after chunk, each without a mask: the fused kernels take it, and nothing is computed to be hidden.
        for part in queries_BHLd.split(self._places, 2):
            start += part.shape[2]
            end = before + start
            found.append(F.scaled_dot_product_attention(part, seen.keys[:, :, :end], seen.values[:, :, :end]))
        return found[0] if len(found) == 1 else torch.cat(found, 2)


class _LookBack:
    """The processor of one layer's self-attention."""

    def __init__(self, sight: Sight, place: int) -> None:
        self._sight, self._place = sight, place

    def __call__(
        self,
        attn: Any,  # noqa: ANN401 - of diffusers
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None
        assert attention_mask is None
        assert rotary_emb is not None
        queries, keys, values = (
            part.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for part in (
                attn.norm_q(attn.to_q(hidden_states)),
                attn.norm_k(attn.to_k(hidden_states)),
                attn.to_v(hidden_states),
            )
        )
        found = self._sight.attend(self._place, queries, KeysValues(keys, values), rotary_emb)
        projection, dropout = attn.to_out
        return dropout(projection(found.transpose(1, 2).flatten(2).type_as(queries)))


def look_back(model: nn.Module, *, chunk: int) -> Sight:
    """Let the self-attention of a ``WanTransformer3DModel`` see its own chunk and those before, with the same weights.

    In place. Nothing of it is in the weights or the configuration, so what is saved is a plain model, and what is
    loaded sees everything until this is called again: ``look_back(pipeline.transformer, chunk=3)``.

    Args:
        model: of diffusers.
        chunk: latent frames that see each other.

    Returns:
        What the layers look at.

    Raises:
        ValueError: if ``chunk`` is not one or more tokens long, or the model looks back already.
    """
    held: Any = model
    check_chunk(chunk, frames=chunk, folded=int(held.config["patch_size"][0]))
    sight = Sight(chunk=chunk)
    for place, block in enumerate(held.blocks):
        if isinstance(block.attn1.processor, _LookBack):
            raise ValueError("the model looks back already: load it anew for another chunk")
        block.attn1.set_processor(_LookBack(sight, place))
    model.register_forward_pre_hook(sight.begin, with_kwargs=True)
    return sight


def _turned(x_BHLd: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs of neighbours turned by their angles, whose cosine and sine are ``(1, L, 1, d)``, each one twice."""
    cos, sin = (part.transpose(1, 2) for part in rotary)
    even, odd = x_BHLd.unflatten(-1, (-1, 2)).unbind(-1)
    return (x_BHLd * cos + torch.stack((-odd, even), -1).flatten(-2) * sin).type_as(x_BHLd)
