"""A data module over a source that is streamed: trained on as it comes, evaluated on sources that have an index."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from neurotrain.data.decoders import Decoder
from neurotrain.data.engine import Quarantine
from neurotrain.data.loader import StartMethod
from neurotrain.data.parts import Part, SourcePart, Step, check_kept
from neurotrain.data.plan import Plan
from neurotrain.data.planned_module import (
    Chosen,
    EvaluationSplit,
    PlannedDataModule,
    SequentialPlan,
    check_at_least,
)
from neurotrain.data.report import staged
from neurotrain.data.sources import Source, StreamingSource
from neurotrain.data.stream_loader import StreamLoader, opened
from neurotrain.data.stream_reader import Preparation

log = logging.getLogger(__name__)


class StreamDataModule(PlannedDataModule):
    """Trains on a source without random access, in the order that its readers give.

    Every worker of every rank is a reader with a share of its own, so the order is a function of (seed, epoch, number
    of ranks, number of workers), which the run states at its start. It resumes exactly with the same numbers; see
    :class:`~neurotrain.data.stream_loader.StreamLoader`. The seed of the order is the source's. It works with a
    Trainer (``use_distributed_sampler=False``) and alone, but not as a member of a mixture, whose plan needs an index.

    Args:
        train: the stream to train on.
        decoder: makes a typed sample of an entry.
        samples_per_epoch: training samples in an epoch, over all ranks; the size of a stream is unknown. A reader whose
            share is smaller begins it again, and what is beyond is left to other epochs, whose order is another one.
        train_transform: applied to a prepared sample in training; None: nothing.
        eval_transform: likewise in evaluation; deterministic; None: nothing.
        prepare: deterministic first step of both.
        validation: a source of its own, with an index.
        test: the source to test on.
        predict: the source to predict; None: ``test``.
        batch_size: training samples per step and rank.
        eval_batch_size: likewise in evaluation; above 1 the samples must have one shape.
        num_workers: processes that load, for each loader; in training, readers of this rank.
        prefetch: batches that each of them prepares ahead in training.
        timeout: seconds to wait for a training batch from a worker.
        seed: of every random transform.
        start_method: how workers are started.
        quarantine: what to do with bad samples in training: they are counted, written to the ledger and skipped, the
            next one of the stream takes the place. None: the first one ends the run.

    Raises:
        ValueError: if the settings contradict each other.
        TypeError: if a source is of the wrong kind.
    """

    def __init__(
        self,
        *,
        train: StreamingSource,
        decoder: Decoder[Any],
        samples_per_epoch: int,
        train_transform: Step[Any] | None = None,
        eval_transform: Step[Any] | None = None,
        prepare: Step[Any] | None = None,
        validation: Source | None = None,
        test: Source | None = None,
        predict: Source | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        timeout: float = 300.0,
        seed: int = 0,
        start_method: StartMethod = "auto",
        quarantine: Quarantine | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            start_method=start_method,
            quarantine=quarantine,
        )
        check_at_least(1, samples_per_epoch=samples_per_epoch, prefetch=prefetch)
        check_kept(prepare, 0)
        if eval_transform is not None and not eval_transform.deterministic:
            raise ValueError(
                f"eval_transform={type(eval_transform).__name__} draws random numbers: evaluation must not"
            )
        if not isinstance(train, StreamingSource):  # pyright: ignore[reportUnnecessaryIsInstance] - people are untyped
            raise TypeError(f"train={type(train).__name__}: has an index; SourceDataModule is for it")
        self._train = train
        self._sources = {"validation": validation, "test": test, "predict": predict or test}
        self._decoder, self._prepare = decoder, prepare
        self._train_transform, self._eval_transform = train_transform, eval_transform
        self._samples_per_epoch = samples_per_epoch
        self._prefetch, self._timeout = prefetch, timeout
        self._parts: dict[str, Part[Any]] = {}
        self._streamed: StreamLoader | None = None
        self._is_set_up = False

    @property
    def title(self) -> str:
        """Name of the training source."""
        return self._train.name

    def served_alone(self) -> dict[str, Any]:
        """Nothing: a mixture refuses a stream as a whole."""
        return {}

    @property
    def readers(self) -> int:
        """Workers of all ranks, each with a share of the stream; without workers, the ranks."""
        return self.world_size * max(1, self._num_workers)

    @staged("index")
    def setup(self, stage: str) -> None:
        """Find the shards and indexes of a stage's sources; those of another stage may be absent.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ValueError: if a rank or worker would have nothing to read, or the samples do not fill a batch.
        """
        if stage == "fit":
            self._check_batch()
            opened(self._train, readers=self.readers)
            self._is_set_up = True
        if stage in ("fit", "validate"):
            self.evaluation("validation")
        if stage in ("test", "predict"):
            self.evaluation(stage)

    def training(self) -> Chosen:
        """No parts: nothing of a stream can be counted or drawn from.

        Raises:
            ValueError: if it was not set up to be trained on by itself: mixtures and inspection ask so, and need parts.
        """
        if self._is_set_up:
            return Chosen(parts=(), transforms=())
        raise ValueError(
            f"{self.title}: {type(self._train).__name__} is streamed and has no index, which mixtures and inspection "
            "need: use the source of the same layout that has one"
        )

    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """The source of a split; nothing where there is none."""
        source = self._sources[split]
        if source is None:
            return Chosen(parts=(), transforms=())
        if split not in self._parts:
            source.setup()
            self._parts[split] = SourcePart(source=source, decoder=self._decoder, prepare=self._prepare)
        return Chosen(parts=(self._parts[split],), transforms=(self._eval_transform,))

    def train_dataloader(self) -> StreamLoader:  # pyright: ignore[reportIncompatibleMethodOverride] - another loader
        """The stream from where the checkpoint left it, transformed, as many batches on every rank."""
        trainer = self.trainer
        folder = None if self._quarantine is None or trainer is None else Path(trainer.default_root_dir)
        steps = (self._prepare, self._train_transform)
        loader = StreamLoader(
            source=self._train,
            prepare=Preparation(
                decoder=self._decoder, steps=tuple(step for step in steps if step is not None), seed=self._seed
            ),
            batch_size=self._batch_size,
            samples_per_epoch=self._samples_per_epoch,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=self.world_size,
            num_workers=self._num_workers,
            prefetch=self._prefetch,
            start_method=self._start_method,
            timeout=self._timeout,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            quarantine=self._quarantine,
            ledger=folder,
            one_order=self._overfits(),  # overfitting means the same few batches in each epoch
        )
        if self._counted:
            loader.count_on(self._counted)
        self._counted, self._streamed = None, loader
        if trainer is None or trainer.is_global_zero:
            self._announce()
        return loader

    def teardown(self, stage: str) -> None:
        """End all workers; put the ranks' lists of bad samples into one."""
        self._close()
        super().teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        """End all workers."""
        self._close()
        super().on_exception(exception)

    def state_dict(self) -> dict[str, Any]:
        """What must be equal where training is resumed, of plain values; where it goes on is the loader's to say."""
        return {
            "statistics": self.statistics(),
            "train": {self.title: self._identity()},
            "validation": {part.name: part.digest() for part in self.evaluation("validation").parts},
            "plan": self._plan().fingerprint(),
        }

    def statistics(self) -> dict[str, int]:
        """What this rank has read in training so far: see ``StreamLoader.statistics``; empty before."""
        return {} if self._streamed is None else self._streamed.statistics()

    def summary(self) -> dict[str, Any]:
        """What a run was given, of plain values; the size of a stream is unknown, so there is no count of it.

        It tells of what the stages so far have asked for, since data of others may be absent.
        """
        parts = {split: part for split, part in self._parts.items() if split != "predict"}
        told = {
            "name": self.title,
            "fingerprint": "-".join(part.fingerprint() for part in [*parts.values()][:1]),
            "synthetic": None,
            "counts": {split: len(part) for split, part in parts.items()},
            "sources": {split: {part.name: len(part)} for split, part in parts.items()},
        }
        if not self._is_set_up:
            return told
        return {
            **told,
            "fingerprint": self._identity(),
            "streamed": True,
            "readers": self.readers,
            "samples_per_epoch": self._samples_per_epoch,
            "dropped_per_epoch": self._samples_per_epoch % self.global_batch,
            "statistics": self.statistics(),
        }

    def _plan(self) -> Plan:
        return SequentialPlan(lengths=(self._samples_per_epoch,))

    def _identity(self) -> str:
        """Of the shards and the order, as the source tells it before anything is read."""
        fresh = sorted(self._train.state_dict().items())
        return hashlib.blake2b(repr(fresh).encode(), digest_size=8).hexdigest()

    def _close(self) -> None:
        if self._streamed is not None:
            self._streamed.close()

    def _announce(self) -> None:
        log.info(
            "%s is streamed: its order depends on the number of ranks (%d) and workers (%d) and is exempt from the "
            "promise of one order for all; it resumes from its readers' state, with the same numbers",
            self.title,
            self.world_size,
            self._num_workers,
        )
