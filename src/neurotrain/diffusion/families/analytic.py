"""Points of a Gaussian mixture, with a teacher in closed form: what any method must be able to reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurotrain.diffusion.adapter import Adapter, PreparedBatch
from neurotrain.diffusion.context import Condition, SharedContext
from neurotrain.diffusion.energy import energy_distance, mean_distance, null_quantile
from neurotrain.diffusion.families.base import Family, PipelineContract, abilities_of
from neurotrain.diffusion.families.export import Exporting, save_weights
from neurotrain.diffusion.roles import Role, RoleHandle
from neurotrain.diffusion.specs import Abilities, LatentSpec, RoleSpec
from neurotrain.diffusion.validation import Validator
from neurotrain.networks.denoisers import Denoiser
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import FlowSchedule, NoiseSchedule, heun, initial_state


class AnalyticTeacher(nn.Module):
    """The best possible denoiser of a Gaussian mixture: predicts ``E[x_0 | x_t]``.

    Args:
        mixture: of the clean points.
        schedule: of the noise.
    """

    def __init__(self, *, mixture: GaussianMixture, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.mixture = mixture
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The data's mean ``(B, 2)``; of the component ``label`` alone where the condition has one."""
        return self.mixture.mean_of_data(x_t, self._alpha(t), self._sigma(t), label=condition.get("label"))

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Log joint densities of sample and components, bounded below, and the data's mean: ``(B, K + 2)``."""
        log_joint, data = self.mixture.posterior(x_t, self._alpha(t), self._sigma(t))
        share = log_joint.softmax(-1)
        return torch.cat((0.1 * log_joint.clamp(min=-50.0), (share[..., None] * data).sum(1)), -1)

    def _alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(t)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)


