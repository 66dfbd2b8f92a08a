"""A data module for each storage layout: one source to train on, others to evaluate, each works alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from neurotrain.data.decoders import Decoder, ImageDecoder
from neurotrain.data.decoders.image import PictureDecoder
from neurotrain.data.engine import Quarantine
from neurotrain.data.loader import StartMethod
from neurotrain.data.members import Membership, shape_buckets
from neurotrain.data.mixture import Buckets, MixturePlan
from neurotrain.data.parts import Part, SourcePart, Step, check_kept, split_rows
from neurotrain.data.pictures import PictureSource
from neurotrain.data.plan import EpochPlan, Plan
from neurotrain.data.planned_module import Chosen, EvaluationSplit, PlannedDataModule, Split, check_held_out
from neurotrain.data.report import staged
from neurotrain.data.sources import (
    FolderSource,
    HuggingFaceSource,
    ParquetSource,
    Source,
    TableSource,
    UrlTableSource,
    WebDatasetSource,
)
from neurotrain.storage import LocalStorage, S3Storage, Storage
from neurotrain.storage.layered import LayeredStorage

_NOTHING = Chosen(parts=(), transforms=())


class SourceDataModule(PlannedDataModule):
    """Loaders over one source, wherever it lies.

    Validation is a source of its own or carved out of the training source, by a count or as one of several folds, never
    out of the test source. A column ``group`` of the source's table names subjects that are never split apart.
    It works with a Trainer (``use_distributed_sampler=False``), alone, and as a member of a ``MixtureDataModule``.

    Args:
        train: the source to train on.
        decoder: makes a typed sample of an entry.
        train_transform: applied to a prepared sample at each visit in training; None: nothing.
        eval_transform: likewise in evaluation; deterministic; None: nothing.
        prepare: deterministic first step of both, done once for each sample that is kept in memory.
        validation: a source of its own, or the number of entries to hold out of ``train``.
        folds: number of cross-validation folds, instead of ``validation``.
        fold: which of them is held out, from 0.
        test: the source to test on.
        predict: the source to predict; None: ``test``.
        batch_size: training samples per step and rank.
        eval_batch_size: likewise in evaluation; above 1 the samples must have one shape.
        num_workers: processes that load, for each loader.
        samples_per_epoch: training samples in an epoch, over all ranks; None: each entry once.
        seed: of the held-out entries, the order and every random transform.
        cache_bytes: memory for prepared samples of each source, shared with forked workers.
        start_method: how workers are started.
        quarantine: what to do with samples that cannot be loaded in training; None: the first one ends the run.
        source: images to predict, in place of ``predict``: a folder, a glob or one image, as a path or a URI, see
            :class:`~neurotrain.data.pictures.PictureSource`. They are prepared as all others, and have neither labels
            nor captions. No other stage uses it.

    Raises:
        ValueError: if the settings contradict each other.
        TypeError: if a source, or the storage below it, is none that the module is for.
    """

    accepts: ClassVar[tuple[type[Source], ...]] = (Source,)
    """Kinds of sources that the module is for."""
    storages: ClassVar[tuple[type[Storage], ...]] = (Storage,)
    """Kinds of storages that they may lie in."""

    def __init__(
        self,
        *,
        train: Source,
        decoder: Decoder,  # unsubscripted, as the steps: LightningCLI reads no arguments of Decoder[Any]
        train_transform: Step | None = None,
        eval_transform: Step | None = None,
        prepare: Step | None = None,
        validation: Source | int = 0,
        folds: int | None = None,
        fold: int = 0,
        test: Source | None = None,
        predict: Source | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        start_method: StartMethod = "auto",
        quarantine: Quarantine | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            start_method=start_method,
            quarantine=quarantine,
        )
        check_held_out(validation=validation if isinstance(validation, int) else 1, folds=folds, fold=fold)
        check_kept(prepare, cache_bytes)
        if eval_transform is not None and not eval_transform.deterministic:
            raise ValueError(
                f"eval_transform={type(eval_transform).__name__} draws random numbers: evaluation must not"
            )
        if predict is not None and source is not None:
            raise ValueError(f"source={source!r} and predict={predict.name!r}: give one of them")
        held_out = validation if isinstance(validation, Source) else None
        for key, given in {"train": train, "validation": held_out, "test": test, "predict": predict}.items():
            if given is not None:
                self._check_kind(key, given)
        self._train, self._test = train, test
        self._predict = predict if source is None else PictureSource(location=source)
        self._validation, self._folds, self._fold = validation, folds, fold
        self._decoder, self._prepare = decoder, prepare
        self._train_transform, self._eval_transform = train_transform, eval_transform
        self._samples_per_epoch, self._cache_bytes = samples_per_epoch, cache_bytes
        self._parts: dict[str, Part[Any]] = {}

    @property
    def title(self) -> str:
        """Name of the training source."""
        return self._train.name

    @property
    def source(self) -> Source:
        """What is trained on, held-out entries included."""
        return self._train

    @staged("index")
    def setup(self, stage: str) -> None:
        """Find or build the indexes of a stage's sources; those of another stage may be absent.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ValueError: if validation or folds do not fit the source, or its entries do not fill a batch.
        """
        if stage == "fit":
            self._divide()
            self._check_batch()
        if stage == "validate":
            self.evaluation("validation")
        if stage in ("test", "predict"):
            self.evaluation(stage)

    def training(self) -> Chosen:
        """The training source without what is held out."""
        return Chosen(parts=(self._divide()["train"],), transforms=(self._train_transform,))

    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """The source of a split; nothing where there is none."""
        if split == "validation":
            held = self._validation
            part = self._whole(split, held) if isinstance(held, Source) else self._divide().get(split)
        else:
            # A source has a length, so its truth is asked of an index that may not be there yet.
            source = self._predict if split == "predict" and self._predict is not None else self._test
            part = None if source is None else self._whole(split, source)
        return _NOTHING if part is None else Chosen(parts=(part,), transforms=(self._eval_transform,))

    def served_alone(self) -> dict[str, Any]:
        """As of any data module; the seed also where it draws no held-out entries."""
        drawn = isinstance(self._validation, int) and self._validation > 0
        seed = {} if drawn else {"seed": self._seed}
        return {**super().served_alone(), "samples_per_epoch": self._samples_per_epoch, **seed}

    def buckets(self) -> Buckets | None:
        """By the targets of a preparation that keeps aspects; needs widths and heights in the index."""
        preparation = self._decoder.preparation if isinstance(self._decoder, PictureDecoder) else None
        if preparation is None or preparation.aspect == "square":
            return None
        return shape_buckets(self._divide()["train"].table(), preparation.target, name=self.title)

    def _is_there(self, split: Split) -> bool:
        if not self._parts:
            return super()._is_there(split)
        # Dividing the training source decides on validation; without a test source there is nothing to be absent.
        decided = (split == "validation" and "train" in self._parts) or (split == "test" and self._test is None)
        return decided or split in self._parts

    def _plan(self) -> Plan:
        buckets = self.buckets()
        part = self._divide()["train"]
        if buckets is not None and len(buckets.shapes) > 1:
            return MixturePlan(
                sources=(Membership().plan(part, buckets=buckets),),
                samples_per_epoch=self._samples_per_epoch,
                global_batch=self.global_batch,
                granularity="batch",
                seed=self._seed,
            )
        # Overfitting means the same few batches in each epoch.
        return EpochPlan(
            count=len(part),
            samples_per_epoch=self._samples_per_epoch,
            shuffle=not self._overfits(),
            seed=self._seed,
        )

    def _divide(self) -> Mapping[str, Part[Any]]:
        if "train" not in self._parts:
            self._train.setup()
            count = self._validation if isinstance(self._validation, int) else 0
            rows, held = split_rows(self._train, validation=count, folds=self._folds, fold=self._fold, seed=self._seed)
            if len(held):
                self._parts["validation"] = self._part(self._train, held)
            elif isinstance(self._validation, Source):
                self._whole("validation", self._validation)
            self._parts["train"] = self._part(self._train, rows)
        return self._parts

    def _whole(self, split: str, source: Source) -> Part[Any]:
        if split not in self._parts:
            source.setup()
            self._parts[split] = self._part(source, None)
        return self._parts[split]

    def _part(self, source: Source, rows: Any) -> Part[Any]:  # noqa: ANN401 - of split_rows
        decoder = self._decoder
        if isinstance(source, PictureSource) and isinstance(decoder, PictureDecoder):
            # What belongs to an image elsewhere is not there: neither label, nor caption, nor conditioning.
            decoder = ImageDecoder(
                preparation=decoder.preparation, background=decoder.background, max_pixels=decoder.max_pixels
            )
        return SourcePart(
            source=source, decoder=decoder, prepare=self._prepare, rows=rows, cache_bytes=self._cache_bytes
        )

    def _check_kind(self, key: str, source: Source) -> None:
        name = type(self).__name__
        if not isinstance(source, self.accepts):
            raise TypeError(f"{key}={type(source).__name__}: {name} is for {_names(self.accepts)}")
        storage = source.storage
        while isinstance(storage, LayeredStorage):
            storage = storage.storage
        if storage is not None and not isinstance(storage, self.storages):
            raise TypeError(f"{key}.storage={type(storage).__name__}: {name} is for {_names(self.storages)}")


class LocalDataModule(SourceDataModule):
    """Folders and tables on a local disk."""

    accepts = (FolderSource, TableSource)
    storages = (LocalStorage,)


class S3DataModule(SourceDataModule):
    """Folders, tables, Parquet files and tar shards in S3 or what speaks its protocol."""

    accepts = (FolderSource, TableSource, ParquetSource, WebDatasetSource)
    storages = (S3Storage,)


class CsvDataModule(SourceDataModule):
    """Tables of URLs, and tables of files."""

    accepts = (UrlTableSource, TableSource)


class HuggingFaceDataModule(SourceDataModule):
    """Datasets of the Hugging Face hub, or saved by its library."""

    accepts = (HuggingFaceSource,)


class WebDatasetDataModule(SourceDataModule):
    """Tar shards in WebDataset's layout."""

    accepts = (WebDatasetSource,)


class ParquetDataModule(SourceDataModule):
    """Parquet files with embedded images."""

    accepts = (ParquetSource,)


def _names(kinds: tuple[type, ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)
