"""Pictures of how images and texts find each other, as matplotlib figures: no global state, no display."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neurotrain.callbacks.drawing import DPI, head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT = "#009E73"
WRONG = "#D55E00"
_THUMBNAIL = 96


class Gallery(NamedTuple):
    """Images with their captions, on the CPU.

    Attributes:
        pictures: N floats ``(h, w, 3)`` in [0, 1].
        images: unit vectors ``(N, E)``.
        texts: unit vectors ``(M, E)``.
        captions: M texts.
        owners: int64 ``(M,)``, the image that each is about.
    """

    pictures: list[Tensor]
    images: Tensor
    texts: Tensor
    captions: list[str]
    owners: Tensor

    def first(self, count: int) -> Gallery:
        """The first images with the first caption of each."""
        chosen = [int((self.owners == image).nonzero()[0]) for image in range(min(count, len(self.pictures)))]
        images = len(chosen)
        return Gallery(
            self.pictures[:images],
            self.images[:images],
            self.texts[chosen],
            [self.captions[place] for place in chosen],
            torch.arange(images),
        )


def thumbnail(picture_HWC: Tensor) -> Tensor:
    """A picture of 96 pixels along its longer side.

    Args:
        picture_HWC: float ``(H, W, 3)`` in [0, 1].
    """
    height, width = picture_HWC.shape[:2]
    factor = _THUMBNAIL / max(height, width)
    if factor >= 1:
        return picture_HWC
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = functional.interpolate(picture_HWC.permute(2, 0, 1)[None], size=size, mode="area")
    return small[0].permute(1, 2, 0)


def similarity_figure(shown: Gallery, *, title: str, synthetic: bool) -> Figure:
    """Draws the cosine of every image with every caption, images above their columns.

    Args:
        shown: one caption an image.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    count = len(shown.pictures)
    table = (shown.texts @ shown.images.T).numpy()
    figure = Figure(figsize=(4.2 + 0.62 * count, 2.0 + 0.62 * count), dpi=DPI, layout="constrained")
    above, axis = figure.subplots(2, 1, height_ratios=(1, count))
    low, high = float(table.min()), float(table.max())
    picture = axis.imshow(table, cmap="viridis", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    figure.colorbar(picture, ax=axis, shrink=0.8, label="cosine")
    axis.set_xticks([])
    axis.set_yticks(range(count), [_short(text, 46) for text in shown.captions], fontsize=7)
    middle = (low + high) / 2
    for row in range(count):
        for column in range(count):
            value = float(table[row, column])
            colour = "white" if value < middle else "black"
            weight = "bold" if row == column else "normal"
            axis.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour, fontweight=weight
            )
    above.set_xlim(*axis.get_xlim())
    above.set_ylim(-0.5, 0.5)
    above.set_axis_off()
    for column, thumb in enumerate(shown.pictures):
        above.imshow(thumb.numpy(), extent=(column - 0.46, column + 0.46, -0.5, 0.5), aspect="auto")
    head(figure, title, synthetic=synthetic)
    return figure


def retrieval_figure(shown: Gallery, *, questions: int, answers: int, title: str, synthetic: bool) -> Figure:
    """Draws captions with the images nearest to them, and images with the captions nearest to them.

    Args:
        shown: what is searched.
        questions: of each kind: the first images, and the first caption of each.
        answers: shown for each.
        title: written above.
        synthetic: whether to say that the data are rendered.

    Returns:
        A figure; right answers are framed or written in green, wrong ones in vermilion.
    """
    from matplotlib.figure import Figure

    asked = shown.first(questions)
    questions, answers = len(asked.pictures), min(answers, len(shown.pictures))
    figure = Figure(figsize=(2.6 + 1.15 * answers + 6.2, 1.25 * questions + 0.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(questions, answers + 3, squeeze=False, width_ratios=(2.2, *([1.0] * answers), 1.3, 4.6))
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].set_title("caption", fontsize=8, loc="left")
    axes[0, 1].set_title("nearest images", fontsize=8, loc="left")
    axes[0, answers + 1].set_title("image", fontsize=8)
    axes[0, answers + 2].set_title("nearest captions", fontsize=8, loc="left")
    for row in range(questions):
        axes[row, 0].text(0.0, 0.5, textwrap.fill(asked.captions[row], 24), fontsize=7, va="center")
        _nearest_images(list(axes[row, 1 : answers + 1]), shown, asked.texts[row], row)
        axes[row, answers + 1].imshow(asked.pictures[row].numpy())
        _nearest_captions(axes[row, answers + 2], shown, asked.images[row], row, answers)
    head(figure, title, synthetic=synthetic)
    return figure


def _nearest_images(axes: Sequence[Axes], shown: Gallery, text_E: Tensor, right: int) -> None:
    best = (shown.images @ text_E).topk(len(axes))
    for axis, place, value in zip(axes, best.indices.tolist(), best.values.tolist(), strict=True):
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
        axis.imshow(shown.pictures[place].numpy())
        axis.set_xlabel(f"{value:.2f}", fontsize=6, labelpad=1)
        for spine in axis.spines.values():
            spine.set(color=RIGHT if place == right else WRONG, linewidth=2.0)


def _nearest_captions(axis: Axes, shown: Gallery, image_E: Tensor, right: int, count: int) -> None:
    count = min(count, len(shown.captions))
    best = (shown.texts @ image_E).topk(count)
    for line, (place, value) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
        colour = RIGHT if int(shown.owners[place]) == right else WRONG
        height = 1.0 - (line + 0.5) / count
        text = f"{value:.2f}  {_short(shown.captions[place], 64)}"
        axis.text(0.0, height, text, fontsize=7, va="center", color=colour, transform=axis.transAxes)


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …") if len(text) > width else text
