"""Pictures of segmentations, as matplotlib figures: no global state, no display."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RGB = tuple[float, float, float]

TRUE_POSITIVE: RGB = (1.0, 1.0, 1.0)
FALSE_POSITIVE: RGB = (0.90, 0.29, 0.13)  # vermilion and sky blue stay apart for every common kind of colour vision
FALSE_NEGATIVE: RGB = (0.26, 0.62, 0.96)
TRUE_NEGATIVE: RGB = (0.0, 0.0, 0.0)
IGNORED: RGB = (0.55, 0.55, 0.55)
SYNTHETIC = "SYNTHETIC DATA"

DPI = 150
"""Of all figures; a DRIVE image is shown pixel by pixel."""
_PANEL_INCHES = (3.0, 5.5)  # smallest and largest width of a panel
LINES: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito


class Segmentation(NamedTuple):
    """One segmented image, 2-D, as arrays on the CPU.

    Attributes:
        image: float ``(C, H, W)`` of any range, or ``(H, W, 3)`` in [0, 1] if ``is_rgb``.
        label: bool ``(H, W)``.
        probability: float ``(H, W)`` in [0, 1].
        prediction: bool ``(H, W)``.
        valid: bool ``(H, W)``.
        is_rgb: whether the image is to be shown as it is.
    """

    image: Tensor
    label: Tensor
    probability: Tensor
    prediction: Tensor
    valid: Tensor
    is_rgb: bool = False


def stretched(image: Tensor, valid: Tensor) -> Tensor:
    """Makes an image of unknown range visible: each channel's 0.5th to 99.5th percentile inside ``valid`` fills [0, 1].

    Args:
        image: float ``(C, H, W)``.
        valid: bool ``(H, W)``; if it is empty the whole image counts.

    Returns:
        float32 ``(H, W, 3)`` in [0, 1]: the first three channels, or the first one as grey where there are not three.
        NaN becomes 0.
    """
    channels = image.float().nan_to_num()
    channels = channels[:3] if len(channels) >= 3 else channels[:1].expand(3, -1, -1)
    inside = channels[:, valid] if valid.any() else channels.flatten(1)
    bounds = np.percentile(inside.numpy(), [0.5, 99.5], axis=1)
    low, high = (torch.from_numpy(bound).float()[:, None, None] for bound in bounds)
    return ((channels - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).permute(1, 2, 0)


def error_map(label: Tensor, prediction: Tensor, valid: Tensor) -> Tensor:
    """Colours each pixel by how the prediction did there.

    Args:
        label: bool ``(H, W)``.
        prediction: bool ``(H, W)``.
        valid: bool ``(H, W)``.

    Returns:
        float32 ``(H, W, 3)``: white hits, vermilion false alarms, blue misses, black background, grey where not valid.
    """
    colours = torch.tensor([TRUE_NEGATIVE, FALSE_POSITIVE, FALSE_NEGATIVE, TRUE_POSITIVE, IGNORED])
    kind = prediction.long() + 2 * label.long()
    return colours[kind.masked_fill(~valid, 4)]


def segmentation_figure(shown: Segmentation, *, title: str, threshold: float | None, synthetic: bool) -> Figure:
    """Draws image, reference, probability and errors beside each other.

    Args:
        shown: the image and its segmentation.
        title: name and scores.
        threshold: where the probability was cut, marked in its colour bar; None leaves the mark out.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    height, width = shown.label.shape
    panel = min(max(width / DPI, _PANEL_INCHES[0]), _PANEL_INCHES[1])
    tall = panel * height / width
    figure = Figure(figsize=(4 * panel + 0.7, tall + 1.1), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 4, height_ratios=[tall, 0.16])
    for axis in axes.flat:
        axis.set_axis_off()
    image = shown.image if shown.is_rgb else stretched(shown.image, shown.valid)
    pictures = {
        "image": image.where(shown.valid[..., None], torch.tensor(IGNORED)),
        "reference": error_map(shown.label, shown.label, shown.valid),
        "errors": error_map(shown.label, shown.prediction, shown.valid),
    }
    for axis, name in zip(axes[0], ("image", "reference", "probability", "errors"), strict=True):
        axis.set_title(name, fontsize=11)
        if name in pictures:
            axis.imshow(pictures[name].numpy(), interpolation="nearest")
    _draw_probability(axes[0, 2], axes[1, 2], shown, threshold)
    _write_counts(axes[1, 3], shown)
    head(figure, title, synthetic=synthetic)
    return figure


def _draw_probability(axis: Axes, below: Axes, shown: Segmentation, threshold: float | None) -> None:
    from matplotlib import colormaps

    colours = colormaps["magma"].with_extremes(bad=IGNORED)
    inside = np.ma.masked_array(shown.probability.float().numpy(), mask=~shown.valid.numpy())
    picture = axis.imshow(inside, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    below.set_axis_on()
    bar = axis.figure.colorbar(picture, cax=below, orientation="horizontal", ticks=[0, 0.5, 1])
    below.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    if threshold is not None and math.isfinite(threshold):
        below.axvline(threshold, color="white", linewidth=3)
        below.axvline(threshold, color="black", linewidth=1.2)


def _write_counts(axis: Axes, shown: Segmentation) -> None:
    counts = {
        "TP": (shown.label & shown.prediction, TRUE_POSITIVE),
        "FP": (~shown.label & shown.prediction, FALSE_POSITIVE),
        "FN": (shown.label & ~shown.prediction, FALSE_NEGATIVE),
    }
    style: dict[str, Any] = {"transform": axis.transAxes, "clip_on": False}
    for place, (name, (where, colour)) in zip((0.02, 0.36, 0.70), counts.items(), strict=True):
        axis.plot(
            [place], [0.5], "s", color=colour, markeredgecolor="black", markeredgewidth=0.6, markersize=7, **style
        )
        axis.text(place + 0.035, 0.5, f"{name} {int((where & shown.valid).sum()):,}", fontsize=9, va="center", **style)


def plain(axis: Axes) -> None:
    """Takes away what a curve does not need."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)


def head(figure: Figure, title: str, *, synthetic: bool) -> None:
    """Writes the title, and that the data are rendered where they are."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if synthetic:
        figure.text(0.99, 0.99, SYNTHETIC, ha="right", va="top", fontsize=12, fontweight="bold", color=FALSE_POSITIVE)
