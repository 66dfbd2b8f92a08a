"""YAML files and mappings read into pydantic models: every mistake by its key, with the nearest valid name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from neurotrain.app.jobs.names import nearest
from neurotrain.documents import parse_yaml


class Strict(BaseModel):
    """Base of what is read from files: no unknown key, no value of another type, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_mapping(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """Read a YAML file of one mapping with the safe loader.

    Args:
        path: of the file.
        error: to raise.

    Returns:
        Plain containers.

    Raises:
        ValueError: of the type ``error``, if the file is not there, is not YAML, names a Python object, or has
            a key twice.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), loader=_Loader)
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise error(f"{path}: {' '.join(str(cause).split())}") from None
    if not isinstance(content, dict):
        raise error(f"{path}: expected keys and values, found {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def validated(model: type[M], content: Mapping[str, Any], *, where: str, error: type[ValueError]) -> M:
    """Make a model of a mapping.

    Args:
        model: what to make.
        content: plain containers.
        where: name of the file, for messages.
        error: to raise.

    Returns:
        The model.

    Raises:
        ValueError: of the type ``error``, with one line for each mistake.

    Example:
        >>> class Width(Strict):
        ...     width: int
        >>> validated(Width, {"widht": 3, "width": 1}, where="a.yaml", error=ValueError)
        Traceback (most recent call last):
            ...
        ValueError: a.yaml: widht: unknown key; did you mean 'width'?
    """
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        lines = [f"{where}: {_told(problem, model, content)}" for problem in cause.errors(include_url=False)]
        raise error("\n".join(lines)) from None


def _told(problem: ErrorDetails, model: type[BaseModel], content: Mapping[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        holder = _model_at(model, place[:-1])
        fields = [] if holder is None else [field.alias or name for name, field in holder.model_fields.items()]
        return f"{key}: unknown key{nearest(place[-1], fields)}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    shown = "" if isinstance(given, dict) or problem["type"] == "value_error" else f", found {given!r}"
    return f"{key}: {message}{shown}" if key else message


def _model_at(model: type[BaseModel], place: list[str]) -> type[BaseModel] | None:
    """Find the model that a place of an error lies in, through mappings, lists and tagged unions."""
    found: list[type[BaseModel]] = [model]
    for part in place:
        for candidate in reversed(found):
            field = candidate.model_fields.get(part)
            if field is not None:
                found.extend(_models_in(field.annotation))
                break
        else:
            tagged = [known for known in found if part in _tags(known)]
            found.extend(tagged)
    return found[-1] if place else model


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = annotation.__args__ if type(annotation).__module__ in ("typing", "types") else ()
    return [model for argument in inner for model in _models_in(argument)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    kind = model.model_fields.get("type")
    return () if kind is None else tuple(str(value) for value in kind.annotation.__args__)  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]
