"""``--where "test/dice > 0.8 and model.network.depth = 4"``: conditions on runs, parsed and never evaluated as code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from neurotrain.app.runs.errors import RunsError

Value = str | int | float | bool | None
Condition = Callable[[Mapping[str, Value]], bool]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"[^"]*"|'[^']*')
    |(?P<sign>>=|<=|==|!=|=|>|<|~|\(|\))
    |(?P<word>[^\s<>=!~()"']+)
    )""",
    re.VERBOSE,
)
_DEPTH = 50  # brackets within brackets


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


@dataclass(frozen=True)
class Parsed:
    """A condition and what it asks for.

    Attributes:
        holds: whether it is true of the values of a run; a comparison with a value that a run lacks is false.
        names: of figures and parameters, in their order.
    """

    holds: Condition
    names: tuple[str, ...]


def parse(text: str) -> Parsed:
    """Parse a condition.

    Comparisons are ``NAME SIGN VALUE`` with the signs ``> >= < <= = == != ~`` (``~``: contains), joined by ``and``,
    ``or``, ``not`` and brackets, ``and`` before ``or``. Names are figures (``test/dice``), parameters by their dotted
    names, and ``id``, ``experiment``, ``status``, ``stage``, ``seed``, ``wall_seconds``. Values are numbers, ``true``,
    ``false``, ``null`` or texts, quoted where they hold a blank.

    Raises:
        RunsError: says at which character something else was expected.

    Example:
        >>> condition = parse("test/dice > 0.8 and (seed = 1 or status = running)")
        >>> condition.holds({"test/dice": 0.9, "seed": 1}), condition.holds({"test/dice": 0.9, "seed": 2})
        (True, False)
        >>> condition.names
        ('test/dice', 'seed', 'status')
    """
    parser = _Parser(text)
    holds = parser.either(0)
    parser.end()
    return Parsed(holds, tuple(dict.fromkeys(parser.names)))


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.at = 0
        self.names: list[str] = []

    def either(self, depth: int) -> Condition:
        if depth > _DEPTH:
            raise RunsError(f"--where: more than {_DEPTH} brackets within each other")
        parts = [self._both(depth)]
        while self._took("word", "or"):
            parts.append(self._both(depth))
        return lambda values: any(part(values) for part in parts)

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self._expected("and, or, or the end")

    def _both(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._took("word", "and"):
            parts.append(self._one(depth))
        return lambda values: all(part(values) for part in parts)

    def _one(self, depth: int) -> Condition:
        negations = 0
        while self._took("word", "not"):
            negations += 1
        part = self._bracket_or_comparison(depth)
        return part if negations % 2 == 0 else lambda values: not part(values)

    def _bracket_or_comparison(self, depth: int) -> Condition:
        if self._took("sign", "("):
            inner = self.either(depth + 1)
            if not self._took("sign", ")"):
                raise self._expected("a closing bracket")
            return inner
        name = self._next("word", "a name such as test/dice")
        sign = self._next("sign", "one of > >= < <= = != ~")
        if sign in "()":
            self.at -= 1
            raise self._expected("one of > >= < <= = != ~")
        self.names.append(name)
        value = self._value()
        return lambda values: _compare(values.get(name), sign, value) if name in values else False

    def _value(self) -> Value:
        if self.at < len(self.tokens) and self.tokens[self.at].kind == "text":
            self.at += 1
            return self.tokens[self.at - 1].text[1:-1]
        return typed(self._next("word", "a value"))

    def _took(self, kind: str, text: str) -> bool:
        if self.at < len(self.tokens) and (self.tokens[self.at].kind, self.tokens[self.at].text) == (kind, text):
            self.at += 1
            return True
        return False

    def _next(self, kind: str, what: str) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at].kind != kind:
            raise self._expected(what)
        self.at += 1
        return self.tokens[self.at - 1].text

    def _expected(self, what: str) -> RunsError:
        if self.at >= len(self.tokens):
            return RunsError(f"--where {self.text!r}: expected {what} at the end")
        token = self.tokens[self.at]
        return RunsError(f"--where {self.text!r}: expected {what} at character {token.place + 1}, found {token.text!r}")


def typed(text: str) -> Value:
    """Read a value as YAML would read a plain one.

    Example:
        >>> typed("3"), typed("1e-3"), typed("true"), typed("null"), typed("drive")
        (3, 0.001, True, None, 'drive')
    """
    known: dict[str, Value] = {"true": True, "false": False, "null": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _tokens(text: str) -> Iterator[_Token]:
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise RunsError(f"--where {text!r}: cannot read it from character {place + 1} on")
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        place = match.end()


def _compare(left: Value, sign: str, right: Value) -> bool:
    if sign == "~":
        return str(right) in str(left)
    if sign in ("=", "=="):
        return _equal(left, right)
    if sign == "!=":
        return not _equal(left, right)
    if (
        isinstance(left, bool | None)
        or isinstance(right, bool | None)
        or isinstance(left, str) != isinstance(right, str)
    ):
        return False
    ordered: dict[str, Callable[[], bool]] = {
        ">": lambda: left > right,  # pyright: ignore[reportOperatorIssue]
        ">=": lambda: left >= right,  # pyright: ignore[reportOperatorIssue]
        "<": lambda: left < right,  # pyright: ignore[reportOperatorIssue]
        "<=": lambda: left <= right,  # pyright: ignore[reportOperatorIssue]
    }
    return ordered[sign]()


def _equal(left: Value, right: Value) -> bool:
    """Whether two values are the same; 1 and 1.0 are, 1 and true are not, nan is equal to nan."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return True
    return left == right
