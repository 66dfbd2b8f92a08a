"""``neurotrain data verify|scan|stats|preview|convert``: what can be done with data without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurotrain.data import PlannedDataModule
    from neurotrain.data.datasets import SegmentationDataset
    from neurotrain.data.sources import Source

_OVERRIDES = "as on train.py: paths.data_dir=DIR data.dataset.root=DIR"


def add_data_commands(commands: Any) -> None:  # noqa: ANN401 - argparse does not name its type in public
    """Add ``data`` and its subcommands to the subparsers of a command line."""
    data = commands.add_parser("data", help="look at data without training, or write them in another layout")
    data = data.add_subparsers(required=True, metavar="command")
    told: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
        "verify": (_verify, "decode every sample and list every problem"),
        "scan": (_scan, "find or build the index; count what there is"),
        "stats": (_stats, "sizes, intensities and labels of all decoded samples"),
        "preview": (_preview, "draw training samples as the network will see them"),
        "convert": (_convert, "write the samples in another layout, byte for byte"),
    }
    for name, (run, text) in told.items():
        parser = data.add_parser(name, help=text)
        parser.add_argument("name", help="under configs/data: drive, chase_db1, stare, isic, folder, drive_mixture, …")
        parser.add_argument("overrides", nargs="*", help=_OVERRIDES)
        parser.set_defaults(run=run)
        if name == "preview":
            parser.add_argument("-o", "--output", type=Path, default=Path("preview.png"), help="PNG to write")
            parser.add_argument("--count", type=int, default=16, help="samples to draw")
        if name == "convert":
            _add_conversion(parser)


def _add_conversion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layout", required=True, help="folder, table (of URLs), huggingface or webdataset")
    parser.add_argument("--target", required=True, help="folder or URI to write, such as s3://bucket/prefix")
    parser.add_argument("--splits", nargs="+", help="which splits; all where not given")
    parser.add_argument("--base-url", help="for the layout table: address under which the target will be offered")
    parser.add_argument("--shard-bytes", type=int, help="for huggingface and webdataset: size of a shard")


def load_data(name: str, overrides: Sequence[str]) -> PlannedDataModule:
    """Build the data module of a configuration.

    Args:
        name: of a file under ``configs/data``.
        overrides: as on the command line.

    Raises:
        ConfigurationError: if the configuration is refused.
        ValueError: if there is none of this name, an override cannot be read, or it is no data module of ours.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    from neurotrain.app.compose import compose
    from neurotrain.app.registry import register
    from neurotrain.app.strict import instantiate
    from neurotrain.data import PlannedDataModule

    try:
        config = compose(overrides=[f"data={name}", *overrides])
    except MissingConfigException as error:
        near = get_close_matches(name, error.options or (), n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{error.missing_cfg_file}: there is no such configuration{hint}") from error
    except OverrideParseException as error:
        raise ValueError(f"{error.override}: {str(error).splitlines()[0]}") from error
    module = instantiate(config.values["data"], allow=register(), key="data")
    if not isinstance(module, PlannedDataModule):
        raise ValueError(f"data={name}: {type(module).__name__} says nothing of what it holds")
    return module


def _verify(parsed: argparse.Namespace) -> int:
    from neurotrain.data import SegmentationDataModule
    from neurotrain.data.inspection import verify

    module = load_data(parsed.name, parsed.overrides)
    if isinstance(module, SegmentationDataModule):
        report = module.dataset.verify()
        sys.stdout.write(f"{report}\n")
        return 0 if report.ok else 1
    reports = verify(module)
    sys.stdout.write("".join(f"{report}\n" for report in reports))
    broken = sum(len(report.broken) for report in reports)
    sys.stdout.write(f"{sum(report.count for report in reports)} samples, {broken or 'none'} broken\n")
    return 1 if broken else 0


def _scan(parsed: argparse.Namespace) -> int:
    from neurotrain.data.inspection import scan

    sys.stdout.write("".join(f"{report}\n" for report in scan(load_data(parsed.name, parsed.overrides))))
    return 0


def _stats(parsed: argparse.Namespace) -> int:
    from neurotrain.data.inspection import stats

    module = load_data(parsed.name, parsed.overrides)
    with _told_in_one_line(parsed.name):
        reports = stats(module)
    sys.stdout.write("".join(f"{report}\n" for report in reports))
    return 0


def _preview(parsed: argparse.Namespace) -> int:
    from neurotrain.data.inspection import preview

    module = load_data(parsed.name, parsed.overrides)
    with _told_in_one_line(parsed.name):
        names = preview(module, parsed.output, count=parsed.count)
    sys.stdout.write(f"{parsed.output}: {', '.join(names)}\n")
    return 0


def _convert(parsed: argparse.Namespace) -> int:
    from neurotrain.data.convert import convert

    report = convert(
        convertible(load_data(parsed.name, parsed.overrides)),
        layout=parsed.layout,
        target=parsed.target,
        splits=parsed.splits,
        base_url=parsed.base_url,
        shard_bytes=parsed.shard_bytes,
    )
    sys.stdout.write(f"{report}\n")
    return 0


@contextmanager
def _told_in_one_line(name: str) -> Generator[None]:
    """A sample that cannot be decoded is the data's mistake, not ours: no traceback."""
    from neurotrain.data import SampleError

    try:
        yield
    except SampleError as error:
        raise ValueError(f"{error}; neurotrain data verify {name} lists all that are broken") from error


def convertible(module: PlannedDataModule) -> Source | SegmentationDataset:
    """What of a data module can be written in another layout: its dataset, or the source that it trains on.

    Raises:
        ValueError: for a mixture, whose members are converted one by one.
    """
    from neurotrain.data import SegmentationDataModule, SourceDataModule

    if isinstance(module, SegmentationDataModule):
        return module.dataset
    if isinstance(module, SourceDataModule):
        module.source.setup()
        return module.source
    raise ValueError(f"{type(module).__name__} has several sources: convert its members one by one")
