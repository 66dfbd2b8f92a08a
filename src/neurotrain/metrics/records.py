"""Records of single samples, kept until the end: what per-image evaluation needs and a running sum cannot give.

Two abstract metrics hold them. They solve what a list state of torchmetrics leaves open: a rank without any sample must
still gather the right type and number of axes, ``module.to(torch.bfloat16)`` rounds float states (so floats are kept as
the bits of a float64), and a distributed sampler evaluates some samples twice to fill the last batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

ID_BYTES = 256
"""Longest id of an image, in bytes of UTF-8."""


class Plotted(Metric):
    """Abstract: a metric that draws itself as torchmetrics' own do; needs matplotlib, which comes with neurotrain."""

    def plot(self, val: Any = None, ax: Any = None) -> Any:  # noqa: ANN401 - matplotlib's objects, imported late
        """Draw the value, or a series of values.

        Args:
            val: results of ``compute`` or ``forward``, one or a list of them; None: ``compute`` now.
            ax: matplotlib's axes to draw into; None: a new figure.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)


class SampleRecords(Plotted):
    """Abstract: one row per sample in each of several states, gathered over ranks in one order.

    Subclasses declare a state with ``_add_rows``, append to it with ``_append`` and read it with ``_rows``.
    """

    full_state_update = False

    def __init__(self) -> None:
        """Declare no state yet."""
        super().__init__()
        self._row_types: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def _add_rows(self, name: str, *, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Add a state of rows ``(samples, *shape)``; its type is an integer, so that no cast can touch it."""
        assert not dtype.is_floating_point
        self.add_state(name, default=[], dist_reduce_fx="cat")
        self._row_types[name] = (shape, dtype)
        self._seed(name)

    def _seed(self, name: str) -> None:
        """Put in an empty piece of the right type: what a rank without samples contributes to a gather."""
        shape, dtype = self._row_types[name]
        self._append(name, torch.empty((0, *shape), dtype=dtype, device=self.device))

    def _append(self, name: str, rows: Tensor) -> None:
        pieces = self.metric_state[name]
        assert isinstance(pieces, list), "rows are appended to a metric that is not synced"
        pieces.append(rows.to(self.device))

    def _rows(self, name: str) -> Tensor:
        """All rows of a state: of this rank, or of all ranks within a sync."""
        pieces = self.metric_state[name]
        return pieces if isinstance(pieces, Tensor) else torch.cat(pieces)

    def reset(self) -> None:
        """Forget every record."""
        super().reset()
        for name in self._row_types:
            self._seed(name)


class IdentifiedRecords(SampleRecords):
    """Abstract: records of images that have an id; an image that was evaluated twice counts once.

    The first evaluation counts, in the order of ranks and then of updates.
    """

    def __init__(self) -> None:
        """Declare the state ``ids``."""
        super().__init__()
        self._add_rows("ids", shape=(ID_BYTES,), dtype=torch.uint8)

    def _append_ids(self, ids: Sequence[str], *, count: int) -> None:
        if len(ids) != count:
            raise ValueError(f"{len(ids)} ids were given for {count} images")
        self._append("ids", encode_ids(ids))

    def _distinct(self, fingerprint: Tensor) -> dict[str, int]:
        """Row of every distinct id, ascending by id.

        Args:
            fingerprint: ``(samples, *any)``, what follows from the reference alone and so is equal in each evaluation
                of one image.

        Raises:
            ValueError: if one id was given to different images.
        """
        first: dict[str, int] = {}
        for row, name in enumerate(decode_ids(self._rows("ids"))):
            known = first.setdefault(name, row)
            if known != row and not torch.equal(fingerprint[known], fingerprint[row]):
                raise ValueError(f"the id {name!r} was given to two different images; ids must be unique")
        return dict(sorted(first.items()))


def encode_ids(ids: Sequence[str]) -> Tensor:
    """Ids as rows of bytes, which ranks can gather.

    Args:
        ids: at most :data:`ID_BYTES` bytes of UTF-8 each, without the character NUL.

    Returns:
        uint8 ``(len(ids), ID_BYTES)``, padded with 0.

    Raises:
        ValueError: if an id is empty, too long or holds NUL.

    Example:
        >>> decode_ids(encode_ids(["drive/21", "größe"]))
        ['drive/21', 'größe']
    """
    rows = torch.zeros(len(ids), ID_BYTES, dtype=torch.uint8)
    for row, name in zip(rows, ids, strict=True):
        code = name.encode()
        if not code or len(code) > ID_BYTES or 0 in code:
            raise ValueError(f"id {name!r} has {len(code)} bytes; an id is 1 to {ID_BYTES} bytes of UTF-8 without NUL")
        row[: len(code)] = torch.frombuffer(bytearray(code), dtype=torch.uint8)
    return rows


def decode_ids(rows: Tensor) -> list[str]:
    """Inverse of :func:`encode_ids`.

    Args:
        rows: uint8 ``(images, ID_BYTES)``.
    """
    return [bytes(row).rstrip(b"\0").decode() for row in rows.cpu().numpy()]


def float_bits(values: Tensor) -> Tensor:
    """Floats as the bits of their float64, for an integer state; :func:`bits_float` is the inverse.

    Args:
        values: floats of any shape.

    Returns:
        int64 of the same shape.
    """
    return values.double().contiguous().view(torch.int64)


def bits_float(bits: Tensor) -> Tensor:
    """Inverse of :func:`float_bits`: float64 of the same shape."""
    return bits.contiguous().view(torch.float64)
