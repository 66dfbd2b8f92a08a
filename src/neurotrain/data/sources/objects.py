"""Which objects of a storage a source consists of: keys, patterns of keys, and numbered ranges of keys."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from braceexpand import braceexpand

from neurotrain.storage import ObjectInfo, Storage
from neurotrain.storage.keys import key_problem

MOST_KEYS = 1_000_000
"""Keys that a pattern with braces may expand to."""

AT_ONCE = 8
"""Objects asked after side by side: a request is mostly waiting."""

_WILD = "*?["
_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?\d+)?\}")
_ANY_RANGE = re.compile(r"\{[^{},]*\.\.[^{},]*\}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")


def find_objects(storage: Storage, patterns: str | Sequence[str], *, key: str) -> list[ObjectInfo]:
    """The objects that some patterns name.

    Args:
        storage: holds them.
        patterns: keys, keys with braces (``train-{0000..0099}.tar``), or with ``*`` (any text, ``/`` included), ``?``
            and ``[]``. Only the last ones list the storage.
        key: setting that they come from, for messages.

    Returns:
        By key, each once.

    Raises:
        ValueError: if there is no pattern, one finds nothing, or one is a URL or a command.
        StorageError: if an object that is named does not exist, or the storage fails.

    Example:
        >>> from neurotrain.storage import MemoryStorage
        >>> storage = MemoryStorage(name="example")
        >>> for name in ("a-0.tar", "a-1.tar", "b.txt"):
        ...     _ = storage.write(name, b"")
        >>> [item.key for item in find_objects(storage, ["a-{0..1}.tar", "*.txt"], key="shards")]
        ['a-0.tar', 'a-1.tar', 'b.txt']
        >>> find_objects(storage, "pipe:cat a-0.tar", key="shards")
        Traceback (most recent call last):
        ...
        ValueError: shards='pipe:cat a-0.tar': a key below memory://example is expected, not a URL or a command
    """
    given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not given:
        raise ValueError(f"{key}={patterns!r}: name at least one, or a pattern")
    exact = [name for pattern in given for name in _expanded(pattern, storage=storage, key=key)]
    found = {item.key: item for pattern in exact if _wild(pattern) for item in _matching(storage, pattern, key=key)}
    named = [pattern for pattern in exact if not _wild(pattern)]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        found.update((item.key, item) for item in pool.map(storage.stat, named))
    return [found[name] for name in sorted(found)]


def _expanded(pattern: str, *, storage: Storage, key: str) -> Iterable[str]:
    if _SCHEME.match(pattern):
        raise ValueError(f"{key}={pattern!r}: a key below {storage.uri} is expected, not a URL or a command")
    problem = key_problem(pattern)
    if problem is not None:
        raise ValueError(f"{key}={pattern!r}: {problem}")
    if "{" not in pattern:
        return (pattern,)
    numbered = _RANGE.findall(pattern)
    if len(numbered) != len(_ANY_RANGE.findall(pattern)):
        raise ValueError(f"{key}={pattern!r}: a range counts from one number to another, as in {{000..127}}")
    # Counted before it is expanded: a range of 10**12 would fill the memory.
    count = math.prod(abs(int(last) - int(first)) + 1 for first, last in numbered)
    if count > MOST_KEYS:
        raise ValueError(f"{key}={pattern!r}: would be {count} keys, at most {MOST_KEYS}")
    names = list(braceexpand(pattern))
    for name in names:
        if key_problem(name) is not None or _SCHEME.match(name):
            raise ValueError(f"{key}={pattern!r}: expands to {name!r}, which is no key")
    return names


def _wild(pattern: str) -> bool:
    return any(mark in pattern for mark in _WILD)


def _matching(storage: Storage, pattern: str, *, key: str) -> list[ObjectInfo]:
    start = min(pattern.find(mark) for mark in _WILD if mark in pattern)
    matched = [item for item in storage.list(pattern[:start]) if fnmatch.fnmatchcase(item.key, pattern)]
    if not matched:
        raise ValueError(f"{key}={pattern!r}: nothing like it below {storage.uri}")
    return matched
