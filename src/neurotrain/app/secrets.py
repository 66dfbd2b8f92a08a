"""What a run knows and must not write: values of secret settings and of secret environment variables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from neurotrain.storage.keys import redact

HIDDEN = "***"
_SHORTEST = 6
"""Characters; a shorter value would be found in half of all words."""

_VARIABLE = re.compile(
    r"(?:.*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS?)(?:_.*)?"
)
_SETTING = re.compile(
    r"(?:.*_)?(?:secret|password|passwd|passphrase|api_?key|access_key|secret_key|secret_access_key|private_key)|"
    r"(?:(?:access|auth|session|security|refresh|api|hub|hf)_)?token",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Secrets:
    """Values that are hidden wherever they stand; what looks like a secret is hidden besides.

    Attributes:
        values: the longest first.

    Example:
        >>> secrets = Secrets.of({"storage": {"secret": "hunter2"}}, environment={"HF_TOKEN": "abcdefgh"})
        >>> secrets.hide("bad password hunter2 and abcdefgh at https://ann:x@host")
        'bad password *** and *** at https://***@host'
    """

    values: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any] | DictConfig, *, environment: Mapping[str, str] | None = None) -> Secrets:
        """Collect them.

        Args:
            config: a composed configuration, interpolations unresolved.
            environment: ``os.environ`` where None.
        """
        variables = os.environ if environment is None else environment
        found = {value for name, value in variables.items() if _VARIABLE.fullmatch(name)}
        found |= {value for key, value in _leaves(_plain(config)) if _is_secret(key, value)}
        return cls(tuple(sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)))

    def hide(self, text: str) -> str:
        """Replace them in a text, and credentials in URIs, queries of addresses and tokens of known shapes."""
        for value in self.values:
            text = text.replace(value, HIDDEN)
        return redact(text)

    def without(self, config: DictConfig) -> DictConfig:
        """Copy a configuration with secrets hidden in its values; interpolations stay as they are."""
        return cast("DictConfig", OmegaConf.create(self.hidden(_plain(config))))

    def hidden(self, value: object, *, key: str = "") -> Any:  # noqa: ANN401 - any YAML value
        """Copy plain containers with secrets hidden in their values.

        Args:
            value: to copy.
            key: under which it stands.
        """
        if isinstance(value, Mapping):
            named = cast("Mapping[Any, object]", value)
            return {name: self.hidden(inner, key=str(name)) for name, inner in named.items()}
        if isinstance(value, (list, tuple)):
            return [self.hidden(inner, key=key) for inner in cast("Sequence[object]", value)]
        if _is_secret(key, value):
            return HIDDEN
        return self.hide(value) if isinstance(value, str) else value


class HidingFormatter(logging.Formatter):
    """Formats records, tracebacks included, without secrets.

    Args:
        layout: as ``logging.Formatter`` takes it.
        secrets: to hide.
    """

    def __init__(self, layout: str, secrets: Secrets) -> None:
        super().__init__(layout)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return self._secrets.hide(super().format(record))


def _is_secret(key: str, value: object) -> bool:
    # What is unresolved names a variable, and tells nothing; nor does a number, as of a vocabulary.
    return isinstance(value, str) and bool(value) and "${" not in value and _SETTING.fullmatch(key) is not None


def _plain(config: Mapping[str, Any] | DictConfig) -> object:
    return OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else config


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[Any, object]", value).items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, (list, tuple)):
        for inner in cast("Sequence[object]", value):
            yield from _leaves(inner, key)
    elif isinstance(value, str):
        yield key, value
