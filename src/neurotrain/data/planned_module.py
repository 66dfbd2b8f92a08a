"""What data modules over parts have in common: planned loaders, evaluation in order, a summary, a checked state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal
from weakref import WeakSet, ref

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader

from neurotrain.data.engine import Quarantine, merge_ledgers
from neurotrain.data.loader import PlannedLoader, StartMethod
from neurotrain.data.mixture import Buckets, MixturePlan
from neurotrain.data.parts import Part, PartSamples, Step
from neurotrain.data.plan import Plan, PlanBlock
from neurotrain.data.report import Stages

EvaluationSplit = Literal["validation", "test", "predict"]
"""What is read in order and once."""

Split = Literal["train", "validation", "test", "predict"]

_SPLITS: tuple[Split, ...] = ("train", "validation", "test", "predict")
_STATISTICS = "statistics"


@dataclass(frozen=True, kw_only=True)
class SequentialPlan:
    """Every sample of several parts once, in order.

    Args:
        lengths: of the parts.

    Example:
        >>> SequentialPlan(lengths=(2, 1)).block(epoch=0, first=1, last=3)
        PlanBlock(source=array([0, 1], dtype=int32), index=array([1, 0]))
    """

    lengths: tuple[int, ...]

    def length(self, epoch: int) -> int:
        """Samples of all parts."""
        return sum(self.lengths)

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """The samples at positions ``[first, last)``."""
        ends = np.array(list(accumulate(self.lengths)), np.int64)
        positions = np.arange(first, last, dtype=np.int64)
        source = np.searchsorted(ends, positions, side="right")
        starts = ends - np.array(self.lengths, np.int64)
        return PlanBlock(source.astype(np.int32), positions - starts[source])

    def fingerprint(self) -> str:
        """The lengths, as they stand."""
        return "sequential:" + ",".join(map(str, self.lengths))


@dataclass(frozen=True, kw_only=True)
class FirstEpoch:
    """The first epoch of a plan in every epoch, for whoever overfits on purpose.

    Args:
        plan: whose epochs differ.
    """

    plan: Plan

    def length(self, epoch: int) -> int:
        """Of the first epoch."""
        return self.plan.length(0)

    def block(self, *, epoch: int, first: int, last: int) -> PlanBlock:
        """Of the first epoch."""
        return self.plan.block(epoch=0, first=first, last=last)

    def fingerprint(self) -> str:
        """The plan's, marked."""
        return f"first-epoch:{self.plan.fingerprint()}"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Parts of one split with their transforms, in the plan's order.

    Attributes:
        parts: of the data.
        transforms: one for each.
    """

    parts: tuple[Part[Any], ...]
    transforms: tuple[Step[Any] | None, ...]

    def __len__(self) -> int:
        """Samples of all parts."""
        return sum(map(len, self.parts))


class PlannedDataModule(LightningDataModule, ABC):
    """A data module whose loaders follow plans; a subclass says which parts and which plan.

    Args:
        batch_size: training samples per step and rank.
        eval_batch_size: likewise in evaluation; above 1 the samples must have one shape.
        num_workers: processes that load, for each loader.
        seed: of the order and of every random transform.
        start_method: how workers are started.
        quarantine: what to do with samples that cannot be loaded in training; None: the first one ends the run.

    Raises:
        ValueError: if a number is out of its range.
    """

    ragged: ClassVar[tuple[str, ...]] = ()
    """Fields of a sample that batches list, for their shapes differ."""

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        start_method: StartMethod,
        quarantine: Quarantine | None,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_at_least(0, num_workers=num_workers)
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._num_workers = num_workers
        self._seed = seed
        self._start_method: StartMethod = start_method
        self._quarantine = quarantine
        self._loaders: WeakSet[PlannedLoader] = WeakSet()
        self.stages = Stages()
        self._trained: PlannedLoader | None = None  # kept for its counts: Lightning lets go of it
        self._trained_by: Callable[[], object] = _nobody
        self._counted: Mapping[str, int] | None = None  # of a checkpoint

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the data, for tables and ``summary.json``."""

    @abstractmethod
    def training(self) -> Chosen:
        """What is trained on."""

    @abstractmethod
    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """What a split is evaluated on; no parts where there is nothing."""

    def buckets(self) -> Buckets | None:
        """Shape of each training sample where they may differ; where they do, batches are of one shape each."""
        return None

    def served_alone(self) -> dict[str, Any]:
        """Settings that serve this module where it is used by itself, and nothing in a mixture, by name."""
        return {
            "batch_size": self._batch_size,
            "eval_batch_size": self._eval_batch_size,
            "num_workers": self._num_workers,
            "start_method": self._start_method,
            "quarantine": self._quarantine,
        }

    @abstractmethod
    def _plan(self) -> Plan:
        """Order of the training samples."""

    def train_dataloader(self) -> PlannedLoader | CombinedLoader:
        """Shuffled, transformed, without the last partial batch; resumable."""
        return self._loader(self.training(), self._order(), train=True)

    def val_dataloader(self) -> PlannedLoader | list[PlannedLoader]:
        """The held-out samples in order; an empty list where nothing is held out."""
        return self._eval_loader("validation") or []

    def test_dataloader(self) -> PlannedLoader | list[PlannedLoader]:
        """The test samples in order."""
        return self._eval_loader("test") or []

    def predict_dataloader(self) -> PlannedLoader | list[PlannedLoader]:
        """The samples to predict, in order."""
        return self._eval_loader("predict") or []

    @property
    def has_test_split(self) -> bool:
        """Whether there is anything to test on."""
        return len(self.evaluation("test")) > 0

    def teardown(self, stage: str) -> None:
        """End all workers; put the ranks' lists of bad samples into one."""
        for loader in self._loaders:
            loader.close()
        trainer = self.trainer
        if stage == "fit" and self._quarantine is not None and trainer is not None:
            trainer.strategy.barrier("ledgers")
            if trainer.is_global_zero:
                merge_ledgers(Path(trainer.default_root_dir))

    def on_exception(self, exception: BaseException) -> None:
        """End all workers, which Lightning leaves alone when validation fails; put the list of bad samples together."""
        for loader in self._loaders:
            loader.close()
        trainer = self.trainer
        if self._quarantine is None or trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.is_global_zero:
            # No barrier: the other ranks may be anywhere. What they write from now on stays in their own files.
            merge_ledgers(Path(trainer.default_root_dir))

    def state_dict(self) -> dict[str, Any]:
        """What must be equal where training is resumed, and what was counted so far, of plain values.

        The loader's own state has the counts too, but Lightning ignores it at the end of an epoch.
        """
        return {
            _STATISTICS: self.statistics(),
            "train": {part.name: part.digest() for part in self.training().parts},
            "validation": {part.name: part.digest() for part in self.evaluation("validation").parts},
            "plan": self._plan().fingerprint(),
            "global_batch": self.global_batch,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to train on with other data; evaluation may use a checkpoint on any.

        Raises:
            ValueError: names what differs.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        self._counted = state_dict.get(_STATISTICS)
        for name, value in self.state_dict().items():
            if name != _STATISTICS and state_dict[name] != value:
                raise ValueError(
                    f"cannot resume: the checkpoint was trained with {name}={state_dict[name]!r}, "
                    f"this run has {name}={value!r}"
                )

    def statistics(self) -> dict[str, int]:
        """What this rank has read in training so far: see ``PlannedLoader.statistics``; empty before."""
        return {} if self._trained is None else self._trained.statistics()

    def summary(self) -> dict[str, Any]:
        """What a run was given, of plain values: name, fingerprint, counts of each split and source, statistics.

        It tells of the splits that the stages so far have asked for (before any: of all), since data of others may be
        absent. The fingerprint is that of the training sources, or of what was evaluated instead.
        """
        splits = {split: self._chosen(split) for split in _SPLITS if self._is_there(split)}
        splits = {split: chosen for split, chosen in splits.items() if len(chosen)}
        told = {
            "name": self.title,
            "fingerprint": "-".join(part.fingerprint() for chosen in [*splits.values()][:1] for part in chosen.parts),
            "synthetic": None,
            "counts": {split: len(chosen) for split, chosen in splits.items()},
            "sources": {split: {part.name: len(part) for part in chosen.parts} for split, chosen in splits.items()},
        }
        if "train" not in splits:
            return told
        length = self._plan().length(0)
        return {
            **told,
            "samples_per_epoch": length,
            "dropped_per_epoch": length % self.global_batch,
            "statistics": self.statistics(),
        }

    @property
    def world_size(self) -> int:
        """Processes that share the samples; those that share each layer of a network see the same ones."""
        return self._share()[1]

    def _share(self) -> tuple[int, int]:
        """This process's place among those that share the samples, and how many they are."""
        trainer = self.trainer
        if trainer is None:
            return 0, 1
        if not isinstance(trainer.strategy, ModelParallelStrategy):
            return trainer.global_rank, trainer.world_size
        told = trainer.strategy.distributed_sampler_kwargs
        return told["rank"], told["num_replicas"]

    @property
    def global_batch(self) -> int:
        """Samples that all ranks take together in one step."""
        return self._batch_size * self.world_size

    def _is_there(self, split: Split) -> bool:
        """Whether the data of a split were asked for by a stage, or, before any stage, may be."""
        return split != "predict"

    def _chosen(self, split: Split) -> Chosen:
        return self.training() if split == "train" else self.evaluation(split)

    def _order(self) -> Plan:
        plan = self._plan()
        return FirstEpoch(plan=plan) if self._overfits() and isinstance(plan, MixturePlan) else plan

    def _check_batch(self) -> None:
        length, needed = self._plan().length(0), self.global_batch
        if length < needed:
            raise ValueError(
                f"batch_size={self._batch_size} on {self.world_size} rank(s) needs {needed} samples per epoch, "
                f"there are {length}: raise samples_per_epoch or lower batch_size"
            )

    def _overfits(self) -> bool:
        trainer = self.trainer
        return trainer is not None and trainer.overfit_batches > 0  # pyright: ignore[reportAttributeAccessIssue]

    def _eval_loader(self, split: EvaluationSplit) -> PlannedLoader | None:
        chosen = self.evaluation(split)
        if not len(chosen):
            return None
        return self._loader(chosen, SequentialPlan(lengths=tuple(map(len, chosen.parts))), train=False)

    def _loader(self, chosen: Chosen, plan: Plan, *, train: bool) -> PlannedLoader:
        quarantine = self._quarantine if train else None
        if self._num_workers:
            with self.stages.measured("memory"):
                for part in chosen.parts:
                    # Before workers are forked: they share what is there and keep nothing.
                    part.fill(strict=quarantine is None)
        trainer = self.trainer
        loader = PlannedLoader(
            dataset=PartSamples(parts=chosen.parts, transforms=chosen.transforms, seed=self._seed),
            plan=plan,
            batch_size=self._batch_size if train else self._eval_batch_size,
            drop_last=train,
            rank=self._share()[0],
            world_size=self.world_size,
            num_workers=self._num_workers,
            persistent_workers=train and self._num_workers > 0,
            start_method=self._start_method,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            ragged=self.ragged,
            quarantine=quarantine,
            ledger=None if quarantine is None or trainer is None else Path(trainer.default_root_dir),
            sources=tuple(part.name for part in chosen.parts),
            targets=plan.targets if isinstance(plan, MixturePlan) else None,
        )
        self._loaders.add(loader)
        if train:
            self._count_on(loader)
        return loader

    def _count_on(self, loader: PlannedLoader) -> None:
        """Let a training loader add to what its predecessors in the same training have counted."""
        trainer, before = self.trainer, self._counted
        if before is None and trainer is not None and self._trained is not None and self._trained_by() is trainer:
            before = self._trained.statistics()
        if before:
            loader.count_on(before)
        self._counted, self._trained = None, loader
        self._trained_by = _nobody if trainer is None else ref(trainer)


def _nobody() -> None:
    """A reference to no trainer."""


def check_at_least(least: int, **numbers: int) -> None:
    """Refuse numbers below a bound.

    Raises:
        ValueError: names the first one.
    """
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name}={number}: must be at least {least}")


def check_held_out(*, validation: int, folds: int | None, fold: int) -> None:
    """Refuse settings of validation that contradict each other.

    Raises:
        ValueError: names them.
    """
    check_at_least(0, validation=validation)
    if validation and folds is not None:
        raise ValueError(f"validation={validation} and folds={folds}: give one of them")
    if fold and folds is None:
        raise ValueError(f"fold={fold} has no effect without folds")
