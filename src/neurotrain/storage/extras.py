"""Optional libraries: asked for once, by the name of the extra that brings them."""

from __future__ import annotations

from importlib.util import find_spec


def require(library: str, *, extra: str, purpose: str) -> None:
    """Check that an optional library is installed, without importing it.

    Args:
        library: name of its top module.
        extra: of neurotrain, which brings it.
        purpose: what needs it.

    Raises:
        ImportError: if it is missing; the message says what to install.

    Example:
        >>> require("no_such_library", extra="s3", purpose="S3Storage")
        Traceback (most recent call last):
        ImportError: S3Storage needs no_such_library: pip install "neurotrain[s3]"
    """
    if find_spec(library) is None:
        raise ImportError(f'{purpose} needs {library}: pip install "neurotrain[{extra}]"', name=library)
