"""Renders a colour photograph of a retina together with its exact labels.

What a real one shows is there: the circular field of view with the camera's orientation notch, uneven illumination and
haze towards the rim, choroidal mottling, the optic disc with its cup, the darker fovea, arteries (lighter, with a
central reflex) and veins (darker, wider), capillaries at the limit of visibility, blur and noise. Photograph, labels
and the second observer are drawn from the same geometry (:mod:`~neurotrain.data.datasets.synthetic_vessels`).

Colours and contrasts are set by measurements on DRIVE: the mean of a vessel over its surroundings is 0.72 (green) and
0.88 (red) for the widest, 0.93 and 0.97 for the thinnest; the background lies near (190, 95, 55).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neurotrain.data.datasets.synthetic_vessels import TRUNK_RADIUS, Anatomy, Vessel, grow_vessels

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FIELD_RADIUS = 0.478
"""Radius of the field of view in units of the shorter side: 270 of 565 pixels in DRIVE."""

LABELLED = 0.0029
"""Half width (of the field's radius) from which the first observer draws a vessel."""


@dataclass(frozen=True, kw_only=True)
class FundusPicture:
    """One rendered eye.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB.
        vessels: bool ``(H, W)``, the first observer: exact.
        second: bool ``(H, W)``, a second observer: other widths, thin vessels missed.
        field: bool ``(H, W)``, the field of view.
    """

    image: NDArray[np.uint8]
    vessels: Mask
    second: Mask
    field: Mask


@dataclass(frozen=True)
class _Frame:
    """Pixels in the geometry's units: origin at the field's centre, 1 at its rim."""

    x: Floats
    y: Floats
    pixels: float  # of the field's radius

    @classmethod
    def of(cls, size: tuple[int, int], *, mirrored: bool) -> _Frame:
        height, width = size
        pixels = FIELD_RADIUS * min(size)
        y, x = np.mgrid[:height, :width].astype(np.float64)
        x, y = (x - (width - 1) / 2) / pixels, (y - (height - 1) / 2) / pixels
        return cls(-x if mirrored else x, y, pixels)

    def distance(self, centre: tuple[float, float]) -> Floats:
        return np.hypot(self.x - centre[0], self.y - centre[1])


def render_fundus(rng: np.random.Generator, *, size: tuple[int, int]) -> FundusPicture:
    """Render one eye.

    Args:
        rng: source of every draw; the picture is a function of its state.
        size: height and width in pixels.

    Returns:
        Photograph, both observers' labels and the field of view.

    Example:
        >>> picture = render_fundus(np.random.default_rng(0), size=(73, 71))
        >>> picture.image.shape, bool((picture.vessels & ~picture.field).any())
        ((73, 71, 3), False)
    """
    frame = _Frame.of(size, mirrored=bool(rng.random() < 0.5))
    anatomy = Anatomy.draw(rng)
    vessels = grow_vessels(rng, anatomy)
    field = np.hypot(frame.x, frame.y) <= 1.0
    colour = _background(rng, frame, anatomy)
    # Bright nerve tissue behind a vessel has no red blood of its own to hide it.
    on_disc = (frame.distance(anatomy.disc) < anatomy.disc_radius)[..., None] * np.array([0.2, 0.9, 1.8])
    colour *= np.exp(-_absorption(rng, frame, vessels) * (1.0 + on_disc))
    image = _photograph(rng, frame, colour)
    first = [vessel for vessel in vessels if vessel.radius.max() >= LABELLED]
    return FundusPicture(
        image=image,
        vessels=_drawn(frame, first) & field,
        second=_drawn(frame, _second_look(rng, first)) & field,
        field=field,
    )


def _smooth(rng: np.random.Generator, frame: _Frame, scale: float) -> Floats:
    """Noise of unit deviation, smooth over ``scale`` (of the field's radius)."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(frame.x.shape), scale * frame.pixels, mode="wrap")
    return noise / max(float(noise.std()), 1e-12)


def _background(rng: np.random.Generator, frame: _Frame, anatomy: Anatomy) -> Floats:
    red = rng.uniform(155, 212)
    green = red * rng.uniform(0.45, 0.62)
    colour = np.array([red, green, green * rng.uniform(0.52, 0.64)]) * np.ones((*frame.x.shape, 1))
    rim = np.hypot(frame.x, frame.y)
    angle = rng.uniform(0, 2 * np.pi)
    slope = frame.x * np.cos(angle) + frame.y * np.sin(angle)
    light = rng.uniform(0.03, 0.14) * slope + 0.05 * _smooth(rng, frame, 0.35) - 0.14 * np.clip(rim, 0, 1) ** 3
    colour *= np.exp(light[..., None] * np.array([1.5, 1.0, 1.0]))  # red light reaches deeper and varies most
    mottled = 0.6 * _smooth(rng, frame, 0.035) + 0.4 * _smooth(rng, frame, 0.012) + _smooth(rng, frame, 0.10)
    colour *= 1.0 + mottled[..., None] * np.array([0.016, 0.028, 0.024]) * rng.uniform(0.6, 1.4)
    colour = _with_fovea(rng, frame, anatomy, colour)
    colour = _with_disc(rng, frame, anatomy, colour)
    return _with_haze(rng, frame, colour)


def _with_fovea(rng: np.random.Generator, frame: _Frame, anatomy: Anatomy, colour: Floats) -> Floats:
    distance = frame.distance(anatomy.fovea)
    pit, macula = np.exp(-((distance / 0.11) ** 2)), np.exp(-((distance / 0.28) ** 2))
    depth = rng.uniform(0.7, 1.3)
    for channel, (near, far) in enumerate(((0.15, 0.15), (0.14, 0.18), (0.10, 0.14))):
        colour[..., channel] *= 1.0 - depth * (near * pit + far * macula)
    return colour


def _with_disc(rng: np.random.Generator, frame: _Frame, anatomy: Anatomy, colour: Floats) -> Floats:
    dx, dy = frame.x - anatomy.disc[0], frame.y - anatomy.disc[1]
    oval = np.hypot(dx * rng.uniform(1.02, 1.14), dy) / anatomy.disc_radius
    oval = oval + 0.025 * _smooth(rng, frame, 0.08)
    glow = np.exp(-((oval / 2.6) ** 2))[..., None]
    colour = colour * (1.0 + glow * np.array([0.10, 0.17, 0.14]))
    tint = np.array([rng.uniform(236, 252), rng.uniform(176, 205), rng.uniform(98, 125)])
    cup = np.hypot(dx - rng.uniform(-0.1, 0.35) * anatomy.disc_radius, dy) / (
        anatomy.disc_radius * rng.uniform(0.4, 0.6)
    )
    bright = np.exp(-(cup**4))[..., None] * np.array([6.0, 40.0, 62.0]) * rng.uniform(0.7, 1.2)
    edge = (1.0 / (1.0 + np.exp((oval - 1.0) / rng.uniform(0.035, 0.06))))[..., None]
    temporal = (1.0 + 0.10 * np.clip(dx / anatomy.disc_radius, -1, 1))[..., None]
    return colour * (1 - 0.92 * edge) + 0.92 * edge * (np.maximum(tint * temporal, 1.12 * colour) + bright)


def _with_haze(rng: np.random.Generator, frame: _Frame, colour: Floats) -> Floats:
    """The grey-green veil of scattered light along one side of the rim."""
    angle = rng.uniform(0, 2 * np.pi)
    towards = 0.5 + 0.5 * np.cos(np.arctan2(frame.y, frame.x) - angle)
    rim = np.clip(np.hypot(frame.x, frame.y), 0, 1)
    veil = (rng.uniform(0.3, 0.75) * towards * rim**4 + 0.30 * rim**24)[..., None]
    return colour * (1 - veil) + veil * np.array([158.0, 128.0, 84.0]) * rng.uniform(0.85, 1.1)


def _samples(vessel: Vessel, pixels: float) -> tuple[Floats, Floats]:
    """Points along the centreline at most 0.4 pixels apart, and the radius at each."""
    way = np.concatenate([[0.0], np.hypot(*np.diff(vessel.points, axis=0).T).cumsum()])
    fine = np.linspace(0.0, way[-1], max(2, int(way[-1] * pixels / 0.4)))
    points = np.stack([np.interp(fine, way, vessel.points[:, axis]) for axis in (0, 1)], axis=1)
    return points, np.interp(fine, way, vessel.radius)


def _near(
    frame: _Frame, vessels: Iterable[Vessel], *, least: float
) -> Iterator[tuple[NDArray[np.intp], Floats, Floats]]:
    """Pixels near a vessel: flat indices, distance to a sample of the centreline and half width there, in pixels.

    Half widths below ``least`` count as ``least``: a line thinner than a pixel would fall between the pixels.
    """
    height, width = frame.x.shape
    flip = np.sign(frame.x[0, -1])
    for vessel in vessels:
        if len(vessel.points) < 2:
            continue
        points, radius = _samples(vessel, frame.pixels)
        column = flip * points[:, 0] * frame.pixels + (width - 1) / 2
        row = points[:, 1] * frame.pixels + (height - 1) / 2
        wide = np.maximum(radius * frame.pixels, least)
        reach = int(np.ceil(wide.max())) + 1
        offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
        rows = np.rint(row).astype(np.intp)[:, None] + offsets[0]
        columns = np.rint(column).astype(np.intp)[:, None] + offsets[1]
        distance = np.hypot(rows - row[:, None], columns - column[:, None])
        close = (distance <= wide[:, None]) & (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        flat = (rows * width + columns)[close]
        yield flat, distance[close], np.broadcast_to(wide[:, None], close.shape)[close]


def _drawn(frame: _Frame, vessels: Iterable[Vessel]) -> Mask:
    mask = np.zeros(frame.x.size, dtype=bool)
    for flat, _, _ in _near(frame, vessels, least=0.62):
        mask[flat] = True
    return mask.reshape(frame.x.shape)


def _second_look(rng: np.random.Generator, vessels: Iterable[Vessel]) -> list[Vessel]:
    """The same vessels as another person draws them: shifted a little, wider or narrower, faint ones left out."""
    seen: list[Vessel] = []
    for vessel in vessels:
        faint = 1.0 - min(float(vessel.radius.max()) / (2.6 * LABELLED), 1.0)
        if rng.random() < 0.75 * faint:
            continue
        end = max(2, int(len(vessel.points) * (1.0 - faint * rng.uniform(0.0, 0.6))))
        seen.append(
            replace(
                vessel,
                points=vessel.points[:end] + rng.normal(0, 0.0022, 2),
                radius=vessel.radius[:end] * rng.uniform(0.8, 1.2),
            )
        )
    return seen


def _absorption(rng: np.random.Generator, frame: _Frame, vessels: Iterable[Vessel]) -> Floats:
    """Optical density ``(H, W, 3)`` of the blood: deepest along the centreline of a cylinder, and in veins."""
    density = np.zeros((2, frame.x.size))
    reflex = np.zeros(frame.x.size)
    for vessel in vessels:
        strength = rng.uniform(0.85, 1.1)
        for flat, distance, wide in _near(frame, [vessel], least=0.55):
            depth = np.sqrt(1.0 - (distance / wide) ** 2)
            contrast = strength * (wide / (TRUNK_RADIUS * frame.pixels)) ** 0.7
            np.maximum.at(density[int(vessel.vein)], flat, contrast * depth**0.7)
            if vessel.radius[0] * frame.pixels > 1.0:
                shine = np.exp(-((distance / (0.30 * wide)) ** 2)) * (0.45 if not vessel.vein else 0.12)
                np.maximum.at(reflex, flat, shine * contrast)
    artery, vein = density * (1.0 - np.clip(reflex, 0, 0.6))
    haemoglobin = rng.uniform(0.9, 1.12)
    total = artery[:, None] * np.array([0.07, 0.31, 0.16]) + vein[:, None] * np.array([0.16, 0.40, 0.21])
    return (haemoglobin * total).reshape(*frame.x.shape, 3)


def _photograph(rng: np.random.Generator, frame: _Frame, colour: Floats) -> NDArray[np.uint8]:
    """Camera: blur, shot noise, the field's edge with its notch, and a black that is not quite black."""
    from scipy.ndimage import gaussian_filter

    sharp = gaussian_filter(colour, (rng.uniform(0.45, 0.7),) * 2 + (0,))
    grain = gaussian_filter(rng.standard_normal(colour.shape), (0.55, 0.55, 0)) / 0.55
    shared = gaussian_filter(rng.standard_normal(colour.shape[:2]), 0.7)[..., None] / 0.42
    sharp += (grain * np.array([2.1, 1.9, 2.2]) + shared * 1.4) * np.sqrt(np.maximum(sharp, 0) / 110)
    notch = np.hypot(np.abs(frame.x) * np.sign(frame.x[0, -1]) * np.sign(frame.x) - 0.705, frame.y + 0.715)
    edge = np.clip((1.0 - np.hypot(frame.x, frame.y)) * frame.pixels + 0.7, 0, 1)
    edge = np.maximum(edge, 0.92 * np.clip((0.047 - notch) * frame.pixels + 0.5, 0, 1))[..., None]
    dark = np.array([8.0, 7.0, 6.5]) + rng.normal(0, 0.8, colour.shape)
    return np.clip(np.rint(edge * sharp + (1 - edge) * dark), 0, 255).astype(np.uint8)
