"""``neurotrain runs list|show|compare|best|rm`` and ``neurotrain monitor``: no command here imports torch unasked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from neurotrain.app.runs.errors import RunsError
from neurotrain.app.runs.reading import RunFacts

_RUN = "id, path, folder's name, or a beginning or end of that"


def add_runs_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``runs`` with its subcommands, and ``monitor``, to the subparsers of a command line."""
    runs = commands.add_parser("runs", help="what lies in runs/: list, show, compare, best, rm")
    runs = runs.add_subparsers(required=True, metavar="command")
    lists = _add(runs, "list", _list, "all runs, the newest first", chosen=True)
    lists.add_argument("--sort", metavar="NAME", help="figure, parameter, id or status; lowest first")
    lists.add_argument("--descending", action="store_true", help="highest first, with --sort")
    lists.add_argument("--columns", nargs="+", metavar="NAME", help="figures and parameters to show")
    lists.add_argument("--limit", type=int, metavar="N", help="the first N only")
    show = _add(runs, "show", _show, "everything that is known of a run")
    show.add_argument("target", metavar="run", help=_RUN)
    compare = _add(runs, "compare", _compare, "what differs between runs")
    compare.add_argument("runs", nargs="+", metavar="run", help=_RUN)
    compare.add_argument(
        "--samples", action="store_true", help="paired tests over the test samples, which take seconds"
    )
    best = _add(runs, "best", _best, "the run with the best figure", chosen=True)
    best.add_argument("--metric", required=True, metavar="NAME", help="such as test/dice")
    best.add_argument("--mode", choices=("max", "min"), required=True, help="which is better")
    remove = _add(runs, "rm", _remove, "remove run directories")
    remove.add_argument("runs", nargs="+", metavar="run", help=_RUN)
    remove.add_argument("--yes", action="store_true", help="do not ask")
    monitor = commands.add_parser("monitor", help="watch a run from another terminal")
    monitor.add_argument("target", metavar="run", help=f"run directory, or under --runs-dir its {_RUN}")
    monitor.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder of all runs")
    monitor.add_argument("--once", action="store_true", help="print once and end")
    monitor.add_argument("--json", action="store_true", help="with --once: for programs")
    monitor.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks")
    monitor.set_defaults(run_command=_monitor, run=_guarded)


def _add(runs: Any, name: str, run: Any, text: str, *, chosen: bool = False) -> argparse.ArgumentParser:  # noqa: ANN401
    parser: argparse.ArgumentParser = runs.add_parser(name, help=text)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder of all runs")
    if name != "rm":
        parser.add_argument("--json", action="store_true", help="for programs")
    if chosen:
        parser.add_argument("--experiment", metavar="NAME", help="its runs only")
        parser.add_argument(
            "--where", action="append", default=[], metavar="CONDITION", help="'test/dice>0.8 and seed=1'"
        )
        parser.add_argument("--since", metavar="WHEN", help="2026-11-20, or 3d, 12h, 30m ago")
    parser.set_defaults(run_command=run, run=_guarded)
    return parser


def _guarded(parsed: argparse.Namespace) -> int:
    """Run a command; a user's mistake is one message, and a reader that goes away (``| head``) is none."""
    try:
        return parsed.run_command(parsed)
    except RunsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _all(parsed: argparse.Namespace) -> list[RunFacts]:
    from neurotrain.app.runs.index import RunIndex

    return RunIndex(runs_dir=parsed.runs_dir).runs()


def _chosen(parsed: argparse.Namespace) -> list[RunFacts]:
    from neurotrain.app.runs.selection import chosen

    return chosen(_all(parsed), experiment=parsed.experiment, where=parsed.where, since=parsed.since)


