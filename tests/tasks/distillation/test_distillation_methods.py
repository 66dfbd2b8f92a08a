"""What the methods compute, against closed forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from distillation_toys import ADAM, data, family, student, task, trainer
from torch import Tensor

from neurotrain.diffusion import PreparedBatch, Role, RoleHandle, RoleView
from neurotrain.diffusion.families import AnalyticTeacher, ode_solution
from neurotrain.networks.denoisers import Denoiser
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import CosineSchedule, FlowSchedule
from neurotrain.tasks.distillation import Consistency, Dmd2, FineTune, MeanFlow, Moment, OdeDistillation, Progressive
from neurotrain.tasks.distillation.consistency import boundary_weights, consistency_function
from neurotrain.tasks.distillation.rollout import few_steps, simulated_input
from neurotrain.tasks.distillation.trajectories import TrajectoryCache

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def _gaussian(mean: tuple[float, float], std: float) -> GaussianMixture:
    return GaussianMixture(means=(mean,), stds=((std, std),), angles=(0.0,), weights=(1.0,))


def _moment(iteration: int = 0, seed: int = 0) -> Moment:
    return Moment(iteration=iteration, iterations=100, generator=torch.Generator().manual_seed(seed))


def _exact(made: RoleView, mixture: GaussianMixture, name: str) -> RoleView:
    """A view of a closed form in the place of a role."""
    module = AnalyticTeacher(mixture=mixture, schedule=made.context.schedule)
    spec = family().spec("teacher", Role())
    return made.adapter.bind(RoleHandle(name=name, module=module, spec=spec, settings=Role()))


def test_the_gradient_of_distribution_matching_is_that_of_the_divergence() -> None:
    """Student N(m, s^2) and teacher N(n, c^2): the divergence at each time, and its gradient by m, are known."""
    real, fake = _gaussian((0.7, -0.4), 0.5), _gaussian((-0.2, 0.3), 0.3)
    method = Dmd2(weighting="kl", low=0.3, high=0.9)
    made = task(method, {"student": student(), "teacher": Role(), "critic": student(seed=1)})
    student_view = made.views["student"]
    views = {"teacher": _exact(student_view, real, "teacher"), "critic": _exact(student_view, fake, "critic")}
    method.bind({**made.views, **views})
    count = 200_000
    x0 = fake.sample(count, generator=torch.Generator().manual_seed(1))[0]
    found = method.gradient(x0, {}, _moment())
    context = student_view.context
    span = context.last_time - context.first_time
    t = torch.linspace(context.first_time + 0.3 * span, context.first_time + 0.9 * span, 20001, dtype=torch.float64)
    alpha, sigma = context.schedule.alpha(t), context.schedule.sigma(t)
    weight = alpha.square() / (alpha.square() * 0.5**2 + sigma.square())
    by_mean = torch.trapezoid(weight, t) / (t[-1] - t[0]) * (fake.means[0] - real.means[0])
    error = found.std(0) / math.sqrt(count)
    assert ((found.mean(0).double() - by_mean).abs() < 4 * error).all()
    assert (4 * error < 0.02 * by_mean.abs()).all()  # the bound is sharp enough to notice a wrong factor
    # By the spread: mean of gradient times z, with x = m + s z; the same for both axes.
    z = (x0 - fake.means[0].float()) / 0.3
    spread = alpha.square() * 0.3**2 + sigma.square()
    by_std = torch.trapezoid(alpha.square() * 0.3 * (weight / alpha.square() - 1 / spread), t) / (t[-1] - t[0])
    product = (found * z).mean(1)
    assert abs(float(product.mean()) - float(by_std)) < 4 * float(product.std()) / math.sqrt(count)


def test_the_per_sample_normaliser_divides_by_the_distance_to_the_teachers_data() -> None:
    from neurotrain.tasks.distillation.dmd2 import matching_gradient

    x0, real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 4.0]])
    ones = torch.ones(1)
    found = matching_gradient(x0, real, fake, alpha=ones, sigma=ones, weighting="sample")
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0]]))  # 3 over the mean distance 1.5


def test_the_boundary_condition_is_exact() -> None:
    for schedule in (FlowSchedule(), CosineSchedule()):
        made = task(Consistency(), pipeline=family(schedule=schedule, timestep_range=(0.002, 1.0)))
        view, context = made.views["student"], made.context
        x_t, t = torch.randn(9, 2), torch.full((9,), context.first_time)
        found = consistency_function(view, x_t, t, {})
        exact = x_t / context.schedule.alpha(t.double()).float()[:, None]
        torch.testing.assert_close(found, exact, rtol=3e-7, atol=0)
        with torch.no_grad():
            made.roles["student"].module.get_parameter("head.bias").add_(100.0)
        assert torch.equal(consistency_function(view, x_t, t, {}), found)  # nothing of the network is in it
    kept, learned = boundary_weights(torch.ones(1), schedule=FlowSchedule(), first_time=0.002)
    assert float(kept) == pytest.approx(0.002 / 0.998)
    assert float(learned) == 1.0  # there is none of the data in what begins


def test_what_a_consistent_network_predicts_stays_bounded_towards_the_data() -> None:
    mixture, schedule = _gaussian((0.0, 0.0), 0.4), FlowSchedule()
    view = task(Consistency(), pipeline=family(mixture=mixture)).views["student"]
    exact = _Ends(view, mixture, 0.0)
    t = torch.tensor([0.004, 0.01, 0.1, 0.5, 1.0], dtype=torch.float64)
    x_t = torch.full((5, 2), 0.3, dtype=torch.float64)
    velocity = (x_t - exact(x_t, t)) / schedule.sigma(t)[:, None]
    assert float(velocity.abs().max()) < 2.0


class _Ends(Denoiser):
    """The network whose consistency function is the exact end of the trajectory of one Gaussian, plus an error."""

    def __init__(self, made: RoleView, mixture: GaussianMixture, error: float) -> None:
        super().__init__()
        self.prediction, self.channels, self.condition = "x0", 2, {}
        self.made, self.mixture, self.error = made, mixture, error
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        context = self.made.context
        alpha, sigma = (value.double()[:, None] for value in (context.schedule.alpha(t), context.schedule.sigma(t)))
        mean, std = self.mixture.means[0], self.mixture.stds[0]
        first = torch.tensor(context.first_time).double()
        low_alpha, low_sigma = context.schedule.alpha(first), context.schedule.sigma(first)
        # Until the smallest time: x keeps its quantile; there the function gives x / alpha.
        quantile = (x_t - alpha * mean) / (alpha.square() * std.square() + sigma.square()).sqrt()
        low = low_alpha * mean + (low_alpha.square() * std.square() + low_sigma.square()).sqrt() * quantile
        end = low / low_alpha + self.error * t.double()[:, None]
        kept, learned = boundary_weights(t.double(), schedule=context.schedule, first_time=context.first_time)
        return (end - kept[:, None] * x_t) / learned[:, None].clamp(min=1e-12)

    def features(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        return []


def test_the_consistency_function_that_the_loss_asks_for_is_the_end_of_the_trajectory() -> None:
    mixture = _gaussian((0.5, -0.2), 0.4)

    def loss(error: float) -> float:
        method = Consistency(start_intervals=64, end_intervals=64, huber=0.0)
        made = task(method, pipeline=family(mixture=mixture))
        handle = made.roles["student"]
        handle.module = _Ends(made.views["student"], mixture, error)
        handle.spec = family().spec("teacher", Role())
        x0 = mixture.sample(500, generator=torch.Generator().manual_seed(2))[0].double()
        (update,) = method.updates(PreparedBatch(x0), _moment())
        noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        ends = consistency_function(made.views["student"], noise, torch.ones(50), {})
        exact = ode_solution(noise, mixture=mixture, steps=150)
        assert float((ends - exact).abs().max()) < abs(error) + 2e-3
        return float(update.loss.detach())

    assert loss(0.0) < 2e-3  # what Heun's step leaves of 1/64
    assert loss(0.2) > 0.1


def test_two_steps_of_the_teacher_are_one_of_the_student() -> None:
    method = Progressive(start_steps=8)
    made = task(method)
    teacher, context = made.views["teacher"], made.context
    x_t = torch.randn(6, 2)
    for place in (1, 2, 4):
        t, middle, s = (torch.full((6,), value * context.last_time / 4) for value in (place, place - 0.5, place - 1))
        data_seen = method._two_steps(x_t, t, middle, s, {})
        from neurotrain.noise import ddim

        times = torch.tensor([float(t[0]), float(middle[0]), float(s[0])]).double()
        twice = ddim(lambda x, time: teacher.predict_x0(x, time), x_t, times, context.schedule)
        once = ddim(lambda x, time, seen=data_seen: seen, x_t, times[[0, 2]], context.schedule)
        torch.testing.assert_close(once, twice, atol=2e-5, rtol=1e-4)


def test_after_a_round_the_student_teaches() -> None:
    method = Progressive(start_steps=4)  # two rounds
    made = task(method, {"student": student(ema_decay=None), "teacher": Role()})
    before = method.networks()["retaught"].state_dict()["stem.weight"].clone()
    with torch.no_grad():
        made.roles["student"].module.get_parameter("stem.weight").add_(1.0)
    batch = PreparedBatch(torch.randn(4, 2))
    next(method.updates(batch, _moment(iteration=49)))
    assert torch.equal(method.networks()["retaught"].state_dict()["stem.weight"], before)
    next(method.updates(batch, _moment(iteration=50)))
    assert torch.equal(method.networks()["retaught"].state_dict()["stem.weight"], before + 1.0)


def test_mean_flow_of_a_point_is_the_straight_line_to_it() -> None:
    """All data in one point: the velocity is constant along a trajectory, and so is every average of it."""
    method = MeanFlow(power=0.0)
    made = task(method, {"student": student(scalars=("span",))})

    class Line(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
            return (x_t - 0.7) / t[:, None]

    made.roles["student"].module = Line()
    (update,) = method.updates(PreparedBatch(torch.full((64, 2), 0.7)), _moment())
    assert float(update.loss) < 1e-8
    noise = torch.randn(5, 2)
    for steps in (1, 3):
        end = method.generate(
            made.views["student"], noise, steps=steps, condition={}, guidance=1.0, generator=torch.Generator()
        )
        torch.testing.assert_close(end, torch.full((5, 2), 0.7), atol=1e-5, rtol=0)
    (wrong,) = method.updates(PreparedBatch(torch.full((64, 2), 0.2)), _moment())
    assert float(wrong.loss) > 0.1


@pytest.mark.parametrize(("count", "equal", "moving"), [(6, 0.5, 3), (4, 0.9, 0), (1, 0.0, 1)])
def test_mean_flow_derives_only_where_the_two_times_differ(count: int, equal: float, moving: int) -> None:
    """Its loss is that of the derivative of all samples, though the network is derived at some alone."""
    method = MeanFlow(power=0.0, equal_share=equal)
    made = task(method, {"student": student(scalars=("span",))})
    view = made.views["student"]

    class Cubic(torch.nn.Module):
        def forward(self, x_t: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
            return x_t**3 + (t - 0.5 * condition["span"] ** 2)[:, None]

    view.handle.module = Cubic()
    x0 = torch.randn(count, 2, generator=torch.Generator().manual_seed(2))
    (update,) = method.updates(PreparedBatch(x0), _moment())
    moment = _moment()
    t, r, found = method._pair(count, moment)  # pyright: ignore[reportPrivateUsage]
    velocity = torch.randn(x0.shape, generator=moment.generator) - x0
    x_t, span = x0 + t[:, None] * velocity, t - r
    change = 3 * x_t**2 * velocity + (1 - span)[:, None]  # d/dt of the span is 1, as r stays
    error = x_t**3 + (t - 0.5 * span**2)[:, None] - (velocity - span[:, None] * change)
    assert found == moving == int((r < t).sum())
    torch.testing.assert_close(update.loss, error.square().sum(1).mean())


def test_fine_tuning_measures_the_error_in_the_prediction_that_is_asked_for() -> None:
    """The teacher is the best denoiser: its loss is the spread that no network can predict."""
    mixture = _gaussian((0.0, 0.0), 1.0)
    losses = {}
    for target in ("x0", "epsilon"):
        method = FineTune(target=target)  # pyright: ignore[reportArgumentType]
        made = task(method, {"student": student()}, pipeline=family(mixture=mixture, timestep_range=(0.5, 0.500001)))
        method.bind({"student": _exact(made.views["student"], mixture, "student")})
        x0 = mixture.sample(100_000, generator=torch.Generator().manual_seed(0))[0]
        (update,) = method.updates(PreparedBatch(x0), _moment())
        losses[target] = float(update.loss)
    # alpha = sigma = 1/2 and data of unit variance: half of either is left unknown.
    assert losses == pytest.approx({"x0": 0.5, "epsilon": 0.5}, rel=0.02)


def test_a_rollout_meets_what_sampling_meets() -> None:
    schedule, noise = FlowSchedule(), torch.randn(4000, 2)
    times = [1.0, 0.6, 0.3]
    level = torch.full((4000,), 2.0)
    level[:2000] = 5.0
    x_t, t = simulated_input(
        lambda x, time, condition: condition["level"][:, None].expand_as(x),
        noise,
        times,
        condition={"level": level},
        schedule=schedule,
        generator=torch.Generator().manual_seed(0),
    )
    shares = [float((t == time).float().mean()) for time in times]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    for time in times[1:]:
        for wanted in (2.0, 5.0):
            chosen = x_t[(t == time) & (level == wanted)]
            assert float(chosen.mean()) == pytest.approx(wanted * (1 - time), abs=0.07)
            assert float(chosen.std()) == pytest.approx(time, rel=0.07)
    assert torch.equal(x_t[t == 1.0], noise[t == 1.0])
    ends = few_steps(lambda x, time: x, noise, [1.0], schedule=schedule, generator=torch.Generator())
    assert torch.equal(ends, noise)


def test_trajectories_end_where_the_equation_does_and_are_kept_by_what_they_depend_on(tmp_path: Path) -> None:
    def prepared(root: Path, **changes: object) -> OdeDistillation:
        given = {"folder": root, "count": 50, "shard": 20, "teacher_steps": 60, "steps": 2, **changes}
        method = OdeDistillation(**given)  # pyright: ignore[reportArgumentType]
        trainer(tmp_path / "run", max_epochs=1).fit(task(method), datamodule=data(batches=1))
        return method

    method = prepared(tmp_path / "cache")
    noise, end = method._regression._states[:, 0], method._regression._end
    exact = ode_solution(noise.double(), mixture=GaussianMixture(), steps=150)
    assert float((end - exact).abs().median()) < 5e-3
    (folder,) = (tmp_path / "cache").iterdir()
    shards = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    assert len(shards) == 3
    stamps = [path.stat().st_mtime_ns for path in shards]
    shards[1].unlink()
    again = prepared(tmp_path / "cache")
    assert torch.equal(again._regression._end, end)
    assert [shards[index].stat().st_mtime_ns for index in (0, 2)] == [stamps[0], stamps[2]]
    prepared(tmp_path / "cache", seed=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_any_number_of_ranks_fills_one_cache(tmp_path: Path) -> None:
    method = OdeDistillation(folder=tmp_path, count=70, shard=16, teacher_steps=2)
    made = task(method)
    teacher, regression = made.views["teacher"], method._regression
    key = regression.key(teacher, times=method.times)
    assert key.shards == 5
    caches = [TrajectoryCache(root=tmp_path / str(size), key=key) for size in (1, 2)]

    def make(index: int, length: int) -> Mapping[str, Tensor]:
        return regression.make(teacher, index, length, times=method.times, device=torch.device("cpu"))

    assert caches[0].fill(make, rank=0, world_size=1) == 5
    assert caches[1].fill(make, rank=0, world_size=2) == 3
    with pytest.raises(FileNotFoundError, match="2 of 5 shards are missing"):
        caches[1].read()
    assert caches[1].fill(make, rank=1, world_size=2) == 2
    one, two = (cache.read() for cache in caches)
    assert one["end"].shape == (70, 2)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert teacher.handle.optimizer is None
    assert ADAM.keywords["lr"] > 0
