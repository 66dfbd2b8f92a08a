"""Boundary elements ("surfels") of a binary mask: where they are and how large.

A boundary point is a corner between voxels whose 2x2 (2x2x2) neighbours are neither all inside nor all outside. The
pattern of its neighbours is its code (the voxel before the corner along every axis has the highest bit, the last axis
tells the lowest bits apart), and the code decides the length (area) of the boundary there: in 2-D by the cases
of marching squares, in 3-D by the marching-cubes triangles below.

The 3-D triangles are those of the table in DeepMind's ``surface-distance`` (``lookup_tables.py``, Copyright 2018 Google
Inc., Apache License 2.0), reduced to what an area depends on: the absolute normals. A code and its complement have the
same triangles, so half of the table is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

# absolute normal of a triangle in eighths of a voxel face, by letter
_NORMALS = {
    "a": (1, 1, 1),
    "b": (2, 2, 2),
    "c": (3, 3, 3),
    "p": (0, 2, 2),
    "q": (2, 0, 2),
    "r": (2, 2, 0),
    "x": (4, 0, 0),
    "y": (0, 4, 0),
    "z": (0, 0, 4),
}
# triangles of the codes 1..127; code 255 - c has those of c, codes 0 and 255 have none
_TRIANGLES = """
a a rr a qq aa abx a aa qq abx rr abx abx xx a pp aa aby aa abz aaa aabb aa app aqq acpq arr acpr
aabx abx a aa pp aby aa aqq app acpq aa aaa abz aabb arr aabx acpr abx rr aby aby yy arr acqr aaby
aby arr aaby acqr aby rrrr arr arr rr a aa aa arr pp abz app acpr aa aaa aqq aabx aby aabb acpq abx
qq abz aqq acqr abz zz aabz abz aqq aabz qqqq aqq acqr abz aqq qq aa aaa app aaby app aabz pppp app
aaa aaaa aabz aaa aaby aaa app aa abx aabb acpq aby acpr abz app pp aabx aaa aqq aa arr aa aa a
"""


def surfel_areas(spacing: Sequence[float]) -> Tensor:
    """Size of the boundary element of every neighbour code.

    Args:
        spacing: size of a voxel along each axis, two or three numbers.

    Returns:
        float64 ``(16,)`` lengths in 2-D, ``(256,)`` areas in 3-D, in the (squared) unit of ``spacing``.

    Example:
        >>> surfel_areas((1.0, 2.0))[[0b0011, 0b0101, 0b1111]].tolist()
        [2.0, 1.0, 0.0]
    """
    return _contour_lengths(*spacing) if len(spacing) == 2 else _triangle_areas(*spacing)


def _contour_lengths(first: float, second: float) -> Tensor:
    corner = 0.5 * sqrt(first**2 + second**2)
    half = [0.0, corner, corner, second, corner, first, 2 * corner, corner]
    return torch.tensor([*half, *reversed(half[1:]), 0.0], dtype=torch.float64)


def _triangle_areas(first: float, second: float, third: float) -> Tensor:
    faces = (second * third, first * third, first * second)
    area = {
        letter: sqrt(sum((part / 8 * face) ** 2 for part, face in zip(normal, faces, strict=True)))
        for letter, normal in _NORMALS.items()
    }
    half = [0.0, *(sum(area[letter] for letter in code) for code in _TRIANGLES.split())]
    return torch.tensor([*half, *reversed(half)], dtype=torch.float64)