def _list(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs.conditions import parse
    from neurotrain.app.runs.selection import check_names, ordered, values_of
    from neurotrain.app.runs.tables import aligned, as_json, default_figures, list_rows, print_json

    if parsed.limit is not None and parsed.limit < 1:
        raise RunsError(f"--limit {parsed.limit}: must be at least 1")
    if parsed.descending and parsed.sort is None:
        raise RunsError("--descending has no effect without --sort")
    key, descending = ("started", True) if parsed.sort is None else (parsed.sort, parsed.descending)
    runs = ordered(_chosen(parsed), key, descending=descending)[: parsed.limit]
    if parsed.json:
        print_json([as_json(facts) for facts in runs])
        return 0
    if not runs:
        sys.stdout.write("no runs\n")
        return 0
    if parsed.columns:
        check_names(parsed.columns, [values_of(facts) for facts in runs])
    asked = [key, *(name for text in parsed.where for name in parse(text).names)]
    own = ("id", "started", "status", "wall_seconds")
    named = [name for name in dict.fromkeys(asked) if name not in own]
    columns = parsed.columns or [*named, *(name for name in default_figures(runs) if name not in named)]
    sys.stdout.write(aligned(list_rows(runs, columns), left=3))
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs.selection import found
    from neurotrain.app.runs.tables import aligned, as_json, print_json, show_rows

    facts = found(_all(parsed), parsed.target)
    if parsed.json:
        print_json(as_json(facts))
    else:
        sys.stdout.write(aligned(show_rows(facts), left=2))
    return 0


def _several(parsed: argparse.Namespace) -> list[RunFacts]:
    from neurotrain.app.runs.selection import found

    runs = _all(parsed)
    named = [found(runs, name) for name in parsed.runs]
    return list({facts.id: facts for facts in named}.values())


def _compare(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs import differences, tables

    runs = _several(parsed)
    if len(runs) < 2:
        raise RunsError("compare: name at least two different runs")
    told = differences.parameter_differences(runs)
    places = differences.environment_differences(runs)
    figures = differences.metric_differences(runs)
    if parsed.json:
        sections: dict[str, object] = {
            name: tables.differences_json(rows, runs)
            for name, rows in (("parameters", told), ("environment", places), ("metrics", figures))
        }
        if parsed.samples:
            sections["samples"] = _sample_tests(parsed, runs)
        tables.print_json(sections)
        return 0
    for title, rows in (("parameters", told), ("environment", places), ("figures", figures)):
        if rows:
            told_rows = tables.difference_rows(rows, runs, gain=title == "figures")
            sys.stdout.write(f"{title}:\n{tables.aligned(told_rows)}\n")
        else:
            sys.stdout.write(f"{title}: equal\n")
    if parsed.samples:
        _print_sample_tests(_sample_tests(parsed, runs))
    return 0


def _sample_tests(parsed: argparse.Namespace, runs: Sequence[RunFacts]) -> list[dict[str, Any]]:
    """Compare each pair of runs on the samples that both were tested on."""
    from dataclasses import asdict

    from neurotrain.metrics.compare import compare_runs

    tests: list[dict[str, Any]] = []
    for first, second in combinations(runs, 2):
        try:
            found = compare_runs(parsed.runs_dir / first.id, parsed.runs_dir / second.id)
        except (ValueError, FileNotFoundError) as error:
            raise RunsError(f"--samples: {error}") from None
        tests += [{"first_run": first.id, "second_run": second.id, **asdict(one)} for one in found]
    return tests


def _print_sample_tests(tests: Sequence[dict[str, Any]]) -> None:
    from neurotrain.app.runs.tables import aligned

    rows = [["first", "second", "figure", "samples", "second - first", "95% interval", "Wilcoxon p", "bootstrap p"]]
    for one in tests:
        gap = one["difference"]
        numbers = (f"{gap['mean']:+.4g}", f"[{gap['low']:.4g}, {gap['high']:.4g}]")
        chances = (f"{one['wilcoxon_p']:.4g}", f"{one['bootstrap_p']:.4g}")
        rows.append([one["first_run"], one["second_run"], one["figure"], str(one["samples"]), *numbers, *chances])
    sys.stdout.write(f"test samples:\n{aligned(rows, left=3)}")


def _best(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs.selection import best
    from neurotrain.app.runs.tables import aligned, as_json, list_rows, print_json

    facts = best(_chosen(parsed), parsed.metric, parsed.mode)
    if parsed.json:
        print_json(as_json(facts))
    else:
        sys.stdout.write(aligned(list_rows([facts], [parsed.metric]), left=3))
    return 0


def _remove(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs.removal import extent, removable, remove

    runs = _several(parsed)
    for facts in runs:  # all of them before the first is touched
        size = extent(removable(parsed.runs_dir, facts))
        sys.stdout.write(f"{facts.id}: {size.files} files, {size.size / 2**20:.1f} MiB\n")
    if not parsed.yes and not _agreed(f"remove {len(runs)} run{'s' if len(runs) > 1 else ''} for good? [y/N] "):
        sys.stdout.write("nothing was removed\n")
        return 1
    for facts in runs:
        remove(parsed.runs_dir, facts)
        sys.stdout.write(f"removed {facts.id}\n")
    _all(parsed)  # the index forgets them
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise RunsError("rm asks before it removes, and there is no terminal to answer: add --yes")
    return input(question).strip().lower() in ("y", "yes")


def _monitor(parsed: argparse.Namespace) -> int:
    from neurotrain.app.runs.monitor import monitor

    if parsed.every <= 0:
        raise RunsError(f"--every {parsed.every}: must be more than 0")
    if parsed.json and not parsed.once:
        raise RunsError("--json has no effect without --once")
    return monitor(_run_directory(parsed), once=parsed.once, as_json=parsed.json, every=parsed.every)


def _run_directory(parsed: argparse.Namespace) -> Path:
    """Return the directory that was typed, or that of the run that was meant."""
    from neurotrain.app.runs.selection import found

    typed = Path(parsed.target)
    if (typed / "config.yaml").is_file():
        return typed
    return parsed.runs_dir / found(_all(parsed), parsed.target).id
