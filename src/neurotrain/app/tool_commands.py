"""``neurotrain cache build|verify|gc|stats`` and ``neurotrain metrics compare``: tools around caches and runs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurotrain.data.cache import BuildProgress


def add_cache_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``cache`` and its subcommands to the subparsers of a command line."""
    cache = commands.add_parser("cache", help="look after a cache of latents or text embeddings")
    cache = cache.add_subparsers(required=True, metavar="command")
    build = cache.add_parser("build", help="encode what a data configuration names; under torchrun shared by the ranks")
    build.add_argument("name", help="under configs/data")
    build.add_argument("overrides", nargs="*", help="as on train.py: paths.data_dir=DIR")
    build.add_argument("--latents", action="store_true", help="those of images only")
    build.add_argument("--texts", action="store_true", help="those of captions only")
    build.add_argument("--max-bad-share", type=float, default=0.01, help="of samples that may fail")
    build.set_defaults(run=_build)
    verify = cache.add_parser("verify", help="read every byte and compare every checksum")
    verify.add_argument("--repair", action="store_true", help="remove what is damaged: it will be encoded again")
    verify.set_defaults(run=_verify)
    gc = cache.add_parser("gc", help="remove leftovers and second copies; evict down to a size")
    gc.add_argument("--max-bytes", type=int, help="evict the least recently used entries until no more are left")
    gc.set_defaults(run=_gc)
    stats = cache.add_parser("stats", help="count what lies there")
    stats.set_defaults(run=_stats)
    for parser in (verify, gc, stats):
        parser.add_argument("folder", type=Path, help="of the cache")


def add_metrics_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``metrics compare`` to the subparsers of a command line."""
    metrics = commands.add_parser("metrics", help="figures of finished runs").add_subparsers(required=True)
    compare = metrics.add_parser("compare", help="two runs on the same test samples: intervals and paired tests")
    compare.add_argument("first", type=Path, help="run directory, or its test_samples.csv")
    compare.add_argument("second", type=Path, help="the same of the other run")
    compare.add_argument("--figures", nargs="+", help="columns to compare; all where not given")
    compare.add_argument("--confidence", type=float, default=0.95, help="of the intervals")
    compare.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    compare.set_defaults(run=_compare)


def _build(parsed: argparse.Namespace) -> int:
    from neurotrain.app.data_commands import load_data
    from neurotrain.data.cached_builds import build_caches

    both = parsed.latents == parsed.texts
    built = build_caches(
        load_data(parsed.name, parsed.overrides),
        latents=both or parsed.latents,
        texts=both or parsed.texts,
        max_bad_share=parsed.max_bad_share,
        tell=_tell_progress,
    )
    sys.stdout.write("".join(f"{one}\n" for one in built))
    return 0


def _tell_progress(name: str, progress: BuildProgress) -> None:
    """One line on a terminal, over and over; in a log nothing but the end."""
    if sys.stderr.isatty():
        end = "\n" if progress.done == progress.total else ""
        rate = progress.encoded / max(progress.seconds, 1e-9)
        sys.stderr.write(f"\r{name}: {progress.done} of {progress.total}, {rate:.1f} encoded/s{end}")


def _verify(parsed: argparse.Namespace) -> int:
    from neurotrain.data.cache import verify

    report = verify(parsed.folder, repair=parsed.repair)
    _tell(report)
    return 0 if report.ok else 1


def _gc(parsed: argparse.Namespace) -> int:
    from neurotrain.data.cache import gc

    _tell(gc(parsed.folder, max_bytes=parsed.max_bytes))
    return 0


def _stats(parsed: argparse.Namespace) -> int:
    from neurotrain.data.cache import stats

    _tell(stats(parsed.folder))
    return 0


def _tell(report: Any) -> None:  # noqa: ANN401 - any dataclass
    for field in fields(report):
        sys.stdout.write(f"{field.name}: {getattr(report, field.name)}\n")


def _compare(parsed: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from neurotrain.metrics.compare import Interval, compare_runs

    def told(interval: Interval) -> str:
        return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"

    comparisons = compare_runs(
        parsed.first,
        parsed.second,
        figures=parsed.figures,
        confidence=parsed.confidence,
        resamples=parsed.resamples,
        seed=parsed.seed,
    )
    table = Table(title=f"{parsed.second} against {parsed.first}, {parsed.confidence:.0%} intervals")
    for name in ("figure", "samples", "first", "second", "difference", "Wilcoxon p", "bootstrap p"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for one in comparisons:
        figures = (told(one.first), told(one.second), told(one.difference))
        table.add_row(one.figure, str(one.samples), *figures, f"{one.wilcoxon_p:.4g}", f"{one.bootstrap_p:.4g}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0
