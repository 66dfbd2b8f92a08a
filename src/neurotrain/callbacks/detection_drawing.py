"""Pictures of detections, as matplotlib figures: no global state, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neurotrain.callbacks.drawing import DPI, LINES, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 5.5  # inches of the wider edge of a picture
_VEIL = 0.45  # opacity of masks


class Objects(NamedTuple):
    """Objects of one image, annotated or found, on the CPU.

    Attributes:
        boxes: float ``(N, 4)``, left, top, right and bottom in pixels.
        labels: int64 ``(N,)``.
        texts: what stands beside each.
        matched: bool ``(N,)``: whether the other side has it too; what has no partner is drawn dashed.
        masks: bool ``(N, H, W)``, or None.
    """

    boxes: Tensor
    labels: Tensor
    texts: list[str]
    matched: Tensor
    masks: Tensor | None = None


def detection_figure(image: Tensor, truth: Objects, found: Objects, *, title: str, synthetic: bool) -> Figure:
    """Draws what is annotated on the left and what was found on the right, a colour for each class.

    Args:
        image: float ``(H, W, 3)`` in [0, 1].
        truth: annotated objects.
        found: detections.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    scale = _PANEL / max(height, width)
    figure = Figure(figsize=(2 * width * scale + 0.2, height * scale + 0.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 2, squeeze=False)[0]
    missed, false = int((~truth.matched).sum()), int((~found.matched).sum())
    told = (f"annotated: {len(truth.boxes)}, {missed} missed", f"found: {len(found.boxes)}, {false} wrong")
    for axis, objects, text in zip(axes, (truth, found), told, strict=True):
        axis.set_axis_off()
        axis.imshow(_veiled(image, objects).numpy(), interpolation="nearest")
        axis.set_title(text, fontsize=9)
        _draw(axis, objects)
    head(figure, title, synthetic=synthetic)
    return figure


def _draw(axis: Axes, objects: Objects) -> None:
    from matplotlib.patches import Rectangle

    columns = (objects.boxes.tolist(), objects.labels.tolist(), objects.texts, objects.matched.tolist())
    rows = [*zip(*columns, strict=True)][::-1]  # detections come best first, and the better lies on top
    for box, label, text, matched in sorted(rows, key=lambda row: row[3]):
        left, top, right, bottom = box
        colour = LINES[label % len(LINES)]
        line = "solid" if matched else (0, (3, 2))
        axis.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.4, linestyle=line
            )
        )
        frame = {"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        axis.text(left, top, text, fontsize=5.5, color="white", va="bottom", bbox=frame, clip_on=True)


def _veiled(image: Tensor, objects: Objects) -> Tensor:
    """The image under the masks of its objects."""
    if objects.masks is None:
        return image
    from matplotlib.colors import to_rgb

    veiled = image.clone()
    for mask, label in zip(objects.masks, objects.labels.tolist(), strict=True):
        colour = torch.tensor(to_rgb(LINES[label % len(LINES)]))
        veiled[mask] = (1 - _VEIL) * veiled[mask] + _VEIL * colour
    return veiled
