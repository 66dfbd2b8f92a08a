"""A storage for a URI."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from neurotrain.storage.base import Storage
from neurotrain.storage.http import HttpStorage
from neurotrain.storage.huggingface import HuggingFaceStorage
from neurotrain.storage.keys import redact
from neurotrain.storage.local import LocalStorage
from neurotrain.storage.memory import MemoryStorage
from neurotrain.storage.s3 import S3Storage


def open_storage(uri: str, **options: object) -> Storage:
    """Make the storage that a URI names.

    ================================  =================================================================
    URI                               storage
    ================================  =================================================================
    ``folder``, ``file:///folder``    :class:`LocalStorage`
    ``memory://name``                 :class:`MemoryStorage`
    ``s3://bucket/prefix``            :class:`S3Storage`
    ``https://host/folder``           :class:`HttpStorage`
    ``hf://datasets/owner/name@rev``  :class:`HuggingFaceStorage`; also ``hf://owner/name`` (a model), ``hf://spaces/...``
    ================================  =================================================================

    Args:
        uri: root of the storage. Credentials do not belong in it: they come from where the backend looks for them.
        **options: further arguments of the storage's constructor.

    Returns:
        The storage; nothing is connected yet.

    Raises:
        ValueError: if the scheme or an option is unknown, or the URI holds credentials.

    Example:
        >>> open_storage("memory://example")
        MemoryStorage(memory://example)
        >>> open_storage("memory://example", nam="x")
        Traceback (most recent call last):
        ValueError: nam='x': not an option of MemoryStorage; it has none besides its URI
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    if scheme not in _SCHEMES:
        nearest = difflib.get_close_matches(scheme, _SCHEMES, n=1, cutoff=0.5)
        hint = f"the nearest is {nearest[0]!r} of" if nearest else "it is one of"
        raise ValueError(f"{redact(uri)!r}: unknown scheme {scheme!r}; {hint} {sorted(_SCHEMES)}")
    if separator and "@" in rest.partition("/")[0]:
        raise ValueError(f"{redact(uri)!r}: credentials do not belong in a URI")
    constructor, located = _SCHEMES[scheme](scheme, rest)
    _check_options(constructor, located, options)
    arguments = {**located, **options}
    return constructor(**arguments)


_Located = tuple[type[Storage], dict[str, Any]]


def _local(_: str, rest: str) -> _Located:
    return LocalStorage, {"root": rest}


def _memory(_: str, rest: str) -> _Located:
    return MemoryStorage, {"name": rest}


def _s3(_: str, rest: str) -> _Located:
    bucket, _, prefix = rest.partition("/")
    return S3Storage, {"bucket": bucket, "prefix": prefix}


def _web(scheme: str, rest: str) -> _Located:
    return HttpStorage, {"base_url": f"{scheme}://{rest}"}


def _hub(_: str, rest: str) -> _Located:
    kind, _, other = rest.partition("/")
    kinds = {"datasets": "dataset", "spaces": "space", "models": "model"}
    owner, _, other = (other if kind in kinds else rest).partition("/")
    name, _, prefix = other.partition("/")
    name, at, revision = name.partition("@")
    located = {"repo_id": f"{owner}/{name}", "repo_type": kinds.get(kind, "model"), "prefix": prefix}
    return HuggingFaceStorage, located | ({"revision": unquote(revision)} if at else {})


_SCHEMES: Mapping[str, Callable[[str, str], _Located]] = {
    "file": _local,
    "hf": _hub,
    "http": _web,
    "https": _web,
    "memory": _memory,
    "s3": _s3,
}


def _check_options(constructor: type[Storage], located: Mapping[str, Any], options: Mapping[str, object]) -> None:
    """Refuse options that the constructor has not, or that the URI says already."""
    names = [name for name in inspect.signature(constructor).parameters if name not in located]
    for name, value in options.items():
        if name in names:
            continue
        shown = f"{name}={redact(repr(value))}"
        if name in located:
            raise ValueError(f"{shown}: the URI says it already")
        nearest = difflib.get_close_matches(name, names, n=1)
        has = f"the nearest is {nearest[0]!r} of {names}" if nearest else f"it has {names or 'none besides its URI'}"
        raise ValueError(f"{shown}: not an option of {constructor.__name__}; {has}")
