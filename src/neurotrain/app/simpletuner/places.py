"""Folders and buckets of backends, and the storage that holds several of them."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neurotrain.app.simpletuner.backend import Backend
from neurotrain.app.simpletuner.nodes import Node
from neurotrain.app.simpletuner.variables import SECRETS, reference_in

_BUCKET = ("aws_bucket_name", "aws_endpoint_url", "aws_region_name", *SECRETS)
_USUAL = {
    "aws_access_key_id": ("key", "AWS_ACCESS_KEY_ID"),
    "aws_secret_access_key": ("secret", "AWS_SECRET_ACCESS_KEY"),
    "aws_session_token": ("token", "AWS_SESSION_TOKEN"),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a backend's files lie.

    Attributes:
        path: folder of this machine, or prefix in a bucket.
        bucket: what else tells the bucket and who asks; empty for this machine.
    """

    path: str
    bucket: tuple[tuple[str, str], ...] = ()


def place_of(backend: Backend) -> Place:
    """The place of a backend of type local or aws."""
    if backend.type != "aws":
        return Place(path=backend.needed("instance_data_dir", "the folder of the images"))
    bucket = {key: backend.text(key) for key in _BUCKET}
    backend.needed("aws_bucket_name", "the bucket of the images")
    folder = backend.text("aws_data_prefix", backend.text("instance_data_dir")) or ""
    return Place(path=folder.strip("/"), bucket=tuple((key, value) for key, value in bucket.items() if value))


def storage_of(backend: Backend, places: Sequence[Place]) -> tuple[Node, list[str]]:
    """One storage below which several places lie, and the folder of each relative to it.

    Args:
        backend: whose storage it is.
        places: of one bucket, or of this machine.

    Returns:
        The storage, and keys: empty for the root itself.
    """
    paths = [posixpath.normpath(place.path) if place.path else "" for place in places]
    root = _common(paths)
    keys = [posixpath.relpath(path or ".", root or ".") for path in paths]
    keys = ["" if key == "." else key for key in keys]
    bucket = dict(places[0].bucket)
    if not bucket:
        return Node(group="data/storage", name="LocalStorage", values={"root": root or "."}), keys
    values: dict[str, Any] = {"bucket": bucket["aws_bucket_name"], "prefix": root}
    for theirs, ours in (("aws_endpoint_url", "endpoint_url"), ("aws_region_name", "region")):
        if theirs in bucket:
            values[ours] = bucket[theirs]
    return Node(group="data/storage", name="S3Storage", values={**values, **_credentials(backend, bucket)}), keys


def _common(paths: Sequence[str]) -> str:
    if "" in paths or len({path.startswith("/") for path in paths}) > 1:
        return ""
    return posixpath.commonpath(paths)


def _credentials(backend: Backend, bucket: dict[str, str]) -> dict[str, str]:
    """References to variables of the environment; two backends with the same secret refer to the same one."""
    journal = backend.journal
    found: dict[str, str] = {}
    for key, (argument, usual) in _USUAL.items():
        if key not in bucket:
            continue
        named = reference_in(bucket[key])
        name = named or _variable(backend, usual, bucket[key])
        found[argument] = journal.environment(name, f"{key} of {backend.id!r}")
    if not found:
        journal.note(backend.id, "aws_access_key_id", "not given: credentials come from the standard chain")
    elif "secret" not in found or "key" not in found:
        backend.refuse("aws_secret_access_key", "aws_access_key_id and aws_secret_access_key go together")
    return found


def _variable(backend: Backend, usual: str, secret: str) -> str:
    own = f"{usual}_{backend.name.upper()}"
    known = backend.journal.secrets.setdefault(secret, usual if usual not in backend.journal.variables else own)
    return known
