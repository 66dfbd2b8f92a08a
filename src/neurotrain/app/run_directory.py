"""The run directory: everything that a run was told and did."""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from neurotrain.app.compose import Configuration
from neurotrain.app.runs.atomic import write_atomically
from neurotrain.app.secrets import HidingFormatter, Secrets
from neurotrain.callbacks.checkpoint import find_last

_LOGGERS = ("neurotrain", "lightning", "lightning.pytorch")

_PACKAGES = ("neurotrain", "torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy", "hydra-core")
"""Whose versions a run keeps."""


class ResumeError(ValueError):
    """There is nothing to resume from where the user insists on it."""


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder.

    Attributes:
        path: absolute.
        checkpoint: to go on from, or None for a new run.
    """

    path: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def write_start(self, config: Configuration) -> None:
        """Write what the run was told and where it runs; a resumed run keeps what was there.

        ``config.yaml`` is the composed configuration with interpolations and environment variables unresolved, so
        that no secret reaches the disk; one that was typed is hidden, there and in ``overrides.txt``.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        hiding = Secrets.of(config.raw)
        text = OmegaConf.to_yaml(hiding.without(config.raw), resolve=False)
        told = self.path / "config.yaml"
        if told.is_file() and told.read_text(encoding="utf-8") != text:
            earlier = len(list(self.path.glob("config.*.yaml")))
            told.rename(self.path / f"config.{earlier}.yaml")
        write_atomically(told, text)
        with (self.path / "overrides.txt").open("a", encoding="utf-8") as file:
            file.write(f"# {_now()}\n" + "".join(f"{hiding.hide(line)}\n" for line in config.overrides))
        write_atomically(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Write ``summary.json`` atomically, without secrets, and return its path."""
        path = self.path / "summary.json"
        write_atomically(path, json.dumps(Secrets.of({}).hidden(summary), indent=2, allow_nan=True) + "\n")
        return path

    def attach_log(self, secrets: Secrets) -> logging.Handler:
        """Append the project's and Lightning's log records to ``log.txt``; the caller detaches the handler.

        Args:
            secrets: are hidden in messages and tracebacks.
        """
        handler = logging.FileHandler(self.path / "log.txt", mode="a", encoding="utf-8")
        handler.setFormatter(HidingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", secrets))
        for name in _LOGGERS[:2]:
            logging.getLogger(name).addHandler(handler)
        return handler


def detach_log(handler: logging.Handler) -> None:
    """Take a handler of ``attach_log`` away and close its file."""
    for name in _LOGGERS[:2]:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


def locate(*, name: str, runs_dir: Path, run_dir: Path | None, resume: str | None) -> RunDirectory:
    """Decide where a run lives and whether it goes on from a checkpoint.

    Args:
        name: of the experiment.
        runs_dir: parent of all experiments' folders.
        run_dir: typed folder of this run, or None.
        resume: ``last``, ``must``, a run directory, a checkpoint, or None for a new run.

    Returns:
        The directory, which may not exist yet.

    Raises:
        ResumeError: if there is nothing to resume from and ``resume`` insists, or a new run would fall on an old one.
    """
    parent = runs_dir / name
    if resume is None:
        path = run_dir or parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        if (path / "summary.json").exists() or find_last(path / "checkpoints") is not None:
            raise ResumeError(f"{path} holds a run: add resume=last to go on with it, or type another paths.run_dir")
        return RunDirectory(path.absolute())
    if resume not in ("last", "must"):
        return _resume_from(Path(resume))
    candidates = [run_dir] if run_dir is not None else sorted(parent.glob("*/"), reverse=True)
    for candidate in candidates:
        checkpoint = find_last(candidate / "checkpoints")
        if checkpoint is not None:
            return RunDirectory(candidate.absolute(), checkpoint)
    if resume == "must":
        raise ResumeError(f"resume=must: no checkpoint under {run_dir or parent}")
    return locate(name=name, runs_dir=runs_dir, run_dir=run_dir, resume=None)


def _resume_from(target: Path) -> RunDirectory:
    if target.is_dir():
        checkpoint = find_last(target / "checkpoints")
        if checkpoint is None:
            raise ResumeError(f"resume={target}: no checkpoint in {target / 'checkpoints'}")
        return RunDirectory(target.absolute(), checkpoint)
    if not target.is_file():
        raise ResumeError(f"resume={target}: neither a run directory nor a checkpoint (or `last`, or `must`)")
    if target.parent.name != "checkpoints":
        raise ResumeError(f"resume={target}: not in a run directory's `checkpoints`; to start from weights use ckpt=")
    return RunDirectory(target.parent.parent.absolute(), target)


def environment() -> dict[str, Any]:
    """Return versions, device and git state: what a figure depends on beside the configuration."""
    return {
        "started": _now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "argv": sys.argv[:1],
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    """Return what is installed; asked for by name, as to go through all that is installed takes a second."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> dict[str, str | bool] | None:
    """Return commit and whether the checkout differs from it; None outside a checkout or without git."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        return {"commit": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None  # installed outside a checkout


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
