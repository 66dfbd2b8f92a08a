"""Plain values (YAML's) against type annotations: does it fit, and how does it become what the annotation says.

Nothing is coerced: ``"3"`` is no int and ``True`` is no int. What YAML can't write is accepted in its plain form and
made by :func:`convert`: lists for tuples, strings for paths, names for enumerations, mappings for dataclasses.
A node (a mapping with ``_target_``) stands for what its target makes, and is compared by class.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import inspect
import os
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NamedTuple, NewType, Union, get_args, get_origin

from neurotrain.app.allow import did_you_mean
from neurotrain.app.signatures import resolve_hints

MISSING = "???"
"""OmegaConf's marker of a value that must still be given; it fits every annotation, the strict check reports it."""

TargetOf = Callable[[str], object]
"""From a dotted path to its class or function; None where it is unknown, which then fits everything."""

_SEQUENCES = (list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection, abc.Reversible, abc.Container)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_SETS = (set, frozenset, abc.Set, abc.MutableSet)
_CONTAINERS = (tuple, *_SEQUENCES, *_MAPPINGS, *_SETS)
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, type(None))


class Mismatch(NamedTuple):
    """One place where a value doesn't fit.

    Attributes:
        path: keys and indices from the value down to the place; empty for the value itself.
        reason: one line.
    """

    path: tuple[str, ...]
    reason: str


def conform(value: object, annotation: object, *, target_of: TargetOf | None = None) -> str | None:
    """Say in one line why a plain value doesn't fit an annotation.

    Args:
        value: what YAML can hold, nodes among it, or an object that was built from a node already.
        annotation: resolved, not a string.
        target_of: finds a node's target; without it nodes fit everything.

    Returns:
        None where the value fits, else the first reason, with the element's key in front.

    Example:
        >>> conform("3", int)
        "expected int, got str '3'"
        >>> conform([1, 2.5], tuple[int, ...])
        '1: expected int, got float 2.5'
        >>> conform(None, int | None) is None
        True
    """
    for path, reason in _mismatches(value, annotation, target_of or _unknown):
        return f"{'.'.join(path)}: {reason}" if path else reason
    return None


def mismatches(value: object, annotation: object, *, target_of: TargetOf | None = None) -> list[Mismatch]:
    """List every place of a plain value that doesn't fit an annotation; arguments as for :func:`conform`."""
    return list(_mismatches(value, annotation, target_of or _unknown))


def is_node(value: object) -> bool:
    """Whether the value is a mapping that names what it calls."""
    return isinstance(value, Mapping) and "_target_" in value


def _unknown(_: str) -> object:
    return None


def bare(annotation: object) -> object:
    """Strip what says nothing about values: Annotated, NewType, InitVar, Final, Required and their like."""
    if isinstance(annotation, NewType):
        return bare(annotation.__supertype__)
    if isinstance(annotation, dataclasses.InitVar):
        return bare(annotation.type)
    if sys.version_info >= (3, 12) and isinstance(annotation, typing.TypeAliasType):
        return bare(annotation.__value__)
    if get_origin(annotation) in (Annotated, typing.ClassVar, typing.Final, typing.Required, typing.NotRequired):
        return bare(get_args(annotation)[0])
    if annotation is typing.LiteralString:
        return str
    return type(None) if annotation is None else annotation


def _base(annotation: object) -> Any:  # noqa: ANN401 - a class, or a special form of typing
    return get_origin(annotation) or annotation


def _members(annotation: object) -> tuple[object, ...]:
    """Members of a union, flat; the annotation itself where it is no union."""
    annotation = bare(annotation)
    if get_origin(annotation) not in (Union, types.UnionType):
        return (annotation,)
    return tuple(inner for member in get_args(annotation) for inner in _members(member))


def _is_callable_type(annotation: object) -> bool:
    return _base(annotation) is abc.Callable


def _accepts_anything(annotation: object) -> bool:
    if annotation is Any or annotation is object or annotation is inspect.Parameter.empty:
        return True
    # Type variables, Self, unresolved names and other forms say nothing that could be checked.
    return get_origin(annotation) is not Literal and not isinstance(_base(annotation), type)


