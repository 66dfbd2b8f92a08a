"""One entry of a file of data backends: values by key, each asked for by its kind; what nobody asked for is told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from neurotrain.app.simpletuner.journal import Journal, one_of
from neurotrain.app.simpletuner.known import NO_EFFECT, REFUSED, REFUSED_BLOCKS

DATASET_TYPES = ("image", "video", "conditioning", "eval", "text_embeds", "image_embeds")
TYPES = ("local", "aws", "csv", "huggingface", "memory")


class Backend:
    """One entry.

    Args:
        values: its keys and values, variables replaced.
        journal: told of everything that is wrong with one.
        options: the trainer's, for keys that the entry leaves to them.
    """

    def __init__(self, values: Mapping[str, Any], *, journal: Journal, options: Mapping[str, str]) -> None:
        self.values = dict(values)
        self.journal = journal
        self._options = options
        self._used = {"id", "disabled", "disable"}
        self.id = str(values.get("id", "?"))
        self.kind = self.choice("dataset_type", DATASET_TYPES, "image")
        self.type = self.choice("type", TYPES, None) if "type" in values else "local"
        if "type" not in values:
            self.refuse("type", f"is missing: one of {', '.join(map(repr, TYPES))}")

    @property
    def name(self) -> str:
        """The id as a name in a configuration.

        Example:
            >>> Backend({"id": "7 cats-b", "type": "local"}, journal=Journal(), options={}).name
            'source_7_cats_b'
        """
        name = re.sub(r"\W+", "_", self.id, flags=re.ASCII).strip("_")
        return name if name[:1].isalpha() else f"source_{name}"

    @property
    def is_main(self) -> bool:
        """Whether it is trained on."""
        return self.kind in ("image", "video")

    @property
    def needs_images(self) -> bool:
        """Whether it holds pictures, and not the entries of a cache."""
        return self.kind in ("image", "video", "conditioning", "eval")

    def refuse(self, key: str, message: str) -> None:
        """Say what is wrong with a key."""
        self.journal.refuse(self.id, key, message)

    def note(self, key: str, message: str) -> None:
        """Say what is different about a key."""
        self.journal.note(self.id, key, message)

    def has(self, key: str) -> bool:
        """Whether a key is there with a value."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text; an empty one is none."""
        value = self._take(key, (str,), "a text")
        return default if value in (None, "") else str(value)

    def needed(self, key: str, why: str) -> str:
        """A text that must be there."""
        value = self.text(key)
        if value is None:
            self.refuse(key, f"is missing: {why}")
        return value or ""

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number."""
        value = self._take(key, (int, float), "a number")
        return default if value is None else value

    def whole(self, key: str, default: int | None = None) -> int | None:
        """A whole number."""
        value = self._take(key, (int,), "a whole number")
        return default if value is None else int(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        self._used.add(key)
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, f"expected true or false, got {value!r}")
        return default if value is None else bool(value)

    def choice(self, key: str, choices: Sequence[str], default: str | None) -> str:
        """One of some texts."""
        value = self._take(key, (str,), "a text")
        if value is None:
            return default or ""
        if value not in choices:
            self.refuse(key, one_of(value, choices))
        return str(value)

    def names(self, key: str) -> list[str]:
        """A text, or a list of them."""
        value = self._take(key, (str, list), "an id or a list of them")
        if value is None:
            return []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def block(self, key: str) -> Mapping[str, Any]:
        """A mapping."""
        value = self._take(key, (dict,), "an object")
        return value if isinstance(value, dict) else {}

    def option(self, key: str) -> Any:  # noqa: ANN401 - any JSON value
        """A value, or the trainer's where the entry leaves it to that."""
        self._used.add(key)
        if self.has(key):
            return self.values[key]
        found = self._options.get(key)
        if found is not None:
            self.note(key, f"not given: taken from --set {key}={found}")
        return found

    def finish(self) -> None:
        """Say what nobody has asked for: unknown keys, keys without a counterpart, keys without effect."""
        for key, value in self.values.items():
            off = value in (None, False, 0, "", [], {}) or (isinstance(value, dict) and value.get("enable") is False)
            if key in self._used:
                continue
            if key in REFUSED or key in REFUSED_BLOCKS:
                if not off and not (isinstance(value, dict) and value.get("enabled") is False):
                    self.refuse(key, f"{_shown(value)}: {REFUSED.get(key) or REFUSED_BLOCKS[key]}")
            elif key in NO_EFFECT:
                if not off:
                    self.note(key, f"has no effect here: {NO_EFFECT[key]}")
            elif key in self._everywhere():
                self.note(key, f"has no effect for dataset_type={self.kind!r} with type={self.type!r}")
            else:
                self.refuse(key, f"unknown key; {one_of(key, self._everywhere()).partition('; ')[2]}")

    def _everywhere(self) -> list[str]:
        from neurotrain.app.simpletuner.known import UNDERSTOOD

        return sorted({*UNDERSTOOD, *NO_EFFECT, *REFUSED, *REFUSED_BLOCKS, *self._used})

    def _take(self, key: str, kinds: tuple[type, ...], expected: str) -> Any:  # noqa: ANN401 - any JSON value
        self._used.add(key)
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.refuse(key, f"expected {expected}, got {_shown(value)}")
            return None
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
