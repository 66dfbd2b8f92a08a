"""What an entry of a cache is found by: a hash of everything that its value depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

SettingValue: TypeAlias = "str | int | float | bool | Sequence[SettingValue] | Mapping[str, SettingValue] | None"
"""A plain value, or a list or mapping of such."""

Settings: TypeAlias = Mapping[str, SettingValue]
"""What decides a value besides the input and the weights: resolution, crop, lengths, …, by name."""

KEY_BYTES = 16
"""Length of a key: two inputs among 10^12 share one with a probability of 10^-15."""


def cache_key(*parts: str) -> bytes:
    """BLAKE2b (128 bit) over texts in order, each with its length, so that none can trade letters with its neighbour.

    Args:
        parts: what the value depends on.

    Returns:
        16 bytes.

    Example:
        >>> cache_key("a", "bc") == cache_key("ab", "c")
        False
    """
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def canonical(settings: Settings) -> str:
    """One text for equal settings, whatever the order they were given in.

    Args:
        settings: plain values only.

    Returns:
        JSON with sorted names.

    Raises:
        ValueError: names the setting that is no plain, finite value: it would not mean the same in another process.

    Example:
        >>> canonical({"size": (64, 64), "crop": "centre"})
        '{"crop":"centre","size":[64,64]}'
    """
    for name, value in settings.items():
        _check(name, value)
    return json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def content_hash(content: bytes | bytearray | memoryview | str) -> str:
    """Identity of bytes or of a text: 32 hexadecimal digits of BLAKE2b.

    Example:
        >>> content_hash("neuro") == content_hash(b"neuro")
        True
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=KEY_BYTES).hexdigest()


def owner(name: str, *, world_size: int) -> int:
    """Which of ``world_size`` ranks works on something, by the hash of its name: the same answer on every rank.

    Args:
        name: of a sample, or a text itself.
        world_size: number of ranks.

    Returns:
        A rank.

    Raises:
        ValueError: if there is no rank.

    Example:
        >>> [owner(name, world_size=2) for name in ("0001", "0002", "0003", "0004", "0005", "0006")]
        [0, 1, 0, 0, 1, 1]
    """
    if world_size < 1:
        raise ValueError(f"world_size={world_size}: must be at least 1")
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % world_size


def _check(name: str, value: object) -> None:
    if isinstance(value, Mapping):
        for inner, part in value.items():
            _check(f"{name}.{inner}", part)
    elif isinstance(value, (list, tuple)):
        for position, part in enumerate(value):
            _check(f"{name}[{position}]", part)
    elif not (value is None or isinstance(value, (str, bool, int, float))) or value != value or value in _INFINITE:
        raise ValueError(f"{name}={value!r}: a setting in a key is text, a finite number, true, false or null")


_INFINITE = (float("inf"), float("-inf"))


def _plain(value: object) -> object:
    assert isinstance(value, Mapping), "checked before"
    return dict(value)
