"""Which dotted paths a configuration may call: what neurotrain registered, and the modules that the user named."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

ALLOW_VARIABLE = "NEUROTRAIN_ALLOW"
"""Environment variable with comma-separated module prefixes; a configuration can't set it."""

# A prefix never opens these: each can run any code, or build any object, from plain arguments.
_NEVER_BY_PREFIX = sys.stdlib_module_names | {"hydra", "hydra_zen", "omegaconf", "cloudpickle", "dill", "joblib"}


class TargetRefused(ValueError):  # noqa: N818 - reads as the event that it reports
    """A ``_target_`` that the configuration may not call, or that doesn't exist.

    Args:
        target: the dotted path as it was written.
        reason: why it is refused, in one line.
    """

    def __init__(self, target: str, reason: str) -> None:
        """Keep both, so that a caller can word them anew."""
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        """Target and reason in one line."""
        return f"target {self.target!r} is refused: {self.reason}"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Nearest names as the end of a message; empty when nothing is near.

    Args:
        word: what was written.
        names: what would have been valid.

    Returns:
        ``"; did you mean 'a' or 'b'?"``, three names at most.

    Example:
        >>> did_you_mean("fats", ["fast", "full"])
        "; did you mean 'fast'?"
    """
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.lower(), name)
    near = [repr(by_lower[match]) for match in difflib.get_close_matches(word.lower(), by_lower, n=3)]
    if not near:
        return ""
    return f"; did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"


@dataclass(frozen=True)
class AllowList:
    """Callables that a configuration may name as ``_target_``.

    An exact entry allows one object, under its alias and under its defining path. A prefix allows the classes and
    functions that are *defined* in a module at or below it, not what these modules import; standard library and
    configuration frameworks stay closed to prefixes.

    Args:
        targets: exact dotted paths, or a mapping from a path to the object that it must name: either the object
            itself, or the dotted path where it is defined (so ``torch.optim.AdamW`` may stand for
            ``torch.optim.adamw.AdamW``, which is then allowed as well).
        prefixes: module prefixes that the user trusts, e.g. ``("mylab.models",)``.

    Raises:
        ValueError: if a prefix is no dotted module name.

    Example:
        >>> allow = AllowList(frozenset({"datetime.timedelta"}))
        >>> allow.resolve("datetime.timedelta")
        <class 'datetime.timedelta'>
        >>> allow.resolve("os.system")
        Traceback (most recent call last):
        ...
        neurotrain.app.allow.TargetRefused: target 'os.system' is refused: ...
    """

    targets: Mapping[str, object] | frozenset[str]
    prefixes: tuple[str, ...] = ()
    _exact: dict[str, object] = field(init=False, repr=False, compare=False)
    _resolved: dict[str, object] = field(init=False, repr=False, compare=False, default_factory=dict[str, object])

    def __post_init__(self) -> None:
        """Check the prefixes and index the exact paths."""
        for prefix in self.prefixes:
            if not _is_dotted(prefix):
                raise ValueError(f"{ALLOW_VARIABLE}: {prefix!r} is no module prefix, expected e.g. 'mylab.models'")
        named = self.targets if isinstance(self.targets, Mapping) else {path: path for path in self.targets}
        defining = {value: value for value in named.values() if isinstance(value, str)}
        object.__setattr__(self, "_exact", {**defining, **named})

    @classmethod
    def from_environment(
        cls, targets: Mapping[str, object] | frozenset[str], *, environment: Mapping[str, str] | None = None
    ) -> AllowList:
        """Add the prefixes of ``NEUROTRAIN_ALLOW`` to the exact paths.

        Args:
            targets: exact paths, as for the class.
            environment: where the variable is read; ``os.environ`` when None.

        Returns:
            The list for this process.

        Raises:
            ValueError: if a prefix is no dotted module name.
        """
        text = (os.environ if environment is None else environment).get(ALLOW_VARIABLE, "")
        return cls(targets, tuple(part.strip() for part in text.split(",") if part.strip()))

    def resolve(self, dotted: str) -> object:
        """Import the class or function that ``dotted`` names, once its text and then the object itself are allowed.

        Args:
            dotted: the value of ``_target_``.

        Returns:
            The class or function.

        Raises:
            TargetRefused: if the path is not allowed, does not exist, can't be imported, names something that is no
                class or function, or names an object that is defined outside what is allowed.
        """
        if dotted not in self._resolved:
            self._check_text(dotted)
            found = _load(dotted)
            self._check_object(dotted, found)
            self._resolved[dotted] = found
        return self._resolved[dotted]

    def import_paths(self) -> list[str]:
        """Dotted paths and prefixes as other parsers want them listed, packages that offer an exact entry included.

        Returns:
            Sorted; prefixes of closed libraries are left out.

        Example:
            >>> AllowList(frozenset({"collections.abc.Mapping"}), ("os", "mylab")).import_paths()
            ['collections.abc.Mapping', 'mylab']
        """
        found = {prefix for prefix in self.prefixes if prefix.partition(".")[0] not in _NEVER_BY_PREFIX}
        for dotted, value in self._exact.items():
            found.add(dotted)
            module, _, name = dotted.rpartition(".")
            parts = module.split(".")
            for depth in range(1, len(parts)):
                package = sys.modules.get(".".join(parts[:depth]))
                if package is not None and vars(package).get(name) is value:
                    found.add(f"{package.__name__}.{name}")
        return sorted(found)

    def _under_prefix(self, dotted: str) -> bool:
        if dotted.partition(".")[0] in _NEVER_BY_PREFIX:
            return False
        return any(dotted.startswith(f"{prefix}.") for prefix in self.prefixes)

    def _check_text(self, dotted: str) -> None:
        if not _is_dotted(dotted) or "." not in dotted:
            raise TargetRefused(dotted, "expected a dotted path such as 'package.module.Class'")
        if dotted in self._exact or self._under_prefix(dotted):
            return
        if dotted.partition(".")[0] in _NEVER_BY_PREFIX:
            raise TargetRefused(dotted, "it is not registered, and this library is closed to configurations")
        raise TargetRefused(dotted, f"{_how_to_allow(dotted)}{self._near(dotted)}")

    def _near(self, dotted: str) -> str:
        # Whole paths of one package all look alike: names are compared, paths are shown.
        name = dotted.rpartition(".")[2]
        names = {path.rpartition(".")[2]: path for path in self._exact}
        near = difflib.get_close_matches(name, names, n=3)
        return f"; registered under a near name: {', '.join(names[match] for match in near)}" if near else ""

    def _check_object(self, dotted: str, found: object) -> None:
        if not (inspect.isclass(found) or inspect.isfunction(found) or inspect.isbuiltin(found)):
            raise TargetRefused(dotted, f"it is a {type(found).__name__}, expected a class or a function")
        if dotted in self._exact:
            registered = self._exact[dotted]
            if (_load(registered) if isinstance(registered, str) else registered) is not found:
                raise TargetRefused(dotted, f"it is not the object that was registered, {registered!r}")
            return
        # A builtin may have no module; an object that its own path doesn't lead to hides where it comes from.
        own = f"{found.__module__}.{found.__qualname__}"
        if own in self._exact or self._under_prefix(own):
            if own != dotted and _load(own) is not found:
                raise TargetRefused(dotted, f"it claims to be {own!r} but is another object")
            return
        if own.partition(".")[0] in _NEVER_BY_PREFIX:
            raise TargetRefused(dotted, f"it is defined as {own!r}, a library that is closed to configurations")
        raise TargetRefused(dotted, f"it is defined as {own!r}; {_how_to_allow(own)}")


def _how_to_allow(dotted: str) -> str:
    module = dotted.rpartition(".")[0]
    return (
        f"it is not registered; to allow a module of your own, set {ALLOW_VARIABLE}={module} in the environment "
        "or give its package an entry point in one of the groups neurotrain.<family>"
    )


def _is_dotted(text: str) -> bool:
    # Double underscores lead from any object to the interpreter's innards (__globals__, __subclasses__).
    return all(part.isidentifier() and not part.startswith("__") for part in text.split("."))


def _load(dotted: str) -> object:
    """Import as deep as there are modules, then walk attributes that aren't modules."""
    parts = dotted.split(".")
    module, depth = _deepest_module(dotted, parts[:-1])
    found: object = module
    for part in parts[depth:]:
        if found is not module and isinstance(found, ModuleType):
            raise TargetRefused(dotted, f"it goes through {found.__name__!r}, which another module only imports")
        try:
            found = getattr(found, part)
        except AttributeError as error:
            owner = ".".join(parts[:depth])
            raise TargetRefused(dotted, f"{owner!r} has no {part!r}{did_you_mean(part, dir(found))}") from error
    return found


def _deepest_module(dotted: str, parts: list[str]) -> tuple[ModuleType, int]:
    name = parts[0]
    try:
        module = importlib.import_module(name)
        for depth, part in enumerate(parts[1:], start=1):
            name = f"{name}.{part}"
            is_package = "__path__" in vars(module)
            if not is_package or importlib.util.find_spec(name) is None:
                return module, depth
            module = importlib.import_module(name)
    except ImportError as error:
        raise TargetRefused(dotted, f"{name!r} can't be imported: {error}") from error
    return module, len(parts)