class PointAdapter(Adapter):
    """Batches of points; nothing is encoded.

    Args:
        context: what the roles share.
        conditional: whether each point's component steers.
        components: number of components.
    """

    def __init__(self, *, context: SharedContext, conditional: bool, components: int) -> None:
        super().__init__(context=context)
        self._conditional, self._components = conditional, components

    def prepare_batch(self, batch: Mapping[str, Any]) -> PreparedBatch:
        """The points, and their components where those steer."""
        return PreparedBatch(batch["point"], {"label": batch["label"]} if self._conditional else {})

    def encode(self, sample: Tensor) -> Tensor:
        """Points as they are."""
        return sample

    def decode(self, latent: Tensor) -> Tensor:
        """Points as they are."""
        return latent

    def draw_condition(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Components, each as likely: a student must know all of them."""
        if not self._conditional:
            return {}
        return {"label": torch.randint(self._components, (count,), generator=generator, device=generator.device)}

    def evaluate(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output."""
        return network(x_t, t, condition)

    def features(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> list[Tensor]:
        """What lies within a network; of the closed form see :meth:`AnalyticTeacher.features`."""
        if isinstance(network, AnalyticTeacher):
            return [network.features(x_t, t)]
        assert isinstance(network, Denoiser), "spec() has refused others"
        return network.features(x_t, t, condition)


class AnalyticFamily(Family, Exporting):
    """Students of any network on points, and a teacher that is exact.

    Args:
        mixture: of the points.
        schedule: of the noise.
        timestep_range: smallest and largest time that methods use.
        schedules: of roles that have another schedule than ``schedule``, by role.
        conditional: whether each point's component steers.
        reference: true points that samples are compared with.
        seed: of the true points.

    Raises:
        ValueError: if ``reference`` is below 2.
    """

    contract = PipelineContract(required=("mixture",))

    def __init__(
        self,
        *,
        mixture: GaussianMixture,
        schedule: NoiseSchedule,
        timestep_range: tuple[float, float] = (0.002, 1.0),
        schedules: dict[str, NoiseSchedule] | None = None,
        conditional: bool = False,
        reference: int = 20000,
        seed: int = 12345,
    ) -> None:
        if reference < 2:
            raise ValueError(f"reference={reference}: expected 2 or more")
        self.mixture, self.schedule = mixture, schedule
        self._range, self._schedules = timestep_range, dict(schedules or {})
        self._conditional, self._reference, self._seed = conditional, reference, seed
        self._within: float | None = None  # of the true points, once it was asked for

    def spec(self, name: str, role: Role) -> RoleSpec:
        """Points in the plane; a network says what it predicts, the closed form predicts the data."""
        network = role.network
        if network is not None and not isinstance(network, Denoiser):
            raise ValueError(f"network of role {name!r}: {type(network).__name__} is no Denoiser")
        # Further numbers that steer a network are its method's to give.
        steered = {} if network is None else {k: shape for k, shape in network.condition.items() if k == "label"}
        return RoleSpec(
            latent=LatentSpec(
                channels=2 if network is None else network.channels,
                layout="BC",
                schedule=self._schedules.get(name, self.schedule),
                prediction="x0" if network is None else network.prediction,
                timestep_range=self._range if network is not None else (0.0, 1.0),
                condition=steered,
            ),
            abilities=Abilities(network=AnalyticTeacher.__name__) if network is None else abilities_of(network),
        )

    def network(self, name: str, role: Role) -> nn.Module:
        """The closed form."""
        if role.trainable:
            raise ValueError(f"role {name!r} has no network: only a frozen one can be the closed form")
        return AnalyticTeacher(mixture=self.mixture, schedule=self._schedules.get(name, self.schedule))

    def context(self, leader: LatentSpec) -> SharedContext:
        """The plane, the schedule, the spread of the points."""
        return SharedContext(
            shape=(2,),
            schedule=leader.schedule,
            timestep_range=leader.timestep_range,
            condition=self.provided(),
            fingerprint=repr(
                (self._conditional, [(name, value.tolist()) for name, value in self.mixture.named_buffers()])
            ),
        )

    def provided(self) -> dict[str, tuple[int, ...]]:
        """The component, where it steers."""
        return {"label": ()} if self._conditional else {}

    def adapter(self, context: SharedContext) -> PointAdapter:
        """Of points."""
        return PointAdapter(context=context, conditional=self._conditional, components=self.mixture.components)

    def validator(self, adapter: Adapter) -> Validator:
        """Scores by the energy distance to true points."""
        return Validator(adapter=adapter, score=self._score, reference=self._between_true_points)

    def export(self, handle: RoleHandle, folder: Path, *, merge: bool = True) -> None:
        """Weights of a network, which is what ``weights`` of a role takes.

        Raises:
            ValueError: if the role is the closed form, or a low-rank addition is to be written apart.
        """
        if not isinstance(handle.module, Denoiser):
            raise ValueError(f"role {handle.name!r} is a closed form: it has no weights to write")
        if not merge:
            raise ValueError(f"merge=False has no effect: role {handle.name!r} has no low-rank addition")
        save_weights(handle.module, folder)

    def true_points(self, count: int, *, seed: int) -> Tensor:
        """Points of the mixture, ``(count, 2)``."""
        return self.mixture.sample(count, generator=torch.Generator().manual_seed(seed))[0]

    def _between_true_points(self) -> dict[str, float]:
        def draw(count: int, generator: torch.Generator) -> Tensor:
            return self.mixture.sample(count, generator=generator)[0]

        quantile = null_quantile(draw, points=self._reference, small=min(500, self._reference))
        return {"energy_distance_true_p95": quantile}

    def _score(self, samples: Tensor) -> dict[str, float]:
        true = self.true_points(self._reference, seed=self._seed)
        if self._within is None:
            self._within = mean_distance(true, true)
        return {"energy_distance": energy_distance(samples, true, within_y=self._within)}


def ode_solution(
    noise: Tensor, *, mixture: GaussianMixture, schedule: NoiseSchedule | None = None, steps: int = 1000
) -> Tensor:
    """End point of the mixture's sampling equation, by Heun's method in float64.

    Args:
        noise: standard normal ``(B, 2)``.
        mixture: of the points.
        schedule: of the noise; None: a flow.
        steps: intervals, evenly spaced; the error falls with their square.

    Returns:
        Points ``(B, 2)`` of the type of ``noise``.
    """
    chosen = FlowSchedule() if schedule is None else schedule
    teacher = AnalyticTeacher(mixture=mixture, schedule=chosen)
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    start = initial_state(noise.double(), times[0], chosen)
    return heun(lambda x_t, t: teacher(x_t, t, {}), start, times, chosen).to(noise.dtype)
