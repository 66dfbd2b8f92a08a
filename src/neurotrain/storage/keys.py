"""What a key may be, and what of a URI may be shown."""

from __future__ import annotations

import re

_BAD_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|\0")
"""An empty part, ``.``, ``..``, a slash at either end, or a null byte."""

_USER = re.compile(r"(?<=://)[^/\s@?#]*@")
_QUERY = re.compile(r"(\bhttps?://[^\s?#'\"<>]*)[?#][^\s'\"<>]*", re.IGNORECASE)
_NAMED = re.compile(
    r"(?i)\b(x-amz-(?:signature|credential|security-token)|authorization|(?:aws_?)?secret(?:_?access)?_?key|"
    r"access_?token|session_?token|api_?key|password|token|signature)\b(['\"]?\s*[=:]\s*['\"]?)"
    r"(?:(?:bearer|basic)\s+)?[^\s'\"&,;)}\]]+"
)
_SHAPED = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{12,})\b")
_HIDDEN = "***"


def key_problem(key: str) -> str | None:
    """Why a key cannot name an object below a root; None where it can.

    Args:
        key: relative path with ``/`` between its parts.

    Returns:
        The reason, or None.

    Example:
        >>> key_problem("train/0001.png") is None
        True
        >>> key_problem("../secret")
        "a key is a relative path without empty parts, '.' and '..', like 'train/0001.png'"
    """
    if _BAD_PART.search(key) is None:
        return None
    return "a key is a relative path without empty parts, '.' and '..', like 'train/0001.png'"


def prefix_problem(prefix: str) -> str | None:
    """Why a prefix cannot select objects below a root; None where it can.

    A prefix is the beginning of a key: empty, ending in ``/``, or ending in the middle of a name.

    Example:
        >>> [prefix_problem(prefix) is None for prefix in ("", "train/", "train/00", "/train", "a/../b", "..")]
        [True, True, True, False, False, False]
    """
    return key_problem(prefix.removesuffix("/")) if prefix else None


def check_range(start: int, length: int | None) -> None:
    """Refuse a negative start or length.

    Raises:
        ValueError: if one is negative.
    """
    if start < 0:
        raise ValueError(f"start={start}: bytes from the beginning, 0 or more")
    if length is not None and length < 0:
        raise ValueError(f"length={length}: bytes, 0 or more; None reads to the end")


def redact(text: str) -> str:
    """Remove secrets from a URI, or from a text that holds URIs.

    Gone are user names and passwords of any URI, queries and fragments of web addresses (signed URLs carry their
    signature there), values of settings named like a secret, and tokens of a known shape.

    Example:
        >>> redact("https://ann:pw@host.org/a.png?X-Amz-Signature=f00")
        'https://***@host.org/a.png?***'
        >>> redact("s3://bucket/a.png: token=abc")
        's3://bucket/a.png: token=***'
    """
    text = _USER.sub(f"{_HIDDEN}@", text)
    text = _QUERY.sub(rf"\1?{_HIDDEN}", text)
    text = _NAMED.sub(rf"\1\2{_HIDDEN}", text)
    return _SHAPED.sub(_HIDDEN, text)
