"""Pictures of classifications, as matplotlib figures: no global state, no display."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from neurotrain.callbacks.drawing import DPI, head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NUMBERED = 30
"""Classes above which cells have no numbers and axes few names."""


class Looked(NamedTuple):
    """One image with what a network saw in it, on the CPU.

    Attributes:
        picture: float ``(H, W, 3)`` in [0, 1].
        evidence: float ``(H, W)`` in [0, 1].
        title: id, class, prediction and probability.
        right: whether the prediction is the class.
    """

    picture: Tensor
    evidence: Tensor
    title: str
    right: bool


def confusion_figure(table: Tensor, names: tuple[str, ...], *, title: str, synthetic: bool) -> Figure:
    """Draws a confusion matrix: the colour is the share of the row's class, the number counts images.

    Args:
        table: int64 ``(K, K)``, rows the classes, columns the predictions.
        names: K class names.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    count = len(names)
    edge = min(max(4.5, 0.42 * count + 2.5), 16.0)
    figure = Figure(figsize=(edge + 1.0, edge), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    share = table.double() / table.sum(1, keepdim=True).clamp(min=1)
    picture = axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axis, shrink=0.8, label="share of the class")
    step = max(1, math.ceil(count / _MOST_NUMBERED))
    places = range(0, count, step)
    axis.set_xticks(places, [names[place] for place in places], rotation=90, fontsize=8)
    axis.set_yticks(places, [names[place] for place in places], fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("class")
    if count <= _MOST_NUMBERED:
        for row, column in table.nonzero().tolist():
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, f"{int(table[row, column]):,}", ha="center", va="center", fontsize=7, color=colour)
    head(figure, title, synthetic=synthetic)
    return figure


def evidence_figure(looked: list[Looked], *, title: str, synthetic: bool) -> Figure:
    """Draws images, and below each the same under the network's evidence for what it predicts.

    Args:
        looked: at least one.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    columns = min(len(looked), 8)
    rows = math.ceil(len(looked) / columns)
    figure = Figure(figsize=(1.9 * columns, 4.3 * rows + 0.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for place, item in enumerate(looked):
        row, column = divmod(place, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.imshow(item.picture.numpy(), interpolation="nearest")
        above.set_title(item.title, fontsize=7, color="black" if item.right else "#D55E00")
        below.imshow(item.picture.numpy(), interpolation="nearest")
        below.imshow(item.evidence.numpy(), cmap="magma", vmin=0, vmax=1, alpha=0.6, interpolation="nearest")
    head(figure, title, synthetic=synthetic)
    return figure
