"""Folders of Hugging Face datasets on a local disk: which files a split has. Nothing that they say is executed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

_NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")


class LocalFiles(NamedTuple):
    """Files of one split.

    Attributes:
        kind: what they are.
        paths: in order.
    """

    kind: Literal["arrow", "parquet"]
    paths: tuple[Path, ...]


def is_local(path: str, *, revision: str | None, name: str) -> bool:
    """Whether a dataset is a folder here; else it is the id of one on the hub, pinned to a commit.

    Args:
        path: folder or id.
        revision: commit on the hub; ``huggingface_hub.HfApi().dataset_info(path).sha`` is the newest.
        name: of the source, for messages.

    Returns:
        True for a folder.

    Raises:
        ValueError: if it is neither, if a folder has a revision, or a dataset of the hub is not pinned.

    Example:
        >>> is_local("owner/name", revision=None, name="toy")
        Traceback (most recent call last):
        ...
        ValueError: toy: path='owner/name' is no folder here; of the hub, give revision, the 40 digits of a commit
    """
    if Path(path).expanduser().is_dir():
        if revision is not None:
            raise ValueError(f"{name}: revision={revision!r} has no effect on the folder {path!r}: leave it out")
        return True
    if _REPOSITORY.fullmatch(path) is None:
        raise ValueError(f"{name}: path={path!r} is neither a folder here nor an id like 'owner/name'")
    if revision is None:
        raise ValueError(
            f"{name}: path={path!r} is no folder here; of the hub, give revision, the 40 digits of a commit"
        )
    if _COMMIT.fullmatch(revision) is None:
        raise ValueError(f"{name}: revision={revision!r}: a branch or tag moves: give the 40 digits of a commit")
    return False


def local_files(folder: Path, *, subset: str | None, split: str | None, name: str) -> LocalFiles:
    """The files of a split: of ``save_to_disk``, else Parquet named as on the hub.

    A Parquet file belongs to the split that it is named for (``train-00000-of-00005.parquet``, ``train.parquet``), or
    that its folder is named for (``train/0000.parquet``).

    Args:
        folder: of the dataset.
        subset: folder in it; None for the dataset's own.
        split: which; None where there is only one.
        name: of the source, for messages.

    Returns:
        At least one file.

    Raises:
        ValueError: if there is no such subset or split, or no data at all.
    """
    top = folder
    if subset is not None:
        folders = [path.name for path in folder.iterdir() if path.is_dir()]
        top = folder / _chosen(subset, folders, key=f"{name}: subset")
    if (top / "state.json").is_file():
        if split is not None:
            raise ValueError(f"{name}: split={split!r} has no effect: {top} was saved as a single split")
        return LocalFiles("arrow", _arrow_files(top, name=name))
    saved = {path.parent.name: path.parent for path in sorted(top.glob("*/state.json"))}
    if saved:
        return LocalFiles("arrow", _arrow_files(saved[_chosen(split, saved, key=f"{name}: split")], name=name))
    parquet: dict[str, list[Path]] = {}
    for path in sorted(top.rglob("*.parquet")):
        if not any(part.startswith(".") for part in path.relative_to(top).parts):
            parquet.setdefault(_split_of(path, top), []).append(path)
    if not parquet:
        raise ValueError(f"{name}: {top} holds neither Parquet files nor what save_to_disk writes")
    return LocalFiles("parquet", tuple(parquet[_chosen(split, parquet, key=f"{name}: split")]))


def _arrow_files(folder: Path, *, name: str) -> tuple[Path, ...]:
    """All Arrow files that lie there: ``state.json`` could name others elsewhere, so it is not asked."""
    paths = tuple(sorted(folder.glob("data-*.arrow")))
    if not paths:
        raise ValueError(f"{name}: {folder} has a state.json, but no data-*.arrow")
    counts = {found[1] for path in paths if (found := re.fullmatch(r"data-\d{5}-of-(\d{5})\.arrow", path.name))}
    if counts != {f"{len(paths):05d}"}:
        raise ValueError(
            f"{name}: {folder} is incomplete: {len(paths)} files, of {', '.join(sorted(counts)) or 'unknown'}"
        )
    return paths


def _split_of(path: Path, top: Path) -> str:
    numbered = _NUMBERED.fullmatch(path.stem)
    if numbered is not None:
        return numbered[1]
    above = path.relative_to(top).parts[:-1]
    return above[-1] if above and above[-1] != "data" else path.stem


def _chosen(value: str | None, choices: Iterable[str], *, key: str) -> str:
    known: Sequence[str] = sorted(choices)
    if value is None:
        if len(known) == 1:
            return known[0]
        raise ValueError(f"{key}=None: choose one of {', '.join(map(repr, known))}")
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1, cutoff=0.0)
        hint = f"; nearest: {near[0]!r}" if near else ""
        raise ValueError(f"{key}={value!r} is not one of {', '.join(map(repr, known)) or 'none'}{hint}")
    return value
