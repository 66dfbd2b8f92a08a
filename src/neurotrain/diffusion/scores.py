"""Figures of samples against real pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurotrain.data.decoders import Decoder
from neurotrain.data.sources import Source
from neurotrain.data.transforms import Transform
from neurotrain.diffusion.energy import energy_distance, null_quantile
from neurotrain.metrics.functional.generation import FeatureMoments, feature_moments, frechet_distance
from neurotrain.networks.classification import Classifier
from neurotrain.networks.moving_shapes import MovingShapes
from neurotrain.storage.tensors import read_checkpoint, state_of

__all__ = ["ClassifierFrechet", "MovingShapesScore", "PictureScore", "classifier_features"]


class PictureScore(ABC):
    """From pictures to named figures."""

    @abstractmethod
    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """Score.

        Args:
            pictures: float ``(N, C, H, W)`` in [0, 1], one channel or three; clips ``(N, C, T, H, W)``.
        """

    @abstractmethod
    def reference(self) -> dict[str, float]:
        """The figures of other real pictures; empty where there are none."""


class ClassifierFrechet(PictureScore):
    """Fréchet distance to real pictures in the features of a classifier, before its last layer.

    Samples are rounded to 8 bits and go the way that the real pictures go. Weights and pictures are read at the first
    call.

    Args:
        network: the classifier.
        weights: of a run of this project: its checkpoint, whose averaged weights are taken where it has any.
        source: real pictures.
        others: as many further real ones, whose distance no generator can be expected to get below; None: not asked.
        decoder: of both.
        transform: of both and of the samples, to what the classifier takes.
        batch_size: pictures at a time.

    Raises:
        ValueError: if ``batch_size`` is below 1.

    Reference:
        Heusel et al., 2017 (arXiv:1706.08500), with another network.
    """

    def __init__(
        self,
        *,
        network: Classifier,
        weights: Path,
        source: Source,
        others: Source | None = None,
        decoder: Decoder,
        transform: Transform,
        batch_size: int = 250,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected 1 or more")
        self._network, self._weights = network, Path(weights)
        self._source, self._others = source, others
        self._decoder, self._transform, self._batch_size = decoder, transform, batch_size
        self._real: FeatureMoments | None = None

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """``frechet``: the distance of the pictures to the real ones."""
        real = self._prepared()
        samples = (pictures * 255).round().to(torch.uint8)
        if samples.shape[1] == 1:
            samples = samples.expand(-1, 3, -1, -1)
        generator = torch.Generator().manual_seed(0)
        moved = [
            self._transform({"image": sample, "id": str(place), "source": "samples"}, generator)["image"]
            for place, sample in enumerate(samples)
        ]
        return {"frechet": float(frechet_distance(real, self._moments(torch.stack(moved))))}

    def reference(self) -> dict[str, float]:
        """``frechet``: the distance of the others, where there are any, to the real ones."""
        if self._others is None:
            return {}
        real = self._prepared()
        return {"frechet": float(frechet_distance(real, self._moments(self._pictures(self._others))))}

    def _prepared(self) -> FeatureMoments:
        if self._real is None:
            load_classifier(self._network, self._weights)
            self._network.eval().requires_grad_(False)
            self._real = self._moments(self._pictures(self._source))
        return self._real

    def _pictures(self, source: Source) -> Tensor:
        source.setup()
        generator = torch.Generator().manual_seed(0)
        samples = (self._decoder(source.read(index), generator) for index in range(len(source)))
        return torch.stack([self._transform(sample, generator)["image"] for sample in samples])

    def _moments(self, images: Tensor) -> FeatureMoments:
        parts = [classifier_features(self._network, part) for part in images.split(self._batch_size)]
        return feature_moments(torch.cat(parts))


class MovingShapesScore(PictureScore):
    """How far clips of moving shapes are from those that there are.

    ``acceleration`` is the mean change of the velocity from frame to frame, in pixels, and 0 for true clips, as is
    ``pixel_error``, the root mean square difference from the nearest true clip. ``energy_distance`` compares
    trajectories, as points on the torus in every frame, with those of 1,000 true clips.

    Args:
        clips: all that there are.
    """

    def __init__(self, *, clips: MovingShapes) -> None:
        self._clips = clips
        self._true = self._trajectories(clips.sample(_TRUE_CLIPS, generator=torch.Generator().manual_seed(0)))

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """All three."""
        clips = pictures * 2 - 1
        return {
            "acceleration": float(self._clips.acceleration(clips).mean()),
            "pixel_error": float(self._clips.distance(clips).mean()) / 2,
            "energy_distance": energy_distance(self._trajectories(clips), self._true),
        }

    def reference(self) -> dict[str, float]:
        """``energy_distance_true_p95``: what the distance is below in 95 of 100 cases between true samples of 1,000."""
        found = null_quantile(
            lambda count, generator: self._trajectories(self._clips.sample(count, generator=generator)),
            points=_TRUE_CLIPS,
            repeats=100,
            small=200,
        )
        return {"energy_distance_true_p95": found}

    def _trajectories(self, clips: Tensor) -> Tensor:
        """``(N, 4 T)``."""
        angle = self._clips.phases(clips).flatten(1)
        return torch.cat((angle.cos(), angle.sin()), 1)


_TRUE_CLIPS = 1000


def classifier_features(network: Classifier, image: Tensor) -> Tensor:
    """Mean over the picture of the classifier's last map.

    Args:
        network: the classifier.
        image: as it takes it, ``(B, C, H, W)``.

    Returns:
        Features ``(B, D)``.
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - of any module
        found.append(output)

    hook = network.evidence_layer().register_forward_hook(keep)
    try:
        with torch.no_grad():
            network(image)
    finally:
        hook.remove()
    return found[0].flatten(2).mean(2)


def load_classifier(network: nn.Module, path: Path) -> None:
    """Fill a classifier from a checkpoint of its run.

    Args:
        network: to fill.
        path: of the checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(path)!r} of the classifier: no such file; train it first")
    found = read_checkpoint(path)
    state = {
        name.removeprefix(_PREFIX): value for name, value in state_of(found, path).items() if name.startswith(_PREFIX)
    }
    for callback in found.get("callbacks", {}).values():
        if isinstance(callback, dict) and "average" in callback and "updates" in callback:
            averaged = {name.removeprefix(_PREFIX): value for name, value in callback["average"].items()}
            state |= {name: value for name, value in averaged.items() if name in state}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights={str(path)!r} are not those of {type(network).__name__}: {error}") from error


_PREFIX = "network."
"""Where a task of this project keeps its network."""
