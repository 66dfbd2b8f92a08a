"""Several data modules as one: trained on by weight, evaluated one after the other."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neurotrain.data.engine import Quarantine
from neurotrain.data.loader import StartMethod
from neurotrain.data.members import Membership
from neurotrain.data.mixture import Buckets, MixturePlan, SizeProportional, Weights
from neurotrain.data.mixture.plan import Granularity
from neurotrain.data.planned_module import Chosen, EvaluationSplit, PlannedDataModule, Split
from neurotrain.data.report import staged
from neurotrain.data.weighted import WeightedCombinedLoader

_LISTED = 5


class MixtureDataModule(PlannedDataModule):
    """Trains on several sources by weight, exactly, and evaluates on some of them.

    Each member brings its source, decoder, transforms and splits; batches are made here. So a member's own
    ``batch_size``, ``eval_batch_size``, ``samples_per_epoch``, ``num_workers``, ``start_method``, ``quarantine`` (and
    ``seed``, unless it draws the held-out entries) would have no effect: one that is neither its default nor equal to
    the mixture's is refused. Samples of all members must come out of their transforms with the same fields and types,
    and with one shape, but for what a preparation tells (see ``granularity``).

    Args:
        sources: data modules by the name of their training source.
        weights: how much of each; None: in proportion to their sizes.
        members: how a source takes part, by name; those that are not named repeat for ever in random order.
        granularity: what has a source: each sample, or each global batch. Where samples differ in shape, each batch has
            one shape in either case: of all sources that have it, or of one.
        evaluate: names of the members whose validation and test splits are evaluated, one after the other; None: all.
        batch_size: training samples per step and rank.
        eval_batch_size: likewise in evaluation; above 1 the samples must have one shape.
        num_workers: processes that load, for each loader.
        samples_per_epoch: training samples in an epoch, over all ranks; None: as many as all sources have.
        seed: of the order and of every random transform.
        start_method: how workers are started.
        quarantine: what to do with samples that cannot be loaded in training; None: the first one ends the run.

    Raises:
        ValueError: if there are no sources, a name is not that of the member's source, ``evaluate`` names no member, or
            a member's setting has no effect.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, PlannedDataModule],
        weights: Weights | None = None,
        members: Mapping[str, Membership] | None = None,
        granularity: Granularity = "sample",
        evaluate: Sequence[str] | None = None,
        batch_size: int = 8,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        samples_per_epoch: int | None = None,
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
        self._members = dict(sources)
        self._weights = weights or SizeProportional()
        self._memberships = dict(members or {})
        self._granularity: Granularity = granularity
        self._evaluate = tuple(self._members) if evaluate is None else tuple(evaluate)
        self._samples_per_epoch = samples_per_epoch
        self._check_names()
        self._check_effects()

    @property
    def title(self) -> str:
        """Names of all sources."""
        return "+".join(self._members)

    @staged("index")
    def setup(self, stage: str) -> None:
        """Set up every member for a stage.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ValueError: if weights and sources do not fit together, or evaluated members have samples of one id.
        """
        for member in self._members.values():
            if stage == "fit":
                member.training()
        if stage == "fit":
            self._check_batch()
        if stage in ("fit", "validate"):
            self.evaluation("validation")
        if stage in ("test", "predict"):
            self.evaluation(stage)

    def training(self) -> Chosen:
        """Every member's training source."""
        return _joined(member.training() for member in self._members.values())

    def evaluation(self, split: EvaluationSplit) -> Chosen:
        """The split of every member that is evaluated, and that has one."""
        chosen = _joined(member.evaluation(split) for member in self._evaluated(split))
        _check_ids(chosen, split)
        return chosen

    def train_dataloader(self) -> WeightedCombinedLoader:
        """All sources by weight, without the last partial batch; resumable."""
        return WeightedCombinedLoader(loader=self._loader(self.training(), self._order(), train=True))

    def summary(self) -> dict[str, Any]:
        """As of any data module, and what was mixed."""
        told = super().summary()
        if "train" not in told["counts"]:
            return told
        plan = self._plan()
        return {**told, "mixture": plan.describe(), "report": plan.report()}

    @property
    def has_test_split(self) -> bool:
        """Whether any member that is evaluated has one."""
        return any(self._members[name].has_test_split for name in self._evaluate)

    def _evaluated(self, split: EvaluationSplit) -> list[PlannedDataModule]:
        members = [self._members[name] for name in self._evaluate]
        return [member for member in members if split != "test" or member.has_test_split]

    def _is_there(self, split: Split) -> bool:
        names = self._members if split == "train" else self._evaluate
        return all(self._members[name]._is_there(split) for name in names)

    def _plan(self) -> MixturePlan:
        ways = {name: self._memberships.get(name, Membership()) for name in self._members}
        buckets = self._buckets()
        return MixturePlan(
            sources=tuple(
                way.plan(self._members[name].training().parts[0], buckets=buckets[name]) for name, way in ways.items()
            ),
            weights=self._weights,
            samples_per_epoch=self._samples_per_epoch,
            global_batch=self.global_batch,
            granularity=self._granularity,
            accumulation=self._accumulation(),
            batches_per_epoch=self._limit(),
            seed=self._seed,
        )

    def _buckets(self) -> dict[str, Buckets | None]:
        """Shapes of the members, as far as they matter: a source of one shape shares it with others by the sample."""
        found = {name: member.buckets() for name, member in self._members.items()}
        several = [name for name, buckets in found.items() if buckets is not None and len(buckets.shapes) > 1]
        kept = found if several and self._granularity == "sample" else several
        return {name: found[name] if name in kept else None for name in found}

    def _accumulation(self) -> int:
        trainer = self.trainer
        return 1 if trainer is None else trainer.accumulate_grad_batches  # pyright: ignore[reportAttributeAccessIssue]

    def _limit(self) -> int | float | None:
        trainer = self.trainer
        limit = None if trainer is None else trainer.limit_train_batches  # pyright: ignore[reportAttributeAccessIssue]
        return None if limit == 1.0 and isinstance(limit, float) else limit

    def served_alone(self) -> dict[str, Any]:
        """As of any data module."""
        return {**super().served_alone(), "samples_per_epoch": self._samples_per_epoch, "seed": self._seed}

    def _check_effects(self) -> None:
        own = self.served_alone()
        idle = [
            f"sources.{name}.{key}={value!r} has no effect: {key} of the mixture ({own[key]!r}) counts; leave it out"
            for name, member in self._members.items()
            for key, value in member.served_alone().items()
            if value not in (own[key], _default(member, key))
        ]
        if idle:
            raise ValueError("\n".join(idle))

    def _check_names(self) -> None:
        if not self._members:
            raise ValueError("sources={}: a mixture needs at least one")
        for name, member in self._members.items():
            if member.title != name:
                raise ValueError(f"sources.{name}: its source is named {member.title!r}; name both alike")
        for key, names in {"evaluate": self._evaluate, "members": self._memberships}.items():
            unknown = [name for name in names if name not in self._members]
            if unknown:
                raise ValueError(f"{key}={list(names)}: {unknown} are not among {list(self._members)}")


def _default(member: PlannedDataModule, key: str) -> Any:  # noqa: ANN401 - of any setting
    parameter = inspect.signature(type(member).__init__).parameters.get(key)
    return None if parameter is None else parameter.default


def _joined(several: Iterable[Chosen]) -> Chosen:
    listed = list(several)
    return Chosen(
        parts=tuple(part for chosen in listed for part in chosen.parts),
        transforms=tuple(transform for chosen in listed for transform in chosen.transforms),
    )


def _check_ids(chosen: Chosen, split: str) -> None:
    """Refuse samples of one id: figures are counted once for each."""
    if len(chosen.parts) < 2:
        return
    counts = Counter(name for part in chosen.parts for name in part.table().column("id").to_pylist())
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        names = [part.name for part in chosen.parts]
        raise ValueError(
            f"{split}: {len(twice)} ids occur in more than one of {names} ({', '.join(twice[:_LISTED])}): "
            "name the members to evaluate by evaluate=[...]"
        )
