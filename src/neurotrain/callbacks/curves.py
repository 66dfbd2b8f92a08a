"""Curves of a run and of its scores, as matplotlib figures: no global state, no display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from neurotrain.callbacks.drawing import DPI, LINES, head, plain
from neurotrain.metrics.functional import auroc_from_histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SCORES = ("accuracy", "auc", "dice", "iou", "sensitivity", "specificity")
_ZOOM_ABOVE = 0.9

Points = list[tuple[float, float]]


class Point(NamedTuple):
    """What an observer, or a network at one threshold, reaches.

    Attributes:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
    """

    sensitivity: float
    specificity: float


def curves_figure(rows: Sequence[Mapping[str, float]], *, title: str, synthetic: bool) -> Figure | None:
    """Draws a run's losses, validation scores and learning rate over its optimizer steps.

    Args:
        rows: of ``metrics.csv``.
        title: of the figure.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure with a panel for each kind of metric that was logged twice or more; None if there is none.
    """
    from matplotlib.figure import Figure

    panels = {name: series for name, series in _panels(rows).items() if series}
    if not panels:
        return None
    figure = Figure(figsize=(5.2 * len(panels), 4.2), dpi=DPI, layout="constrained")
    for axis, (name, series) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for index, (label, points) in enumerate(series.items()):
            steps, values = zip(*points, strict=True)
            noisy = label.endswith("_step")
            colour = "0.75" if noisy else LINES[index % len(LINES)]
            axis.plot(steps, values, color=colour, linewidth=0.9 if noisy else 1.5, label=label)
        axis.set_title(name, fontsize=11)
        axis.set_xlabel("optimizer step")
        axis.legend(fontsize=8, frameon=False)
        plain(axis)
    head(figure, title, synthetic=synthetic)
    return figure


def roc_pr_figure(
    counts: Tensor, *, title: str, network: Point | None, observer: Point | None, synthetic: bool
) -> Figure | None:
    """Draws the receiver operating characteristic and the precision-recall curve of all pixels together.

    Args:
        counts: int64 ``(2, bins)``: negatives and positives by ascending score.
        title: of the figure.
        network: the point of its threshold, if known.
        observer: a person's point, if known.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure with two panels; None where a class is absent.
    """
    from matplotlib.figure import Figure

    if not bool((counts.sum(1) > 0).all()):
        return None
    false, true = (row / row[-1] for row in counts.flip(1).cumsum(1).double())
    prevalence = float(counts[1].sum() / counts.sum())
    precision = prevalence * true / (prevalence * true + (1 - prevalence) * false).clamp(min=1e-300)
    average = float((true.diff(prepend=true.new_zeros(1)) * precision).sum())
    area = float(auroc_from_histogram(counts[1], counts[0]))
    seen = true + false > 0  # above the highest score there is no precision

    figure = Figure(figsize=(10.4, 5.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    false, true, precision = false[seen].numpy(), true[seen].numpy(), precision[seen].numpy()
    roc = (np.concatenate([[0.0], false]), np.concatenate([[0.0], true]))
    left.plot(*roc, color=LINES[0], label=f"network, AUC {area:.4f}")
    left.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--", label="chance")
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    right.plot(true, precision, color=LINES[0], label=f"network, AP {average:.4f}")
    right.axhline(prevalence, color="0.7", linewidth=0.8, linestyle="--", label=f"chance {prevalence:.3f}")
    right.set(xlabel="recall (sensitivity)", ylabel="precision", title="precision-recall")
    places = [left]
    if area > _ZOOM_ABOVE:
        places.append(_corner(left, roc))
    _mark(places, right, {"network at its threshold": network, "second observer": observer}, prevalence)
    for axis, place in ((left, "lower right"), (right, "lower left")):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axis.set_box_aspect(1)
        axis.legend(fontsize=9, loc=place, framealpha=0.9, edgecolor="none")
        plain(axis)
    head(figure, title, synthetic=synthetic)
    return figure


def _corner(axis: Axes, roc: tuple[Any, Any]) -> Axes:
    """The upper left corner enlarged, where good networks and observers differ."""
    corner = axis.inset_axes((0.36, 0.36, 0.52, 0.40))
    corner.plot(*roc, color=LINES[0])
    corner.set(xlim=(0, 0.15), ylim=(0.7, 1.005), xticks=(0, 0.05, 0.1, 0.15), yticks=(0.7, 0.8, 0.9, 1))
    corner.tick_params(labelsize=8)
    plain(corner)
    return corner


def _mark(rocs: Sequence[Axes], pr: Axes, points: Mapping[str, Point | None], prevalence: float) -> None:
    for (name, point), marker, colour in zip(points.items(), "oD", LINES, strict=False):
        if point is None:
            continue
        hits, alarms = point.sensitivity * prevalence, (1 - point.specificity) * (1 - prevalence)
        style: dict[str, Any] = {"marker": marker, "color": colour, "linestyle": "none", "label": name, "zorder": 3}
        for axis in rocs:
            axis.plot([1 - point.specificity], [point.sensitivity], **style)
        if hits + alarms > 0:
            pr.plot([point.sensitivity], [hits / (hits + alarms)], **style)


def _panels(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Points]]:
    """Series by the panel that they belong to, finite points only."""
    panels: dict[str, dict[str, Points]] = {"loss": {}, "validation": {}, "learning rate": {}}
    for row in rows:
        for name, value in row.items():
            panel = _panel(name)
            if panel is not None and math.isfinite(value):
                panels[panel].setdefault(name, []).append((row["step"], value))
    return {panel: _worth_drawing(series) for panel, series in panels.items()}


def _worth_drawing(series: Mapping[str, Points]) -> dict[str, Points]:
    """Series of two points or more; of equal ones (learning rates of parameter groups) the first."""
    kept: dict[str, Points] = {}
    for name, points in series.items():
        if len(points) > 1 and points not in kept.values():
            kept[name] = points
    return kept


def _panel(name: str) -> str | None:
    stage, _, last = name.rpartition("/")
    if name.startswith("lr") or last.startswith("lr"):
        return "learning rate"
    if stage.startswith("test"):
        return None
    if "loss" in last:
        return "loss"
    return "validation" if stage == "val" and last in _SCORES else None
