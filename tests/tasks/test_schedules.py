from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import neurotrain.tasks as tasks
from neurotrain.tasks import Constant, Cosine, MultiStep, Polynomial, Schedule, optimizer_and_schedule, parameter_groups

SCHEDULES = [
    getattr(tasks, name)
    for name in tasks.__all__
    if isinstance(getattr(tasks, name), type) and issubclass(getattr(tasks, name), Schedule) and name != "Schedule"
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warms_up_linearly_to_one_and_never_leaves_the_unit_interval(schedule: type[Schedule]) -> None:
    factor = schedule(warmup=0.1)
    assert [factor(step, 100) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(0.0 <= factor(step, 100) <= 1.0 for step in range(101))
    assert factor(10, 100) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [-0.1, 1.0, 2.0])
def test_refuses_a_warm_up_that_is_no_share_of_the_run(schedule: type[Schedule], warmup: float) -> None:
    with pytest.raises(ValueError, match="warmup"):
        schedule(warmup=warmup)


def test_cosine_equals_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    ours = Cosine(warmup=0.0, floor=0.1)
    for step in range(50):
        assert ours(step, 50) == pytest.approx(peer.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        peer.step()


def test_polynomial_equals_nnunet() -> None:
    assert Polynomial()(30, 100) == pytest.approx((1 - 30 / 100) ** 0.9)


def test_multistep_drops_at_shares_of_the_run_after_the_warm_up() -> None:
    schedule = MultiStep(warmup=0.1, milestones=(0.5,), gamma=0.1)
    assert schedule(54, 100) == 1.0
    assert schedule(55, 100) == pytest.approx(0.1)


def test_multistep_refuses_milestones_that_fall() -> None:
    with pytest.raises(ValueError, match="milestones"):
        MultiStep(milestones=(0.8, 0.5))


def test_norms_and_biases_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decaying, others = parameter_groups(network)
    assert [parameter.shape for parameter in decaying["params"]] == [torch.Size([2, 1, 3, 3])]
    assert len(others["params"]) == 3
    assert others["weight_decay"] == 0.0


def test_a_frozen_network_is_refused() -> None:
    network = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="trainable"):
        parameter_groups(network)


def test_learning_rate_follows_the_schedule_over_the_runs_own_horizon() -> None:
    network = nn.Linear(2, 2)
    built = optimizer_and_schedule(
        network, optimizer=lambda groups: torch.optim.SGD(groups, lr=2.0), schedule=Cosine(warmup=0.1), total_steps=20
    )
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([2.0 * Cosine(warmup=0.1)(step, 20) for step in range(20)])


def test_a_run_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="max_steps"):
        optimizer_and_schedule(nn.Linear(1, 1), optimizer=torch.optim.SGD, schedule=Constant(), total_steps=math.inf)
