"""Bytes by key over local folders, S3, HTTP, the Hugging Face hub and memory."""

from neurotrain.storage.base import (
    AccessDeniedError,
    AddressRefusedError,
    ChangedError,
    DeadlineError,
    InvalidKeyError,
    ObjectInfo,
    ObjectNotFoundError,
    Storage,
    StorageError,
    TransientError,
    TruncatedError,
    UnsupportedOperationError,
)
from neurotrain.storage.cached import CachedStorage
from neurotrain.storage.http import HttpStorage, UrlStorage
from neurotrain.storage.huggingface import HuggingFaceStorage
from neurotrain.storage.local import LocalStorage
from neurotrain.storage.memory import MemoryStorage
from neurotrain.storage.opening import open_storage
from neurotrain.storage.retry import RetryPolicy
from neurotrain.storage.s3 import S3Storage
from neurotrain.storage.statistics import Statistics
from neurotrain.storage.tier import MemoryTier

__all__ = [
    "AccessDeniedError",
    "AddressRefusedError",
    "CachedStorage",
    "ChangedError",
    "DeadlineError",
    "HttpStorage",
    "HuggingFaceStorage",
    "InvalidKeyError",
    "LocalStorage",
    "MemoryStorage",
    "MemoryTier",
    "ObjectInfo",
    "ObjectNotFoundError",
    "RetryPolicy",
    "S3Storage",
    "Statistics",
    "Storage",
    "StorageError",
    "TransientError",
    "TruncatedError",
    "UnsupportedOperationError",
    "UrlStorage",
    "open_storage",
]
