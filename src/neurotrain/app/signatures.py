"""What a callable declares: its arguments, with annotations resolved at run time."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

_OWN_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of a callable.

    Attributes:
        annotation: resolved; ``Any`` where there is none, or where only a type checker can resolve it.
        required: whether there is no default.
        default: ``inspect.Parameter.empty`` where there is none.
        positional_only: whether no keyword can give it.
    """

    annotation: object
    required: bool
    default: object
    positional_only: bool


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a class or function takes.

    Attributes:
        name: of the class or function.
        arguments: by name, in their order, without ``*args`` and ``**kwargs``.
        takes_any: whether a foreign ``**kwargs`` takes any further key; our own never does.
        own: whether it is defined in this package.
        unresolved: arguments whose annotation can't be resolved at run time.
    """

    name: str
    arguments: Mapping[str, Argument]
    takes_any: bool
    own: bool
    unresolved: tuple[str, ...]


@cache
def signature_of(target: Callable[..., object]) -> Signature:
    """Read the signature of a class's constructor or of a function.

    Args:
        target: class or function.

    Returns:
        Its arguments.

    Raises:
        ValueError: if it has none that can be read, as some builtins.

    Example:
        >>> from fractions import Fraction
        >>> [name for name, argument in signature_of(Fraction).arguments.items() if not argument.required][:2]
        ['numerator', 'denominator']
    """
    hints = resolve_hints(target)
    parameters = _parameters(target)
    named = [item for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    own = str(target.__module__).partition(".")[0] == _OWN_PACKAGE
    arguments = {
        item.name: Argument(
            annotation=hints.types.get(item.name, Any),
            required=item.default is item.empty,
            default=item.default,
            positional_only=item.kind is item.POSITIONAL_ONLY,
        )
        for item in named
    }
    return Signature(
        name=target.__qualname__,
        arguments=arguments,
        takes_any=not own and any(item.kind is item.VAR_KEYWORD for item in parameters),
        own=own,
        unresolved=tuple(name for name in arguments if name in hints.unresolved),
    )


def _parameters(target: Callable[..., object]) -> list[inspect.Parameter]:
    # `inspect.signature` stops at a metaclass's or `__new__`'s (*args, **kwargs), as Lightning's data modules have.
    if isinstance(target, type) and "__signature__" not in vars(target) and target.__init__ is not object.__init__:
        return list(inspect.signature(target.__init__).parameters.values())[1:]
    try:
        return list(inspect.signature(target).parameters.values())
    except TypeError as error:
        raise ValueError(str(error)) from error


class Hints(NamedTuple):
    """What the parameters of a callable are annotated with.

    Attributes:
        types: resolved annotation by name, ``return`` among them for functions.
        unresolved: names whose annotation can't be resolved at run time.
    """

    types: Mapping[str, object]
    unresolved: frozenset[str]


@cache
def resolve_hints(target: object) -> Hints:
    """Resolve the annotations of a function, or of a class's constructor, name by name.

    Args:
        target: class or function.

    Returns:
        The annotations; those that only a type checker can resolve are listed by name.
    """
    resolved: dict[str, object] = {}
    unresolved: set[str] = set()
    for name, (annotation, namespace) in _raw_annotations(target).items():
        stub = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            resolved[name] = typing.get_type_hints(stub, globalns=namespace, include_extras=True)[name]
        except (NameError, AttributeError, TypeError, SyntaxError):
            unresolved.add(name)
    return Hints(resolved, frozenset(unresolved))


def _raw_annotations(target: object) -> dict[str, tuple[object, dict[str, Any]]]:
    """Each name's annotation as written, with the namespace of the module that wrote it."""
    raw: dict[str, tuple[object, dict[str, Any]]] = {}
    if not isinstance(target, type):
        return _function_annotations(target)
    if dataclasses.is_dataclass(target) or typing.is_typeddict(target) or issubclass(target, tuple):
        # A generated constructor repeats the fields' annotations as text, whichever module they come from.
        for cls in reversed(target.__mro__):
            namespace = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
            raw |= {name: (written, namespace) for name, written in inspect.get_annotations(cls).items()}
    for constructor in (target.__new__, target.__init__):
        for name, (written, namespace) in _function_annotations(constructor).items():
            if name not in raw or raw[name][0] != written:
                raw[name] = (written, namespace)
    raw.pop("return", None)
    return raw


def _function_annotations(function: object) -> dict[str, tuple[object, dict[str, Any]]]:
    if not callable(function):
        return {}
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        return {}
    return {name: (written, inner.__globals__) for name, written in inspect.get_annotations(inner).items()}
