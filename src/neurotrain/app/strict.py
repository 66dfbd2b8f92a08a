"""The strict check of a composed configuration, and its construction.

A configuration is a tree of plain values in which a *node*, a mapping with ``_target_: dotted.path``, is a call of that
target with the other keys as keyword arguments; ``_partial_: true`` makes it a ``functools.partial``. :func:`check`
compares the whole tree with the signatures of its targets, constructs nothing and collects every problem;
:func:`instantiate` builds what was checked, without Hydra.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from neurotrain.app.allow import AllowList, TargetRefused, did_you_mean
from neurotrain.app.annotations import MISSING, convert, describe, is_node, mismatches
from neurotrain.app.signatures import Signature, signature_of

_TARGET, _PARTIAL = "_target_", "_partial_"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        key: dotted, list indices among the names: ``model.loss.weights.0``; empty for the whole.
        message: one line.
        file: that set the key, or the nearest key above it; None where unknown.
    """

    key: str
    message: str
    file: str | None

    def __str__(self) -> str:
        """``key (file): message``."""
        place = f"{self.key} ({self.file})" if self.file else self.key
        return f"{place}: {self.message}" if place else self.message


class ConfigurationError(ValueError):
    """A configuration is refused: one line per problem.

    Args:
        problems: all that were found.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems; the message is made of them."""
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """One line per problem."""
        return "\n".join(str(problem) for problem in self.problems)


def check(
    config: Mapping[str, object],
    *,
    allow: AllowList,
    origin: Callable[[str], str | None],
    root: Callable[..., object] | None,
) -> list[Problem]:
    """Compare a composed configuration with the signatures of all its targets, constructing nothing.

    Args:
        config: resolved, plain containers.
        allow: what may be a target.
        origin: names the file that set a dotted key, or returns None.
        root: class or function whose arguments are the top-level keys; None leaves their names and types free.

    Returns:
        Every problem, in the configuration's order: unknown keys, missing arguments, wrong types, refused targets,
        reserved keys, and values that are still ``???``.

    Example:
        >>> allow = AllowList(frozenset({"fractions.Fraction"}))
        >>> node = {"_target_": "fractions.Fraction", "denominatr": 2}
        >>> for problem in check({"share": node}, allow=allow, origin=lambda key: "share.yaml", root=None):
        ...     print(problem)
        share.denominatr (share.yaml): unknown key 'denominatr' of Fraction; did you mean 'denominator'?
    """
    checker = _Checker(allow, origin)
    if root is None or is_node(config):
        checker.value("", config, None)
    else:
        checker.root(config, signature_of(root))
    return checker.problems


def instantiate(node: object, *, allow: AllowList, key: str = "") -> Any:  # noqa: ANN401 - what the target makes
    """Build a checked configuration: children first, each node once where it stands.

    Args:
        node: a node, or a list, mapping or scalar that may hold nodes.
        allow: what may be a target.
        key: where ``node`` stands in the whole configuration, for messages.

    Returns:
        The built object; lists and mappings of nodes become lists and dicts of objects.

    Raises:
        ConfigurationError: if a constructor raises ValueError or TypeError, or a target is refused. Any other exception
            passes with the key as a note.

    Example:
        >>> allow = AllowList(frozenset({"fractions.Fraction"}))
        >>> instantiate({"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}, allow=allow)
        Fraction(1, 2)
    """
    if isinstance(node, Mapping):
        mapping = cast("Mapping[str, object]", node)
        inner = {name: value for name, value in mapping.items() if name not in (_TARGET, _PARTIAL)}
        built = {name: instantiate(value, allow=allow, key=_join(key, name)) for name, value in inner.items()}
        return _call(mapping, built, allow=allow, key=key) if is_node(mapping) else built
    if isinstance(node, (list, tuple)):
        items = [instantiate(item, allow=allow, key=_join(key, index)) for index, item in enumerate(node)]
        return items if isinstance(node, list) else tuple(items)
    return node


def _call(node: Mapping[str, object], arguments: dict[str, object], *, allow: AllowList, key: str) -> object:
    dotted = str(node[_TARGET])
    try:
        target = _resolve(dotted, allow)
        known = signature_of(target).arguments
        values = {
            name: convert(value, known[name].annotation) if name in known else value
            for name, value in arguments.items()
        }
        return partial(target, **values) if node.get(_PARTIAL) is True else target(**values)
    except (ValueError, TypeError) as error:
        message = str(error) if isinstance(error, TargetRefused) else f"{dotted.rpartition('.')[2]}: {error}"
        raise ConfigurationError([Problem(key, " ".join(message.split()), None)]) from error
    except Exception as error:
        error.add_note(f"while building {key or 'the configuration'} ({dotted})")
        raise


def _resolve(dotted: str, allow: AllowList) -> Callable[..., object]:
    return cast("Callable[..., object]", allow.resolve(dotted))


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _is_reserved(name: str) -> bool:
    return name.startswith("_zen_") or (name.startswith("_") and name.endswith("_") and len(name) > 1)


def _without_reserved(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if not _is_reserved(str(name))}


@dataclass(frozen=True)
class _Scope:
    """A node that encloses others: where it stands and what it takes."""

    key: str
    signature: Signature


