"""What can be wrong with a dataset on disk, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ProblemKind = Literal[
    "missing", "unpaired", "unreadable", "size mismatch", "invalid labels", "empty mask", "empty split", "duplicate"
]
"""``unpaired``: a label file whose image is absent; ``duplicate``: two files of one id."""

LISTED = 10
"""Files named in a message before it only counts."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with one file or folder.

    Attributes:
        kind: what sort of problem.
        path: the file or folder.
        detail: one sentence: what was found, what was expected.
    """

    kind: ProblemKind
    path: Path
    detail: str


class DatasetError(ValueError):
    """A dataset on disk is not what its layout promises; the message lists the files (first 10 and the count).

    Args:
        message: the whole text.
        problems: the same, for programs.

    Example:
        >>> problem = Problem(kind="missing", path=Path("a.png"), detail="no mask")
        >>> print(DatasetError.listing("toy", [problem]))
        toy: 1 problem
          missing (1):
            a.png: no mask
    """

    def __init__(self, message: str, *, problems: Sequence[Problem] = ()) -> None:
        """Keep the text and the problems that it tells."""
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def listing(cls, subject: str, problems: Sequence[Problem], *, hint: str = "") -> DatasetError:
        """One error out of all problems, grouped by kind.

        Args:
            subject: what the problems are about, for instance ``"drive, split 'train'"``.
            problems: at least one.
            hint: what the user can do, added as the last line.

        Returns:
            The error, to be raised by the caller.
        """
        assert problems, "an error without a problem"
        lines = [f"{subject}: {_count(problems)}", *_lines(problems)]
        return cls("\n".join([*lines, hint] if hint else lines), problems=problems)

    @classmethod
    def single(cls, kind: ProblemKind, path: Path, detail: str) -> DatasetError:
        """The error of one file: its path, then the detail."""
        return cls(f"{path}: {detail}", problems=[Problem(kind=kind, path=path, detail=detail)])


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Outcome of decoding every file of a dataset.

    Attributes:
        name: of the dataset.
        root: its folder.
        counts: images found in each split.
        problems: everything that was wrong, in the order of discovery.

    Example:
        >>> print(VerifyReport(name="toy", root=Path("data/toy"), counts={"train": 2, "test": 1}, problems=()))
        toy (data/toy): train 2, test 1 images: no problem
    """

    name: str
    root: Path
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True where nothing was wrong."""
        return not self.problems

    def __str__(self) -> str:
        """The counts on one line, then the problems grouped by kind."""
        counts = ", ".join(f"{split} {count}" for split, count in self.counts.items())
        return "\n".join(
            [f"{self.name} ({self.root}): {counts} images: {_count(self.problems)}", *_lines(self.problems)]
        )


def _count(problems: Sequence[Problem]) -> str:
    if not problems:
        return "no problem"
    return f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"


def _lines(problems: Iterable[Problem]) -> list[str]:
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    lines: list[str] = []
    for kind, group in groups.items():
        lines.append(f"  {kind} ({len(group)}):")
        lines += [f"    {problem.path}: {problem.detail}" for problem in group[:LISTED]]
        if len(group) > LISTED:
            lines.append(f"    ... and {len(group) - LISTED} more")
    return lines
