"""The regression on the teacher's trajectories beside another loss, against the same written by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from distillation_toys import ADAM, family, heads, task
from torch import Tensor

from neurotrain.diffusion import PreparedBatch, Role
from neurotrain.networks.denoisers import PointMLP
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import ddim
from neurotrain.tasks.distillation import (
    Adversarial,
    DistillationTask,
    Dmd2,
    Moment,
    TrajectoryRegression,
    Update,
    Workplace,
)

_COUNT = 30
_term = partial(TrajectoryRegression, count=_COUNT, shard=16, teacher_steps=6, sampler="ddim")
Matching = Dmd2 | Adversarial


def _moment() -> Moment:
    return Moment(iteration=0, iterations=10, generator=torch.Generator().manual_seed(0))


def _told(seed: int) -> Role:
    """A network that is told the component."""
    torch.manual_seed(seed)
    return Role(network=PointMLP(width=16, depth=1, num_classes=5), optimizer=ADAM)


def _assembled(method: Matching, folder: Path) -> DistillationTask:
    more = {"critic": _told(1)} if isinstance(method, Dmd2) else {"discriminator": heads()}
    made = task(method, {"student": _told(0), "teacher": Role(), **more}, pipeline=family(conditional=True))
    device = torch.device("cpu")
    method.prepare(Workplace(rank=0, world_size=1, device=device, barrier=lambda name: None, folder=folder))
    return made


def _of_student(method: Matching, moment: Moment) -> Update:
    """Its first update; nothing more has been drawn by then."""
    x0, label = GaussianMixture().sample(12, generator=torch.Generator().manual_seed(5))
    updates = method.updates(PreparedBatch(x0, {"label": label}), moment)
    return next(update for update in updates if update.role == "student")


def _trajectories(made: DistillationTask, times: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """States, ends and components of two shards, by six steps of DDIM in all."""
    teacher, parts = made.views["teacher"], list[tuple[Tensor, Tensor, Tensor]]()
    for shard, length in enumerate((16, _COUNT - 16)):
        generator = torch.Generator().manual_seed(shard)
        state = torch.randn(length, 2, generator=generator)
        label = torch.randint(5, (length,), generator=generator)

        def denoise(x_t: Tensor, t: Tensor, label: Tensor = label) -> Tensor:
            return teacher.predict_x0(x_t, t, {"label": label})

        states = list[Tensor]()
        for here, there in zip(times, (*times[1:], 0.0), strict=True):
            states.append(state)
            grid = torch.linspace(here, there, 6 // len(times) + 1, dtype=torch.float64)
            state = ddim(denoise, state, grid, made.context.schedule)
        parts.append((torch.stack(states, 1), state, label))
    states_of, ends, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return states_of, ends, labels


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("new", [Dmd2, Adversarial])
def test_it_adds_its_weight_times_the_squared_distance_to_the_end(
    new: type[Matching], steps: int, tmp_path: Path
) -> None:
    plain, moment = new(steps=steps), _moment()
    weights = list(_assembled(plain, tmp_path).roles["student"].module.parameters())
    alone = _of_student(plain, moment)
    method = new(steps=steps, regression=_term(weight=3.0))
    made = _assembled(method, tmp_path)
    found = _of_student(method, _moment())
    # What the plain one has left of the generator is what the regression draws from.
    which = torch.randint(_COUNT, (12,), generator=moment.generator)
    place = torch.randint(steps, (12,), generator=moment.generator)
    times = {1: (1.0,), 2: (1.0, 0.501)}[steps]
    assert len(place.unique()) == steps
    states, ends, labels = _trajectories(made, times)
    student_of = made.views["student"]
    seen = student_of.predict_x0(states[which, place], torch.tensor(times)[place], {"label": labels[which]})
    by_hand = (seen - ends[which]).square().mean()
    torch.testing.assert_close(found.figures["regression"], by_hand, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.loss, alone.loss + 3 * by_hand, rtol=1e-4, atol=1e-6)
    own = list(made.roles["student"].module.parameters())
    total, term = (torch.autograd.grad(loss, own, retain_graph=True) for loss in (found.loss, by_hand))
    for whole, before, slope in zip(total, torch.autograd.grad(alone.loss, weights), term, strict=True):
        torch.testing.assert_close(whole, before + 3 * slope, rtol=1e-3, atol=1e-5)
    assert max(float(slope.abs().max()) for slope in term) > 1e-2


def test_trajectories_are_those_of_the_folder_or_else_of_the_run(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "shared"):
        _assembled(Dmd2(regression=_term(folder=folder)), tmp_path / "run")
    (one,), (other,) = (list(path.iterdir()) for path in (tmp_path / "run" / "trajectories", tmp_path / "shared"))
    assert one.name == other.name
    _assembled(Dmd2(regression=_term(folder=tmp_path / "shared", seed=1)), tmp_path / "run")
    assert len(list((tmp_path / "shared").iterdir())) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": 0.0}, "weight=0.0: must be above 0; leave the regression out"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"count": 0}, "count=0: expected 1 or more"),
        ({"shard": 0}, "shard=0"),
        ({"teacher_steps": 0}, "teacher_steps=0"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _term(**given)  # pyright: ignore[reportArgumentType]


def test_a_regression_that_does_not_fit_its_method_is_refused() -> None:
    for new in (Dmd2, Adversarial):
        with pytest.raises(ValueError, match="teacher_steps=6: expected at least the student's steps=7"):
            new(steps=7, regression=_term())
    with pytest.raises(ValueError, match=r"guidance=3.0, but regression.guidance=1.0: .* set both alike"):
        Dmd2(guidance=3.0, regression=_term())
    assert Dmd2(guidance=3.0, regression=_term(guidance=3.0)).period("critic") == 1
