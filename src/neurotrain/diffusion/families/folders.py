"""Pipelines as diffusers saves them: a folder, or a commit on the Hugging Face hub."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neurotrain.diffusion.families.base import PipelineContract
from neurotrain.documents import parse_json
from neurotrain.storage.extras import require

__all__ = ["PipelineContractError", "PipelineFolder", "diffusers_library"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is ever downloaded: no pickled weights and no code."""


class PipelineContractError(ValueError):
    """A pipeline is not of the family, or lacks a part of it."""


@dataclass(frozen=True)
class PipelineFolder:
    """Where a pipeline lies; nothing is loaded, and only configurations are read.

    Args:
        path: folder as ``save_pretrained`` writes it, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits; a branch could move between two runs.

    Raises:
        ValueError: if neither is there, a name on the hub is not pinned, or a folder is.
    """

    path: str
    revision: str | None = None

    def __post_init__(self) -> None:
        """Refuse what points nowhere."""
        local = Path(self.path).expanduser().is_dir()
        if local and self.revision is not None:
            raise ValueError(f"revision={self.revision!r} has no effect: {self.path} is a folder of this machine")
        if not local and (self.path.count("/") != 1 or self.path.startswith((".", "/", "~"))):
            raise ValueError(f"path={self.path!r}: neither a folder that is there nor owner/name on the hub")
        if not local and (self.revision is None or not _COMMIT.fullmatch(self.revision)):
            raise ValueError(
                f"revision={self.revision!r}: {self.path} on the hub needs a commit, 40 hexadecimal digits"
            )

    @cached_property
    def root(self) -> Path:
        """The local folder; what is on the hub is downloaded once."""
        if self.revision is None:
            return Path(self.path).expanduser()
        require("huggingface_hub", extra="diffusion", purpose="a pipeline on the hub")
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=list(_PATTERNS)))

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, str]]:
        """Library and class of each part that is there, by name.

        Raises:
            PipelineContractError: if the folder holds no pipeline.
        """
        index = self.root / "model_index.json"
        if not index.is_file():
            raise PipelineContractError(f"{self.path} holds no model_index.json: it is no pipeline of diffusers")
        found = parse_json(index.read_text(encoding="utf-8"), where=index)
        listed = {name: value for name, value in found.items() if isinstance(value, list) and len(value) == 2}
        return {name: (str(library), str(kind)) for name, (library, kind) in listed.items() if kind is not None}

    def config(self, part: str) -> Mapping[str, Any]:
        """Configuration of a part.

        Raises:
            PipelineContractError: if the pipeline lacks the part.
        """
        for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
            path = self.root / part / name
            if path.is_file():
                return parse_json(path.read_text(encoding="utf-8"), where=path)
        raise PipelineContractError(f"{self.path} lacks {part!r}; it has {', '.join(sorted(self.parts))}")

    def check(self, contract: PipelineContract, *, classes: Mapping[str, tuple[str, ...]]) -> None:
        """See that the pipeline has what its family needs, of classes that the family knows.

        Args:
            contract: of the family.
            classes: names of classes that a part may have, by part; others may be anything.

        Raises:
            PipelineContractError: names the part, what is there and what is expected.
        """
        for name in contract.required:
            if name not in self.parts:
                raise PipelineContractError(f"{self.path} lacks {name!r}; it has {', '.join(sorted(self.parts))}")
        known = {*contract.required, *contract.optional, *contract.replaced, *contract.left_out}
        for name, (_, kind) in self.parts.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise PipelineContractError(
                    f"{self.path} has the part {name!r}, which this family knows nothing of; nearest: {near or 'none'}"
                )
            if name in classes and kind not in classes[name]:
                raise PipelineContractError(
                    f"{self.path}: {name!r} is a {kind}, this family reads {', '.join(classes[name])}"
                )
        self._check_safetensors(contract)

    def _check_safetensors(self, contract: PipelineContract) -> None:
        for name in (*contract.required, *contract.optional):
            folder = self.root / name
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            if pickled and not list(folder.glob("*.safetensors")):
                raise PipelineContractError(
                    f"{self.path}: {name!r} has pickled weights only ({pickled[0]}); they can run code "
                    "and are not read. Save the pipeline with safe_serialization=True"
                )


def diffusers_library(purpose: str) -> Any:  # noqa: ANN401 - its names are there at run time only
    """The module ``diffusers``.

    Args:
        purpose: what needs it.

    Raises:
        ImportError: if it is not installed; the message says what to install.
    """
    require("diffusers", extra="diffusion", purpose=purpose)
    import diffusers

    return diffusers
