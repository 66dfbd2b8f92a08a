"""Identity of a set of files: what was read, not where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WHOLE = 4 * 2**20
"""Bytes up to which a file counts with its whole content; above, with its first and last ``EDGE`` bytes."""

EDGE = 2**20


def fingerprint_files(files: Iterable[Path], *, root: Path) -> str:
    """BLAKE2b (128 bit) over relative path, size and content of every file.

    The order of ``files``, their time stamps and the place of ``root`` have no influence. The middle of a file above
    4 MiB is not read: what changes there without changing the size goes unseen.

    Args:
        files: paths below ``root``.
        root: folder that the paths are taken relative to.

    Returns:
        32 hexadecimal digits.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is not below ``root``.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     _ = path.write_bytes(b"neuro")
        ...     fingerprint_files([path], root=Path(folder))
        'ac610956c0f227fe3908221e740dd6f5'
    """
    total = hashlib.blake2b(digest_size=16)
    named = {path.relative_to(root).as_posix(): path for path in files}
    for name in sorted(named):
        size, content = _content(named[name])
        # Lengths first: without them the end of one name and the start of the next content could trade bytes.
        total.update(f"{len(name.encode())}:{size}:".encode() + name.encode() + content)
    return total.hexdigest()


def _content(path: Path) -> tuple[int, bytes]:
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            digest.update(file.read(EDGE))
            file.seek(size - EDGE)
            digest.update(file.read(EDGE))
    return size, digest.digest()
