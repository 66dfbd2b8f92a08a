"""What the identity of the data depends on."""

from __future__ import annotations

import os
from pathlib import Path

from neurotrain.data.datasets.fingerprint import EDGE, WHOLE, fingerprint_files


def _write(root: Path, content: dict[str, bytes]) -> list[Path]:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return [root / name for name in content]


def test_order_time_and_place_do_not_matter(tmp_path: Path) -> None:
    content = {"a/x.png": b"one", "b.png": b"two"}
    here, there = _write(tmp_path / "here", content), _write(tmp_path / "there" / "deep", content)
    os.utime(here[0], (0, 0))
    first = fingerprint_files(here, root=tmp_path / "here")
    assert fingerprint_files(reversed(there), root=tmp_path / "there" / "deep") == first
    assert fingerprint_files(here[:1], root=tmp_path / "here") != first


def test_names_and_contents_do_not_run_together(tmp_path: Path) -> None:
    one = fingerprint_files(_write(tmp_path / "1", {"ab": b"c"}), root=tmp_path / "1")
    two = fingerprint_files(_write(tmp_path / "2", {"a": b"bc"}), root=tmp_path / "2")
    swapped = fingerprint_files(_write(tmp_path / "3", {"a": b"1", "b": b"2"}), root=tmp_path / "3")
    straight = fingerprint_files(_write(tmp_path / "4", {"a": b"2", "b": b"1"}), root=tmp_path / "4")
    assert len({one, two, swapped, straight}) == 4


def test_large_files_count_by_size_and_ends(tmp_path: Path) -> None:
    def after(position: int | None, size: int = WHOLE + 1) -> str:
        data = bytearray(size)
        if position is not None:
            data[position] = 1
        return fingerprint_files(_write(tmp_path, {"x": bytes(data)}), root=tmp_path)

    base = after(None)
    assert after(0) != base
    assert after(-1) != base
    assert after(WHOLE // 2) == base
    assert after(None, WHOLE + 2) != base
    assert after(EDGE + 5, WHOLE) != after(None, WHOLE)
