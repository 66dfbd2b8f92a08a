"""A search by Optuna's ask and tell: its study is a file, and what was running when it was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurotrain.app.sweeps.search_settings import (
    Categorical,
    FloatRange,
    IntRange,
    Parameter,
    Scalar,
    SearchSettings,
    Value,
)
from neurotrain.app.sweeps.trials import PRUNED, Outcome, Plan, Status, SweepError, read_rows

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

STUDY = "study.db"


class Search:
    """Trials that a sampler chooses, each knowing the ones that ended before.

    The study lies in ``study.db`` in the sweep's folder. A trial that the study holds as running when the search begins
    was left by a driver that died: it is taken up with its own parameters. The random draws of a trial depend on the
    seed and its number alone, so a search of one job at a time that was killed chooses what it would have chosen.

    Args:
        settings: of the search.
        folder: of the sweep.
        plan: makes the plan of a trial from its number and its parameters.

    Raises:
        SweepError: if Optuna is not installed.
    """

    def __init__(
        self, settings: SearchSettings, *, folder: Path, plan: Callable[[int, dict[str, Value]], Plan]
    ) -> None:
        self.settings = settings
        self._plan = plan
        self._distributions = {key: _distribution(parameter) for key, parameter in settings.space.items()}
        self._lists: dict[tuple[str, Any], Value] = {
            (key, _stored(choice)): choice
            for key, parameter in settings.space.items()
            if isinstance(parameter, Categorical)
            for choice in parameter.choices
            if isinstance(choice, list)
        }
        self._study = _study(settings, folder)
        self._reported: dict[int, int] = {}

    @property
    def objective(self) -> str:
        """Name of the figure that decides."""
        return self.settings.objective

    def known(self) -> list[Plan]:
        """Return the trials of the study."""
        return [self._plan(trial.number, self._parameters(trial.number)) for trial in self._study.get_trials()]

    def next(self) -> Plan | None:
        """Ask for one more trial, or return None where there are enough."""
        number = len(self._study.get_trials(deepcopy=False))
        if number >= self.settings.trials:
            return None
        self._study.sampler = _sampler(self.settings, number)
        trial = self._study.ask(self._distributions)
        return self._plan(trial.number, self._meant(trial.params))

    def watch(self, plan: Plan) -> str | None:
        """Report the rows that a trial has logged, and say whether it should end early."""
        if self.settings.pruner.type == "none":
            return None
        rows = read_rows(Path(plan.run_dir), self.objective)
        if plan.number not in self._reported:
            frozen = self._study.get_trials(deepcopy=False)[plan.number]
            self._reported[plan.number] = len(frozen.intermediate_values)
        first = self._reported[plan.number]
        if len(rows) <= first:
            return None
        trial = self._trial(plan.number)
        for index, value in enumerate(rows[first:], start=first):
            trial.report(value, index)
        self._reported[plan.number] = len(rows)
        return PRUNED if trial.should_prune() else None

    def done(self, plan: Plan, outcome: Outcome) -> None:
        """Tell the study; an interrupted trial stays open, to be taken up."""
        from optuna.trial import TrialState

        state = self._study.get_trials(deepcopy=False)[plan.number].state
        if state.is_finished() or outcome.status in (Status.INTERRUPTED, Status.WAITING):
            return
        if outcome.status is Status.FINISHED:
            value = outcome.objective
            is_number = value is not None and value == value
            self._study.tell(plan.number, value if is_number else None, None if is_number else TrialState.FAIL)
        else:
            self._study.tell(
                plan.number, state=TrialState.PRUNED if outcome.status is Status.PRUNED else TrialState.FAIL
            )

    def repeats(self, outcome: Outcome) -> bool:
        """Return whether the trial was interrupted; one that failed has told that its parameters do not work."""
        return outcome.status is Status.INTERRUPTED

    def _trial(self, number: int) -> optuna.trial.Trial:
        from optuna.trial import Trial

        # No public way leads from a number to a living trial; Optuna's own callbacks take this one.
        identity = self._study.get_trials(deepcopy=False)[number]._trial_id  # pyright: ignore[reportPrivateUsage]
        return Trial(self._study, identity)

    def _parameters(self, number: int) -> dict[str, Value]:
        """Return a trial's parameters; what a driver that was killed had not drawn yet is drawn now."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        missing = {key: value for key, value in self._distributions.items() if key not in frozen.params}
        if missing and not frozen.state.is_finished():
            self._study.sampler = _sampler(self.settings, number)
            trial = self._trial(number)
            for key, distribution in missing.items():
                _suggest(trial, key, distribution)
        return self._meant(self._study.get_trials(deepcopy=False)[number].params)

    def _meant(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """Return parameters as the space names them: lists are texts in the study."""
        return {key: self._lists.get((key, value), value) for key, value in params.items()}


def _study(settings: SearchSettings, folder: Path) -> optuna.Study:
    try:
        import optuna
    except ImportError:
        raise SweepError("hparams_search= needs Optuna: pip install 'neurotrain[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = settings.pruner
    return optuna.create_study(
        storage=f"sqlite:///{folder.absolute() / STUDY}",
        study_name="search",
        direction=settings.direction,
        load_if_exists=True,
        sampler=_sampler(settings, 0),
        pruner=optuna.pruners.NopPruner()
        if pruner.type == "none"
        else optuna.pruners.MedianPruner(pruner.startup_trials, pruner.warmup_rows),
    )


def _sampler(settings: SearchSettings, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    seed = settings.sampler.seed * 1_000_003 + number
    if settings.sampler.type == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=settings.sampler.startup_trials, seed=seed, constant_liar=True)


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match parameter:
        case FloatRange():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
        case IntRange():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
        case Categorical():
            return CategoricalDistribution([_stored(choice) for choice in parameter.choices])


def _stored(choice: Value) -> Scalar:
    return json.dumps(choice) if isinstance(choice, list) else choice


def _suggest(trial: optuna.trial.Trial, key: str, distribution: BaseDistribution) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, FloatDistribution):
        trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    else:
        assert isinstance(distribution, CategoricalDistribution)
        trial.suggest_categorical(key, distribution.choices)
