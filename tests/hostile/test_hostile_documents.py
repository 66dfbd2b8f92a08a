"""YAML and JSON that grow when they are read, or nest until the interpreter ends: one clear error each."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import neurotrain
from neurotrain.app.convert import toml_to_yaml
from neurotrain.app.jobs.strict_files import read_mapping
from neurotrain.app.runs.reading import find_runs, read_run
from neurotrain.app.sampling import _told_model
from neurotrain.app.simpletuner import convert_file
from neurotrain.app.strict import ConfigurationError
from neurotrain.app.sweeps.settings import split
from neurotrain.app.sweeps.trials import SweepError
from neurotrain.callbacks.run_parameters import read_configuration
from neurotrain.data.sources import SourceError
from neurotrain.data.sources.table_files import read_table
from neurotrain.documents import parse_json, parse_yaml

DEEP = 200_000


def laughs(levels: int = 30) -> str:
    """Nine of nine of nine ...: a kilobyte that stands for 9 to the power of ``levels`` values."""
    first = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    return first + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, levels))


def merged(levels: int = 30) -> str:
    """The same by keys that are merged."""
    first = "a0: &a0 {x: 1}\n"
    return first + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, levels))


DOCUMENTS: dict[str, tuple[str, str]] = {
    "a billion laughs": (laughs(), "values more than are written"),
    "a billion merges": (merged(), "values more than are written"),
    "itself": ("a: &a {b: *a}\n", "stands within itself"),
    "brackets": (f"a: {'[' * DEEP}{']' * DEEP}\n", "nests deeper than 100 levels"),
    "open brackets": (f"a: {'[' * DEEP}\n", "nests deeper than 100 levels"),
    "braces": ("a: " + "{b: " * DEEP + "}" * DEEP + "\n", "nests deeper than 100 levels"),
    "dashes": ("a:\n  " + "- " * DEEP + "x\n", "nests deeper than 100 levels"),
    "keys of keys": ("? " * DEEP + "x\n", "nests deeper than 100 levels"),
    "a level too many": (f"a: {'[' * 101}{']' * 101}\n", "nests deeper than 100 levels"),
}


def _composed(text: str, folder: Path) -> object:
    path = folder / "configs" / "experiment" / "hostile.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\n" + text)
    return neurotrain.compose("hostile", ["data=synthetic_drive"])


def _written(text: str, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


READERS: dict[str, Callable[[str, Path], object]] = {
    "an experiment": _composed,
    "a run that is sampled beside": lambda text, folder: _told_model(_written(text, folder), key="beside.x"),
    "a pipeline or a search": lambda text, folder: read_mapping(_written(text, folder), ValueError),
    "a run's parameters": lambda text, folder: (_written(text, folder), read_configuration(folder)),
    "libyaml": lambda text, _: parse_yaml(text, loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_yaml(name: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, reason = DOCUMENTS[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, yaml.YAMLError), match=reason) as refused:
        READERS[reader](text, tmp_path)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("name", DOCUMENTS)
def test_one_such_run_hides_no_other(name: str, tmp_path: Path) -> None:
    for run, text in (("a", DOCUMENTS[name][0]), ("b", "name: fine\n")):
        (tmp_path / run).mkdir()
        _written(text, tmp_path / run)
    facts = [read_run(path, tmp_path) for path in find_runs(tmp_path)]
    assert [(fact.experiment, len(fact.parameters)) for fact in facts] == [("a", 0), ("fine", 1)]


def test_what_is_typed(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="nests deeper"):
        split([f"sweep.jobs={'[' * DEEP}"], prefix="sweep")
    (tmp_path / "mine.toml").write_text(f"a = {'[' * DEEP}{']' * DEEP}\n")
    with pytest.raises(ValueError, match=r"mine\.toml: nests too deeply"):
        toml_to_yaml(tmp_path / "mine.toml")


def test_aliases_as_people_use_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        name: aliased
        trainer: &short {max_epochs: 2, log_every_n_steps: 1}
        debugged: &long {<<: *short, max_epochs: 3}
        both: [*short, *long]
    """
    found = parse_yaml(textwrap.dedent(text))
    assert found["both"] == [{"max_epochs": 2, "log_every_n_steps": 1}, {"max_epochs": 3, "log_every_n_steps": 1}]
    lines = "\n".join(f"- {{key: {n}, text: '[[[[ {'x' * 3000}'}}" for n in range(5))
    assert len(parse_yaml(lines)) == 5


@pytest.mark.parametrize("text", ["[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP])
def test_json(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nests too deeply"):
        parse_json(text)
    (tmp_path / "multidatabackend.json").write_text(text)
    with pytest.raises(ValueError, match=r"multidatabackend\.json: is no JSON: nests too deeply"):
        convert_file(tmp_path / "multidatabackend.json", name="x", experiment=False, options={})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: fine\n")
    for name in ("summary.json", "environment.json", "process.json"):
        (run / name).write_text(text)
    assert read_run(run, tmp_path).metrics == {}


@pytest.mark.parametrize("between", [b"", b"\n"])
def test_lines_of_json(between: bytes) -> None:
    """Arrow's reader would take the interpreter with it."""
    deep = b'{"a":' + (b"[" + between) * DEEP + b"]" * DEEP + b"}\n"
    with pytest.raises(SourceError, match=r"(?s)rows\.jsonl.*nests deeper than 100 levels"):
        read_table(deep, key="rows.jsonl")
    fine = json.dumps({"text": "[" * 500 + '\\"'}).encode() + b"\n"
    assert read_table(fine * 300, key="rows.jsonl").num_rows == 300


REFERENCES: dict[str, str] = {
    "texts": "a0: xxxxxxxxxx\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 40)),
    "values": "a0: [1, 2]\n" + "".join(f"a{n}: {{x: '${{a{n - 1}}}', y: '${{a{n - 1}}}'}}\n" for n in range(1, 40)),
    "relative": "r:\n  a0: xxxxxxxxxx\n" + "".join(f"  a{n}: '${{.a{n - 1}}}${{.a{n - 1}}}'\n" for n in range(1, 40)),
    "put together": "r:\n  a0: xxxxxxxxxx\n"
    + "".join(f"  a{n}: '${{r.${{k{n - 1}}}}}${{r.${{k{n - 1}}}}}'\n" for n in range(1, 40))
    + "".join(f"k{n}: a{n}\n" for n in range(40)),
    "selected": "a0: xxxxxxxxxx\n"
    + "".join(f"a{n}: '${{oc.select:a{n - 1}}}${{oc.select:a{n - 1},x}}'\n" for n in range(1, 40)),
}


@pytest.mark.parametrize("reader", ["an experiment", "a run that is sampled beside"])
@pytest.mark.parametrize("name", REFERENCES)
def test_references_to_references(name: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"its references stand for .* characters, at most 10000000 may be"):
        READERS[reader](REFERENCES[name], tmp_path)
