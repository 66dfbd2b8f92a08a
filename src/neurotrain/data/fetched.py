"""Files at a URI, brought to this machine for readers that take paths."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from shutil import rmtree

from neurotrain.data.sources.base import SourceError
from neurotrain.storage import Storage, open_storage

MARKS = frozenset("*?[")
"""What makes a part of an address a pattern."""


def local_source(source: str, *, is_wanted: Callable[[str], bool], owner: object, depth: int = 0) -> str:
    """Bring what a URI names to a folder of its own, in the same order of folders; a path stays what it is.

    Each process brings its own. The folder goes with ``owner``, or with the process.

    Args:
        source: a path; or a URI of a folder, of a glob, or of one file, see :func:`neurotrain.storage.open_storage`.
        is_wanted: whether a file of that name is brought.
        owner: what reads the files.
        depth: how many folders below the one named, or below what the glob names, files may lie.

    Returns:
        A path, to a folder, with a glob, or to one file, as ``source`` is.

    Raises:
        SourceError: if there is no such file, or one would leave the folder.
        StorageError: if the URI cannot be listed or read.
        ValueError: if its scheme is unknown.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> _ = MemoryStorage(name="fetched-example").write("a.png", b"...")
        >>> class Reader: ...
        >>> reader = Reader()
        >>> found = local_source("memory://fetched-example", is_wanted=lambda name: name.endswith("png"), owner=reader)
        >>> [file.name for file in Path(found).iterdir()]
        ['a.png']
    """
    if "://" not in source:
        return source
    scheme, _, rest = source.partition("://")
    parts = rest.rstrip("/").split("/")
    marked = next((place for place, part in enumerate(parts) if MARKS & set(part)), len(parts))
    alone = marked == len(parts) and len(parts) > 1 and is_wanted(parts[-1])
    above, named = (parts[:-1], parts[-1:]) if alone else (parts[:marked], parts[marked:])
    storage = open_storage(f"{scheme}://{'/'.join(above)}")
    pattern = "/".join(named)
    keys = [pattern] if alone else _keys(storage, pattern, is_wanted, depth)
    problems = _problems(keys)
    if problems:
        raise SourceError(f"source={source}", problems)
    top = Path(tempfile.mkdtemp(prefix="neurotrain-source-"))
    weakref.finalize(owner, _remove, top, os.getpid())
    # The folder's own name may be a name of what is in it.
    folder = top / (re.sub(r"[^\w.-]", "_", above[-1]).strip(".") or "source")
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        storage.download(key, folder / key)
    return str(folder / pattern) if pattern else str(folder)


def glob_expression(glob: str) -> str:
    """The regular expression of a glob over keys: only ``**`` crosses a ``/``.

    Example:
        >>> bool(re.fullmatch(glob_expression("**/*.png"), "a/b.png"))
        True
    """
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(piece, piece if piece.startswith("[") else re.escape(piece)) for piece in pieces)


def _keys(storage: Storage, pattern: str, is_wanted: Callable[[str], bool], depth: int) -> list[str]:
    named = glob_expression(pattern) if pattern else "[^/]+"
    expression = re.compile(f"(?:{named})(?:/[^/]+){{0,{depth}}}")
    found = (info.key for info in storage.list())
    return sorted(key for key in found if expression.fullmatch(key) and is_wanted(PurePosixPath(key).name))


def _problems(keys: Sequence[str]) -> list[str]:
    if not keys:
        return ["there is no file of the kind that is read"]
    outside = [key for key in keys if "\\" in key or not {"", ".", ".."}.isdisjoint(key.split("/"))]
    return [f"{key!r} would leave the folder" for key in outside]


def _remove(folder: Path, process: int) -> None:
    # A forked worker holds a copy of the owner, and may end before the files are read.
    if os.getpid() == process:
        rmtree(folder, ignore_errors=True)
