"""Trained roles as others load them."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from neurotrain.diffusion import RoleHandle
from neurotrain.diffusion.families import Exporting
from neurotrain.diffusion.roles import missing_role
from neurotrain.tasks import DistillationTask

FOLDER = "export"
"""Where roles lie in the run directory, each under its name."""


class RoleExport(Callback):
    """Writes ``export/<role>/`` at the end of training: a pipeline of diffusers, or ``model.safetensors``.

    The latter, of a network of ours, is what ``model.roles.<role>.weights`` of another experiment takes. Averaged
    weights are written where the role has any. A folder is complete or not there.

    Args:
        roles: which.
        merge: whether low-rank additions are added to the weights; without, they are written apart.

    Raises:
        ValueError: if ``roles`` is empty.
    """

    def __init__(self, *, roles: tuple[str, ...] = ("student",), merge: bool = True) -> None:
        if not roles:
            raise ValueError("roles=(): name one at least")
        self._roles, self._merge = tuple(roles), merge

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether there is something to write before any time is spent on it.

        Raises:
            ValueError: if the family does not export, or has no such role.
        """
        self._handles(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        family, handles = self._handles(pl_module)
        if not trainer.is_global_zero:
            return
        for handle in handles:
            folder = Path(trainer.default_root_dir) / FOLDER / handle.name
            temporary = folder.with_name(f".{handle.name}.partial")
            shutil.rmtree(temporary, ignore_errors=True)
            with handle.averaged():
                family.export(handle, temporary, merge=self._merge)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)

    def _handles(self, task: LightningModule) -> tuple[Exporting, list[RoleHandle]]:
        if not isinstance(task, DistillationTask):
            raise ValueError(f"RoleExport writes roles of a DistillationTask, not of {type(task).__name__}")
        family = task.pipeline
        if not isinstance(family, Exporting):
            raise ValueError(f"RoleExport: {type(family).__name__} has nothing that others could load")
        for name in self._roles:
            if name not in task.roles:
                raise ValueError(f"RoleExport: {missing_role(name, task.roles)}")
        return family, [task.roles[name] for name in self._roles]
