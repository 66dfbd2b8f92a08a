"""Evaluation of segmented volumes, case by case, in millimetres: every case has a spacing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

import torch
from torch import Tensor

from neurotrain.metrics.functional.distances import hausdorff_distance
from neurotrain.metrics.functional.labels import check_choice
from neurotrain.metrics.functional.overlap import (
    confusion_counts,
    dice_from_counts,
    iou_from_counts,
    sensitivity_from_counts,
    specificity_from_counts,
)
from neurotrain.metrics.functional.surface import check_tolerance, normalized_surface_dice
from neurotrain.metrics.records import IdentifiedRecords, bits_float, float_bits
from neurotrain.metrics.segmentation import scored_classes

Absent = Literal["skip", "perfect"]
"""Score of a class that is neither in prediction nor reference: left out of means, or Dice and NSD 1 and HD95 0."""

_OVERLAPS = {"dice": dice_from_counts, "iou": iou_from_counts}
_RATES = {"sensitivity": sensitivity_from_counts, "specificity": specificity_from_counts}
_SURFACE = ("nsd", "hd95")


@dataclass(frozen=True)
class _Cases:
    """Each case once, ascending by id: ``(n, K)`` of each figure, float64."""

    ids: list[str]
    values: dict[str, Tensor]


class VolumeReport(IdentifiedRecords):
    """Dice, IoU, sensitivity, specificity, NSD and HD95 of every case and class, and their means over cases.

    A mean over classes leaves out the background of a multiclass problem. Where a class is in one of prediction and
    reference only, Dice and NSD are 0 and HD95 is ``missing``. A case that was evaluated twice counts once, by its id.

    Args:
        mode: ``multiclass`` or ``multilabel``.
        num_classes: classes with the background, or regions.
        class_names: for the keys ``dice/<class>``; numbers where not given.
        tolerance: of NSD, in millimetres.
        absent: see :data:`Absent`; ``perfect`` is BraTS' convention.
        missing: HD95 where a class is absent from one of both; BraTS has 373.13, the diagonal of its volumes. Infinity
            makes every mean infinite that it enters; NaN leaves it out.
        surface: whether NSD and HD95 are measured.

    Raises:
        ValueError: if the settings contradict each other.

    Example:
        >>> report = VolumeReport(mode="multiclass", num_classes=2, surface=False)
        >>> reference = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
        >>> reference[:, :2] = 1
        >>> report.update(reference, reference, ids=["img0001"], spacing=torch.tensor([[1.0, 1.0, 3.0]]))
        >>> report.compute()["dice"].item()
        1.0

    Reference:
        Nikolov et al., 2018 (arXiv:1809.04430) for NSD; BraTS: Baid et al., 2021 (arXiv:2107.02314), section 4.
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(
        self,
        *,
        mode: Literal["multiclass", "multilabel"],
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        tolerance: float = 2.0,
        absent: Absent = "skip",
        missing: float = inf,
        surface: bool = True,
    ) -> None:
        super().__init__()
        self._scored = scored_classes(mode, num_classes, include_background=False)
        check_tolerance(tolerance)
        check_choice("absent", absent, get_args(Absent))
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"class_names={class_names} must name all num_classes={num_classes}")
        self.mode: Literal["multiclass", "multilabel"] = mode
        self.num_classes = num_classes
        self.class_names = class_names or tuple(f"class_{index}" for index in range(num_classes))
        self.tolerance, self.missing = tolerance, missing
        self.absent: Absent = absent
        self.surface = surface
        self._add_rows("counts", shape=(num_classes, 4), dtype=torch.int64)
        self._add_rows("distances", shape=(num_classes, len(_SURFACE)), dtype=torch.int64)

    def update(self, labels: Tensor, reference: Tensor, *, ids: list[str], spacing: Tensor) -> None:
        """Measure cases of one shape.

        Args:
            labels: integers ``(B, *size)``, for multilabel ``(B, K, *size)``.
            reference: the same shape.
            ids: B names, unique in the data set.
            spacing: millimetres of a voxel of each case, ``(B, 3)``.

        Raises:
            ValueError: if shapes, types, labels or ids do not fit.
        """
        counts = confusion_counts(labels, reference, mode=self.mode, num_classes=self.num_classes)
        measured = torch.full((len(labels), self.num_classes, len(_SURFACE)), float("nan"), dtype=torch.float64)
        for case, steps in enumerate(spacing.tolist() if self.surface else ()):
            pair = labels[case : case + 1], reference[case : case + 1]
            measured[case] = self._surfaces(*pair, steps)
        self._append_ids(ids, count=len(counts))
        self._append("counts", counts)
        self._append("distances", float_bits(measured))

    def compute(self) -> dict[str, Tensor]:
        """Means over the cases of all ranks.

        Returns:
            float64 scalars: each figure as the mean over cases of the means over classes, and as ``<figure>/<class>``.
            NaN where no case has the class.

        Raises:
            ValueError: if one id was given to different cases.
        """
        return {key: column.nanmean().to(self.device) for key, column in self._columns(self._cases()).items()}

    def rows(self) -> list[dict[str, str | float]]:
        """Figures of every case, ascending by id; under DDP every rank must call it.

        Returns:
            One dict a case: ``id``, then the keys of :meth:`compute`; NaN where undefined.
        """
        if self._is_synced:
            cases = self._cases()
        else:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
                cases = self._cases()
        columns = {key: column.tolist() for key, column in self._columns(cases).items()}
        return [
            {"id": name} | {key: column[row] for key, column in columns.items()} for row, name in enumerate(cases.ids)
        ]

    def _surfaces(self, labels: Tensor, reference: Tensor, spacing: Sequence[float]) -> Tensor:
        """float64 ``(K, 2)`` of one case."""
        perfect = self.absent == "perfect"
        near = normalized_surface_dice(
            labels,
            reference,
            tolerance=self.tolerance,
            spacing=spacing,
            mode=self.mode,
            num_classes=self.num_classes,
            empty="one" if perfect else "nan",
        )
        far = hausdorff_distance(
            labels,
            reference,
            percentile=95.0,
            spacing=spacing,
            mode=self.mode,
            num_classes=self.num_classes,
            empty="zero" if perfect else "nan",
            missing=self.missing,
        )
        return torch.stack([near[0], far[0]], dim=-1).cpu()

    def _columns(self, cases: _Cases) -> dict[str, Tensor]:
        columns: dict[str, Tensor] = {}
        for key, values in cases.values.items():
            columns[key] = values[:, self._scored].nanmean(dim=1)
            columns |= {f"{key}/{name}": values[:, index] for index, name in self._named()}
        return columns

    def _named(self) -> list[tuple[int, str]]:
        """The scored classes: nobody asks for the background's figures."""
        return list(enumerate(self.class_names))[self._scored]

    def _cases(self) -> _Cases:
        counts = self._rows("counts")
        tp, fp, fn, tn = counts.unbind(dim=-1)
        first = self._distinct(torch.stack([tp + fn, fp + tn], dim=-1))
        order = torch.tensor(list(first.values()), dtype=torch.int64, device=counts.device)
        kept = counts[order].cpu()
        empty = "one" if self.absent == "perfect" else "nan"
        # A perfect nothing is one of overlap: a rate of voxels that are not there stays undefined.
        values = {key: score(kept, empty=empty) for key, score in _OVERLAPS.items()}
        values |= {key: score(kept) for key, score in _RATES.items()}
        if self.surface:
            measured = bits_float(self._rows("distances"))[order].cpu()
            values |= {key: measured[..., column] for column, key in enumerate(_SURFACE)}
        return _Cases(ids=list(first), values=values)
