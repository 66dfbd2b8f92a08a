"""Pictures of segmented volumes, as matplotlib figures: no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurotrain.callbacks.drawing import DPI, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES = 10.5
_OPACITY = 0.55
# Of each plane the axes that run to the right and up, and what they point at.
_PLANES = {
    "axial": (0, 1, "R", "A"),
    "coronal": (0, 2, "R", "S"),
    "sagittal": (1, 2, "A", "S"),
}
# Okabe and Ito first, then darker and lighter kin: neighbours in the list stay apart.
_COLOURS = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#E41A1C", "#5B4BD6"),
    *("#B05CC6", "#A6D854", "#FFB3C1", "#8C564B", "#66C2A5", "#B2B200", "#8DA0CB"),
)


class Case(NamedTuple):
    """One segmented volume in the canonical frame, on the CPU.

    Attributes:
        image: float ``(*size)``, one channel.
        reference: uint8 classes ``(*size)``; 0 is background.
        prediction: uint8 classes ``(*size)``.
        spacing: millimetres of a voxel along each axis.
        names: of the classes from 1 on.
    """

    image: Tensor
    reference: Tensor
    prediction: Tensor
    spacing: tuple[float, ...]
    names: tuple[str, ...]


def painted(labels: Tensor, *, regions: bool) -> Tensor:
    """Labels as one map of colours: of overlapping regions the last one that a voxel is of.

    Args:
        labels: classes ``(*size)``, or regions ``(K, *size)``.
        regions: which of both.

    Returns:
        uint8 ``(*size)``, 0 where there is nothing.

    Example:
        >>> painted(torch.tensor([[1, 1, 0], [0, 1, 0]]), regions=True).tolist()
        [1, 2, 0]
    """
    if not regions:
        return labels
    painted = torch.zeros(labels.shape[1:], dtype=torch.uint8)
    for index, region in enumerate(labels, start=1):
        painted[region > 0] = index
    return painted


def slices_figure(case: Case, *, title: str, synthetic: bool) -> Figure:
    """Draws three orthogonal slices: as they are, under the reference, under the prediction.

    Of each plane the slice that shows most classes of the reference, of equals most of their voxels.

    Args:
        case: what to draw.
        title: id and scores.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    extents = [length * step for length, step in zip(case.image.shape, case.spacing, strict=True)]
    widths = [extents[across] for across, _, _, _ in _PLANES.values()]
    tallest = max(extents[up] for _, up, _, _ in _PLANES.values())
    present = sorted({int(label) for part in (case.reference, case.prediction) for label in part.unique()} - {0})
    legend = 0.28 * (1 + len(present) // 5)
    tall = 3 * _INCHES * tallest / sum(widths) + 0.9 + legend
    figure = Figure(figsize=(_INCHES, min(tall, 18.0)), dpi=DPI, layout="constrained")
    axes = figure.subplots(3, 3, width_ratios=widths)
    low, high = np.percentile(case.image.numpy(), [0.5, 99.5])
    overlays = (("image", None), ("reference", case.reference), ("prediction", case.prediction))
    for column, (plane, directions) in enumerate(_PLANES.items()):
        there, shape = _slice(case.reference, directions), case.spacing
        for row, (name, labels) in enumerate(overlays):
            axis = axes[row, column]
            _show(axis, case.image[there], None if labels is None else labels[there], (float(low), float(high)))
            axis.set_aspect(shape[directions[1]] / shape[directions[0]])
            if row == 0:
                axis.set_title(plane, fontsize=11)
            if column == 0:
                axis.set_ylabel(name, fontsize=11)
            _write_directions(axis, *directions[2:])
    if present:
        patches = [Patch(color=_colour(label), label=case.names[label - 1].replace("_", " ")) for label in present]
        figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    head(figure, title, synthetic=synthetic)
    return figure


def _slice(reference: Tensor, directions: tuple[int, int, str, str]) -> tuple[slice | int, ...]:
    """Index of the plane in a volume."""
    normal = next(axis for axis in range(3) if axis not in directions[:2])
    planes = reference.movedim(normal, 0).flatten(1)
    shown = (
        torch.stack([(planes == label).any(1) for label in planes.unique() if label]).sum(0) if planes.any() else None
    )
    filled = (planes > 0).sum(1)
    best = len(filled) // 2 if shown is None else int((shown * (planes.shape[1] + 1) + filled).argmax())
    return tuple(best if axis == normal else slice(None) for axis in range(3))


def _show(axis: Axes, image: Tensor, labels: Tensor | None, bounds: tuple[float, float]) -> None:
    low, high = bounds
    grey = ((image - low) / max(high - low, 1e-12)).clamp(0, 1).T.numpy()
    picture = np.repeat(grey[..., None], 3, axis=2)
    if labels is not None:
        from matplotlib.colors import to_rgb

        table = np.array([(0.0, 0.0, 0.0), *(to_rgb(_colour(label)) for label in range(1, 256))])
        index = labels.T.long().numpy()
        inside = (index > 0)[..., None]
        picture = np.where(inside, (1 - _OPACITY) * picture + _OPACITY * table[index], picture)
    axis.imshow(picture, origin="lower", interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _write_directions(axis: Axes, right: str, up: str) -> None:
    style: dict[str, Any] = {"transform": axis.transAxes, "color": "white", "fontsize": 8}
    axis.text(0.98, 0.5, right, ha="right", va="center", **style)
    axis.text(0.5, 0.98, up, ha="center", va="top", **style)


def _colour(label: int) -> str:
    return _COLOURS[(label - 1) % len(_COLOURS)]
