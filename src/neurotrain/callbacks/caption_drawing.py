"""Pictures with what was said of them, as matplotlib figures: no global state, no display."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from neurotrain.callbacks.drawing import DPI, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_LETTERS = 38
"""In a line below a picture."""
_LINES = 4
_GOOD, _FAIR, _POOR = "#009E73", "#B07800", "#D55E00"


class Told(NamedTuple):
    """One image with its captions, on the CPU.

    Attributes:
        picture: float ``(H, W, 3)`` in [0, 1].
        name: id of the image.
        caption: that was written.
        references: true ones.
        agreement: of both, in [0, 1]; None where there is no truth.
    """

    picture: Tensor
    name: str
    caption: str
    references: list[str]
    agreement: float | None


def captions_figure(told: list[Told], *, title: str, synthetic: bool) -> Figure:
    """Draws images, below each what was written (in a colour that tells the agreement) and the first true caption.

    Args:
        told: at least one.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    columns = min(len(told), _COLUMNS)
    rows = math.ceil(len(told) / columns)
    figure = Figure(figsize=(3.0 * columns, 4.3 * rows + 0.5), dpi=DPI, layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3.0, 1.3] * rows)
    for axis in axes.flat:
        axis.set_axis_off()
    for place, item in enumerate(told):
        row, column = divmod(place, columns)
        axes[2 * row, column].imshow(item.picture.numpy(), interpolation="nearest")
        _write(axes[2 * row + 1, column], item)
    head(figure, title, synthetic=synthetic)
    return figure


def _write(axis: Axes, item: Told) -> None:
    colour = "black"
    if item.agreement is not None:
        colour = _GOOD if item.agreement >= 0.9 else _FAIR if item.agreement >= 0.5 else _POOR
    parts: list[tuple[str, dict[str, Any]]] = [(item.caption or "(nothing)", {"fontweight": "bold", "color": colour})]
    if item.references:
        more = f" (+{len(item.references) - 1})" if len(item.references) > 1 else ""
        parts.append((item.references[0] + more, {"color": "0.25"}))
    parts.append((item.name, {"color": "0.6"}))
    top = 1.0
    for text, style in parts:
        # A dollar sign would start a formula.
        lines = textwrap.wrap(text.replace("$", r"\$"), _LETTERS, max_lines=_LINES, placeholder=" …")
        axis.text(0.0, top, "\n".join(lines), fontsize=8, va="top", transform=axis.transAxes, **style)
        top -= 0.12 * len(lines) + 0.04
