"""Lightning's loggers of Weights & Biases and MLflow, bound to a run directory: one run there is one run of theirs.

Beside its metrics each is told what the run was told: ``config.yaml`` of the directory, where secrets are hidden
already. Nothing else of the machine or the command line is sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from neurotrain.callbacks.run_parameters import read_configuration
from neurotrain.documents import parse_json

IDS = "trackers.json"
"""File of a run directory: the run's id at each tracker."""


class WandbRun(WandbLogger):
    """Logs to Weights & Biases; a resumed run goes on under its id.

    The id follows from the run directory's path and is kept in it, so that a directory that is moved keeps its run.
    A process has one W&B run at a time: a new one ends the one before.
    """

    def __init__(
        self,
        *,
        directory: Path,
        project: str = "neurotrain",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        offline: bool = False,
    ) -> None:
        """Set where to log; nothing is sent or written before the first metric.

        Args:
            directory: of the run.
            project: at W&B.
            entity: user or team at W&B; None: the account's own.
            group: of runs at W&B.
            tags: of the run.
            offline: write into the run directory only, to be sent by ``wandb sync``; needs neither network nor account.

        Raises:
            ImportError: if wandb is not installed.
        """
        _need("wandb", extra="wandb")
        import wandb  # pyright: ignore[reportMissingImports]

        self._directory = Path(directory)
        self._told = False
        run_id = _known(self._directory).get("wandb") or run_id_of(self._directory)
        if wandb.run is not None and wandb.run.id != run_id:
            wandb.finish()
        # Neither the terminal's output, nor the program's text, nor what it was called with: they may hold secrets.
        settings = wandb.Settings(console="off", save_code=False, x_disable_meta=True, silent=True)
        optional: dict[str, Any] = {"entity": entity, "group": group, "tags": list(tags) or None}
        optional["mode"] = "offline" if offline else None
        super().__init__(
            name=_title(self._directory),
            save_dir=str(self._directory),
            project=project,
            id=run_id,
            settings=settings,
            **{name: value for name, value in optional.items() if value is not None},
        )
        self._wandb_init.pop("anonymous", None)  # Lightning's None is enough for wandb to warn of it

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values; the first ones follow the run's configuration."""
        if not self._told:
            self._told = True
            self._directory.mkdir(parents=True, exist_ok=True)
            _keep(self._directory, "wandb", str(self._wandb_init["id"]))
            self.log_hyperparams(read_configuration(self._directory))
        super().log_metrics(metrics, step)

    @rank_zero_only
    def close(self) -> None:
        """End the run at W&B, which otherwise ends with the process."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None


class MlflowRun(MLFlowLogger):
    """Logs to MLflow; a resumed run goes on under its id, which MLflow gives it and the run directory keeps.

    Parameters are those of the first start: MLflow does not let a run change them.
    """

    def __init__(
        self,
        *,
        directory: Path,
        experiment_name: str = "neurotrain",
        tracking_uri: str = "sqlite:///mlflow.db",
        tags: dict[str, str] | None = None,
    ) -> None:
        """Set where to log.

        Args:
            directory: of the run.
            experiment_name: at MLflow.
            tracking_uri: of a server, or ``sqlite:///FILE`` for a file, which needs neither network nor server.
            tags: of the run.

        Raises:
            ImportError: if mlflow is not installed.
        """
        _need("mlflow", extra="mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports its use to its makers otherwise
        if tracking_uri.startswith("sqlite:///"):
            _need("sqlalchemy", extra="mlflow")
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._directory = Path(directory)
        known = _known(self._directory).get("mlflow")
        self._told = known is not None
        super().__init__(
            experiment_name=experiment_name,
            run_name=_title(self._directory),
            tracking_uri=tracking_uri,
            tags=dict(tags or {}),
            artifact_location=None,
            run_id=known,
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values; the first ones follow the run's configuration."""
        if not self._told:
            self._told = True
            self._directory.mkdir(parents=True, exist_ok=True)
            _keep(self._directory, "mlflow", str(self.run_id))
            self.log_hyperparams(read_configuration(self._directory))
        super().log_metrics(metrics, step)


def run_id_of(directory: Path) -> str:
    """Name a run by the end of its directory's path and a digest of all of it.

    Example:
        >>> run_id_of(Path("/runs/drive unet/20260730-1"))
        'drive-unet-20260730-1-e030fc54'
    """
    path = directory.absolute()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', _title(path).replace('/', '-'))[:54]}-{digest}"


def _title(directory: Path) -> str:
    return "/".join(directory.absolute().parts[-2:])


def _need(module: str, *, extra: str) -> None:
    if find_spec(module) is None:
        raise ImportError(f"logger={extra} needs {module}: pip install 'neurotrain[{extra}]'")


def _known(directory: Path) -> dict[str, str]:
    try:
        values = parse_json((directory / IDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(run_id) for name, run_id in values.items()}


def _keep(directory: Path, tracker: str, run_id: str) -> None:
    """Write the id before the first value is logged under it."""
    temporary = directory / f".{IDS}.tmp"
    temporary.write_text(json.dumps({**_known(directory), tracker: run_id}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(directory / IDS)
