"""What a conversion has to say: problems that stop it, differences that do not, variables to set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


class BackendsError(ValueError):
    """A file of data backends cannot be converted; the message has one line for each problem.

    Args:
        problems: all that were found, each naming backend, key and value.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """The count, then one line each."""
        count = len(self.problems)
        return "\n".join([f"{count} problem{'s' if count != 1 else ''}", *(f"  {line}" for line in self.problems)])


@dataclass(kw_only=True)
class Journal:
    """Collects what is found.

    Attributes:
        problems: what has no counterpart, or is wrong.
        notes: what is different, or has no effect here.
        variables: environment variables that a run needs, with what each holds.
        secrets: the variable of each secret; never shown.
    """

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    variables: dict[str, str] = field(default_factory=dict[str, str])
    secrets: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def refuse(self, backend: str, key: str, message: str) -> None:
        """One problem more."""
        self.problems.append(f"{backend}.{key}: {message}")

    def note(self, backend: str, key: str, message: str) -> None:
        """One difference more."""
        line = f"{backend}.{key}: {message}"
        if line not in self.notes:
            self.notes.append(line)

    def environment(self, name: str, holds: str) -> str:
        """A reference to an environment variable, which the report says to set."""
        self.variables[name] = holds
        return f"${{oc.env:{name}}}"


def one_of(value: object, choices: Iterable[str]) -> str:
    """Valid values and the nearest of them, for a message.

    Example:
        >>> one_of("centre", ("center", "random"))
        "'centre' is none of 'center', 'random'; nearest: 'center'"
    """
    known = list(choices)
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.0)
    return f"{value!r} is none of {', '.join(map(repr, known))}; nearest: {near[0]!r}"
