"""Rows of segmentation: normalised surface Dice, distances between surfaces, Dice.

Vessels are DRIVE's size and shape, drawn as random walks; volumes are four regions of smoothed noise and the same with
some more noise. MONAI measures in single precision, so values are compared within 1e-6 of each other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from harness import Options, Result, interleaved, is_installed, left_out
from torch import Tensor

from neurotrain.metrics.functional import dice_score, hausdorff_distance, normalized_surface_dice

ROUNDS = 3
LIKE_PEER = 1e-6
MULTICLASS = {"mode": "multiclass", "num_classes": 4}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Someone's way to the same values.

    Attributes:
        name: as the table says it.
        module: that must be installed.
        speedup: the goal: how many times faster ours is to be.
        work: from nothing to float values, flat.
    """

    name: str
    module: str
    speedup: float
    work: Callable[[], Tensor]


@dataclass(frozen=True)
class Masks:
    """A prediction and a reference in every form that an implementation takes.

    Attributes:
        preds: labels ``(B, *spatial)``.
        target: the same.
        classes: K; 1 for binary.
    """

    preds: Tensor
    target: Tensor
    classes: int

    def one_hot(self) -> tuple[Tensor, Tensor]:
        """Bool ``(B, K, *spatial)``, contiguous."""
        indices = [1] if self.classes == 1 else range(self.classes)
        stacked = [torch.stack([labels == k for k in indices], dim=1) for labels in (self.preds, self.target)]
        return stacked[0], stacked[1]


def vessels() -> Masks:
    """Binary, 8 x 584 x 565: walks of a thick pen, and the same shifted by a pixel with specks."""
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(8, 584, 565)
    for image in target:
        for _ in range(60):
            angle = torch.rand(1, generator=generator) * 6.3 + torch.randn(250, generator=generator).cumsum(0) * 0.1
            start = torch.rand(2, 1, generator=generator) * torch.tensor([[584.0], [565.0]])
            rows, columns = (start + torch.stack([angle.sin(), angle.cos()]).cumsum(1)).long()
            inside = (rows >= 0) & (rows < 584) & (columns >= 0) & (columns < 565)
            image[rows[inside], columns[inside]] = 1
    target = torch.nn.functional.max_pool2d(target, 3, stride=1, padding=1) > 0
    preds = target.roll((1, 1), (1, 2)) ^ (torch.rand(target.shape, generator=generator) < 0.002)
    return Masks(preds, target, 1)


