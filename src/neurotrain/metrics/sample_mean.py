"""The mean of a figure over the samples of a data set, each counted once, whatever batches they came in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurotrain.metrics.records import IdentifiedRecords, bits_float, float_bits


class SampleMean(IdentifiedRecords):
    r"""Weighted mean :math:`\sum_i w_i v_i / \sum_i w_i` over distinct ids, summed in float64 in the order of the ids.

    A running sum of batch means depends on how samples were dealt out: on batch sizes, on the number of processes, and
    on the samples that a distributed sampler evaluates twice. This does not, to the last bit.

    Example:
        >>> mean = SampleMean()
        >>> mean.update(torch.tensor([1.0, 2.0]), ids=["a", "b"])
        >>> mean.update(torch.tensor([2.0, 6.0]), ids=["b", "c"])
        >>> mean.compute().item()
        3.0
    """

    is_differentiable = False
    higher_is_better = None

    def __init__(self) -> None:
        """Start without samples."""
        super().__init__()
        self._add_rows("values", shape=(), dtype=torch.int64)
        self._add_rows("weights", shape=(), dtype=torch.int64)

    def update(self, values: Tensor, *, ids: Sequence[str], weights: Tensor | None = None) -> None:
        """Add samples.

        Args:
            values: floats ``(B,)``.
            ids: B names; a sample of a known one does not count again.
            weights: floats ``(B,)``, how much each counts; 1 when not given.

        Raises:
            ValueError: if the shapes do not fit.
        """
        weights = torch.ones_like(values) if weights is None else weights
        if values.ndim != 1 or weights.shape != values.shape:
            raise ValueError(f"values {tuple(values.shape)} and weights {tuple(weights.shape)} must both be (B,)")
        self._append_ids(ids, count=len(values))
        self._append("values", float_bits(values.detach()))
        self._append("weights", float_bits(weights.detach()))

    def compute(self) -> Tensor:
        """The mean over the samples of all ranks, float64; NaN without any, or where none has weight."""
        weights = bits_float(self._rows("weights"))
        rows = list(self._distinct(weights).values())
        chosen = torch.tensor(rows, dtype=torch.int64, device=weights.device)
        kept = weights[chosen]
        return (bits_float(self._rows("values"))[chosen] * kept).sum() / kept.sum()