class _Checker:
    """One walk over one configuration."""

    def __init__(self, allow: AllowList, origin: Callable[[str], str | None]) -> None:
        self.problems: list[Problem] = []
        self._allow = allow
        self._origin = origin

    def root(self, config: Mapping[str, object], signature: Signature) -> None:
        given = _without_reserved(config)
        self._arguments("", given, signature, is_partial=False, above=None)
        self._children("", config, _Scope("", signature))

    def value(self, key: str, value: object, above: _Scope | None) -> None:
        """Check all nodes at or below a value; ``above`` is the node that encloses it."""
        if isinstance(value, str) and value == MISSING:
            self._report(key, "has no value yet ('???'), give it one")
        elif is_node(value):
            self._node(key, cast("Mapping[str, object]", value), above)
        elif isinstance(value, Mapping):
            self._children(key, cast("Mapping[str, object]", value), above)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(cast("Sequence[object]", value)):
                self.value(_join(key, index), item, above)

    def _children(self, key: str, values: Mapping[str, object], above: _Scope | None) -> None:
        for name, value in values.items():
            if _is_reserved(str(name)):
                self._report(_join(key, name), f"{name!r} is reserved; a node takes `_target_` and `_partial_` alone")
            else:
                self.value(_join(key, name), value, above)

    def _node(self, key: str, node: Mapping[str, object], above: _Scope | None) -> None:
        arguments = {name: value for name, value in node.items() if name not in (_TARGET, _PARTIAL)}
        is_partial = node.get(_PARTIAL, False)
        if not isinstance(is_partial, bool):
            self._report(_join(key, _PARTIAL), f"expected true or false, got {is_partial!r}")
        signature = self._signature(key, node)
        if signature is not None:
            given = _without_reserved(arguments)
            self._arguments(key, given, signature, is_partial=is_partial is True, above=above)
        self._children(key, arguments, above if signature is None else _Scope(key, signature))

    def _signature(self, key: str, node: Mapping[str, object]) -> Signature | None:
        dotted = node[_TARGET]
        place = _join(key, _TARGET)
        if not isinstance(dotted, str):
            self._report(place, f"expected a dotted path, got {dotted!r}")
            return None
        if dotted == MISSING:
            self._report(place, "has no value yet ('???'), choose what stands here")
            return None
        try:
            target = _resolve(dotted, self._allow)
            signature = signature_of(target)
        except TargetRefused as refusal:
            self._report(place, str(refusal))
        except ValueError as error:
            self._report(place, f"the arguments of {dotted!r} can't be read: {error}")
        else:
            if inspect.isabstract(target):
                self._report(place, f"{signature.name} is abstract, choose one of its subclasses")
            return signature
        return None

    def _arguments(
        self, key: str, given: Mapping[str, object], signature: Signature, *, is_partial: bool, above: _Scope | None
    ) -> None:
        if signature.own:
            for name in signature.unresolved:
                self._report(_join(key, name), f"{signature.name} annotates {name!r} with a name unknown at run time")
        for name, value in given.items():
            argument = signature.arguments.get(str(name))
            place = _join(key, name)
            if argument is None:
                if not signature.takes_any:
                    self._report(place, self._unknown(key, str(name), given, signature, above))
            elif argument.positional_only:
                self._report(place, f"{signature.name} takes {name!r} by position only")
            elif signature.own or not _same(value, argument.default):
                for path, reason in mismatches(value, argument.annotation, target_of=self._known_target):
                    self._report(_join(place, ".".join(path)) if path else place, reason)
        if is_partial:
            return
        for name, argument in signature.arguments.items():
            if argument.required and name not in given:
                how = ", by position only" if argument.positional_only else ""
                self._report(
                    _join(key, name), f"missing: {signature.name} requires it, {describe(argument.annotation)}{how}"
                )

    def _known_target(self, dotted: str) -> object:
        try:
            return self._allow.resolve(dotted)
        except TargetRefused:
            return None  # reported once, at the node itself

    def _unknown(
        self, key: str, name: str, given: Mapping[str, object], signature: Signature, above: _Scope | None
    ) -> str:
        elsewhere = [f"one level down, {_join(_join(key, child), name)!r}" for child in self._takers(name, given)]
        if above is not None and name in above.signature.arguments:
            elsewhere.append(f"one level up, {_join(above.key, name)!r}")
        near = did_you_mean(name, signature.arguments)
        if elsewhere:
            near += f"; it exists {' and '.join(elsewhere)}"
        elif not near:
            near = f"; it takes {', '.join(signature.arguments) or 'no argument'}"
        return f"unknown key {name!r} of {signature.name}{near}"

    def _takers(self, name: str, given: Mapping[str, object]) -> Iterator[str]:
        """Children that would take an argument."""
        for child, value in given.items():
            dotted = cast("Mapping[str, object]", value)[_TARGET] if is_node(value) else None
            try:
                target = _resolve(str(dotted), self._allow)
                takes = name in signature_of(target).arguments
            except ValueError:
                continue  # no node, or one that is reported where it stands
            if takes:
                yield child

    def _report(self, key: str, message: str) -> None:
        self.problems.append(Problem(key, message, self._file(key)))

    def _file(self, key: str) -> str | None:
        while key:
            file = self._origin(key)
            if file is not None:
                return file
            key = key.rpartition(".")[0]
        return None


def _same(value: object, default: object) -> bool:
    # Foreign constructors annotate `x: int = None`, and hydra-zen writes tuples as lists: a default always fits.
    if isinstance(value, list) and isinstance(default, tuple):
        default = list(cast("tuple[object, ...]", default))
    return type(value) is type(default) and value == default
