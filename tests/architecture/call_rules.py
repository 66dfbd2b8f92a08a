"""Rules about calls that can run what a file says: none outside a named list."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from sources import Module

UNPICKLES = "reads a pickle, which can run any code"
FORBIDDEN: Mapping[str, str] = {
    **dict.fromkeys(("pickle.load", "pickle.loads", "pickle.Unpickler", "shelve.open", "marshal.load"), UNPICKLES),
    **dict.fromkeys(("marshal.loads", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load"), UNPICKLES),
    **dict.fromkeys(("torch.load", "pd.read_pickle", "pandas.read_pickle", "cloudpickle.loads"), UNPICKLES),
    **dict.fromkeys(("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"), "use yaml.safe_load"),
    **dict.fromkeys(("eval", "exec", "builtins.eval", "builtins.exec"), "runs text"),
    **dict.fromkeys(("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"), "runs a shell"),
    **dict.fromkeys(("shutil.unpack_archive", "torch.hub.load"), "writes or runs what somebody else wrote"),
}
"""Dotted name of a call: why it is refused."""

SERVERS = frozenset({"HTTPServer", "ThreadingHTTPServer", "TCPServer", "ThreadingTCPServer", "create_server"})
EXTRACTS = frozenset({"extract", "extractall"})


def call_violations(modules: Iterable[Module], named: Mapping[tuple[str, str], str]) -> list[str]:
    """Calls that can run what a file says, or open a port to others.

    Args:
        modules: to look at.
        named: (module, call): why it may stand there.
    """
    return [
        f"{module.where}:{line}: {call}: {reason}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for line, call, reason in _violations(node)
        if (module.name, call) not in named
    ]


def unused(modules: Iterable[Module], named: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Entries of the named list that nothing in their module needs any more."""
    there = {module.name for module in modules}
    found = {
        (module.name, call)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for _, call, _ in _violations(node)
    }
    return sorted(entry for entry in set(named) - found if entry[0] in there)


def _violations(node: ast.Call) -> Iterator[tuple[int, str, str]]:
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    options = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
    safe = called == "yaml.load" and ast.unparse(options.get("Loader", node.func)).rpartition(".")[2] in _SAFE_LOADERS
    if called in FORBIDDEN and not safe:
        yield node.lineno, called, FORBIDDEN[called]
    if called in ("np.load", "numpy.load") and "allow_pickle" not in options:
        yield node.lineno, called, "say allow_pickle=False"
    for option, value in (("allow_pickle", True), ("shell", True), ("trust_remote_code", True)):
        if option in options and not _is(options[option], value=not value):
            yield node.lineno, f"{option}=", f"{option} is {ast.unparse(options[option])}, {not value} is expected"
    if name == "from_pretrained":
        yield from _loaded(node.lineno, called, options)
    if name in EXTRACTS and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in _ARCHIVES:
        yield node.lineno, called, "members of an archive may lead anywhere: read them one by one"
    listens = name in SERVERS or (name == "bind" and len(node.args) == 1 and isinstance(node.args[0], ast.Tuple))
    if listens and "127.0.0.1" not in ast.unparse(node):
        yield node.lineno, called, "binds to others than 127.0.0.1"


_SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader"})
_ARCHIVES = frozenset({"archive", "tar", "zip", "zipfile", "tarfile", "file"})


def _loaded(line: int, called: str, options: Mapping[str, ast.expr]) -> Iterator[tuple[int, str, str]]:
    """A model is read from safetensors, a tokenizer without code of its own; both from this machine."""
    if not _is(options.get("local_files_only"), value=True):
        yield line, called, "say local_files_only=True: what is on the hub is fetched pinned, before"
    if not _is(options.get("use_safetensors"), value=True) and "trust_remote_code" not in options:
        yield line, called, "say use_safetensors=True, or trust_remote_code=False of what has no weights"


def _is(node: ast.expr | None, *, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
