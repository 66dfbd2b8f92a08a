"""Patterns of keys with named places, which pair the files of one sample."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from neurotrain.data.datasets.decoding import EXTENSIONS

PLACES = ("id", "label", "split", "frame", "ext")
"""Names that may stand in braces."""

_EXT = "|".join(re.escape(extension) for extension in sorted(EXTENSIONS))
_TRANSLATED = {
    "{ext}": f"(?i:{_EXT})",
    "**": ".*",
    "*": "[^/]*",
}
_TOKEN = re.compile(r"\{[^{}]*\}|\*\*|\*")


class KeyPattern:
    """Which keys belong to a field, and which places of them tell the sample.

    ``{id}`` stands for any text, ``/`` included; ``{label}``, ``{split}`` and ``{frame}`` for one part of a path;
    ``{ext}`` for the ending of any raster image; ``*`` for anything within a part, ``**`` for anything. A text without
    any of them is a folder, and short for ``folder/{id}{ext}``; an empty one is the root.

    Args:
        text: the pattern, relative to the storage's root.
        key: setting that it comes from, for messages.
        places: names that it may hold; ``ext`` always may.

    Raises:
        ValueError: if it has no ``{id}``, holds an unknown name, or leads out of the root.

    Example:
        >>> pattern = KeyPattern("{split}/images/{id}_photo{ext}", key="image")
        >>> pattern.match("train/images/07_photo.PNG")
        {'split': 'train', 'id': '07'}
        >>> pattern.match("train/masks/07.png") is None
        True
        >>> KeyPattern("photos/", key="image").text
        'photos/{id}{ext}'
    """

    def __init__(self, text: str, *, key: str, places: Sequence[str] = PLACES) -> None:
        if _TOKEN.search(text) is None:
            folder = text.strip("/")
            text = f"{folder}/{{id}}{{ext}}" if folder not in ("", ".") else "{id}{ext}"
        named = [token[1:-1] for token in _TOKEN.findall(text) if token.startswith("{")]
        for name in named:
            if name not in (*places, "ext"):
                near = difflib.get_close_matches(name, places, n=1, cutoff=0.0)[0]
                known = ", ".join(f"{{{place}}}" for place in places)
                raise ValueError(f"{key}={text!r}: unknown place {{{name}}}; one of {known}; nearest: {{{near}}}")
        if "id" not in named:
            raise ValueError(f"{key}={text!r}: needs {{id}}, which tells the sample, or must be a folder")
        if text.startswith("/") or ".." in text.split("/"):
            raise ValueError(f"{key}={text!r}: must be relative to the storage's root and stay below it")
        self.text = text
        self.places = tuple(dict.fromkeys(name for name in named if name != "ext"))
        self.prefix = text[: _first_token(text)].rpartition("/")[0]
        self.prefix += "/" if self.prefix else ""
        self._compiled = re.compile(_translated(text), re.DOTALL)

    def match(self, key: str) -> dict[str, str] | None:
        """The places of a key, None where it does not fit."""
        found = self._compiled.fullmatch(key)
        return None if found is None else found.groupdict()

    def sibling(self, ending: str) -> KeyPattern:
        """The pattern of files beside these ones, of another ending.

        Example:
            >>> KeyPattern("a/{id}_x{ext}", key="image").sibling(".txt").text
            'a/{id}_x.txt'
        """
        stem, dot, last = self.text.removesuffix("{ext}").rpartition(".")
        has_ending = dot and not self.text.endswith("{ext}") and "/" not in last and "}" not in last
        return KeyPattern((stem if has_ending else self.text.removesuffix("{ext}")) + ending, key="captions")


def covering_prefixes(patterns: Iterable[KeyPattern]) -> tuple[str, ...]:
    """The fewest prefixes to list so that every key that a pattern could match is seen once.

    Example:
        >>> covering_prefixes(KeyPattern(text, key="x") for text in ("a/b/{id}.png", "a/{id}.gif", "c/{id}.png"))
        ('a/', 'c/')
    """
    prefixes = sorted({pattern.prefix for pattern in patterns})
    return tuple(
        prefix for prefix in prefixes if not any(prefix != other and prefix.startswith(other) for other in prefixes)
    )


def _first_token(text: str) -> int:
    found = _TOKEN.search(text)
    assert found is not None, "a folder has been completed"
    return found.start()


def _translated(text: str) -> str:
    written, end, seen = "", 0, set[str]()
    for token in _TOKEN.finditer(text):
        written += re.escape(text[end : token.start()])
        end = token.end()
        if token[0] in _TRANSLATED:
            written += _TRANSLATED[token[0]]
            continue
        name = token[0][1:-1]
        # The same place twice must hold the same text twice.
        written += f"(?P={name})" if name in seen else f"(?P<{name}>{'.+?' if name == 'id' else '[^/]+'})"
        seen.add(name)
    return written + re.escape(text[end:])
