"""Diffusion forcing and self-forcing: what they train on, where gradients go, and what a rollout makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from distillation_toys import ADAM, WORLD, clips_role, clips_task, exact_clips
from torch import Tensor

from neurotrain.diffusion import PreparedBatch, Role
from neurotrain.diffusion.families import PixelFamily
from neurotrain.networks.blocks.attention import KeysValues
from neurotrain.networks.denoisers import CausalDenoiser, CausalVideo, Denoiser, Past, PixelUNet
from neurotrain.networks.moving_shapes import ExactClips
from neurotrain.noise import FlowSchedule
from neurotrain.tasks.distillation import DiffusionForcing, DistillationTask, Method, Moment, SelfForcing


class BestCausal(CausalDenoiser):
    """The best denoiser of the next chunk that has seen the chunks before it, in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.prediction, self.channels, self.condition = "x0", 1, {}
        self.frames, self.chunk = 4, 2
        self.exact = ExactClips(clips=WORLD, schedule=FlowSchedule())
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.exact(x_t, t) + self.weight

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        return []

    def extend(
        self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None, *, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        times = t.view(-1, 1, 1, 1, 1).expand(-1, -1, self.chunk, -1, -1)
        seen = KeysValues(x_t, times)
        if past is not None:
            seen = KeysValues(torch.cat((past[0].keys, x_t), 2), torch.cat((past[0].values, times), 2))
        missing = self.frames - seen.keys.shape[2]
        noise = torch.zeros(len(x_t), 1, missing, 4, 4)
        whole = torch.cat((seen.keys, noise), 2)
        all_times = torch.cat((seen.values, torch.ones(len(x_t), 1, missing, 1, 1)), 2)
        found = self(whole, all_times)
        return found[:, :, seen.keys.shape[2] - self.chunk : seen.keys.shape[2]], (seen,)


def moment(seed: int = 0, iteration: int = 0) -> Moment:
    return Moment(iteration=iteration, iterations=10, generator=torch.Generator().manual_seed(seed))


def batch(count: int = 8) -> PreparedBatch:
    return PreparedBatch(WORLD.sample(count, generator=torch.Generator().manual_seed(3)))


def best() -> Role:
    return Role(network=BestCausal(), optimizer=ADAM)


def self_forcing(method: SelfForcing, student: Role | None = None) -> DistillationTask:
    roles = {"student": student or clips_role(), "teacher": exact_clips(), "critic": clips_role(1, chunk=4)}
    return clips_task(method, roles)


def generated(made: DistillationTask, count: int, steps: int) -> Tensor:
    noise = torch.randn(count, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return made.method.generate(
            made.views["student"],
            noise,
            steps=steps,
            condition={},
            guidance=1.0,
            generator=torch.Generator().manual_seed(2),
        )


@pytest.mark.parametrize(
    ("made", "steps"),
    [
        (lambda: clips_task(DiffusionForcing(), {"student": best()}), 40),
        (lambda: self_forcing(SelfForcing(steps=4), best()), 12),
    ],
    ids=["diffusion_forcing", "self_forcing"],
)
def test_a_rollout_of_the_best_network_makes_true_clips_of_every_kind(made: Any, steps: int) -> None:  # noqa: ANN401
    found = generated(made(), 300, steps)
    assert float(WORLD.distance(found).median()) < 0.02
    nearest = torch.cdist(found.flatten(1), WORLD.clips.flatten(1)).argmin(1)
    assert len(nearest.unique()) > 100  # of 128


class TestDiffusionForcing:
    def test_every_chunk_has_a_time_of_its_own(self) -> None:
        made = clips_task(DiffusionForcing(), {"student": clips_role()})
        seen: list[tuple[Tensor, Tensor]] = []
        network = made.roles["student"].module
        network.register_forward_hook(lambda module, given, output: seen.append((given[0], given[1])))
        x0 = batch(500)
        (update,) = made.method.updates(x0, moment())
        ((x_t, t),) = seen
        assert t.shape == (500, 1, 4, 1, 1)
        first, second, third, fourth = t[:, 0, :, 0, 0].unbind(1)
        assert torch.equal(first, second)
        assert torch.equal(third, fourth)
        assert abs(float(torch.corrcoef(torch.stack((first, third)))[0, 1])) < 0.15
        noise = (x_t - (1 - t) * x0.x0) / t
        high = (t > 0.05).expand_as(noise)
        assert float(noise[high].std()) == pytest.approx(1.0, abs=0.02)
        assert update.role == "student"

    def test_with_a_teacher_its_prediction_is_what_is_learnt(self) -> None:
        alone = clips_task(DiffusionForcing(), {"student": best()})
        taught = clips_task(DiffusionForcing(), {"student": best(), "teacher": exact_clips()})
        losses = [float(next(made.method.updates(batch(200), moment())).loss.detach()) for made in (alone, taught)]
        assert losses[0] > 1e-3  # what nobody can know of the noise
        assert losses[1] < 1e-6

    def test_a_network_with_one_time_a_sample_cannot_teach(self) -> None:
        class OneTime(Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.prediction, self.channels, self.condition, self.frames = "x0", 1, {}, 4

            def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
                return x_t

            def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
                return []

        with pytest.raises(ValueError, match="network of role 'teacher', a OneTime, knows one time a sample"):
            clips_task(DiffusionForcing(), {"student": clips_role(), "teacher": Role(network=OneTime())})


class TestSelfForcing:
    def test_only_the_last_step_of_each_chunk_has_gradients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self_forcing(SelfForcing(steps=3))
        asked: list[tuple[float, bool, bool]] = []
        extend = CausalVideo.extend

        def watched(
            network: CausalVideo, x_t: Tensor, t: Tensor, condition: object = None, *, past: Past | None = None
        ) -> tuple[Tensor, Past]:
            found, present = extend(network, x_t, t, None, past=past)
            asked.append((round(float(t[0]), 3), found.requires_grad, past is not None and past[0].keys.requires_grad))
            return found, present

        monkeypatch.setattr(CausalVideo, "extend", watched)
        method = made.method
        assert isinstance(method, SelfForcing)
        seen: set[int] = set()
        for seed in range(12):
            asked.clear()
            samples = method.samples(batch(2), moment(seed))
            assert samples.requires_grad
            steps = (len(asked) - 1) // 2  # two chunks, and one look at the first when it is clean
            times = [1.0, 0.667, 0.334][:steps]
            chunk = [(time, time == times[-1], False) for time in times]
            assert asked == [*chunk, (0.001, False, False), *chunk]
            seen.add(steps)
        assert seen == {1, 2, 3}

    def test_it_trains_on_what_it_samples(self) -> None:
        made = self_forcing(SelfForcing(steps=1))
        method = made.method
        assert isinstance(method, SelfForcing)
        trained_on = method.samples(batch(), moment(4))
        generator = moment(4).generator
        noise = torch.randn(batch().x0.shape, generator=generator)
        sampled = method.generate(
            made.views["student"], noise, steps=1, condition={}, guidance=1.0, generator=generator
        )
        assert torch.equal(trained_on, sampled)

    def test_student_and_critic_take_turns(self) -> None:
        made = self_forcing(SelfForcing(update_ratio=3))
        turns = [[u.role for u in made.method.updates(batch(), moment(iteration=place))] for place in range(4)]
        assert turns == [["student", "critic"], ["critic"], ["critic"], ["student", "critic"]]
        assert made.method.period("student") == 3

    def test_a_student_of_the_teacher_s_distribution_is_left_alone(self) -> None:
        """Where the critic is the teacher, the scores agree and the gradient is zero; elsewhere it is not."""
        made = self_forcing(SelfForcing())
        method = made.method
        assert isinstance(method, SelfForcing)
        other = method.gradient(batch().x0, {}, moment())
        method.bind({**made.views, "critic": made.views["teacher"]})
        assert float(method.gradient(batch().x0, {}, moment()).abs().max()) < 1e-6
        assert float(other.abs().max()) > 1e-2


@pytest.mark.parametrize(("method", "others"), [(DiffusionForcing(), ()), (SelfForcing(), ("teacher", "critic"))])
def test_a_student_that_is_not_causal_is_refused(method: Method, others: tuple[str, ...]) -> None:
    def network() -> PixelUNet:
        return PixelUNet(widths=(8, 8), blocks=1, embedding=16)

    roles = {name: Role(network=network(), optimizer=None if name == "teacher" else ADAM) for name in others}
    with pytest.raises(ValueError, match="role 'student' must be a CausalDenoiser, it is a PixelUNet"):
        DistillationTask(
            roles={"student": Role(network=network(), optimizer=ADAM), **roles},
            pipeline=PixelFamily(schedule=FlowSchedule(), shape=(1, 8, 8)),
            method=method,
        )


def test_guidance_that_nobody_trained_is_refused() -> None:
    made = clips_task(DiffusionForcing(), {"student": clips_role()})
    with pytest.raises(ValueError, match=r"guidance=2.0: DiffusionForcing samples without"):
        made.method.generate(
            made.views["student"],
            torch.zeros(1, 1, 4, 4, 4),
            steps=1,
            condition={},
            guidance=2.0,
            generator=torch.Generator(),
        )
