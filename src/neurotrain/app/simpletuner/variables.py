"""Variables in a file of data backends: a backend's id, the trainer's options, the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from neurotrain.app.simpletuner.journal import Journal

_PLACE = re.compile(r"\$\{(?P<shell>[A-Za-z_]\w*)\}|\{(?:env:)(?P<env>[A-Za-z_]\w*)\}|\{(?P<option>[a-z_]\w*)\}")


def substituted(
    backend: Mapping[str, Any], *, options: Mapping[str, str], environment: Mapping[str, str], journal: Journal
) -> dict[str, Any]:
    """Put values in the place of ``{id}``, ``{model_family}`` (any option), ``{env:NAME}`` and ``${NAME}``.

    Args:
        backend: one entry of the file.
        options: the trainer's, which the file does not have.
        environment: variables of the environment.
        journal: told of each variable that is not set.

    Returns:
        The entry; secrets stay as they are, for they are referred to and never written.

    Example:
        >>> entry = {"id": "cats", "cache_dir_vae": "cache/{model_family}/{id}"}
        >>> substituted(entry, options={"model_family": "flux"}, environment={}, journal=Journal())["cache_dir_vae"]
        'cache/flux/cats'
    """
    name = str(backend.get("id", "?"))
    known = {**options, "id": name}

    def value_of(found: re.Match[str], key: str) -> str:
        option = found["option"]
        variable = found["shell"] or found["env"]
        value = known.get(option) if option is not None else environment.get(variable)
        if value is None:
            how = f"give it by --set {option}=VALUE" if option is not None else "set it in the environment"
            journal.refuse(name, key, f"variable {found[0]} is not set: {how}")
            return found[0]
        return value

    def replaced(value: Any, key: str) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(value, str):
            return _PLACE.sub(lambda found: value_of(found, key), value)
        if isinstance(value, Mapping):
            return {inner: replaced(item, f"{key}.{inner}") for inner, item in value.items()}
        if isinstance(value, list):
            return [replaced(item, key) for item in value]
        return value

    return {key: value if key in SECRETS else replaced(value, key) for key, value in backend.items()}


SECRETS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
"""Keys whose values are never written."""


def reference_in(value: str) -> str | None:
    """The environment variable that a secret names, where it is one.

    Example:
        >>> reference_in("${LAB_KEY}"), reference_in("AKIA123")
        ('LAB_KEY', None)
    """
    found = _PLACE.fullmatch(value)
    return None if found is None else found["shell"] or found["env"]
