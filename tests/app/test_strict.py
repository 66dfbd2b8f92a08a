"""The strict check of whole configurations, and their construction."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra_zen
import pytest
import torch
from hydra_zen import builds
from omegaconf import OmegaConf

from neurotrain.app.allow import AllowList
from neurotrain.app.signatures import signature_of
from neurotrain.app.strict import ConfigurationError, Problem, check, instantiate

if TYPE_CHECKING:
    from decimal import Decimal

OptimizerFactory = Callable[..., torch.optim.Optimizer]


class Network(torch.nn.Module):
    def __init__(
        self, *, depth: int = 3, widths: tuple[int, ...] = (8, 16), mode: Literal["fast", "full"] = "fast"
    ) -> None:
        super().__init__()
        self.depth, self.widths, self.mode = depth, widths, mode


class Loss:
    def __init__(self, *, weights: Sequence[float] | None = None, smooth: float = 1.0) -> None:
        if smooth < 0:
            raise ValueError(f"smooth must not be negative,\n got {smooth}")
        self.weights, self.smooth = weights, smooth


class Task:
    def __init__(
        self,
        *,
        network: Network,
        loss: Loss,
        optimizer: OptimizerFactory,
        cache: Path | None = None,
        extras: Mapping[str, Loss] | None = None,
        lr: float = 1e-3,
    ) -> None:
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.cache, self.extras, self.lr = cache, extras, lr


@dataclass(frozen=True, kw_only=True)
class Paths:
    runs: Path = Path("runs")


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    task: Task
    seed: int = 0
    paths: Paths = Paths()
    callbacks: Sequence[object] = ()


class Foreign:
    def __init__(self, size: int = None, depth: Decimal = 3, **options: object) -> None:  # type: ignore  # noqa: RUF013 - as foreign code does
        self.options = options


class Hidden:
    def __init__(self, *, depth: Decimal) -> None:
        self.depth = depth


class Metaclass(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return super().__call__(*args, **kwargs)


class Wrapped(metaclass=Metaclass):
    def __init__(self, *, size: int) -> None:
        self.size = size


class Fails:
    def __init__(self, *, how: str) -> None:
        raise {"type": TypeError, "key": KeyError}[how]("no such disk")


def positional(size: int, /, depth: int = 3) -> int:
    return size * depth


def make_network(depth: int = 1) -> Network:
    return Network(depth=depth)


HERE = (Network, Loss, Task, Paths, Foreign, Hidden, Wrapped, Fails, positional, make_network)
ALLOW = AllowList(
    {
        **{f"t.{target.__name__}": f"{__name__}.{target.__name__}" for target in HERE},
        "torch.optim.AdamW": "torch.optim.adamw.AdamW",
        "lightning.pytorch.Trainer": "lightning.pytorch.trainer.trainer.Trainer",
        "torch.nn.Conv2d": "torch.nn.modules.conv.Conv2d",
    }
)


def node(name: str, **arguments: object) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", **arguments}


def task(**changes: object) -> dict[str, Any]:
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.01, "betas": [0.9, 0.99]}
    return node("Task", network=node("Network"), loss=node("Loss"), optimizer=optimizer) | changes


def run(config: Mapping[str, object], *, root: Callable[..., object] | None = Run) -> dict[str, str]:
    problems = check(config, allow=ALLOW, origin=lambda key: None, root=root)
    assert len({problem.key for problem in problems}) == len(problems), "one problem a key in these tests"
    return {problem.key: problem.message for problem in problems}


def one(value: object) -> dict[str, str]:
    return run({"x": value}, root=None)


def test_right_configuration_has_no_problem_and_is_built() -> None:
    config = {
        "name": "a",
        "seed": 3,
        "paths": {"runs": "elsewhere"},
        "task": task(cache="cache", loss=node("Loss", weights=[1, 2.5]), extras={"b": node("Loss"), "c": node("Loss")}),
        "callbacks": [node("Loss")],
    }
    assert run(config) == {}
    built = instantiate(config, allow=ALLOW)
    method = built["task"]
    assert isinstance(method, Task)
    assert isinstance(method.network, Network)
    assert method.loss.weights == (1.0, 2.5)
    assert method.cache == Path("cache")
    assert isinstance(method.optimizer, functools.partial)
    optimizer = method.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert isinstance(optimizer.defaults["betas"], tuple)
    assert method.extras is not None
    assert method.extras["b"] is not method.extras["c"]
    assert isinstance(built["callbacks"][0], Loss)
    assert built["paths"] == {"runs": "elsewhere"}


def test_all_problems_are_collected_at_once() -> None:
    broken = node("Network", depht=5, widths=[8, "16"], mode="fats")
    evil = {"_target_": "os.system", "command": "true"}
    config = {
        "sede": 3,
        "paths": {"runs": 3},
        "task": task(network=broken, loss=node("Loss", smooth="1"), optimizer=evil, cache="???"),
    }
    found = run(config)
    assert list(found) == [
        "sede",
        "paths.runs",
        "name",
        "task.network.depht",
        "task.network.widths.1",
        "task.network.mode",
        "task.loss.smooth",
        "task.optimizer._target_",
        "task.cache",
    ]
    assert found["sede"] == "unknown key 'sede' of Run; did you mean 'seed'?"
    assert found["paths.runs"] == "expected Path, got int 3"
    assert found["name"] == "missing: Run requires it, str"
    assert found["task.network.depht"] == "unknown key 'depht' of Network; did you mean 'depth'?"
    assert found["task.network.widths.1"] == "expected int, got str '16'"
    assert found["task.network.mode"].endswith("did you mean 'fast'?")
    assert found["task.optimizer._target_"].startswith("target 'os.system' is refused")
    assert "???" in found["task.cache"]


def test_error_has_one_line_per_problem_and_survives_pickling() -> None:
    error = ConfigurationError([Problem("a.b", "is wrong", "x.yaml"), Problem("c", "is missing", None)])
    assert str(error) == "a.b (x.yaml): is wrong\nc: is missing"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_file_is_that_of_the_nearest_key_with_one() -> None:
    files = {"task": "task.yaml", "task.network.mode": "mode.yaml"}
    config = {"task": task(network=node("Network", mode="x", depth="y")), "other": 1}
    problems = check(config, allow=ALLOW, origin=files.get, root=Run)
    found = {problem.key: problem.file for problem in problems}
    assert found["task.network.mode"] == "mode.yaml"
    assert found["task.network.depth"] == "task.yaml"
    assert found["other"] is None


def test_unknown_key_that_stands_one_level_off() -> None:
    found = run({"name": "a", "lr": 1, "task": task(depth=3, network=node("Network", lr=1))})
    assert found["lr"] == "unknown key 'lr' of Run; it exists one level down, 'task.lr'"
    assert "one level down, 'task.network.depth'" in found["task.depth"]
    assert "one level up, 'task.lr'" in found["task.network.lr"]


def test_unknown_key_without_a_near_name_lists_the_valid_ones() -> None:
    assert one(node("Loss", zzz=1))["x.zzz"] == "unknown key 'zzz' of Loss; it takes weights, smooth"


def test_nodes_in_lists_and_mappings_are_checked() -> None:
    found = one({"a": [node("Loss", smoth=1)], "b": {"c": node("Network", depth=2.0)}})
    assert set(found) == {"x.a.0.smoth", "x.b.c.depth"}
    assert set(run({"name": "a", "task": task(extras={"q": node("Network")})})) == {"task.extras.q"}


def test_missing_arguments() -> None:
    assert set(one(node("Task", network=node("Network")))) == {"x.loss", "x.optimizer"}
    assert one(node("Task", _partial_=True)) == {}
    assert set(one(node("Task", _partial_=True, lr="x", zzz=1))) == {"x.lr", "x.zzz"}


def test_node_of_the_wrong_class_and_forgotten_partial() -> None:
    optimizer = {"_target_": "torch.optim.AdamW", "params": []}
    found = run({"name": "a", "task": task(network=node("Loss"), optimizer=optimizer)})
    assert found["task.network"] == f"expected Network, got a node of '{__name__}.Loss'"
    assert found["task.optimizer"].endswith("set `_partial_: true`")
    assert run({"name": "a", "task": node("Loss")})["task"].startswith("expected Task")


def test_children_of_a_refused_target_are_still_checked() -> None:
    found = one({"_target_": "builtins.eval", "a": node("Loss", smoth=1)})
    assert set(found) == {"x._target_", "x.a.smoth"}


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_", "_zen_exclude", "_meta_", "_zen_wrappers"])
def test_reserved_keys_are_refused(key: str) -> None:
    assert "reserved" in one(node("Loss", **{key: True}))[f"x.{key}"]
    assert "reserved" in one({key: [1]})[f"x.{key}"]
    assert "reserved" in run({"name": "a", "task": task(), key: 1})[key]


def test_partial_without_a_target_and_odd_values() -> None:
    assert "reserved" in one({"_partial_": True})["x._partial_"]
    assert one(node("Loss", _partial_="yes"))["x._partial_"] == "expected true or false, got 'yes'"
    assert one({"_target_": 3})["x._target_"] == "expected a dotted path, got 3"
    assert "no value yet" in one({"_target_": "???"})["x._target_"]


def test_missing_values_are_reported_wherever_they_stand() -> None:
    found = one({"a": "???", "b": node("Network", depth="???", widths=["???", "x"])})
    assert set(found) == {"x.a", "x.b.depth", "x.b.widths.0", "x.b.widths.1"}
    assert found["x.b.widths.1"] == "expected int, got str 'x'"


def test_abstract_targets_are_refused() -> None:
    allow = AllowList(frozenset({"torch.utils.data.dataset.Dataset", "collections.abc.Sized"}))
    (problem,) = check({"x": {"_target_": "collections.abc.Sized"}}, allow=allow, origin=lambda key: None, root=None)
    assert problem.message == "Sized is abstract, choose one of its subclasses"


def test_positional_only_arguments_are_refused() -> None:
    assert one(node("positional", size=3))["x.size"] == "positional takes 'size' by position only"
    assert one(node("positional"))["x.size"].endswith("by position only")


def test_foreign_targets_are_read_leniently() -> None:
    assert one(node("Foreign", size=None, depth="anything", further=1)) == {}
    assert set(one(node("Foreign", size="3"))) == {"x.size"}
    assert one(node("Hidden", depth="anything")) == {}


def test_own_targets_are_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (Foreign, Hidden):
        monkeypatch.setattr(cls, "__module__", "neurotrain.somewhere")
    signature_of.cache_clear()
    found = one({"a": node("Foreign", further=1, size=None), "b": node("Hidden", depth=1)})
    signature_of.cache_clear()
    assert "unknown key 'further'" in found["x.a.further"]
    assert found["x.a.size"] == "expected int, got None"
    assert found["x.b.depth"] == "Hidden annotates 'depth' with a name unknown at run time"


def test_signature_is_the_constructors_behind_a_metaclass() -> None:
    assert set(one(node("Wrapped", sise=1))) == {"x.sise", "x.size"}


def test_inherited_dataclass_fields_resolve_in_their_own_module() -> None:
    from neurotrain.app.settings import Paths as Elsewhere

    @dataclass(frozen=True, kw_only=True)
    class Here(Elsewhere):
        extra: int = 0

    assert signature_of(Here).arguments["run_dir"].annotation == Path | None
    assert signature_of(Here).arguments["extra"].annotation is int


def test_root_is_optional() -> None:
    assert run({"anything": 1, "deep": {"er": [1]}}, root=None) == {}
    assert run(node("Loss", smooth="x"), root=None).keys() == {"smooth"}


def zen(target: Callable[..., object], **settings: object) -> dict[str, Any]:
    built = builds(target, populate_full_signature=True, **settings)  # type: ignore[call-overload]
    return OmegaConf.to_container(OmegaConf.create(built), resolve=True)  # type: ignore[return-value,arg-type]


def test_nodes_of_hydra_zen() -> None:
    config = {
        "name": "zen",
        "task": zen(
            Task,
            network=zen(Network),
            loss=zen(Loss, weights=[1.0]),
            optimizer=zen(torch.optim.AdamW, zen_partial=True),
        ),
    }
    assert config["task"]["network"]["widths"] == [8, 16]
    assert run(config) == {}
    built = instantiate(config["task"], allow=ALLOW)
    assert built.network.widths == (8, 16)
    assert built.optimizer.keywords["betas"] == (0.9, 0.999)


def test_processing_of_hydra_zen_is_refused() -> None:
    evil = zen(Loss, zen_meta={"a": 1})
    assert evil["_target_"] == "hydra_zen.funcs.zen_processing"
    found = one(evil)
    assert "refused" in found["x._target_"]
    assert any("reserved" in message for message in found.values())
    just = OmegaConf.to_container(OmegaConf.create(hydra_zen.just(print)))
    assert "refused" in one(just)["x._target_"]


def test_torch_and_lightning_signatures() -> None:
    from lightning.pytorch import Trainer

    assert one(zen(Trainer)) == {}
    trainer = {
        "_target_": "lightning.pytorch.Trainer",
        "max_epoch": 3,
        "precision": "bf16-mix",
        "limit_train_batches": 0.5,
        "devices": [0, 1],
        "max_time": {"hours": "3"},
        "gradient_clip_val": "1",
        "callbacks": [node("Loss")],
    }
    found = one(trainer)
    assert set(found) == {
        "x.max_epoch",
        "x.precision",
        "x.max_time.hours",
        "x.gradient_clip_val",
        "x.callbacks.0",
    }
    assert "'max_epochs'" in found["x.max_epoch"]
    assert "'bf16-mixed'" in found["x.precision"]
    conv = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": [3, 3], "stride": 1}
    assert one(conv) == {}
    assert instantiate(conv, allow=ALLOW).kernel_size == (3, 3)


def test_constructor_errors_name_the_key() -> None:
    with pytest.raises(ConfigurationError) as raised:
        instantiate({"task": task(loss=node("Loss", smooth=-1.0))}, allow=ALLOW, key="run")
    assert str(raised.value) == "run.task.loss: Loss: smooth must not be negative, got -1.0"
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(ConfigurationError, match=r"^x\.0: Fails: no such disk$"):
        instantiate([node("Fails", how="type")], allow=ALLOW, key="x")
    with pytest.raises(KeyError) as other:
        instantiate({"x": node("Fails", how="key")}, allow=ALLOW)
    assert other.value.__notes__ == [f"while building x ({__name__}.Fails)"]


def test_instantiate_refuses_what_is_not_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"x: target 'os\.system' is refused"):
        instantiate({"_target_": "os.system", "command": "true"}, allow=ALLOW, key="x")


def test_nothing_is_constructed_by_the_check_and_nodes_are_never_shared() -> None:
    assert one(node("Fails", how="key")) == {}
    shared = node("Loss")
    first, second = instantiate([shared, shared], allow=ALLOW)
    assert first is not second
    assert shared == node("Loss")


def test_functions_and_scalars() -> None:
    assert instantiate(node("make_network", depth=7), allow=ALLOW).depth == 7
    assert run({"name": "a", "task": task(network=node("make_network"))}) == {}
    assert instantiate(3, allow=ALLOW) == 3
    assert instantiate({"a": [1, (2,)]}, allow=ALLOW) == {"a": [1, (2,)]}