def _mismatches(value: object, annotation: object, target_of: TargetOf) -> Iterator[Mismatch]:
    members = _members(annotation)
    if any(_accepts_anything(member) for member in members) or (isinstance(value, str) and value == MISSING):
        return
    if is_node(value):
        yield from _node_mismatches(typing.cast("Mapping[str, object]", value), members, target_of)
        return
    failures = [list(_member_mismatches(value, member, target_of)) for member in members]
    if not all(failures):
        return
    # The one member of the value's own shape knows which element is wrong.
    inside = [failure for failure in failures if any(path for path, _ in failure)]
    if len(inside) == 1:
        yield from inside[0]
    else:
        yield Mismatch((), _refusal(value, members))


def _member_mismatches(value: object, member: object, target_of: TargetOf) -> Iterator[Mismatch]:
    """Compare with one annotation that is no union; where the value itself is wrong, the caller finds the words."""
    base = _base(member)
    if isinstance(value, (list, tuple)) and base in (tuple, *_SEQUENCES, *_SETS):
        annotations = _element_annotations(value, member)
        elements = [(str(index), *pair) for index, pair in enumerate(zip(value, annotations or (), strict=False))]
        if annotations is None:
            yield Mismatch((), "")
    elif isinstance(value, dict) and base in _MAPPINGS:
        of_key, of_value = get_args(member) or (Any, Any)
        elements = [(str(key), key, of_key) for key in value] + [(str(key), value[key], of_value) for key in value]
    elif isinstance(value, dict) and _is_record(base):
        yield from _wrong_fields(value, base)
        elements = [(key, value[key], field) for key, (field, _) in _fields(base).items() if key in value]
    else:
        elements = []
        if not _fits_itself(value, member):
            yield Mismatch((), "")
    for key, element, annotation in elements:
        for path, reason in _mismatches(element, annotation, target_of):
            yield Mismatch((key, *path), reason)


def _element_annotations(value: list[object] | tuple[object, ...], member: object) -> tuple[object, ...] | None:
    """Annotation of each element of a sequence; None where length or kind of the sequence is wrong."""
    base, arguments = _base(member), get_args(member)
    if base is tuple and arguments and arguments[-1] is not Ellipsis:
        return arguments if len(arguments) == len(value) else None
    if isinstance(value, tuple) and base in (list, abc.MutableSequence):
        return None
    if base in _SETS and len({repr(element) for element in value}) < len(value):
        return None
    return (arguments[0] if arguments else Any,) * len(value)


def _is_record(base: object) -> bool:
    if not isinstance(base, type):
        return False
    return typing.is_typeddict(base) or (dataclasses.is_dataclass(base) and not inspect.isabstract(base))


@cache
def _fields(record: type) -> dict[str, tuple[object, bool]]:
    """Annotation of each key of a TypedDict or dataclass, and whether it must be given."""
    hints = resolve_hints(record).types
    if typing.is_typeddict(record):
        # `__required_keys__` doesn't see NotRequired where annotations are strings.
        required = {key: get_origin(hints.get(key)) is not typing.NotRequired for key in record.__required_keys__}
        return {key: (hints.get(key, Any), required.get(key, False)) for key in record.__annotations__}
    missing = dataclasses.MISSING
    return {
        item.name: (hints.get(item.name, Any), item.default is missing and item.default_factory is missing)
        for item in dataclasses.fields(record)
        if item.init
    }


def _wrong_fields(value: dict[Any, Any], record: type) -> Iterator[Mismatch]:
    fields = _fields(record)
    for key in value:
        if key not in fields:
            yield Mismatch((str(key),), f"unknown key {key!r} of {record.__name__}{did_you_mean(str(key), fields)}")
    for key, (annotation, required) in fields.items():
        if required and key not in value:
            yield Mismatch((key,), f"missing: {record.__name__} requires it, {describe(annotation)}")


