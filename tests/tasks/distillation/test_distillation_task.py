"""What the task owns: iterations, clocks, accumulation, clipping, generators, checkpoints, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from distillation_toys import (
    ADAM,
    clips,
    clips_role,
    clips_task,
    data,
    exact_clips,
    family,
    heads,
    student,
    task,
    trainer,
)
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from neurotrain.callbacks import RunCheckpoint
from neurotrain.diffusion import PreparedBatch, Role
from neurotrain.networks.discriminators import FeatureHeads
from neurotrain.noise import CosineSchedule
from neurotrain.tasks.distillation import (
    Adversarial,
    Consistency,
    DiffusionForcing,
    DistillationTask,
    Dmd2,
    FineTune,
    MeanFlow,
    Method,
    Moment,
    Needs,
    OdeDistillation,
    Progressive,
    RoleWithoutGradientError,
    SelfForcing,
    TrajectoryRegression,
    Update,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]


def _dmd2_roles() -> dict[str, Role]:
    return {"student": student(), "teacher": Role(), "critic": student(seed=1)}


def _methods() -> dict[str, Any]:
    ode = OdeDistillation(count=40, shard=16, teacher_steps=4, steps=2)
    torch.manual_seed(3)
    on_critic = Role(network=FeatureHeads(channels=(16,), width=8, depth=1), optimizer=ADAM)
    with_head = {**_dmd2_roles(), "discriminator": on_critic}
    regression = TrajectoryRegression(count=40, shard=16, teacher_steps=4)
    return {
        "fine_tune": lambda: task(FineTune(min_snr_gamma=5.0), {"student": student()}),
        "ode": lambda: task(ode),
        "progressive": lambda: task(Progressive(start_steps=4)),
        "consistency": lambda: task(Consistency(start_intervals=4, end_intervals=8, target="ema")),
        "dmd2": lambda: task(Dmd2(steps=2, update_ratio=3, regression=regression), with_head),
        "adversarial": lambda: task(
            Adversarial(regression=regression), {"student": student(), "teacher": Role(), "discriminator": heads()}
        ),
        "mean_flow": lambda: task(MeanFlow(), {"student": student(scalars=("span",))}),
        "diffusion_forcing": lambda: clips_task(
            DiffusionForcing(), {"student": clips_role(), "teacher": exact_clips()}
        ),
        "self_forcing": lambda: clips_task(
            SelfForcing(steps=2, update_ratio=3),
            {"student": clips_role(), "teacher": exact_clips(), "critic": clips_role(1, chunk=4, ema_decay=None)},
        ),
    }


class _Stop(Callback):
    """Ends a run after a step as a kill would: nothing is saved for it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", list(_methods()))
def test_killed_and_resumed_a_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    def run(folder: str, *callbacks: Callback, ckpt: Path | None = None) -> DistillationTask:
        made: DistillationTask = _methods()[name]()
        checkpoint = RunCheckpoint(every_n_steps=3)
        running = trainer(tmp_path / folder, [*callbacks, checkpoint], enable_checkpointing=True)
        try:
            module = clips() if name in ("diffusion_forcing", "self_forcing") else data()
            running.fit(made, datamodule=module, ckpt_path=None if ckpt is None else str(ckpt), weights_only=True)
        except (KeyboardInterrupt, SystemExit):
            assert callbacks
        return made

    whole = run("whole")
    assert whole.iteration == whole.trainer.global_step == 8
    run("killed", _Stop(5))
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["distillation"]["iteration"] == 4  # the epoch's end, after step 3
    resumed = run("killed", ckpt=last)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    for role, handle in whole.roles.trainable.items():
        other = resumed.roles[role]
        assert handle.steps == other.steps == math.ceil(8 / whole.method.period(role))
        ours, theirs = handle.state_dict()["average"], other.state_dict()["average"]
        if ours is not None:
            assert all(torch.equal(value, theirs["average"][key]) for key, value in ours["average"].items())
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())


def test_the_trainer_counts_iterations_and_each_role_its_own_steps(tmp_path: Path) -> None:
    made = task(Dmd2(update_ratio=3), _dmd2_roles())
    rates: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            assert trainer.global_step == made.iteration
            optimizer = made.roles["student"].optimizer
            assert optimizer is not None
            rates.append(optimizer.param_groups[0]["lr"])

    running = trainer(tmp_path, [Watch()], max_epochs=-1, max_steps=7)
    running.fit(made, datamodule=data())
    assert running.global_step == made.iteration == len(rates) == 7
    assert [made.roles[name].steps for name in ("student", "critic")] == [3, 7]
    settings = made.roles["student"].settings
    assert settings.schedule is not None
    own = [3e-3 * settings.schedule(step, 3) for step in range(3)]  # a horizon of its own three steps
    assert rates == pytest.approx([own[0]] * 3 + [own[1]] * 3 + [own[2]])
    assert settings.average is not None
    assert settings.average.updates == 3
    logged = running.callback_metrics
    assert {"train/gradient_norm/student", "train/gradient_norm/critic", "train/loss/critic"} <= logged.keys()


def test_a_role_that_never_steps_in_an_iteration_of_the_log_is_logged_too(tmp_path: Path) -> None:
    made = task(Dmd2(update_ratio=2), _dmd2_roles())
    running = trainer(tmp_path, max_epochs=1, log_every_n_steps=2)
    running.fit(made, datamodule=data())  # the student steps in iterations 0 and 2, the log is written after 1 and 3
    assert {"train/loss/student", "train/matching/student", "train/loss/critic"} <= running.logged_metrics.keys()


