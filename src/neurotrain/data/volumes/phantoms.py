"""Rendered stand-ins for BTCV and BraTS in their official layouts: organs and tumours as deformed ellipsoids.

The voxels are anisotropic and of another size in every case, and the axes of the files lie in various orders and
directions, some of them oblique, so that whoever mixes up axes is found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.volumes.nifti import Geometry

Floats = NDArray[np.float32]

_OBLIQUE = 0.12
"""Radians by which every third case is turned about the superior axis."""

# For each axis of the file the canonical axis, and whether it is mirrored: RAS, LPS, PIR, LAS.
_ORIENTATIONS = (
    ((0, 1), (1, 1), (2, 1)),
    ((0, -1), (1, -1), (2, 1)),
    ((1, -1), (2, -1), (0, 1)),
    ((0, -1), (1, 1), (2, 1)),
)


class Blob(NamedTuple):
    """An ellipsoid in units of the body's half axes.

    Attributes:
        code: of its label.
        centre: from -1 to 1 along right, anterior, superior.
        radii: along the same axes.
        intensity: of its voxels, in Hounsfield units.
    """

    code: int
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    intensity: float


ABDOMEN: tuple[Blob, ...] = (
    Blob(6, (0.42, 0.10, 0.35), (0.42, 0.50, 0.45), 95.0),  # the liver lies on the right
    Blob(1, (-0.60, -0.22, 0.40), (0.22, 0.30, 0.38), 125.0),
    Blob(7, (-0.28, 0.38, 0.38), (0.26, 0.28, 0.34), 45.0),
    Blob(2, (0.48, -0.55, -0.35), (0.20, 0.22, 0.36), 175.0),
    Blob(3, (-0.48, -0.55, -0.30), (0.20, 0.22, 0.36), 175.0),
    Blob(8, (-0.10, -0.38, -0.10), (0.12, 0.15, 0.72), 225.0),
    Blob(9, (0.16, -0.36, -0.05), (0.12, 0.14, 0.70), 150.0),
    Blob(5, (-0.06, -0.12, 0.70), (0.12, 0.14, 0.26), 20.0),
    Blob(10, (0.12, 0.02, -0.12), (0.22, 0.13, 0.20), 200.0),
    Blob(11, (-0.16, 0.04, -0.28), (0.34, 0.15, 0.20), 70.0),
    Blob(12, (0.30, -0.40, 0.22), (0.13, 0.14, 0.22), 5.0),
    Blob(13, (-0.30, -0.42, 0.20), (0.13, 0.14, 0.22), 5.0),
)
"""Every organ of BTCV but the gallbladder (code 4), which no rendered case has."""

_FAT, _AIR = -70.0, -1000.0

# Contrast of each tissue in FLAIR, T1, contrast-enhanced T1 and T2, as a share of the brain's intensity.
_TISSUES: Mapping[int, tuple[float, float, float, float]] = {
    0: (1.0, 1.0, 1.0, 1.0),
    1: (1.15, 0.55, 0.55, 1.75),
    2: (1.75, 0.80, 0.85, 1.60),
    4: (1.45, 0.80, 1.90, 1.30),
}


def render_abdomen(rng: np.random.Generator, *, size: tuple[int, int, int]) -> tuple[Floats, NDArray[np.uint8]]:
    """Draw a CT with 12 of BTCV's 13 organs.

    Args:
        rng: source of all randomness.
        size: voxels along right, anterior, superior.

    Returns:
        Hounsfield units ``(*size)``, and codes.
    """
    places = _places(size, reach=(0.9, 0.9, 1.05))
    body = _inside(places, np.zeros(3), np.array((1.0, 1.0, 1.6)), rng, rough=0.02)
    image = np.where(body, _FAT, _AIR).astype(np.float32)
    labels = np.zeros(size, np.uint8)
    shift, stretch = rng.normal(0, 0.03, 3), rng.normal(1, 0.04, 3)
    for blob in ABDOMEN:
        centre = np.array(blob.centre) * stretch + shift + rng.normal(0, 0.015, 3)
        radii = np.array(blob.radii) * stretch * rng.normal(1, 0.05, 3)
        organ = _inside(places, centre, radii, rng, rough=0.07) & body
        image[organ] = blob.intensity + rng.normal(0, 6)
        labels[organ] = blob.code
    image += rng.normal(0, 14, size).astype(np.float32)
    return image.clip(-1024, 1500), labels


def render_brain(
    rng: np.random.Generator, *, size: tuple[int, int, int], enhancing: bool
) -> tuple[Floats, NDArray[np.uint8]]:
    """Draw four modalities of a skull-stripped brain with a tumour.

    Args:
        rng: source of all randomness.
        size: voxels along right, anterior, superior.
        enhancing: whether there is enhancing tumour around the necrotic core.

    Returns:
        Intensities ``(4, *size)``, 0 outside the brain, and codes.
    """
    places = _places(size, reach=(1.15, 1.15, 1.15))
    brain = _inside(places, np.zeros(3), np.ones(3), rng, rough=0.03)
    side = rng.choice((-1.0, 1.0))
    centre = np.array((side * rng.uniform(0.2, 0.42), rng.uniform(-0.35, 0.35), rng.uniform(-0.15, 0.25)))
    radii = rng.uniform(0.36, 0.48, 3)
    labels = np.zeros(size, np.uint8)
    labels[_inside(places, centre, radii, rng, rough=0.10) & brain] = 2
    middle = centre + rng.normal(0, 0.02, 3)
    core = _inside(places, middle, radii * rng.uniform(0.60, 0.70), rng, rough=0.06) & (labels == 2)
    labels[core] = 4 if enhancing else 1
    if enhancing:
        labels[_inside(places, middle, radii * 0.34, rng, rough=0.05) & core] = 1
    bias = 1 + 0.08 * np.tensordot(rng.normal(0, 1, 3), places, 1)
    channels = [_modality(labels, brain, bias, channel, rng) for channel in range(4)]
    return np.stack(channels), labels


def _modality(
    labels: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    bias: NDArray[np.float64],
    channel: int,
    rng: np.random.Generator,
) -> Floats:
    level = np.zeros(256)
    for code, shares in _TISSUES.items():
        level[code] = shares[channel] * (1 + rng.normal(0, 0.03))
    image = level[labels] * bias + rng.normal(0, 0.09, labels.shape)
    # At least 1 inside: 0 is what says that a voxel is outside the brain.
    return np.where(brain, (image * rng.uniform(250, 600)).clip(1), 0).astype(np.float32)


def render_geometry(
    rng: np.random.Generator, *, number: int, size: tuple[int, int, int], spacing: tuple[float, float, float]
) -> Geometry:
    """Where a case's voxels lie: a spacing near the given one, some orientation, every third case oblique.

    Args:
        rng: source of all randomness.
        number: of the case.
        size: voxels along right, anterior, superior.
        spacing: millimetres of a voxel along the same axes.

    Returns:
        The geometry of its files.
    """
    orientation = _ORIENTATIONS[number % len(_ORIENTATIONS)]
    steps = np.array(spacing) * rng.uniform(0.92, 1.08, 3)
    angle = _OBLIQUE if number % 3 == 2 else 0.0
    turn = np.array(((np.cos(angle), -np.sin(angle), 0.0), (np.sin(angle), np.cos(angle), 0.0), (0.0, 0.0, 1.0)))
    columns = turn * steps
    origin = rng.uniform(-200, 200, 3)
    affine = np.eye(4)
    for axis, (canonical, sign) in enumerate(orientation):
        affine[:3, axis] = sign * columns[:, canonical]
        if sign < 0:
            origin = origin + (size[canonical] - 1) * columns[:, canonical]
    affine[:3, 3] = origin
    shape = tuple(size[canonical] for canonical, _ in orientation)
    # What a file keeps is float32.
    rows = tuple(tuple(row) for row in affine.astype(np.float32).astype(np.float64).tolist())
    return Geometry(shape=(shape[0], shape[1], shape[2]), affine=rows, orientation=orientation)


def _places(size: tuple[int, int, int], *, reach: tuple[float, float, float]) -> NDArray[np.float64]:
    """Coordinates ``(3, *size)`` in half axes of the body; ``reach`` is the field of view in them."""
    lines = [np.linspace(-edge, edge, length) for edge, length in zip(reach, size, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"))


def _inside(
    places: NDArray[np.float64],
    centre: NDArray[np.float64],
    radii: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    rough: float,
) -> NDArray[np.bool_]:
    """Whether a place is in an ellipsoid whose surface waves: smooth functions of the direction stretch its radius."""
    offsets = (places - centre[:, None, None, None]) / radii[:, None, None, None]
    distance = np.sqrt((offsets**2).sum(0))
    direction = offsets / np.maximum(distance, 1e-6)
    surface = np.ones_like(distance)
    for _ in range(3):
        wave, phase = rng.normal(0, 2.0, 3), rng.uniform(0, 2 * np.pi)
        surface += rough * np.cos(np.tensordot(wave, direction, 1) + phase)
    return distance <= surface
