"""Logits as the mean over views of an image, and what a classifier's evaluation makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neurotrain.inference.views import View, mean_over_views


def _network(view: Tensor) -> Tensor:
    """What depends on the place of every pixel, and not linearly."""
    places = torch.arange(view[0].numel(), dtype=view.dtype).reshape(view.shape[1:])
    return torch.stack([(view * places).sum((1, 2, 3)).sin(), (view * places.square()).sum((1, 2, 3)).cos()], 1)


def _shifted(image: Tensor, rows: int, columns: int) -> Tensor:
    """Each pixel from ``rows`` and ``columns`` away, reflected at the border: by indices, one at a time."""
    made = torch.empty_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            from_row, from_column = abs(row + rows), abs(column + columns)
            from_row = from_row if from_row < height else 2 * (height - 1) - from_row
            from_column = from_column if from_column < width else 2 * (width - 1) - from_column
            made[..., row, column] = image[..., from_row, from_column]
    return made


def test_each_view_has_its_weight() -> None:
    image = torch.rand(3, 2, 5, 4, dtype=torch.float64)
    pair = [
        (_network(view) + _network(view.flip(-1))) / 2
        for view in (image, _shifted(image, -1, -1), _shifted(image, 1, 1))
    ]
    expected: dict[View, Tensor] = {
        "one": _network(image),
        "mirror": pair[0],
        "mirror_and_shift": pair[0] / 2 + pair[1] / 4 + pair[2] / 4,
    }
    for views, logits in expected.items():
        torch.testing.assert_close(mean_over_views(_network, image, views=views), logits, rtol=0, atol=1e-12)


def test_unknown_views_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'mirror'"):
        mean_over_views(_network, torch.zeros(1, 1, 2, 2), views="miror")  # pyright: ignore[reportArgumentType]
