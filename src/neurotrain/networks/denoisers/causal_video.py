"""Denoisers of videos that look back only: chunk after chunk, with what they know of earlier chunks kept.

Shape legend: ``B`` batch, ``C`` channels, ``T`` frames, ``P`` tokens of a frame, ``L`` tokens, ``D`` width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from neurotrain.networks.blocks.attention import Attention, KeysValues
from neurotrain.networks.denoisers.base import Denoiser, TimeEmbedding
from neurotrain.noise import Prediction

__all__ = ["CausalDenoiser", "CausalVideo", "Past", "frame_times"]

Past = tuple[KeysValues, ...]
"""Keys and values of all earlier chunks, of each layer."""


def frame_times(t: Tensor, x_t: Tensor) -> Tensor:
    """Times of all frames, from one a sample or one a frame.

    Args:
        t: ``(B,)`` or ``(B, 1, T, 1, 1)``.
        x_t: ``(B, C, T, H, W)``.

    Returns:
        ``(B, T)``.

    Raises:
        ValueError: if the times have another shape.
    """
    batch, frames = x_t.shape[0], x_t.shape[2]
    if t.shape == (batch,):
        return t[:, None].expand(-1, frames)
    if t.shape == (batch, 1, frames, 1, 1):
        return t.reshape(batch, frames)
    raise ValueError(f"times of shape {tuple(t.shape)}: expected ({batch},) or ({batch}, 1, {frames}, 1, 1)")


class CausalDenoiser(Denoiser):
    """A denoiser of videos whose frames of a chunk see each other and all earlier chunks, and no later ones.

    Its times are one a sample, or one a frame: ``(B, 1, T, 1, 1)``.

    Attributes:
        frames: T of a whole video.
        chunk: frames that are made together, a divisor of T; T itself: everything sees everything.
    """

    frame_times: ClassVar[bool] = True
    chunk: int

    @abstractmethod
    def extend(
        self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None, *, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """Predict the chunk that comes next.

        Args:
            x_t: the noisy chunk ``(B, C, chunk, H, W)``.
            t: its times ``(B,)``.
            condition: by channel.
            past: of the chunks before it, as :meth:`extend` returned it for the last one; None: it is the first.

        Returns:
            The prediction, as :meth:`forward` gives it for these frames when the earlier ones are as they were, and
            the past of the chunk behind this one. ``past`` is left as it was.

        Raises:
            ValueError: if the chunk has another length, or the video is over.
        """


@final
class CausalVideo(CausalDenoiser):
    """A transformer over squares of pixels, with attention in blocks of chunks.

    Args:
        channels: C.
        frames: T.
        size: height and width.
        patch: side of a square of pixels that is one token, a divisor of ``size``.
        chunk: frames that are made together, a divisor of ``frames``; ``frames`` itself: everything sees everything.
        width: of the tokens, even.
        depth: number of layers.
        heads: of the attention, a divisor of ``width``.
        scalars: names of further numbers that steer it, see :class:`neurotrain.networks.denoisers.TimeEmbedding`.
        prediction: what it returns.

    Raises:
        ValueError: if the numbers do not fit together.

    Reference:
        Peebles & Xie, 2022 (arXiv:2212.09748) for the layers; Yin et al., 2024 (arXiv:2412.07772) for attention in
        blocks.

    Example:
        >>> network = CausalVideo(frames=4, size=4, patch=2, chunk=2, width=8, depth=1, heads=2)
        >>> network(torch.zeros(3, 1, 4, 4, 4), torch.full((3,), 0.5)).shape
        torch.Size([3, 1, 4, 4, 4])
        >>> first, past = network.extend(torch.zeros(3, 1, 2, 4, 4), torch.full((3,), 0.5))
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        frames: int = 8,
        size: int = 8,
        patch: int = 4,
        chunk: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        scalars: tuple[str, ...] = (),
        prediction: Prediction = "flow",
    ) -> None:
        super().__init__()
        if min(channels, frames, size, patch, chunk, depth) < 1 or size % patch or frames % chunk:
            raise ValueError(
                f"channels={channels}, frames={frames}, size={size}, patch={patch}, chunk={chunk}, depth={depth}: all "
                "must be at least 1, patch a divisor of size and chunk one of frames"
            )
        self.prediction, self.channels = prediction, channels
        self.frames, self._length, self.chunk, self._size, self._patch = frames, frames, chunk, size, patch
        self._tokens = (size // patch) ** 2
        self.embedding = TimeEmbedding(width=width, scalars=scalars)
        self.condition = self.embedding.condition
        self.stem = nn.Linear(channels * patch**2, width)
        self.places = nn.Parameter(0.02 * torch.randn(self._tokens, width))
        self.moments = nn.Parameter(0.02 * torch.randn(frames, width))
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels * patch**2)
        mask: Tensor | None = None
        if chunk < frames:
            number = torch.arange(frames).repeat_interleave(self._tokens) // chunk
            mask = number[:, None] >= number
        self.mask: Tensor | None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        """Predict all frames; see :meth:`Denoiser.forward`, and :class:`CausalDenoiser` for the times."""
        return self._pixels(self._outputs(x_t, t, condition)[-1], self._length)

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """Output ``(B, D, L)`` of each layer."""
        return [part.transpose(1, 2) for part in self._outputs(x_t, t, condition)]

    def _outputs(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> list[Tensor]:
        """Output ``(B, L, D)`` of each layer."""
        hidden, embedding = self._embedded(x_t, t, condition, start=0, frames=self._length)
        found: list[Tensor] = []
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            hidden = layer(hidden, embedding, None, self.mask)[0]
            found.append(hidden)
        return found

    def extend(
        self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None, *, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """See :meth:`CausalDenoiser.extend`."""
        start = 0 if past is None else past[0].keys.shape[2] // self._tokens
        if start >= self._length:
            raise ValueError(f"the video is over: {start} of {self._length} frames are there")
        hidden, embedding = self._embedded(x_t, t, condition, start=start, frames=self.chunk)
        present: list[KeysValues] = []
        for place, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            hidden, seen = layer(hidden, embedding, None if past is None else past[place], None)
            present.append(seen)
        return self._pixels(hidden, self.chunk), tuple(present)

    def _embedded(
        self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None, *, start: int, frames: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens with their places ``(B, L, D)``, and the vectors of the frames' times ``(B, T, D)``."""
        if x_t.shape[2:] != (frames, self._size, self._size):
            expected = ("batch", str(self.channels), *map(str, (frames, self._size, self._size)))
            raise ValueError(f"samples of shape {tuple(x_t.shape)}: expected ({', '.join(expected)})")
        times = frame_times(t, x_t)
        self.check(x_t, times[:, 0], condition, axes=5)
        side = self._size // self._patch
        folded = x_t.unflatten(4, (side, self._patch)).unflatten(3, (side, self._patch))
        tokens = self.stem(folded.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3))
        hidden = tokens + self.places + self.moments[start : start + frames, None]
        told = {name: value.repeat_interleave(frames) for name, value in (condition or {}).items()}
        return hidden.flatten(1, 2), self.embedding(times.reshape(-1), told).view(len(x_t), frames, -1)

    def _pixels(self, hidden: Tensor, frames: int) -> Tensor:
        side, patch = self._size // self._patch, self._patch
        found = self.head(self.norm(hidden)).view(-1, frames, side, side, self.channels, patch, patch)
        return found.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class _Layer(nn.Module):
    """Attention, then each token for itself; the time scales, shifts and gates both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width=width, heads=heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.own = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self, x_BLD: Tensor, embedding_BTD: Tensor, past: KeysValues | None, mask: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        modulation = self.modulation(embedding_BTD).repeat_interleave(x_BLD.shape[1] // embedding_BTD.shape[1], 1)
        scale1, shift1, gate1, scale2, shift2, gate2 = modulation.chunk(6, 2)
        normed = self.norm1(x_BLD) * (1 + scale1) + shift1
        seen = self.attention.keys_values(normed)
        if past is not None:
            seen = KeysValues(torch.cat((past.keys, seen.keys), 2), torch.cat((past.values, seen.values), 2))
        x_BLD = x_BLD + (1 + gate1) * self.attention.attend(normed, seen, mask=mask)
        return x_BLD + (1 + gate2) * self.own(self.norm2(x_BLD) * (1 + scale2) + shift2), seen
