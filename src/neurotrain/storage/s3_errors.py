"""What the errors of the S3 client mean; imports botocore, so it is imported when there is one."""

from __future__ import annotations

from aiohttp import ClientError as WebError
from aiohttp import ClientPayloadError
from botocore import exceptions as botocore_errors
from botocore.parsers import ResponseParserError

from neurotrain.storage.base import (
    AccessDeniedError,
    DeadlineError,
    ObjectNotFoundError,
    StorageError,
    TransientError,
    TruncatedError,
)

_NO_ACCESS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.ProfileNotFound,
    botocore_errors.NoAuthTokenError,
    botocore_errors.SSOError,
    botocore_errors.UnauthorizedSSOTokenError,
)
_TOO_LATE = (botocore_errors.ConnectTimeoutError, botocore_errors.ReadTimeoutError, TimeoutError)
_TOO_LITTLE = (
    botocore_errors.IncompleteReadError,
    botocore_errors.FlexibleChecksumError,
    botocore_errors.ResponseStreamingError,
    ClientPayloadError,
)
_PASSING = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    ResponseParserError,
    WebError,
    ConnectionError,
)
# Answers with status 400 that say no more than "again".
_PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "BadDigest"})
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def typed(error: Exception, uri: str) -> StorageError | None:
    """Say what an error of the client means.

    Args:
        error: what was raised.
        uri: where.

    Returns:
        A storage's error, or None if it is none of the client's: a mistake in the program.
    """
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, botocore_errors.ClientError):
        return _answered(error, uri)
    if isinstance(error, _NO_ACCESS):
        return AccessDeniedError(uri, reason)
    if isinstance(error, _TOO_LATE):
        return DeadlineError(uri, reason)
    if isinstance(error, _TOO_LITTLE):
        return TruncatedError(uri, reason)
    if isinstance(error, botocore_errors.SSLError) and "certificate" in str(error).lower():
        return AccessDeniedError(uri, reason)
    if isinstance(error, _PASSING):
        return TransientError(uri, reason)
    if isinstance(error, (botocore_errors.BotoCoreError, OSError)):
        return StorageError(uri, reason)
    return None


def _answered(error: botocore_errors.ClientError, uri: str) -> StorageError:
    """Read the server's answer."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = str(error.response.get("Error", {}).get("Message", "")).strip()
    reason = f"{status} {code}" + (f": {said}" if said and said != code else "")
    if code == "NoSuchBucket":
        return ObjectNotFoundError(uri, f"{reason}: no such bucket")
    if status == 404 or code in ("NoSuchKey", "404"):
        return ObjectNotFoundError(uri, reason)
    if status in (401, 403) or code in ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"):
        return AccessDeniedError(uri, reason)
    if status in _PASSING_STATUS or code in _PASSING_CODES:
        return TransientError(uri, reason)
    if status in (301, 307) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StorageError(uri, f"{reason}: the bucket may lie in another region")
    return StorageError(uri, reason)
