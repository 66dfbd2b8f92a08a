"""Tar shards for tests: sound ones, and such as an attacker would make."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Content = tuple[str, bytes]


def tar(contents: Iterable[Content | tarfile.TarInfo]) -> bytes:
    """An archive of files, and of members without content as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for content in contents:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(content[0])
            info.size = len(content[1])
            archive.addfile(info, io.BytesIO(content[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def samples(first: int, count: int) -> list[Content]:
    """Members of samples: an image, a class, a text."""
    return [
        content
        for number in range(first, first + count)
        for content in (
            (f"s{number:03d}.jpg", bytes([number]) * (1 + 97 * (number % 9))),
            (f"s{number:03d}.cls", str(number % 4).encode()),
            (f"s{number:03d}.txt", f"größe {number}".encode()),
        )
    ]


def write_shards(folder: Path, counts: Iterable[int], *, packed: bool = False) -> Path:
    """Shards ``train-000.tar`` and so on, samples numbered through."""
    first = 0
    for number, count in enumerate(counts):
        data = tar(samples(first, count))
        name = f"train-{number:03d}.tar"
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data, mtime=0) if packed else data)
        first += count
    return folder


def expected(number: int) -> dict[str, object]:
    """Fields of a sample."""
    image = bytes([number]) * (1 + 97 * (number % 9))
    return {"image": image, "label": number % 4, "caption": f"größe {number}"}


def _header_of_size(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that says a size without bringing the bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(format=tarfile.GNU_FORMAT)


def _bad_sum(data: bytes) -> bytes:
    """The second member's header is damaged."""
    return data[:1024] + b"\xff" * 20 + data[1044:]


GOOD: list[Content] = [("a.jpg", b"\xff\xd8"), ("b.jpg", b"\xff\xd8")]

HOSTILE: dict[str, tuple[bytes, str]] = {
    "traversal": (tar([*GOOD, ("../canary.jpg", b"x")]), "leads out"),
    "inner traversal": (tar([*GOOD, ("x/../../canary.jpg", b"x")]), "leads out"),
    "absolute": (tar([*GOOD, ("/tmp/canary.jpg", b"x")]), "leads out"),
    "backslash": (tar([*GOOD, ("..\\canary.jpg", b"x")]), "leads out"),
    "symlink": (tar([*GOOD, special("c.jpg", tarfile.SYMTYPE, "/etc/passwd")]), "symbolic link"),
    "hard link": (tar([*GOOD, special("c.jpg", tarfile.LNKTYPE, "a.jpg")]), "hard link"),
    "device": (tar([*GOOD, special("c.jpg", tarfile.CHRTYPE)]), "device"),
    "pipe": (tar([*GOOD, special("c.jpg", tarfile.FIFOTYPE)]), "named pipe"),
    "pickle": (tar([*GOOD, ("c.pkl", b"cos\nsystem\n(S'touch canary'\ntR.")]), "pickle"),
    "pyd": (tar([*GOOD, ("c.pyd", b"cos\nsystem\n(S'touch canary'\ntR.")]), "pickle"),
    "packed pickle": (tar([*GOOD, ("c.image.PICKLE.gz", b"x")]), "pickle"),
    "checkpoint": (tar([*GOOD, ("c.pth", b"x")]), "pickle"),
    "huge": (tar(GOOD)[:2048] + _header_of_size("c.jpg", 2**40), "bytes, at most"),
    "negative": (tar(GOOD)[:2048] + _header_of_size("c.jpg", -1024), "a member of|corrupted"),
    "huge name": (
        tar(GOOD)[:2048] + _header_of_size("././@LongLink", 2**33, tarfile.GNUTYPE_LONGNAME) + bytes(4 * 2**20),
        "at most|corrupted",
    ),
    "huge pax": (
        tar(GOOD)[:2048] + _header_of_size("p", 2**33, tarfile.XHDTYPE) + bytes(4 * 2**20),
        "at most|corrupted",
    ),
    "chain of headers": (
        (_header_of_size("p", 0, tarfile.XHDTYPE)) * 5000 + tar(GOOD),
        "corrupted|leads out|no plain file",
    ),
    "twice": (tar([("a.jpg", b"1"), ("a.jpg", b"2")]), "two members"),
    "apart": (tar([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3")]), "side by side"),
    "damaged header": (_bad_sum(tar(GOOD)), "neither a header nor the end"),
    "cut in a member": (tar([*GOOD, ("c.jpg", b"x" * 5000)])[:4000], "truncated"),
    "cut between members": (tar(GOOD)[:2048], "without the mark"),
    "cut in a header": (tar(GOOD)[:1300], "truncated"),
    "two archives": (tar(GOOD) + tar([("c.jpg", b"x")]), "neither a header nor the end|behind its end"),
    "no tar": (b"<html>sorry</html>" * 100, "no tar archive"),
    "empty": (b"", "no tar archive"),
}
"""Name: an archive that is to be refused, and a part of the reason."""