def _fits_itself(value: object, member: object) -> bool:
    """Compare a value, no element of it, with an annotation that is no union."""
    base = _base(member)
    if base is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(member))
    assert isinstance(base, type)
    if isinstance(value, bool) and base in (int, float, complex):
        return False
    if base in (float, complex):
        return isinstance(value, (int, float, base))
    if isinstance(value, str) and issubclass(base, Enum):
        return value in base.__members__ or isinstance(value, base)
    if isinstance(value, str) and _is_path(base):
        return True
    if base in _CONTAINERS or base is abc.Callable:
        # Built objects (a Mapping class of one's own) fit; plain ones were compared by their elements or are no match.
        return not isinstance(value, _PLAIN) and isinstance(value, base)
    if typing.is_typeddict(base):
        return False
    return isinstance(value, _runtime_protocol(base) if _is_protocol(base) else base)


def _is_path(base: type) -> bool:
    return base is os.PathLike or issubclass(base, PurePath)


def _is_protocol(base: type) -> bool:
    return typing.Protocol in base.__bases__


@cache
def _runtime_protocol(protocol: type) -> type:
    """Same members as ``protocol``, but ``isinstance`` works on it."""
    probe = types.new_class(f"Runtime{protocol.__name__}", (protocol, typing.Protocol))
    return typing.runtime_checkable(probe)


# Nodes ------------------------------------------------------------------------------------------------------------


def _node_mismatches(
    node: Mapping[str, object], members: tuple[object, ...], target_of: TargetOf
) -> Iterator[Mismatch]:
    dotted = node["_target_"]
    target = target_of(dotted) if isinstance(dotted, str) else None
    if target is None:
        return
    made = _made(target)
    is_partial = node.get("_partial_") is True
    if any(_makes(made, member, is_partial=is_partial) for member in members):
        return
    hint = ""
    if any(_makes(made, member, is_partial=not is_partial) for member in members):
        hint = "; remove `_partial_: true`" if is_partial else "; set `_partial_: true`"
    article = "a partial" if is_partial else "a node"
    yield Mismatch((), f"expected {describe(*members)}, got {article} of {dotted!r}{hint}")


@cache
def _made(target: object) -> tuple[type, ...] | None:
    """Classes of what a call of ``target`` returns; None where it doesn't say."""
    if isinstance(target, type):
        return (target,)
    members = _members(resolve_hints(target).types.get("return", Any))
    if any(_accepts_anything(member) for member in members):
        return None
    made: list[type] = []
    for member in members:
        base = _base(member)
        made += [base] if isinstance(base, type) else [type(option) for option in get_args(member)]
    return tuple(made)


def _makes(made: tuple[type, ...] | None, member: object, *, is_partial: bool) -> bool:
    """Whether one of the classes, or a partial that makes them, is of the annotated kind."""
    if is_partial and _is_callable_type(member):
        returned = get_args(member)[-1] if get_args(member) else Any
        return any(_makes(made, inner, is_partial=False) for inner in _members(returned))
    if is_partial:
        made = (partial,)
    return made is None or _accepts_anything(member) or any(_is_kind(cls, member) for cls in made)


def _is_kind(cls: type, member: object) -> bool:
    base = _base(member)
    if base is Literal:
        return cls in {type(option) for option in get_args(member)}
    assert isinstance(base, type)
    if cls is bool and base is int:
        return False
    if base is float and cls is int:
        return True
    if typing.is_typeddict(base):
        return cls in (dict, base)
    try:
        return issubclass(cls, base)
    except TypeError:
        # A protocol that isn't made for run time, or one with attributes: only calling the target would tell.
        assert _is_protocol(base)
        return True


# Words ------------------------------------------------------------------------------------------------------------


def describe(*annotations: object) -> str:
    """Name annotations as a message does.

    Example:
        >>> describe(int | None), describe(tuple[int, ...]), describe(Literal["a", "b"])
        ('int or None', 'tuple[int, ...]', "one of 'a', 'b'")
    """
    members = [member for annotation in annotations for member in _members(annotation)]
    options = [repr(option) for member in members if _base(member) is Literal for option in get_args(member)]
    names = [_name(member) for member in members if _base(member) is not Literal]
    if options:
        names.insert(0, f"one of {', '.join(options)}")
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _name(annotation: object) -> str:
    if annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if isinstance(annotation, list):
        return f"[{', '.join(_name(item) for item in annotation)}]"
    if len(_members(annotation)) > 1 or get_origin(annotation) is Literal:
        return " | ".join(
            _name(m) if get_origin(m) is not Literal else repr(get_args(m))[1:-1] for m in _members(annotation)
        )
    base, arguments = _base(bare(annotation)), get_args(annotation)
    name = base.__name__ if isinstance(base, type) else str(base)
    if isinstance(base, type) and issubclass(base, Enum):
        return f"one of {', '.join(base.__members__)}"
    return f"{name}[{', '.join(_name(item) for item in arguments)}]" if arguments else name


