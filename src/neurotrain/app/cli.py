"""``neurotrain``: Lightning's commands over the same signatures, and tools around a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from neurotrain.app.batch_size import add_batch_size_command
from neurotrain.app.data_commands import add_data_commands
from neurotrain.app.pipelines.command import add_pipeline_commands
from neurotrain.app.runs.commands import add_runs_commands
from neurotrain.app.tool_commands import add_cache_commands, add_metrics_commands
from neurotrain.app.weights_command import add_weights_commands

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user mistakes end with exit code 2 and one message.

    Args:
        arguments: without the program's name; ``sys.argv`` where not given.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in LIGHTNING_COMMANDS:
        lightning_cli(arguments)
        return
    parsed = _parse(given)
    try:
        sys.exit(parsed.run(parsed))
    except Exception as error:
        from neurotrain.app.train import MISTAKES  # only now: it imports torch

        if not isinstance(error, MISTAKES):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def lightning_cli(arguments: Sequence[str] | None, *, run: bool = True) -> Any:  # noqa: ANN401 - LightningCLI, imported late
    """Build LightningCLI over any task and data module, as ``neurotrain fit --config FILE`` does.

    Args:
        arguments: a subcommand with its options, without the subcommand when ``run`` is False; ``sys.argv`` where None.
        run: whether to run the subcommand; False only builds trainer, model and data.

    Returns:
        The ``LightningCLI``. Whatever names a class or a function, on the command line, in a file or in the
        hyper-parameters of a checkpoint, may name what is registered, and what is below ``NEUROTRAIN_ALLOW``.
    """
    from lightning import LightningDataModule, LightningModule

    from neurotrain.app.lightning_command import Parser, RegisteredCLI, close_parser

    close_parser()
    return RegisteredCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        args=None if arguments is None else list(arguments),
        run=run,
        parser_class=Parser,
    )


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Parse a command; overrides may stand anywhere, also behind options, which argparse alone does not allow."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(given)
    overrides = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    if len(overrides) < len(rest) or (overrides and "overrides" not in parsed):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides:
        parsed.overrides = [*parsed.overrides, *overrides]
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neurotrain", description="fit | validate | test | predict: LightningCLI, see `neurotrain fit --help`."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    add_data_commands(commands)
    add_cache_commands(commands)
    add_metrics_commands(commands)
    add_batch_size_command(commands)
    add_pipeline_commands(commands)
    add_runs_commands(commands)
    add_weights_commands(commands)
    config = commands.add_parser("config", help="configurations in other shapes").add_subparsers(required=True)
    convert = config.add_parser("convert", help="TOML or SimpleTuner's JSON to YAML; experiments to LightningCLI's")
    convert.add_argument("source", help="FILE.toml, multidatabackend.json, or experiment=NAME")
    convert.add_argument("overrides", nargs="*", help="as on train.py, for experiment=NAME")
    convert.add_argument("-o", "--output", type=Path, help="file to write; standard output where not given")
    convert.add_argument("--run-dir", type=Path, default=Path("runs/cli"), help="trainer.default_root_dir of the file")
    convert.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="trainer's options, for FILE.json")
    convert.set_defaults(run=_convert)
    return parser


def _convert(parsed: argparse.Namespace) -> int:
    from neurotrain.app.compose import compose
    from neurotrain.app.convert import backends_to_yaml, to_lightning_cli, toml_to_yaml

    if parsed.source.endswith(".toml"):
        text = toml_to_yaml(Path(parsed.source))
    elif parsed.source.endswith(".json"):
        text = backends_to_yaml(Path(parsed.source), parsed.output, parsed.set)
    elif parsed.source.startswith("experiment="):
        config = compose(parsed.source.removeprefix("experiment="), parsed.overrides)
        text = yaml.safe_dump(to_lightning_cli(config, run_dir=parsed.run_dir), sort_keys=False)
    else:
        raise ValueError(f"source={parsed.source!r}: expected FILE.toml, FILE.json or experiment=NAME")
    if parsed.output is None:
        sys.stdout.write(text)
    else:
        parsed.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    main()