def volume(size: int) -> Masks:
    """Four classes, ``size`` cubed: argmax of smoothed noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 1, size, size, size, generator=generator)
    for kernel in ((9, 1, 1), (1, 9, 1), (1, 1, 9)) * 3:
        padding = tuple(length // 2 for length in kernel)
        noise = torch.nn.functional.avg_pool3d(noise, kernel, stride=1, padding=padding, count_include_pad=False)
    fields = noise[:, 0] / noise.std()
    return Masks((fields[:4] + 0.3 * fields[4:]).argmax(0)[None], fields[:4].argmax(0)[None], 4)


def rows(options: Options) -> Iterator[Result]:
    """Every row of the family."""
    warnings.filterwarnings("ignore")  # of the peers, on NumPy 2
    flat, solid = vessels(), volume(64 if options.quick else 128)
    side = solid.preds.shape[-1]
    yield from _surface_dice("NSD 8x584x565, tolerance 1", flat, 1.0, (1.0, 1.0), (20, 20, 20), options)
    name = f"NSD {side}^3, 4 classes"
    isotropic, anisotropic = (1.0, 1.0, 1.0), (3.0, 0.7, 0.7)
    yield from _surface_dice(f"{name}, tolerance 1", solid, 1.0, isotropic, (20, 20, 15), options)
    yield from _surface_dice(f"{name}, spacing 3 x 0.7 x 0.7, tolerance 2", solid, 2.0, anisotropic, (2, 2, 2), options)
    yield from _surface_dice(f"{name}, tolerance 10", solid, 10.0, isotropic, (2, 2, 2), options)
    yield from _surface_dice(f"{name}, tolerance 30", solid, 30.0, isotropic, (2, 2, 2), options)
    yield from _hausdorff(f"HD95 {side}^3, 4 classes", solid, options)
    yield from _dice(options)


def _surface_dice(
    name: str,
    masks: Masks,
    tolerance: float,
    spacing: tuple[float, ...],
    speedups: tuple[float, float, float],
    options: Options,
) -> Iterator[Result]:
    settings = MULTICLASS if masks.classes > 1 else {}

    def ours(boundary: str) -> Callable[[], Tensor]:
        return lambda: normalized_surface_dice(
            masks.preds, masks.target, tolerance=tolerance, spacing=spacing, boundary=boundary, **settings
        ).flatten()

    one_hot = masks.one_hot()
    weighted = (
        Peer(
            name="surface-distance",
            module="surface_distance",
            speedup=speedups[0],
            work=lambda: _by_surface_distance(one_hot, tolerance, spacing),
        ),
        Peer(
            name="MONAI, sub-voxel",
            module="monai",
            speedup=speedups[1],
            work=lambda: _by_monai(one_hot, tolerance, spacing, use_subvoxels=True),
        ),
    )
    pixel = Peer(
        name="MONAI",
        module="monai",
        speedup=speedups[2],
        work=lambda: _by_monai(one_hot, tolerance, spacing, use_subvoxels=False),
    )
    yield from _against(f"{name}, weighted", ours("surfels"), weighted, options)
    yield from _against(f"{name}, voxels", ours("voxels"), (pixel,), options)


def _hausdorff(name: str, masks: Masks, options: Options) -> Iterator[Result]:
    one_hot = masks.one_hot()

    def ours(boundary: str) -> Callable[[], Tensor]:
        return lambda: hausdorff_distance(
            masks.preds, masks.target, percentile=95, boundary=boundary, **MULTICLASS
        ).flatten()

    def by_monai() -> Tensor:
        from monai.metrics import compute_hausdorff_distance

        return compute_hausdorff_distance(*one_hot, include_background=True, percentile=95).flatten()

    def by_surface_distance() -> Tensor:
        from surface_distance import compute_robust_hausdorff

        return _each_pair(one_hot, (1.0, 1.0, 1.0), lambda found: compute_robust_hausdorff(found, 95))

    deepmind = Peer(name="surface-distance", module="surface_distance", speedup=1, work=by_surface_distance)
    monai = Peer(name="MONAI", module="monai", speedup=1, work=by_monai)
    yield from _against(f"{name}, weighted", ours("surfels"), (deepmind,), options)
    yield from _against(f"{name}, voxels", ours("voxels"), (monai,), options)


def _dice(options: Options) -> Iterator[Result]:
    generator = torch.Generator().manual_seed(0)
    preds, target = (torch.randint(4, (8, 512, 512), generator=generator) for _ in range(2))
    one_hot = Masks(preds, target, 4).one_hot()

    def by_monai() -> Tensor:
        from monai.metrics import compute_dice

        return compute_dice(*one_hot, include_background=True).flatten()

    def by_torchmetrics() -> Tensor:
        from torchmetrics.functional.segmentation import dice_score as peer

        return peer(preds, target, 4, average="none", input_format="index").flatten()

    monai = Peer(name="MONAI", module="monai", speedup=4, work=by_monai)
    torchmetrics = Peer(name="torchmetrics, index", module="torchmetrics", speedup=20, work=by_torchmetrics)
    for kind, labels in (("int64", (preds, target)), ("uint8", (preds.byte(), target.byte()))):

        def ours(labels: tuple[Tensor, Tensor] = labels) -> Tensor:
            return dice_score(*labels, **MULTICLASS).flatten()

        yield from _against(f"Dice 8x512x512, 4 classes, {kind} labels", ours, (monai, torchmetrics), options)


def _each_pair(
    one_hot: tuple[Tensor, Tensor], spacing: tuple[float, ...], score: Callable[[dict[str, object]], float]
) -> Tensor:
    """Scores of every image and class by surface-distance, which takes one pair of masks."""
    from surface_distance import compute_surface_distances

    pairs = zip(*(masks.flatten(0, 1).numpy() for masks in one_hot), strict=True)
    return torch.tensor([score(compute_surface_distances(target, preds, spacing)) for preds, target in pairs])


def _by_surface_distance(one_hot: tuple[Tensor, Tensor], tolerance: float, spacing: tuple[float, ...]) -> Tensor:
    from surface_distance import compute_surface_dice_at_tolerance

    return _each_pair(one_hot, spacing, lambda found: compute_surface_dice_at_tolerance(found, tolerance))


def _by_monai(
    one_hot: tuple[Tensor, Tensor], tolerance: float, spacing: tuple[float, ...], *, use_subvoxels: bool
) -> Tensor:
    from monai.metrics import compute_surface_dice

    return compute_surface_dice(
        *one_hot,
        class_thresholds=[tolerance] * one_hot[0].shape[1],
        include_background=True,
        spacing=list(spacing),
        use_subvoxels=use_subvoxels,
    ).flatten()


def _against(name: str, ours: Callable[[], Tensor], peers: Sequence[Peer], options: Options) -> Iterator[Result]:
    """Check the values, then measure in turns."""
    present = [peer for peer in peers if is_installed(peer.module)]
    values = ours()
    for peer in present:
        torch.testing.assert_close(values.double(), peer.work().double(), rtol=0.0, atol=LIKE_PEER, msg=_wrong(name))
    candidates = {"ours": ours, **{peer.name: peer.work for peer in present}}
    timed = {key: lambda work=work: _milliseconds(work) for key, work in candidates.items()}
    medians = interleaved(timed, rounds=1 if options.quick else ROUNDS, options=options)
    for peer in peers:
        if peer not in present:
            yield left_out(name=name, ours=medians["ours"], peer_name=peer.name, unit="ms", goal=1 / peer.speedup)
            continue
        yield Result(
            name=name,
            ours=medians["ours"],
            peer=medians[peer.name],
            peer_name=peer.name,
            unit="ms",
            goal=round(1 / peer.speedup, 4),
        )


def _wrong(name: str) -> Callable[[str], str]:
    return lambda message: f"{name}: not the same value\n{message}"


def _milliseconds(work: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)