def _refusal(value: object, members: tuple[object, ...]) -> str:
    options = [str(option) for member in members if _base(member) is Literal for option in get_args(member)]
    for member in members:
        base = _base(member)
        options += base.__members__ if isinstance(base, type) and issubclass(base, Enum) else ()
    shown, hint = _shown(value), ""
    if isinstance(value, str) and options:
        shown, hint = repr(value), did_you_mean(value, options)
    classes = [member for member in members if isinstance(member, type) and not _is_plain_class(member)]
    if isinstance(value, dict) and classes:
        hint = "; a node needs `_target_`"
    return f"expected {describe(*members)}, got {shown}{hint}"


def _is_plain_class(cls: type) -> bool:
    return cls in _PLAIN or cls in _CONTAINERS or _is_path(cls) or issubclass(cls, Enum)


def _shown(value: object) -> str:
    if value is None:
        return "None"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    length = f" of length {len(value)}" if isinstance(value, (list, tuple)) else ""
    return f"{type(value).__name__}{length} {short.repr(value)}"


# Conversion -------------------------------------------------------------------------------------------------------


def convert(value: object, annotation: object) -> object:
    """Turn a plain value that fits its annotation into what the annotation says.

    Lists become tuples for ``tuple`` and ``Sequence``, and sets for sets; strings become paths and, by name, members of
    an enumeration; ints become floats; mappings become dataclasses. In a union a member of the value's own type comes
    first. Nodes and built objects stay as they are.

    Args:
        value: has passed :func:`conform`.
        annotation: resolved, not a string.

    Returns:
        The converted value; never the same list or dict.

    Example:
        >>> convert([1, 2], tuple[int, ...]), convert([1, 2], list[int]), convert("runs", Path | None)
        ((1, 2), [1, 2], PosixPath('runs'))
    """
    if is_node(value):
        return value
    member = _chosen(value, _members(annotation))
    base = _base(member)
    if isinstance(value, (list, tuple)):
        return _converted_sequence(value, member)
    if isinstance(value, dict):
        return _converted_mapping(value, member)
    if not isinstance(base, type):
        return value
    if base is float and type(value) is int:
        return float(value)
    if isinstance(value, str) and issubclass(base, Enum) and not isinstance(value, base):
        return base[value]
    if isinstance(value, str) and _is_path(base):
        return Path(value) if base is os.PathLike else base(value)
    return value


def _chosen(value: object, members: tuple[object, ...]) -> object:
    """The member that a value fits, first of all one of its own type; Any where it fits none."""
    fitting = [member for member in members if conform(value, member) is None]
    own = [member for member in fitting if _base(member) in (type(value), Literal)]
    return (own + fitting + [Any])[0]


def _converted_sequence(value: list[object] | tuple[object, ...], member: object) -> object:
    base = _base(member)
    annotations = _element_annotations(value, member) if base in (tuple, *_SEQUENCES, *_SETS) else (Any,) * len(value)
    assert annotations is not None, "a checked value has the right length"
    elements = [convert(element, inner) for element, inner in zip(value, annotations, strict=True)]
    if base in (tuple, abc.Sequence):
        return tuple(elements)
    if base in _SETS:
        return frozenset(elements) if base in (frozenset, abc.Set) else set(elements)
    return elements if isinstance(value, list) else tuple(elements)


def _converted_mapping(value: dict[Any, Any], member: object) -> object:
    base = _base(member)
    if _is_record(base):
        assert isinstance(base, type)
        fields = _fields(base)
        record = {key: convert(element, fields[key][0]) for key, element in value.items()}
        return base(**record)
    of_key, of_value = (get_args(member) or (Any, Any)) if base in _MAPPINGS else (Any, Any)
    return {convert(key, of_key): convert(element, of_value) for key, element in value.items()}
