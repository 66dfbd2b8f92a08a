"""Tiny pipelines, saved once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny_pipelines import quiet, save_flux, save_pixels, save_sd3, save_stable_diffusion, save_wan, save_xl

Saved = Callable[[str], Path]
_SAVES: dict[str, Callable[[Path], Path]] = {
    "pixels": partial(save_pixels, prediction="v_prediction"),
    "sd": save_stable_diffusion,
    "xl": save_xl,
    "sd3": save_sd3,
    "flux": save_flux,
    "flux_dev": partial(save_flux, guided=True),
    "wan": save_wan,
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Folder of a pipeline by its name; nobody writes in it."""
    folder, done = tmp_path_factory.mktemp("pipelines"), dict[str, Path]()

    def path(name: str) -> Path:
        if name not in done:
            done[name] = _SAVES[name](folder / name)
        quiet()
        return done[name]

    return path
