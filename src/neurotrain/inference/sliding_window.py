"""Overlapping windows over images and volumes: where they lie, what they weigh, how their predictions are blended.

Outside the network an image costs memory traffic only, so that is what this file saves: predictions are weighted and
added in one pass, and the weights that a pixel has got in all are summed axis by axis, not window by window. Tiles that
stay in a cache while overlapping windows are added to them gain nothing on one thread, and lose half on two.

Shape legend: ``B`` batch, ``C`` image channels, ``K`` predicted channels, ``*spatial`` two or three axes (``S`` in
suffixes), ``N`` windows in one call of the predictor.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

MIN_WEIGHT = 1e-3
"""Least weight of a pixel in its window, as in MONAI: keeps the corners of a Gaussian above zero."""

KEPT_BYTES = 2**28
"""Most memory that maps of weights take between calls."""

Window = tuple[int, tuple[slice, ...]]
"""Number of the image in the batch, and the window's place in it."""


def window_slices(size: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Where the windows lie, last axis fastest.

    Steps are ``max(int(window * (1 - overlap)), 1)`` long; the last window of an axis moves back to end with it.

    Args:
        size: spatial size, at least ``window`` on each axis.
        window: size of the windows.
        overlap: share in ``[0, 1)`` that neighbours have in common.

    Returns:
        One slice for each axis and window.

    Example:
        >>> [place[0].start for place in window_slices((10,), (4,), overlap=0.25)]
        [0, 3, 6]
    """
    return [
        tuple(slice(start, start + edge) for start, edge in zip(corner, window, strict=True))
        for corner in itertools.product(*_starts(size, window, overlap))
    ]


def window_weights(window: Sequence[int], blending: Literal["gaussian", "constant"], sigma_scale: float) -> Tensor:
    """Weight of each pixel of a window.

    ``exp(-sum_a x_a^2 / (2 sigma_a^2))`` with ``x_a`` the distance from the middle along axis ``a`` and
    ``sigma_a = sigma_scale * window_a``; at least ``MIN_WEIGHT``. All ones for ``"constant"``.

    Args:
        window: size of the windows.
        blending: ``"gaussian"`` or ``"constant"``.
        sigma_scale: standard deviation as a share of the window.

    Returns:
        float32 ``(*window)`` in ``(0, 1]``.
    """
    weight_S = torch.ones(tuple(window))
    if blending == "constant":
        return weight_S
    for axis, edge in enumerate(window):
        x = torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2
        profile = torch.exp(-(x**2) / (2 * (sigma_scale * edge) ** 2))
        weight_S = weight_S * profile.reshape([-1 if other == axis else 1 for other in range(len(window))])
    return weight_S.clamp_min(MIN_WEIGHT)


def total_weights(size: Sequence[int], weight_S: Tensor, overlap: float) -> Tensor:
    """Sum of the weights of all windows over each pixel.

    The places are a product of those along each axis, so the sums along one axis are shared by all windows that differ
    in the others: about two passes over the image in all, however many windows lie over a pixel.

    Args:
        size: spatial size, at least the window's on each axis.
        weight_S: of one window.
        overlap: share in ``[0, 1)`` that neighbours have in common.

    Returns:
        ``(*size)``, of the weights' type and device.

    Example:
        >>> total_weights((5,), torch.ones(3), 0.5)
        tensor([1., 2., 3., 2., 1.])
    """
    total_S = weight_S
    for axis, starts in reversed(list(enumerate(_starts(size, weight_S.shape, overlap)))):
        shape = (*total_S.shape[:axis], size[axis], *total_S.shape[axis + 1 :])
        wider = _memory(shape, weight_S, zero=True)
        for start in starts:
            wider.narrow(axis, start, weight_S.shape[axis]).add_(total_S)
        total_S = wider
    return total_S


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What windows lie over an image, and what each of their pixels weighs.

    Both maps of weights are kept from one call to the next, at most ``KEPT_BYTES`` of them: the cases of a data set,
    and the passes of a test-time augmentation, often have one size.

    Attributes:
        window: size of the windows.
        overlap: share in ``[0, 1)`` that neighbours have in common.
        blending: ``"gaussian"`` or ``"constant"``.
        sigma_scale: standard deviation of the Gaussian as a share of the window.
    """

    window: tuple[int, ...]
    overlap: float
    blending: Literal["gaussian", "constant"]
    sigma_scale: float

    def weights(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """See :func:`window_weights`; not to be written to."""
        return _KEPT.get(
            (self, dtype, device),
            lambda: window_weights(self.window, self.blending, self.sigma_scale).to(device, dtype),
        )

    def shares(self, size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """One over :func:`total_weights`; not to be written to."""
        weight_S = self.weights(dtype, device)
        return _KEPT.get((self, size, dtype, device), lambda: total_weights(size, weight_S, self.overlap).reciprocal_())


def blended(
    predict: Callable[[Tensor], Tensor],
    image_BCS: Tensor,
    *,
    windows: Windows,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Predict every window and average what lies over each pixel by weight.

    Args:
        predict: from windows ``(N, C, *window)`` to ``(N, K, *window)``. Without gradients it gets the same memory at
            each call, so what it is given must not be kept.
        image_BCS: at least as large as a window on each axis.
        windows: where they lie and what they weigh.
        batch_size: windows in one call.
        dtype: of sums and result.
        device: likewise.

    Returns:
        ``(B, K, *spatial)``.

    Raises:
        ValueError: if the image is empty.
    """
    size = tuple(image_BCS.shape[2:])
    weight_S = windows.weights(dtype, device)
    places = list(itertools.product(range(image_BCS.shape[0]), window_slices(size, windows.window, windows.overlap)))
    shares_S = windows.shares(size, dtype, device)
    gather = _Gathering(image_BCS, windows.window, min(batch_size, len(places)))
    result_BKS: Tensor | None = None
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        predicted_NKS = predict(gather(batch)).to(weight_S)
        if result_BKS is None:
            shape = (image_BCS.shape[0], predicted_NKS.shape[1], *size)
            result_BKS = _memory(shape, weight_S, zero=True)
        for (index, place), predicted_KS in zip(batch, predicted_NKS, strict=True):
            result_BKS[(index, slice(None), *place)].addcmul_(predicted_KS, weight_S)
    if result_BKS is None:
        raise ValueError(f"image of shape {tuple(image_BCS.shape)} is empty")
    return result_BKS.mul_(shares_S)


class _Gathering:
    """Copies windows out of an image, into one buffer that every batch fills anew."""

    def __init__(self, image_BCS: Tensor, window: tuple[int, ...], most: int) -> None:
        self._image_BCS = image_BCS
        differentiable = torch.is_grad_enabled() and image_BCS.requires_grad
        self._buffer_NCS: Tensor | None = None
        if most > 1 and not differentiable:  # a single window is a part of the image as it is
            self._buffer_NCS = _memory((most, image_BCS.shape[1], *window), image_BCS, zero=False)

    def __call__(self, batch: Sequence[Window]) -> Tensor:
        parts = [self._image_BCS[(index, slice(None), *place)] for index, place in batch]
        if len(parts) == 1:
            return parts[0][None]
        if self._buffer_NCS is None:
            return torch.stack(parts)
        return torch.stack(parts, out=self._buffer_NCS[: len(parts)])


class _Kept:
    """The maps that were asked for last, up to a number of bytes."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The map of ``key``, made where it is not kept."""
        found = self._maps.pop(key, None)
        if found is None:
            # What is made in inference mode could not be used with gradients later.
            with torch.inference_mode(False), torch.no_grad():
                found = make()
        if found.nbytes <= KEPT_BYTES:
            self._maps[key] = found
        while sum(value.nbytes for value in self._maps.values()) > KEPT_BYTES:
            self._maps.popitem(last=False)
        return found


_KEPT = _Kept()


def _starts(size: Sequence[int], window: Sequence[int], overlap: float) -> list[list[int]]:
    starts: list[list[int]] = []
    for length, edge in zip(size, window, strict=True):
        assert length >= edge, "an image smaller than the window is padded first"
        step = max(int(edge * (1 - overlap)), 1)
        last = length - edge
        starts.append([*range(0, last, step), last])
    return starts


def _memory(shape: tuple[int, ...], like: Tensor, *, zero: bool) -> Tensor:
    """Memory of another tensor's type and device.

    On a CPU NumPy allocates it: it asks for huge pages, where torch takes a page fault for every 4 kB that is touched
    first. Of memory that is written once that is a large part of all the time there is outside the network.
    """
    known = {torch.float32: np.float32, torch.float64: np.float64}
    if like.device.type != "cpu" or like.dtype not in known:
        return like.new_zeros(shape) if zero else like.new_empty(shape)
    return torch.from_numpy((np.zeros if zero else np.empty)(shape, known[like.dtype]))
