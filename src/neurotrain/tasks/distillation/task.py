"""The LightningModule of all methods: it holds the roles' views and the algorithm, and owns everything around it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from neurotrain.diffusion import Role, RoleHandle, RoleView, ValidationRequest
from neurotrain.diffusion.families import Family
from neurotrain.diffusion.roles import gradient_norm, missing_role
from neurotrain.tasks.distillation.base import Method, Moment, Update, Workplace

_STATE = "distillation"
"""Key of our own part of a checkpoint."""


class RoleWithoutGradientError(RuntimeError):
    """A role was to be trained by a loss that does not depend on its weights."""


class DistillationTask(LightningModule):
    """Run a method on the roles of a pipeline.

    An *iteration* is one round of the method's updates, over ``accumulate`` batches. It is what the trainer counts
    here: ``trainer.global_step``, ``max_steps``, checkpoints and the log follow iterations, however many optimizers
    step in one. Each role's schedule, horizon and average follow the role's own steps.

    A checkpoint holds the weights of every trained role, its average, optimizer and clock, the state of the method and
    the random generators of all ranks; frozen roles are loaded anew.

    Args:
        roles: by name; those with an optimizer are trained.
        pipeline: family that puts the roles together and checks that they fit.
        method: the algorithm.
        accumulate: batches whose gradients are added up to one iteration.
        seed: of all noise and times; each rank draws its own.

    Raises:
        ValueError: if roles, pipeline and method do not fit.
    """

    def __init__(
        self, *, roles: dict[str, Role], pipeline: Family, method: Method, accumulate: int = 1, seed: int = 0
    ) -> None:
        super().__init__()
        if accumulate < 1:
            raise ValueError(f"accumulate={accumulate}: expected 1 or more")
        self.automatic_optimization = False
        method.check(roles)
        assembled = pipeline.assemble(roles, approve=method.check_specs)
        self.method, self.pipeline = method, pipeline
        self.context, self.adapter = assembled.context, assembled.adapter
        self.validator, self.roles = assembled.validator, assembled.roles
        self.networks = nn.ModuleDict({name: handle.module for name, handle in self.roles.trainable.items()})
        self.views = {name: RoleView(adapter=self.adapter, handle=handle) for name, handle in self.roles.items()}
        for name, handle in self.roles.trainable.items():
            if handle.average is not None:
                averaged = "ema" if name == "student" else f"{name}_ema"
                self.views[averaged] = RoleView(adapter=self.adapter, handle=handle, averaged=True)
        method.bind(self.views)
        self.iteration = 0
        self._accumulate, self._seed = accumulate, seed
        self._pending = 0  # batches whose gradients wait for the step
        self._iterations = 0
        self._generator: torch.Generator | None = None
        self._generator_states: list[Tensor] = []
        self._losses: dict[str, Tensor] = {}
        self._figures: dict[str, Tensor | float] = {}  # since the log was last written

    @property
    def generator(self) -> torch.Generator:
        """Of this rank's noise and times."""
        if self._generator is None:
            self._generator = torch.Generator(self.device).manual_seed(_rank_seed(self._seed, self.global_rank))
            if self.global_rank < len(self._generator_states):
                self._generator.set_state(self._generator_states[self.global_rank].cpu())
        return self._generator

    def setup(self, stage: str) -> None:
        """Refuse trainers under which the method would not do what it says.

        Raises:
            ValueError: names the setting.
        """
        if stage != "fit":
            return
        trained = list(self.roles.trainable)
        if len(trained) > 1 and isinstance(self.trainer.strategy, DeepSpeedStrategy):
            raise ValueError(
                f"trainer.strategy=deepspeed takes one optimizer, {type(self.method).__name__} has one for each of "
                f"{', '.join(trained)}: use ddp or fsdp"
            )
        if len(trained) > 1 and isinstance(self.trainer.strategy, DDPStrategy):
            # Each loss reaches one role; without the look for unused weights, DDP waits for the others' gradients.
            kwargs = self.trainer.strategy._ddp_kwargs  # pyright: ignore[reportPrivateUsage]
            if not kwargs.get("find_unused_parameters", False):
                raise ValueError(
                    f"trainer.strategy=ddp waits for gradients of all of {', '.join(trained)} in each backward pass: "
                    "use ddp_find_unused_parameters_true"
                )
        if self.trainer.precision == "16-mixed":
            raise ValueError("trainer.precision=16-mixed: scaled gradients cannot be clipped by role; use bf16-mixed")

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer a trained role, in the order of their names."""
        self._iterations = self._horizon()
        return [handle.build_optimizer() for handle in self.roles.trainable.values()]

    def on_fit_start(self) -> None:
        """Bring frozen roles to the device, begin the averages, let the method prepare."""
        self._place()
        barrier = self.trainer.strategy.barrier
        self.method.prepare(
            Workplace(
                rank=self.global_rank,
                world_size=self.trainer.world_size,
                device=self.device,
                barrier=barrier,
                folder=Path(self.trainer.default_root_dir),
            )
        )

    def on_train_start(self) -> None:
        """Refuse epochs that end between two iterations.

        Raises:
            ValueError: names both numbers.
        """
        batches = self.trainer.num_training_batches
        if math.isfinite(batches) and batches % self._accumulate:
            raise ValueError(f"accumulate={self._accumulate} does not divide the {batches} batches of an epoch")

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """One batch of an iteration: every update that the method yields, each carried out before the next."""
        last = self._pending + 1 == self._accumulate
        moment = Moment(iteration=self.iteration, iterations=self._iterations, generator=self.generator)
        logs = (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0  # pyright: ignore[reportAttributeAccessIssue]
        figures: dict[str, Tensor | float] = {}
        losses: dict[str, Tensor] = {}
        for update in self.method.updates(self.adapter.prepare_batch(batch), moment):
            losses[update.role] = update.loss.detach()
            figures |= self._carry_out(update, step=last)
        self._pending = 0 if last else self._pending + 1
        if last:
            self._count_iteration()
            # A role that steps in every n-th iteration only may never do so in the one in which the log is written.
            self._figures |= {**{f"train/loss/{role}": loss for role, loss in losses.items()}, **figures}
            if logs:
                self.log_dict(self._figures, batch_size=1)
                self._figures = {}
        self._losses |= losses
        return {"loss": torch.stack(list(self._losses.values())).sum()}

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Nothing: a callback samples and scores when the validation ends."""

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Nothing: a callback samples and scores when the test ends."""

    def on_validation_start(self) -> None:
        """Bring frozen roles to the device where no fit has."""
        self._place()

    def on_test_start(self) -> None:
        """Bring frozen roles to the device where no fit has."""
        self._place()

    def sample(self, request: ValidationRequest) -> Tensor:
        """Samples of a request, decoded, on the CPU; nothing else changes."""
        if request.role not in self.views:
            raise ValueError(missing_role(request.role, self.views))
        return self.validator.sample(self.views[request.role], request, generate=self.method.generate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add averages, clocks, the method's state and the generators of all ranks.

        Raises:
            RuntimeError: between the batches of one iteration, whose gradients no checkpoint holds.
        """
        if self._pending:
            raise RuntimeError(
                f"{self._pending} of {self._accumulate} batches of an iteration are done: not saved here"
            )
        checkpoint[_STATE] = {
            "iteration": self.iteration,
            "roles": {name: handle.state_dict() for name, handle in self.roles.trainable.items()},
            "method": self.method.state_dict(),
            "generators": _of_all_ranks(self.generator.get_state()),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        state = checkpoint[_STATE]
        self.iteration = int(state["iteration"])
        for name, handle in self.roles.trainable.items():
            handle.load_state_dict(state["roles"][name])
        self.method.load_state_dict(state["method"])
        self._generator, self._generator_states = None, list(state["generators"])

    def _carry_out(self, update: Update, *, step: bool) -> dict[str, Tensor | float]:
        """Backward, and where the iteration's last batch is done, clip and step; returns figures for the log."""
        handle = self.roles[update.role]
        if not update.loss.requires_grad:
            raise RoleWithoutGradientError(_no_gradient(update.role))
        self.manual_backward(update.loss / self._accumulate)
        if not step:
            return {}
        norm = gradient_norm(handle.parameters())
        if norm is None:
            raise RoleWithoutGradientError(_no_gradient(update.role))
        self._check_others(update.role)
        rate = self._step(handle, norm)
        named = {f"train/{name}/{update.role}": value.detach() for name, value in update.figures.items()}
        return {**named, f"train/gradient_norm/{update.role}": norm.detach(), f"train/lr/{update.role}": rate}

    def _step(self, handle: RoleHandle, norm: Tensor) -> float:
        optimizer = handle.optimizer
        assert optimizer is not None
        clip = handle.settings.gradient_clip
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(handle.parameters(), clip, norm)
        horizon = math.ceil(self._iterations / self.method.period(handle.name))
        handle.set_rate(horizon=horizon)
        # Not through Lightning's wrapper, which would count every optimizer's step as one of the run.
        self.trainer.strategy.optimizer_step(optimizer, _nothing)
        optimizer.zero_grad()
        handle.advance()
        return max(group["lr"] for group in optimizer.param_groups)

    def _check_others(self, role: str) -> None:
        """A loss of one role must leave the others' gradients alone, which would wait for their next step."""
        if self._accumulate > 1:
            return
        for name, other in self.roles.trainable.items():
            if name != role and any(parameter.grad is not None for parameter in other.parameters()):
                raise RuntimeError(f"the loss of role {role!r} left gradients in role {name!r}")

    def _count_iteration(self) -> None:
        self.iteration += 1
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def _horizon(self) -> int:
        """Iterations of the whole run."""
        trainer = self.trainer
        assert trainer.estimated_stepping_batches >= 0  # makes the loaders, so that their length is known
        limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limit = min(limit, trainer.max_epochs * trainer.num_training_batches // self._accumulate)
        if not math.isfinite(limit):
            raise ValueError("schedules need an end: set trainer.max_epochs or trainer.max_steps (iterations)")
        return max(int(limit), 1)

    def _place(self) -> None:
        for handle in self.roles.frozen.values():
            handle.module.to(self.device)
        for network in self.method.networks().values():
            network.to(self.device)
        for handle in self.roles.trainable.values():
            if handle.average is not None and handle.average.module is not handle.module:
                handle.average.attach(handle.module)


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""


def _no_gradient(role: str) -> str:
    return f"role {role!r} has no gradient: its loss does not depend on its weights"


def _rank_seed(seed: int, rank: int) -> int:
    digest = hashlib.blake2b(f"rollout/{seed}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _of_all_ranks(own: Tensor) -> list[Tensor]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    return found
