"""Geometry of a retina's vessels: trees that leave the optic disc, arch around the fovea, branch and taper.

Coordinates are in units of the field of view's radius, origin at its centre, x right and y down. The eye is drawn with
the disc on the left; the renderer mirrors half of the eyes.

The growth is a steered random walk: the heading follows a guide (along the arcades, towards the fovea inside of them,
away from it outside), its curvature is an Ornstein-Uhlenbeck process (smooth bends), the radius tapers with the way
and drops at each branch by Murray's law (r_parent^3 = r_child^3 + r_rest^3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP = 0.012
"""Way between two points of a centreline."""

TRUNK_RADIUS = 0.0165
"""Half width of the widest vein at the disc: 4.5 of 270 pixels, as in DRIVE."""

THINNEST = 0.0016
"""Half width at which a capillary ends: below what any observer sees."""

_CELLS = 72  # of the occupancy grid along a radius: a vessel keeps about this distance from one of its own kind


@dataclass(frozen=True, kw_only=True)
class Vessel:
    """One unbranched vessel.

    Attributes:
        points: float64 ``(N, 2)`` centreline as (x, y).
        radius: float64 ``(N,)`` half width.
        vein: veins are wider and darker than arteries.
        order: 0 for a trunk, one more with each branching.
    """

    points: Floats
    radius: Floats
    vein: bool
    order: int


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Where disc and fovea lie.

    Attributes:
        disc: (x, y) of the optic disc's centre.
        disc_radius: of the disc.
        fovea: (x, y) of the fovea.
    """

    disc: tuple[float, float]
    disc_radius: float
    fovea: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Anatomy:
        """A macula-centred eye: the disc some 2.5 of its diameters nasal of the fovea, slightly above it."""
        fovea = (rng.uniform(-0.06, 0.10), rng.uniform(-0.03, 0.10))
        distance, rise = rng.uniform(0.70, 0.80), rng.uniform(0.02, 0.14)
        return cls(disc=(fovea[0] - distance, fovea[1] - rise), disc_radius=rng.uniform(0.135, 0.160), fovea=fovea)


