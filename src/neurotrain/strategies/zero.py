"""ZeRO by DeepSpeed, on GPUs and, to try it, on a CPU."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from argparse import Namespace
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.core.optimizer import _init_optimizers_and_lr_schedulers
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from neurotrain.strategies.one_file import share_buffers
from neurotrain.strategies.zero_checks import check_finite, check_run, check_schedules
from neurotrain.strategies.zero_start import no_broadcast, take_over_first, use_cpu
from neurotrain.strategies.zero_state import (
    ParameterGroups,
    gather_optimizer,
    gather_weights,
    share_out,
)
from neurotrain.strategies.zero_whole import evaluated_whole, make_whole

BUCKETS = ("reduce_bucket_size", "allgather_bucket_size")
"""DeepSpeed's names of how many elements are communicated at once."""


class ZeroStrategy(DeepSpeedStrategy):
    r"""Shares out what training keeps of a parameter: its optimizer's state, its gradient, the parameter itself.

    The optimizer is the task's own. Results are those of DDP up to the order in which gradients are summed, also with
    accumulated batches and gradients clipped by their global norm. With ``precision=bf16-mixed`` or ``16-mixed``
    DeepSpeed keeps the weights of forward and backward in that type and its own in float32, instead of autocasting.

    A checkpoint is one file of whole tensors, as that of any other strategy. So a run may go on, optimizer included, at
    another world size, stage or strategy. Each process builds the whole task before it is shared out; what is saved is
    gathered parameter by parameter in the main memory of the first process: 12 bytes a parameter under Adam.

    Reference:
        Rajbhandari et al., 2020 (arXiv:1910.02054); Ren et al., 2021 (arXiv:2101.06840) for offloading.
    """

    def __init__(
        self,
        *,
        stage: Literal[1, 2, 3] = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        bucket_size: int = 200_000_000,
        timeout_seconds: int = 1800,
    ) -> None:
        """Set what is shared out.

        Args:
            stage: 1 shares the optimizer's state out, 2 gradients as well, 3 parameters as well.
            offload_optimizer: keep the optimizer's state in main memory and step there.
            offload_parameters: keep parameters in main memory until they are needed; stage 3 only.
            bucket_size: elements that are reduced or gathered at once.
            timeout_seconds: after which a collective that does not end is an error.

        Raises:
            ValueError: if a value is out of range, or parameters are to be offloaded below stage 3.
            ImportError: if DeepSpeed is not installed.
        """
        if stage not in (1, 2, 3):
            raise ValueError(f"stage={stage}: expected 1, 2 or 3")
        if offload_parameters and stage != 3:
            raise ValueError(f"offload_parameters=true needs stage=3, not {stage}: below it no parameter is shared out")
        for name, value in (("bucket_size", bucket_size), ("timeout_seconds", timeout_seconds)):
            if value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        self.stage, self.bucket_size = stage, bucket_size
        self._groups: ParameterGroups = []
        self._failed = False
        self._evaluation = ExitStack()
        config = zero_config(
            stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            bucket_size=bucket_size,
        )
        if find_spec("deepspeed") is None:
            raise ImportError("ZeroStrategy needs DeepSpeed: DS_BUILD_OPS=0 pip install 'neurotrain[deepspeed]'")
        super().__init__(config=config, timeout=timedelta(seconds=timeout_seconds))

    def setup_environment(self) -> None:
        """Starts the processes' group, on the CPU as well.

        Raises:
            ValueError: if the run holds what ZeRO does not do.
        """
        trainer = self.lightning_module.trainer if self.lightning_module is not None else None
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            check_run(trainer, trainer.lightning_module, stage=self.stage)
        self._failed = False
        if not isinstance(self.accelerator, CPUAccelerator):
            super().setup_environment()
            return
        use_cpu()
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """Joins the processes' group; processes on a CPU have no device numbers to compare."""
        if not isinstance(self.accelerator, CPUAccelerator):
            super().setup_distributed()
            return
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether a checkpoint is read late: no, callbacks are to find what they find under any other strategy."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether :meth:`load_optimizer_state_dict` is called."""
        return True

    @property
    def handles_gradient_accumulation(self) -> bool:
        """Whether DeepSpeed counts batches itself: no, it would go on counting past the end of an epoch."""
        return False

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Tells DeepSpeed whether a step follows; the loss has been divided by the accumulated batches already."""
        assert self.lightning_module is not None
        if args or kwargs:  # only manual_backward passes more, and manual optimization is refused before
            raise TypeError(f"{[*args, *kwargs]}: DeepSpeed's backward pass takes a loss alone")
        accumulates = self.lightning_module.trainer.fit_loop._should_accumulate()
        self.deepspeed_engine.set_gradient_accumulation_boundary(not accumulates)
        return super().backward(closure_loss, optimizer, scale_wrt_gas=False)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights, on the first process only; all of them have to call it."""
        assert self.lightning_module is not None
        self._evaluation.close()
        task, keep = self.lightning_module, self.is_global_zero
        found = gather_weights(task, self._optimizer(), self._groups, device=self.root_device, keep=keep)
        if self.stage == 3:
            trained = {name: found[name] for name, _ in task.named_parameters() if keep}
            check_finite(task.trainer, trained)
        return found

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of the task's optimizer, on the first process only; all of them have to call it."""
        return gather_optimizer(self._optimizer(), self._groups, device=self.root_device, keep=self.is_global_zero)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        """Writes one file, as DDP does."""
        super(DeepSpeedStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Reads one file, of any strategy."""
        return super(DeepSpeedStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes whole weights, before they are shared out."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Shares out the optimizer's state, and the float32 weights that a cast to the engine's type has cut short."""
        assert self.lightning_module is not None
        names = {id(parameter): name for name, parameter in self.lightning_module.named_parameters()}
        saved = checkpoint["state_dict"]
        weights = [saved[names[id(parameter)]] for group in self._groups for parameter in group]
        share_out(self._optimizer(), self._groups, weights=weights, state=checkpoint["optimizer_states"][0])

    @contextmanager
    def block_backward_sync(self) -> Generator[None]:
        """What accumulated batches spare: nothing more than the boundary that :meth:`backward` tells DeepSpeed."""
        yield

    def on_validation_start(self) -> None:
        """Evaluates with the first process's running statistics, as DDP does, and with whole parameters."""
        assert self.lightning_module is not None
        share_buffers(self.lightning_module)
        if self.stage == 3 and isinstance(self.model, nn.Module) and self.model is not self.lightning_module:
            self._evaluation.enter_context(evaluated_whole(self.lightning_module, self._optimizer()))
            self._evaluation.callback(setattr, self, "model", self.model)
            self.model = self.lightning_module

    def on_validation_end(self) -> None:
        """Goes back to shared parameters."""
        self._evaluation.close()

    def on_test_start(self) -> None:
        """Evaluates with the first process's running statistics."""
        self.on_validation_start()

    def on_predict_start(self) -> None:
        """Evaluates with the first process's running statistics."""
        self.on_validation_start()

    def on_exception(self, exception: BaseException) -> None:
        """Notes that other processes may no longer be where this one is."""
        self._failed = True
        self._evaluation.close()

    def teardown(self) -> None:
        """Makes the task whole again after a fit, so that what comes next finds it as it was built."""
        task, engine = self.lightning_module, self.model
        if not self._failed and task is not None and engine is not task and engine is not None:
            make_whole(task)
            self.deepspeed_engine.destroy()
            self.model = task
        super().teardown()

    def _initialize_deepspeed_inference(self, model: nn.Module) -> None:
        """Evaluates the task as it is: nothing is to be shared out where nothing is trained."""
        dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(self.precision_plugin.precision.split("-")[0])
        self.model = model.to(self.root_device, dtype)

    def _setup_model_and_optimizer(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        lr_scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    ) -> Any:  # noqa: ANN401 - DeepSpeed has no types
        import deepspeed

        self._groups = [] if optimizer is None else [list(group["params"]) for group in optimizer.param_groups]
        take_over_first(model, self.root_device)
        assert isinstance(self.config, dict)
        # Buffers as large as a bucket are allocated at once, however small the task is.
        elements = sum(parameter.numel() for parameter in model.parameters())
        for name in BUCKETS:
            self.config["zero_optimization"][name] = min(self.bucket_size, elements)
        on_cpu = isinstance(self.accelerator, CPUAccelerator)
        initialize = cast(Any, deepspeed.initialize)
        with no_broadcast():
            engine, wrapped, *_ = initialize(
                args=Namespace(device_rank=self.local_rank if on_cpu else self.root_device.index),
                config=self.config,
                model=model,
                model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
                optimizer=optimizer,
                lr_scheduler=lr_scheduler,
                dist_init_required=False,
            )
        return engine, wrapped

    def _init_optimizers(self) -> tuple[Optimizer, LRSchedulerConfig | None]:
        assert self.lightning_module is not None
        optimizers, schedules = _init_optimizers_and_lr_schedulers(self.lightning_module)
        check_schedules(self.lightning_module, len(schedules))
        return optimizers[0], schedules[0] if schedules else None

    def _optimizer(self) -> Any:  # noqa: ANN401 - DeepSpeed has no types
        return self.optimizers[0] if self.optimizers else None


def zero_config(
    stage: Literal[1, 2, 3], *, offload_optimizer: bool, offload_parameters: bool, bucket_size: int
) -> dict[str, Any]:
    """Write DeepSpeed's configuration; Lightning adds precision, clipping and accumulated batches.

    Args:
        stage: of ZeRO.
        offload_optimizer: whether the optimizer works in main memory.
        offload_parameters: whether parameters wait in main memory.
        bucket_size: elements that are communicated at once.

    Returns:
        What ``deepspeed.initialize(config=...)`` takes.

    Example:
        >>> config = zero_config(3, offload_optimizer=True, offload_parameters=False, bucket_size=1000)
        >>> config["zero_optimization"]["offload_optimizer"]
        {'device': 'cpu', 'pin_memory': False}
    """
    zero: dict[str, Any] = {"stage": stage, **dict.fromkeys(BUCKETS, bucket_size)}
    for part, offloaded in (("offload_optimizer", offload_optimizer), ("offload_param", offload_parameters)):
        if offloaded:
            zero[part] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "zero_optimization": zero,
        # The task's optimizer stays the task's, also on the CPU, where DeepSpeed would want its own Adam.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Only for DeepSpeed's own log, and asked of Lightning it would make the loaders to find out.
        "train_micro_batch_size_per_gpu": 1,
        "steps_per_print": 10**9,
    }
