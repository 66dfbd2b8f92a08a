"""Sliding-window inference: ours over MONAI's, on the same volume, windows, weights and network.

What is timed first is the time outside the network: the whole call less what the network's forward passes took in it.
The network is a pointwise one there, which costs little and writes its predictions into the same memory each time: so
neither side is charged for what the system takes to give, and to take back, the memory of another batch. The rows with
a 3-D U-Net leave that in, and tell what is left of it end to end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from harness import Options, Result, interleaved, is_installed, left_out, main
from torch import Tensor, nn

from neurotrain.inference import SlidingWindow
from neurotrain.networks import UNet

ROUNDS = 9
LIKE_PEER = 1e-5
OUTSIDE_GOAL = 0.5
END_TO_END_GOAL = 1.02


@dataclass(frozen=True, kw_only=True)
class Work:
    """One volume and how it is predicted.

    Attributes:
        name: as the table says it.
        size: voxels.
        channels: of the volume.
        classes: predicted.
        window: voxels of a window.
        batch_size: windows in one call.
        overlap: share that neighbours have in common.
    """

    name: str
    size: tuple[int, int, int]
    channels: int
    classes: int
    window: tuple[int, int, int]
    batch_size: int = 4
    overlap: float = 0.5


CT = Work(name="CT 224x192x160, 14 classes", size=(224, 192, 160), channels=1, classes=14, window=(96, 96, 96))
MR = Work(name="MR 160x192x144, 3 regions", size=(160, 192, 144), channels=4, classes=3, window=(128, 128, 128))
ONE = Work(
    name="CT 160x160x96, 1 class, windows one by one",
    size=(160, 160, 96),
    channels=1,
    classes=1,
    window=(96, 96, 64),
    batch_size=1,
)
SMALL_CT = Work(name="CT 128x128x96, 14 classes", size=(128, 128, 96), channels=1, classes=14, window=(64, 64, 64))
SMALL = Work(name="CT 96x96x64, 14 classes", size=(96, 96, 64), channels=1, classes=14, window=(64, 64, 32))


class Pointwise(nn.Module):
    """A linear map of the channels of each voxel, into memory that it keeps.

    Args:
        channels: of the volume.
        classes: predicted.
        windows: most in one call.
        window: voxels of a window.
    """

    def __init__(self, *, channels: int, classes: int, windows: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, channels), requires_grad=False)
        self.kept = torch.zeros(windows, classes, math.prod(window))

    def forward(self, image: Tensor) -> Tensor:
        """Predict."""
        predicted = self.kept[: len(image)]
        weight = self.weight.expand(len(image), -1, -1)
        torch.bmm(weight, image.flatten(2), out=predicted)
        return predicted.unflatten(2, image.shape[2:])


class Timed:
    """A network that keeps the time of its forward passes.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.seconds = 0.0

    def __call__(self, image: Tensor) -> Tensor:
        """Predict, and count."""
        started = time.perf_counter()
        predicted = self.network(image)
        self.seconds += time.perf_counter() - started
        return predicted


def rows(options: Options) -> Iterator[Result]:
    """Time outside the network, then end to end."""
    torch.manual_seed(0)
    with torch.inference_mode():
        for work in (SMALL_CT, ONE) if options.quick else (CT, MR, ONE):
            pointwise = Pointwise(
                channels=work.channels, classes=work.classes, windows=work.batch_size, window=work.window
            )
            yield from _compared(work, pointwise, options, outside=True, what="pointwise network")
        network = UNet(in_channels=1, out_channels=14, widths=(8, 16, 32), dims=3).eval()
        yield from _compared(SMALL, network, options, outside=True, what="3-D U-Net")
        yield from _compared(SMALL, network, options, outside=False, what="3-D U-Net")


def _compared(work: Work, network: nn.Module, options: Options, *, outside: bool, what: str) -> Iterator[Result]:
    image = torch.rand(1, work.channels, *work.size)
    infer = SlidingWindow(window=work.window, overlap=work.overlap, batch_size=work.batch_size)
    timed = Timed(network)
    ways: dict[str, Callable[[], Tensor]] = {"ours": lambda: infer(timed, image)}
    if is_installed("monai"):
        ways["MONAI"] = lambda: _by_monai(work, timed, image)
        difference = float((ways["ours"]() - ways["MONAI"]()).abs().max())
        assert difference <= LIKE_PEER, f"{work.name}: differs from MONAI by {difference}"
    candidates = {key: lambda way=way: _milliseconds(way, timed, outside=outside) for key, way in ways.items()}
    medians = interleaved(candidates, rounds=3 if options.quick else ROUNDS, options=options)
    name = f"{'outside the network' if outside else 'end to end'}: {work.name}, {what}"
    goal = OUTSIDE_GOAL if outside else END_TO_END_GOAL
    if "MONAI" not in medians:
        yield left_out(name=name, ours=medians["ours"], peer_name="MONAI", unit="ms", goal=goal)
        return
    yield Result(name=name, ours=medians["ours"], peer=medians["MONAI"], peer_name="MONAI", unit="ms", goal=goal)


def _by_monai(work: Work, predictor: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    from monai.inferers import sliding_window_inference

    predicted = sliding_window_inference(
        image, work.window, work.batch_size, predictor, overlap=work.overlap, mode="gaussian", sigma_scale=0.125
    )
    assert isinstance(predicted, Tensor)
    return predicted


def _milliseconds(way: Callable[[], Tensor], timed: Timed, *, outside: bool) -> float:
    timed.seconds = 0.0
    started = time.perf_counter()
    way()
    passed = time.perf_counter() - started
    return 1000 * (passed - (timed.seconds if outside else 0.0))


if __name__ == "__main__":
    main(rows, description="sliding-window inference: ours over MONAI's")
