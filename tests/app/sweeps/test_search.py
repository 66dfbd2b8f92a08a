"""A search by ask and tell: typed, seeded, pruned, killed and taken up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from neurotrain.app.sweeps.search import Search
from neurotrain.app.sweeps.search_settings import SearchSettings, Value, override, search_settings
from neurotrain.app.sweeps.trials import PRUNED, Outcome, Plan, Status, SweepError

CONTENT = {
    "objective": "val/score",
    "direction": "maximize",
    "trials": 6,
    "sampler": {"seed": 1, "startup_trials": 3},
    "pruner": {"startup_trials": 2, "warmup_rows": 1},
    "space": {
        "lr": {"type": "float", "low": 1.0e-4, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 2, "high": 6, "step": 2},
        "model/network": {"type": "categorical", "choices": ["unet", "wnet"]},
        "widths": {"type": "categorical", "choices": [[8, 16], [8, 16, 32]]},
    },
}


def _settings(folder: Path, **typed: object) -> SearchSettings:
    (folder / "hparams_search").mkdir(exist_ok=True)
    (folder / "hparams_search" / "tiny.yaml").write_text(yaml.safe_dump(CONTENT))
    return search_settings("tiny", {key.replace("__", "."): value for key, value in typed.items()}, [folder])


def _planner(folder: Path) -> Callable[[int, dict[str, Value]], Plan]:
    def plan(number: int, parameters: dict[str, Value]) -> Plan:
        varied = tuple(override(key, value) for key, value in parameters.items())
        return Plan(number, varied, varied, str(folder / "runs" / str(number)))

    return plan


def _search(folder: Path, **typed: object) -> Search:
    return Search(_settings(folder, **typed), folder=folder, plan=_planner(folder))


def _score(plan: Plan) -> float:
    values = dict(text.split("=") for text in plan.overrides)
    return float(values["lr"]) + int(values["depth"])


def _finish(search: Search, plan: Plan) -> None:
    search.done(plan, Outcome(Status.FINISHED, _score(plan)))


def test_a_search_that_was_killed_asks_for_what_it_would_have_asked_for(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    search = _search(whole)
    expected: list[Plan] = []
    while (plan := search.next()) is not None:
        _finish(search, plan)
        expected.append(plan)
    assert len(expected) == 6
    assert len({plan.overrides for plan in expected}) > 3
    assert {type(text) for plan in expected for text in plan.overrides} == {str}
    assert any("widths=[8,16,32]" in plan.overrides for plan in expected)
    assert any("model/network=wnet" in plan.overrides for plan in expected)
    first = _search(parts)
    for _ in range(3):
        plan = first.next()
        assert plan is not None
        _finish(first, plan)
    hanging = first.next()  # asked for, never told: its driver dies here
    again = _search(parts)
    assert [plan.overrides for plan in again.known()] == [plan.overrides for plan in expected[:4]]
    assert hanging is not None
    _finish(again, again.known()[3])
    for plan in again.known():  # told a second time, as a driver does that takes a sweep up: nothing changes
        _finish(again, plan)
    while (plan := again.next()) is not None:
        _finish(again, plan)
    assert [plan.overrides for plan in again.known()] == [plan.overrides for plan in expected]
    more = _search(parts, trials=7)
    assert more.next() is not None
    assert more.next() is None


def _log(plan: Plan, *scores: float) -> None:
    run_dir = Path(plan.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{step},,{score}\n{step},0.5,\n" for step, score in enumerate(scores))
    (run_dir / "metrics.csv").write_text(f"step,loss,val/score\n{rows}9,0.1,0.9")  # the last line is torn


def test_what_is_worse_than_the_median_is_pruned_and_stays_so(tmp_path: Path) -> None:
    search = _search(tmp_path)
    for scores in ((0.1, 0.5), (0.2, 0.6)):
        plan = search.next()
        assert plan is not None
        _log(plan, *scores)
        assert search.watch(plan) is None
        search.done(plan, Outcome(Status.FINISHED, scores[-1]))
    good, bad = search.next(), search.next()
    assert good is not None
    assert bad is not None
    _log(bad, 0.0)
    assert search.watch(bad) is None  # within its warm-up
    _log(good, 0.1, 0.7)
    assert search.watch(good) is None
    again = _search(tmp_path)  # rows that were reported before are not reported twice
    _log(bad, 0.0, 0.1)
    assert again.watch(bad) == PRUNED
    assert again.watch(bad) is None  # asked once for each new row
    again.done(bad, Outcome(Status.PRUNED))
    again.done(good, Outcome(Status.INTERRUPTED))
    states = [trial.state.name for trial in again._study.get_trials()]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "PRUNED"]
    assert again.repeats(Outcome(Status.INTERRUPTED))
    assert not again.repeats(Outcome(Status.FAILED))
    assert _search(tmp_path, pruner__type="none").watch(bad) is None


def test_a_trial_without_a_number_counts_as_failed(tmp_path: Path) -> None:
    search = _search(tmp_path)
    for outcome in (Outcome(Status.FINISHED, float("nan")), Outcome(Status.FAILED)):
        plan = search.next()
        assert plan is not None
        search.done(plan, outcome)
    assert [trial.state.name for trial in search._study.get_trials()] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"trails": 3}, "trails: unknown key; did you mean 'trials'"),
        ({"trials": 0}, "trials: .*greater than or equal to 1, found 0"),
        ({"direction": "up"}, "direction: .*'maximize' or 'minimize', found 'up'"),
        ({"sampler__sed": 3}, "sampler.sed: unknown key; did you mean 'seed'"),
        ({"space__lr__lwo": 3}, r"space\.lr\.float\.lwo: unknown key; did you mean 'low'"),
        ({"space__lr__low": 0.0}, r"space\.lr.*low=0\.0: expected more than 0 with log=true"),
        ({"space__lr__low": 2.0}, r"space\.lr.*low below high"),
        ({"space__lr__step": 0.1}, r"space\.lr.*step has no effect with log=true"),
        ({"space__depth__low": 1.5}, r"space\.depth.*low: .*integer, found 1\.5"),
        ({"space__ler__low": 1.5}, r"hparams_search\.space\.ler: no such parameter .*did you mean 'lr'"),
        ({"space__depth__type": "flot"}, r"space\.depth: .*'flot'.*'float', 'int', 'categorical'"),
        ({"space__widths__choices": [1, 1]}, r"choices \[1, 1\] repeat"),
    ],
)
def test_a_search_is_checked_before_anything_runs(typed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=message):
        _settings(tmp_path, **typed)


def test_an_unknown_search_is_named_with_the_nearest(tmp_path: Path) -> None:
    _settings(tmp_path)
    with pytest.raises(SweepError, match="hparams_search=tinny: no such search; did you mean 'tiny'"):
        search_settings("tinny", {}, [tmp_path])


def test_probes_take_every_bound_and_choice(tmp_path: Path) -> None:
    probes = _settings(tmp_path).probes()
    assert {json.dumps(probe["widths"]) for probe in probes} == {"[8, 16]", "[8, 16, 32]"}
    assert {probe["lr"] for probe in probes} == {1e-4, 1.0}