class _Plain(Method):
    """The mean square of the student's output at fixed noise."""

    needs: ClassVar[Needs] = Needs(optional=("critic",))

    def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
        t = torch.full((len(batch.x0),), 0.5)
        yield Update("student", self.views["student"].predict_x0(batch.x0, t).square().mean())


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    halves = task(_Plain(), {"student": student(gradient_clip=0.01)}, accumulate=2)
    trainer(tmp_path, max_epochs=1).fit(halves, datamodule=data(batches=2))
    assert halves.iteration == halves.trainer.global_step == 1

    class Whole(_Plain):
        def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
            points = [part["point"] for part in data(batches=2).train_dataloader()]
            yield from super().updates(PreparedBatch(torch.cat(points)), moment)

    whole = task(Whole(), {"student": student(gradient_clip=0.01)})
    trainer(tmp_path, max_epochs=1).fit(whole, datamodule=data(batches=1))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, halves.state_dict()[name], msg=name)
    with pytest.raises(ValueError, match="accumulate=2 does not divide the 3 batches"):
        trainer(tmp_path).fit(task(_Plain(), {"student": student()}, accumulate=2), datamodule=data(batches=3))


def test_gradients_are_clipped_role_by_role(tmp_path: Path) -> None:
    norms: list[float] = []

    class Look(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
            total = [p.grad.square().sum() for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.stack(total).sum().sqrt()))

    made = task(_Plain(), {"student": student(gradient_clip=1e-3)})
    trainer(tmp_path, [Look()], max_epochs=1).fit(made, datamodule=data(batches=2))
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_a_role_without_gradient_is_an_error(tmp_path: Path) -> None:
    class Detached(_Plain):
        def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
            for update in super().updates(batch, moment):
                yield Update("student", update.loss.detach())

    class Wrong(_Plain):
        def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
            for update in super().updates(batch, moment):
                yield Update("critic", update.loss)

    with pytest.raises(RoleWithoutGradientError, match="'student' has no gradient"):
        trainer(tmp_path).fit(task(Detached(), {"student": student()}), datamodule=data())
    with pytest.raises(RoleWithoutGradientError, match="'critic' has no gradient"):
        trainer(tmp_path).fit(task(Wrong(), {"student": student(), "critic": student()}), datamodule=data())


def test_a_loss_that_reaches_another_role_is_an_error(tmp_path: Path) -> None:
    class Leaks(_Plain):
        def updates(self, batch: PreparedBatch, moment: Moment) -> Iterator[Update]:
            t = torch.full((len(batch.x0),), 0.5)
            both = sum(self.views[name].predict_x0(batch.x0, t).square().mean() for name in ("student", "critic"))
            assert isinstance(both, torch.Tensor)
            yield Update("student", both)

    with pytest.raises(RuntimeError, match="'student' left gradients in role 'critic'"):
        trainer(tmp_path).fit(task(Leaks(), {"student": student(), "critic": student()}), datamodule=data())


def test_ranks_draw_their_own_noise() -> None:
    from neurotrain.tasks.distillation.task import _rank_seed

    seeds = {_rank_seed(seed, rank) for seed in (0, 1) for rank in range(8)}
    assert len(seeds) == 16


@pytest.mark.parametrize(
    ("method", "roles", "message"),
    [
        (Dmd2(), {"student": student(), "teacher": Role()}, "Dmd2 needs the role 'critic'"),
        (FineTune(), {"student": student(), "teachr": Role()}, "no use for a role: no role 'teachr'"),
        (Consistency(), {"student": student(), "teacher": student()}, "does not train the role 'teacher'"),
        (FineTune(), {"student": Role(network=student().network)}, "trains the role 'student': give it an optimizer"),
    ],
)
def test_roles_that_do_not_fit_a_method_are_refused(method: Method, roles: dict[str, Role], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(method, roles)


def test_what_a_method_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="set its ema_decay"):
        task(Consistency(target="ema"), {"student": student(ema_decay=None), "teacher": Role()})
    with pytest.raises(ValueError, match=r"FlowSchedule\(shift=1.0\)"):
        task(MeanFlow(), {"student": student()}, pipeline=family(schedule=CosineSchedule()))
    with pytest.raises(ValueError, match="start_steps=12"):
        Progressive(start_steps=12, end_steps=5)
    with pytest.raises(ValueError, match="only a frozen one can be the closed form"):
        task(FineTune(), {"student": Role(optimizer=ADAM)})


def test_trainers_under_which_roles_could_not_step_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(Dmd2(), _dmd2_roles())

    class Strategy(DeepSpeedStrategy):
        def __init__(self) -> None:
            """Without the library."""

    class Some:
        strategy, precision = Strategy(), "32-true"

    monkeypatch.setattr(type(made), "trainer", Some())
    with pytest.raises(ValueError, match="deepspeed takes one optimizer, Dmd2 has one for each of critic, student"):
        made.setup("fit")
    Some.strategy = DDPStrategy()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="ddp_find_unused_parameters_true"):
        made.setup("fit")
    Some.strategy, Some.precision = DDPStrategy(find_unused_parameters=True), "16-mixed"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="16-mixed"):
        made.setup("fit")