@dataclass(kw_only=True)
class _Growth:
    """Everything a growing vessel has to know: the draws, the anatomy, and which cells are taken."""

    rng: np.random.Generator
    anatomy: Anatomy
    vessels: list[Vessel] = field(default_factory=list[Vessel])
    taken: dict[tuple[int, int, bool], int] = field(default_factory=dict[tuple[int, int, bool], int])

    def is_free(self, point: Floats, *, vein: bool, but: tuple[int, ...]) -> bool:
        cell = (int(point[0] * _CELLS // 1), int(point[1] * _CELLS // 1))
        if self.taken.get((*cell, vein), -1) not in (-1, *but):
            return False
        # An artery and a vein do cross, but rarely run on top of each other.
        return self.taken.get((*cell, not vein), -1) == -1 or self.rng.random() < 0.75

    def add(self, vessel: Vessel) -> int:
        number = len(self.vessels)
        self.vessels.append(vessel)
        for x, y in vessel.points:
            self.taken.setdefault((int(x * _CELLS // 1), int(y * _CELLS // 1), vessel.vein), number)
        return number


def grow_vessels(rng: np.random.Generator, anatomy: Anatomy) -> list[Vessel]:
    """Grow the trees of one eye.

    Args:
        rng: source of every draw.
        anatomy: position of disc and fovea.

    Returns:
        Vessels, trunks first.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> vessels = grow_vessels(rng, Anatomy.draw(rng))
        >>> len(vessels) > 50, min(float(v.radius.min()) for v in vessels) >= THINNEST
        (True, True)
    """
    growth = _Growth(rng=rng, anatomy=anatomy)
    front = [growth.add(trunk) for trunk in _trunks(growth)]
    front += [growth.add(twig) for twig in _disc_twigs(growth)]
    for _ in range(3):
        front = [child for parent in front for child in _branch(growth, parent)]
    return growth.vessels


def _trunks(growth: _Growth) -> list[Vessel]:
    rng, disc = growth.rng, np.array(growth.anatomy.disc)
    trunks: list[Vessel] = []
    for up in (-1.0, 1.0):
        height, end = rng.uniform(0.50, 0.66), rng.uniform(0.32, 0.74)
        for vein in (True, False):
            shift = rng.uniform(0.05, 0.10) * (1 if vein else -1) * rng.choice([-1.0, 1.0])
            temporal = [(0.0, 0.0), (0.02, 0.20), (0.16, 0.40), (0.48, height), (0.92, height), (1.75, end)]
            nasal = [(-0.01, 0.0), (-0.07, 0.2), (-0.16, 0.45), (-0.22, 0.75), (-0.3, 1.1)]
            for way, width in ((temporal, 1.0), (nasal, 0.6)):
                knots = np.array(way) * (1.0, up)
                knots[1:] += rng.normal(0, 0.022, knots[1:].shape)
                knots[2:, 1] += shift * up
                knots[1:, 0] += 0.024 * (1 if vein else -1)
                points = _wiggled(rng, disc + _spline(knots))
                radius = TRUNK_RADIUS * width * (1.0 if vein else 0.76) * rng.uniform(0.88, 1.05)
                taper = np.linspace(1.0, 0.62, len(points))
                trunks.append(_inside(Vessel(points=points, radius=radius * taper, vein=vein, order=0)))
    return trunks


def _disc_twigs(growth: _Growth) -> list[Vessel]:
    """Thin vessels that leave the disc on their own: towards the macula, and radially to the nasal side."""
    rng, anatomy = growth.rng, growth.anatomy
    twigs: list[Vessel] = []
    angles = [*rng.uniform(-0.75, 0.75, 4), *(np.pi + np.linspace(-1.0, 1.0, 4) + rng.normal(0, 0.2, 4))]
    for number, angle in enumerate(angles):
        towards = np.array([np.cos(angle), np.sin(angle)])
        start = np.array(anatomy.disc) + 0.4 * anatomy.disc_radius * towards
        radius = TRUNK_RADIUS * rng.uniform(0.20, 0.42)
        guide = float(angle) if number >= 4 else _inwards(growth, start)
        vein = bool(number % 2)
        points = _walk(growth, start, float(angle), guide, radius, length=rng.uniform(0.5, 0.75), vein=vein, parent=-2)
        if len(points) > 8:
            twigs.append(Vessel(points=points, radius=_tapered(radius, points), vein=vein, order=1))
    return twigs


def _branch(growth: _Growth, parent_number: int) -> list[int]:
    """Grow the branches of one vessel; it becomes thinner at each (the stored vessel is replaced)."""
    rng, parent = growth.rng, growth.vessels[parent_number]
    radius, children = parent.radius.copy(), list[int]()
    side = rng.choice([-1.0, 1.0])
    spacing = (0.12, 0.11, 0.12, 0.2)[min(parent.order, 3)]
    position = int(rng.uniform(0.8, 1.6) * (0.20 if parent.order == 0 else spacing) / STEP)
    while position < len(parent.points) - 3:
        child_radius = radius[position] * rng.uniform(0.36, 0.80)
        child = _child(growth, parent, parent_number, position, side, child_radius)
        if child is not None:
            children.append(growth.add(child))
            rest = np.cbrt(max(radius[position] ** 3 - child.radius[0] ** 3, 0.0)) / radius[position]
            radius[position:] *= max(rest, 0.965)
        side = -side if rng.random() < 0.75 else side
        position += max(3, int(rng.uniform(0.5, 1.5) * spacing / STEP))
    growth.vessels[parent_number] = Vessel(
        points=parent.points, radius=np.maximum(radius, THINNEST), vein=parent.vein, order=parent.order
    )
    return children


def _child(
    growth: _Growth, parent: Vessel, parent_number: int, position: int, side: float, radius: float
) -> Vessel | None:
    if radius < THINNEST * 1.2:
        return None
    rng, start = growth.rng, parent.points[position]
    ahead = parent.points[position + 2] - start
    heading = float(np.arctan2(ahead[1], ahead[0]) + side * rng.uniform(0.55, 1.15))
    to_fovea = np.array(growth.anatomy.fovea) - start
    inside = float(np.dot(to_fovea, (np.cos(heading), np.sin(heading)))) > 0
    guide = _inwards(growth, start) if inside else _outwards(growth, start)
    length = rng.uniform(0.45, 1.0) * (0.26 + 70 * radius) * (1.45 if inside else 1.0)
    points = _walk(growth, start, heading, guide, radius, length=length, vein=parent.vein, parent=parent_number)
    if len(points) < 6:
        return None
    return Vessel(points=points, radius=_tapered(radius, points), vein=parent.vein, order=parent.order + 1)


def _walk(
    growth: _Growth,
    start: Floats,
    heading: float,
    guide: float,
    radius: float,
    *,
    length: float,
    vein: bool,
    parent: int,
) -> Floats:
    """Centreline ``(N, 2)`` of a steered random walk; ends at its length, the rim, the fovea or another vessel."""
    rng, fovea = growth.rng, np.array(growth.anatomy.fovea)
    thin = 1.0 - min(radius / TRUNK_RADIUS, 1.0)
    point, points, curvature = start.copy(), [start.copy()], 0.0
    avascular = rng.uniform(0.09, 0.17)
    for number in range(int(length / STEP)):
        # Thin vessels are the more tortuous ones.
        curvature = 0.86 * curvature + rng.normal(0, 1.6 + 3.2 * thin**2)
        turn = np.angle(np.exp(1j * (guide - heading)))
        heading += STEP * (curvature + 2.2 * float(turn))
        point = point + STEP * np.array([np.cos(heading), np.sin(heading)])
        at_end = np.hypot(*point) > 0.995 or np.hypot(*(point - fovea)) < avascular
        if at_end or not growth.is_free(point, vein=vein, but=(parent,) if number < 6 else ()):
            break
        points.append(point)
    return np.array(points)


def _tapered(radius: float, points: Floats) -> Floats:
    return np.maximum(radius * np.linspace(1.0, 0.45, len(points)), THINNEST)


def _inwards(growth: _Growth, start: Floats) -> float:
    """Direction to a place near the fovea, rather on its temporal side: the twigs of the arcades lean that way."""
    target = np.array(growth.anatomy.fovea) + growth.rng.normal(0, 0.28, 2) + (0.22, 0.0)
    return float(np.arctan2(target[1] - start[1], target[0] - start[0]))


def _outwards(growth: _Growth, start: Floats) -> float:
    """Direction away from the middle between disc and fovea."""
    middle = 0.5 * (np.array(growth.anatomy.disc) + growth.anatomy.fovea)
    return float(np.arctan2(start[1] - middle[1], start[0] - middle[0]) + growth.rng.normal(0, 0.35))


def _spline(knots: Floats) -> Floats:
    """Cubic through the knots, resampled at ``STEP``."""
    from scipy.interpolate import CubicSpline

    way = np.concatenate([[0.0], np.hypot(*np.diff(knots, axis=0).T).cumsum()])
    return np.asarray(CubicSpline(way, knots)(np.arange(0.0, way[-1], STEP)), dtype=np.float64)


def _wiggled(rng: np.random.Generator, points: Floats) -> Floats:
    """Smooth sideways bends of a few disc widths' length, growing from none at the disc."""
    from scipy.ndimage import gaussian_filter1d

    noise = gaussian_filter1d(rng.normal(0, 1, (len(points), 2)), sigma=0.07 / STEP, axis=0)
    noise *= 0.017 / max(float(noise.std()), 1e-9)
    grown = np.minimum(np.arange(len(points)) * STEP / 0.25, 1.0)[:, None]
    return points + noise * grown


def _inside(vessel: Vessel) -> Vessel:
    """The part before the vessel leaves the field of view."""
    out = np.hypot(*vessel.points.T) > 1.0
    end = int(out.argmax()) if out.any() else len(vessel.points)
    return Vessel(points=vessel.points[:end], radius=vessel.radius[:end], vein=vessel.vein, order=vessel.order)
