"""Bytes by key over local folders, S3, HTTP, the Hugging Face hub and memory."""

from neurotrain.storage.base import (
    AccessDeniedError,
    DeadlineError,
    ObjectInfo,
    ObjectNotFoundError,
    Storage,
    StorageError,
    TransientError,
    TruncatedError,
)

__all__ = [
    "AccessDeniedError",
    "DeadlineError",
    "ObjectInfo",
    "ObjectNotFoundError",
    "Storage",
    "StorageError",
    "TransientError",
    "TruncatedError",
]
