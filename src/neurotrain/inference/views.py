"""A class's logits as the mean over several views of an image.

Shape legend: ``B`` images, ``C`` channels, ``H``, ``W`` size of the image, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from neurotrain.networks.blocks import check_choice

View = Literal["one", "mirror", "mirror_and_shift"]
"""``one``: the image as it is; ``mirror``: and its mirror image; ``mirror_and_shift``: and both moved by a pixel."""


def check_views(views: str) -> None:
    """Refuse views that are unknown.

    Raises:
        ValueError: names the nearest valid choice.
    """
    check_choice("views", views, ("one", "mirror", "mirror_and_shift"))


def mean_over_views(network: Callable[[Tensor], Tensor], image_BCHW: Tensor, *, views: View) -> Tensor:
    """Mean of the logits over views of each image.

    With ``mirror_and_shift`` half of the weight is the image's and its mirror image's, the other half that of both
    moved by one pixel up and to the left, and down and to the right, reflected at the border: six passes in all.

    Args:
        network: maps images to logits ``(B, K)``, in the mode that it is in, which should be evaluation.
        image_BCHW: ``(B, C, H, W)``; two pixels or more a side for ``mirror_and_shift``.
        views: see :data:`View`.

    Returns:
        ``(B, K)``.

    Raises:
        ValueError: if the views are unknown.

    Reference:
        Jordan, 2024 (arXiv:2404.00498), section 3.6.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> mean_over_views(lambda view: view[:, :, 0, 0], image, views="mirror")
        tensor([[2.]])
    """
    check_views(views)
    if views == "one":
        return network(image_BCHW)
    mirrored = (network(image_BCHW) + network(image_BCHW.flip(-1))) / 2
    if views == "mirror":
        return mirrored
    height, width = image_BCHW.shape[-2:]
    padded = F.pad(image_BCHW, (1, 1, 1, 1), mode="reflect")
    moved = [padded[..., start : start + height, start : start + width] for start in (0, 2)]
    return (mirrored + sum(mean_over_views(network, view, views="mirror") for view in moved) / 2) / 2
