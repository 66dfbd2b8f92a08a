"""Nothing in the package can run what a checkpoint, a shard, a cache or a configuration says."""

from __future__ import annotations

import pytest
from call_rules import call_violations, unused
from sources import other_modules, package_modules, snippet

OWN = "written by our own process a moment ago, into memory without a name"
NAMED: dict[tuple[str, str], str] = {
    ("neurotrain.storage.tensors", "torch.load"): "the one place, with weights_only=True",
    ("neurotrain.data.engine.errors", "pickle.loads"): OWN,
    ("neurotrain.data.engine.transport", "pickle.load"): OWN,
    ("neurotrain.data.stream_reader", "pickle.loads"): OWN,
    ("neurotrain.data.stream_loader", "pickle.loads"): OWN,
    ("neurotrain.documents", "yaml.load"): "with a safe loader, of which it looks at what it reads",
}


def test_calls() -> None:
    assert call_violations([*package_modules(), *other_modules("train.py", "benchmarks")], NAMED) == []


def test_the_named_list_has_nothing_too_much() -> None:
    assert unused(package_modules(), NAMED) == []


def test_the_one_place_that_loads_reads_weights_only() -> None:
    (module,) = [module for module in package_modules() if module.name == "neurotrain.storage.tensors"]
    assert module.text.count("torch.load(") == module.text.count("weights_only=True,") == 1


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "pickle.loads(data)",
        "pickle.Unpickler(file).load()",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval('1')",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.savez(path, x, allow_pickle=flag)",
        "tar.extractall(folder)",
        "shutil.unpack_archive(path)",
        "Model.from_pretrained(folder, local_files_only=True)",
        "Model.from_pretrained(folder, use_safetensors=True)",
        "Tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=True)",
        "Tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=flag)",
        "HTTPServer(('', 8000), Handler)",
        "sock.bind(('0.0.0.0', 80))",
    ],
)
def test_a_bad_call_is_found(text: str) -> None:
    assert len(call_violations([snippet(text)], {})) == 1


@pytest.mark.parametrize(
    "text",
    [
        "yaml.safe_load(text)",
        "network.eval()",
        "re.compile('a')",
        "np.load(path, allow_pickle=False)",
        "subprocess.run(['ls'])",
        "pattern.extract(x)",
        "adapter.bind(handle)",
        "HTTPServer(('127.0.0.1', 0), Handler)",
        "Model.from_pretrained(folder, use_safetensors=True, local_files_only=True)",
        "Tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)",
    ],
)
def test_a_good_call_passes(text: str) -> None:
    assert call_violations([snippet(text)], {}) == []
