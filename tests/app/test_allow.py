"""Which targets a configuration may name."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
import types

import pytest

from neurotrain.app.allow import AllowList, TargetRefused, did_you_mean

HOSTILE = (
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "functools.partial",
    "hydra_zen.funcs.zen_processing",
    "hydra_zen.funcs.get_obj",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "hydra.utils.get_method",
    "logging.os.system",
    "torch.hub.load",
    "torch.load",
)
PREFIXES = ("neurotrain", "mylab", "os", "builtins", "subprocess", "functools", "hydra", "hydra_zen", "logging")


@pytest.fixture
def mylab(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    package, module = types.ModuleType("mylab"), types.ModuleType("mylab.models")
    package.__path__ = []  # type: ignore[attr-defined]
    package.models = module  # type: ignore[attr-defined]
    module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("mylab.models", None)
    source = (
        "class Net:\n    class Inner: pass\n"
        "def make(): return Net()\n"
        "def outer():\n    class Local: pass\n    return Local\n"
        "Local = outer()\n"
        "instance = Net()\n"
    )
    exec(source, vars(module))
    for value in (module.Net, module.Net.Inner, module.make, module.Local):
        value.__module__ = "mylab.models"
    module.os, module.Popen, module.bound = os, subprocess.Popen, functools.partial(print)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mylab", package)
    monkeypatch.setitem(sys.modules, "mylab.models", module)
    return module


def test_exact_entry_resolves_to_the_object() -> None:
    import torch

    allow = AllowList(frozenset({"torch.optim.adamw.AdamW"}))
    assert allow.resolve("torch.optim.adamw.AdamW") is torch.optim.AdamW


def test_alias_and_its_defining_path_are_both_allowed() -> None:
    import torch

    allow = AllowList({"torch.optim.AdamW": "torch.optim.adamw.AdamW"})
    assert allow.resolve("torch.optim.AdamW") is torch.optim.AdamW
    assert allow.resolve("torch.optim.adamw.AdamW") is torch.optim.AdamW
    with pytest.raises(TargetRefused, match="not registered"):
        allow.resolve("torch.optim.SGD")


def test_entries_are_compared_by_identity() -> None:
    import torch

    allow = AllowList({"torch.optim.AdamW": torch.optim.AdamW, "torch.optim.SGD": torch.optim.AdamW})
    assert allow.resolve("torch.optim.AdamW") is torch.optim.AdamW
    with pytest.raises(TargetRefused, match="not the object that was registered"):
        allow.resolve("torch.optim.SGD")
    with pytest.raises(TargetRefused, match="not the object that was registered"):
        AllowList({"torch.optim.SGD": "torch.optim.adamw.AdamW"}).resolve("torch.optim.SGD")


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("prefixes", [(), PREFIXES], ids=["no prefix", "matching prefix"])
def test_hostile_targets_are_refused(target: str, prefixes: tuple[str, ...]) -> None:
    with pytest.raises(TargetRefused):
        AllowList(frozenset({"datetime.timedelta"}), prefixes).resolve(target)


@pytest.mark.parametrize(
    "target",
    [
        "mylab.models.os.system",
        "mylab.models.Popen",
        "mylab.models.bound",
        "mylab.models.instance",
        "mylab.models.Local",
        "mylab.models.make.__globals__",
        "mylab.models.Net.__init__",
        "neurotrain.batch.Tensor",
        "neurotrain.app.allow.os.system",
        "neurotrain.app.allow.importlib.import_module",
        "neurotrain.app.allow.sys",
    ],
)
def test_what_a_trusted_module_only_imports_is_refused(target: str, mylab: types.ModuleType) -> None:
    with pytest.raises(TargetRefused):
        AllowList(frozenset(), ("mylab.models", "neurotrain")).resolve(target)


def test_prefix_allows_what_is_defined_below_it(mylab: types.ModuleType) -> None:
    allow = AllowList(frozenset(), ("mylab",))
    assert allow.resolve("mylab.models.Net") is mylab.Net
    assert allow.resolve("mylab.models.Net.Inner") is mylab.Net.Inner
    assert allow.resolve("mylab.models.make") is mylab.make
    assert allow.resolve("mylab.models.Net") is mylab.Net


def test_object_that_only_claims_an_allowed_path_is_refused(mylab: types.ModuleType) -> None:
    class Impostor:
        pass

    Impostor.__module__, Impostor.__qualname__ = "mylab.models", "Net"
    mylab.Impostor = Impostor  # type: ignore[attr-defined]
    with pytest.raises(TargetRefused, match="claims to be"):
        AllowList(frozenset(), ("mylab",)).resolve("mylab.models.Impostor")


def test_prefix_ends_at_a_dot() -> None:
    with pytest.raises(TargetRefused, match="not registered"):
        AllowList(frozenset(), ("neuro",)).resolve("neurotrain.app.allow.AllowList")


def test_text_is_checked_before_anything_is_imported() -> None:
    with pytest.raises(TargetRefused, match="not registered"):
        AllowList(frozenset()).resolve("antigravity_of_the_lab.Net")
    with pytest.raises(TargetRefused, match="can't be imported"):
        AllowList(frozenset(), ("antigravity_of_the_lab",)).resolve("antigravity_of_the_lab.Net")
    sys.modules.pop("this", None)
    with pytest.raises(TargetRefused, match="closed to configurations"):
        AllowList(frozenset()).resolve("this.d")
    assert "this" not in sys.modules


@pytest.mark.parametrize("text", ["", "Net", "a..b", "a b.c", ".a.b", "a.b:c", "neurotrain.batch.__builtins__.eval"])
def test_text_that_is_no_dotted_path_is_refused(text: str) -> None:
    with pytest.raises(TargetRefused, match="expected a dotted path"):
        AllowList(frozenset(), ("neurotrain", "a")).resolve(text)


def test_refusal_names_the_way_out_and_the_near_name() -> None:
    with pytest.raises(TargetRefused) as refusal:
        AllowList(frozenset({"neurotrain.networks.UNet"})).resolve("mylab.models.Unet")
    message = str(refusal.value)
    assert "'mylab.models.Unet'" in message
    assert "NEUROTRAIN_ALLOW=mylab.models" in message
    assert "entry point" in message
    assert "neurotrain.networks.UNet" in message
    assert str(pickle.loads(pickle.dumps(refusal.value))) == message


def test_name_that_does_not_exist_brings_the_near_one() -> None:
    with pytest.raises(TargetRefused, match=r"has no 'AlowList'; did you mean 'AllowList'"):
        AllowList(frozenset(), ("neurotrain",)).resolve("neurotrain.app.allow.AlowList")


def test_prefixes_come_from_the_environment() -> None:
    allow = AllowList.from_environment(frozenset(), environment={"NEUROTRAIN_ALLOW": " mylab.models, ,other "})
    assert allow.prefixes == ("mylab.models", "other")
    assert AllowList.from_environment(frozenset(), environment={}).prefixes == ()
    with pytest.raises(ValueError, match="no module prefix"):
        AllowList.from_environment(frozenset(), environment={"NEUROTRAIN_ALLOW": "my-lab"})


def test_did_you_mean_joins_names() -> None:
    assert did_you_mean("dept", ["depth", "debt", "width"]).startswith("; did you mean 'depth' or 'debt'?")
    assert did_you_mean("UNET", ["UNet"]) == "; did you mean 'UNet'?"
    assert did_you_mean("xyz", ["depth"]) == ""
