"""LightningCLI over registered classes and safe checkpoints only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from neurotrain.app.allow import ALLOW_VARIABLE
from neurotrain.app.registry import register
from neurotrain.storage.tensors import CheckpointError, check_checkpoint

_THEIR_ADVICE = "Add the import path to import_path_allowlist in set_parsing_settings to allow it."
_ADVICE = (
    f"It is not registered; to allow a module of your own, set {ALLOW_VARIABLE}=MODULE in the environment or give its "
    "package an entry point in one of the groups neurotrain.<family>."
)


class Parser(LightningArgumentParser):
    """Says how to allow a class where the library would name a function of its own."""

    def error(self, message: str, ex: Exception | None = None) -> Any:  # noqa: ANN401 - as the library has it
        """End with exit code 2, or raise where the parser was told to."""
        return super().error(message.replace(_THEIR_ADVICE, _ADVICE), ex)


class RegisteredCLI(LightningCLI):
    """Reads no checkpoint that names code, whatever a configuration says of ``weights_only``."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 - as Lightning has it
        """Parse, then look at the checkpoint before Lightning takes hyper-parameters out of it."""
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        if command is None:
            return
        options = self.config[command]
        if options.get("weights_only") is False:
            parser.error("weights_only=false: a checkpoint is read as tensors and plain values only")
        if "weights_only" in options:
            options["weights_only"] = True
        if options.get("ckpt_path"):
            try:
                check_checkpoint(Path(options["ckpt_path"]))
            except CheckpointError as error:
                parser.error(str(error))


def close_parser() -> None:
    """Let jsonargparse import what is registered, and what lies below the prefixes of ``NEUROTRAIN_ALLOW``."""
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=register().import_paths())
