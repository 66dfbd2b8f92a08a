"""Every configurable class, found by its package's ``__all__`` or an entry point, stored as a Hydra node.

A node holds what the constructor says and nothing else: ``configs/**/*.yaml`` inherit one by its name
(``_UNet`` in the group ``model/network``) and add deltas.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra_zen import builds
from omegaconf import DictConfig, OmegaConf

from neurotrain.app.allow import ALLOW_VARIABLE, AllowList
from neurotrain.app.diffusion_groups import DIFFUSION
from neurotrain.app.settings import Paths, RunSettings

OWNED_BY_THE_RUN = ("callbacks", "logger", "default_root_dir", "enable_checkpointing", "enable_progress_bar")
"""Arguments of Lightning's Trainer that other groups and the run directory decide."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A group of interchangeable classes.

    Attributes:
        name: of the entry-point group ``neurotrain.<name>`` by which third parties add members.
        group: Hydra's group.
        module: package whose ``__all__`` lists the members.
        base: dotted path of the class that members derive from.
        only: member names, for packages that are not ours; empty takes every concrete subclass of ``base``.
        partial: members become factories (``functools.partial``).
        without: constructor arguments that are not configuration.
    """

    name: str
    group: str
    module: str
    base: str
    only: tuple[str, ...] = ()
    partial: bool = False
    without: tuple[str, ...] = ()


FAMILIES = (
    Family(name="datamodules", group="data", module="neurotrain.data", base="lightning.LightningDataModule"),
    Family(
        name="datasets",
        group="data/dataset",
        module="neurotrain.data.datasets",
        base="neurotrain.data.datasets.SegmentationDataset",
    ),
    Family(
        name="volume_datasets",
        group="data/dataset",
        module="neurotrain.data.volumes",
        base="neurotrain.data.volumes.VolumeDataset",
    ),
    Family(
        name="volume_preparations",
        group="data/preparation",
        module="neurotrain.data.volumes",
        base="neurotrain.data.volumes.VolumePreparation",
    ),
    Family(
        name="volume_transforms",
        group="transform",
        module="neurotrain.data.volumes",
        base="neurotrain.data.transforms.Transform",
    ),
    Family(name="storages", group="data/storage", module="neurotrain.storage", base="neurotrain.storage.Storage"),
    Family(
        name="retries",
        group="data/retry",
        module="neurotrain.storage",
        base="neurotrain.storage.RetryPolicy",
    ),
    Family(
        name="sources", group="data/source", module="neurotrain.data.sources", base="neurotrain.data.sources.Source"
    ),
    Family(
        name="streams",
        group="data/stream",
        module="neurotrain.data.sources",
        base="neurotrain.data.sources.StreamingSource",
    ),
    Family(
        name="labelled_sources",
        group="data/source",
        module="neurotrain.data.labelled",
        base="neurotrain.data.sources.Source",
    ),
    Family(
        name="detection_sources",
        group="data/source",
        module="neurotrain.data.detection",
        base="neurotrain.data.sources.Source",
    ),
    Family(
        name="captions",
        group="data/captions",
        module="neurotrain.data.sources",
        base="neurotrain.data.sources.Captions",
    ),
    Family(
        name="decoders",
        group="data/decoder",
        module="neurotrain.data.decoders",
        base="neurotrain.data.decoders.Decoder",
    ),
    Family(
        name="detection_decoders",
        group="data/decoder",
        module="neurotrain.data.detection",
        base="neurotrain.data.decoders.Decoder",
    ),
    Family(
        name="preparations",
        group="data/preparation",
        module="neurotrain.data.decoders",
        base="neurotrain.data.decoders.ImagePreparation",
    ),
    Family(
        name="screened_sources",
        group="data/source",
        module="neurotrain.data.decoders",
        base="neurotrain.data.sources.Source",
    ),
    Family(
        name="cached_decoders",
        group="data/decoder",
        module="neurotrain.data.cached",
        base="neurotrain.data.decoders.Decoder",
    ),
    Family(
        name="latents",
        group="data/latents",
        module="neurotrain.data.cached",
        base="neurotrain.data.cached.CachedLatents",
    ),
    Family(
        name="texts", group="data/texts", module="neurotrain.data.cached", base="neurotrain.data.cached.CachedTexts"
    ),
    Family(name="caches", group="data/cache", module="neurotrain.data.cache", base="neurotrain.data.cache.TensorCache"),
    Family(
        name="latent_pictures",
        group="data/latent_preparation",
        module="neurotrain.data.cached",
        base="neurotrain.data.cached.CroppedPicture",
    ),
    Family(
        name="encoders",
        group="data/encoder",
        module="neurotrain.networks.encoders",
        base="neurotrain.networks.encoders.PretrainedEncoder",
    ),
    Family(
        name="weights", group="data/weights", module="neurotrain.data.mixture", base="neurotrain.data.mixture.Weights"
    ),
    Family(name="orders", group="data/order", module="neurotrain.data", base="neurotrain.data.Order"),
    Family(name="memberships", group="data/membership", module="neurotrain.data", base="neurotrain.data.Membership"),
    Family(
        name="quarantines",
        group="data/quarantine",
        module="neurotrain.data.engine",
        base="neurotrain.data.engine.Quarantine",
    ),
    Family(
        name="transforms",
        group="transform",
        module="neurotrain.data.transforms",
        base="neurotrain.data.transforms.Transform",
    ),
    Family(name="tasks", group="model", module="neurotrain.tasks", base="lightning.LightningModule"),
    Family(name="networks", group="model/network", module="neurotrain.networks", base="torch.nn.Module"),
    Family(
        name="classifiers",
        group="model/network",
        module="neurotrain.networks.classification",
        base="neurotrain.networks.classification.Classifier",
    ),
    Family(
        name="detectors",
        group="model/network",
        module="neurotrain.networks.detection",
        base="neurotrain.networks.detection.Detector",
    ),
    Family(
        name="clip_networks",
        group="model/network",
        module="neurotrain.networks.clip",
        base="neurotrain.networks.clip.ClipNetwork",
    ),
    Family(
        name="captioners",
        group="model/network",
        module="neurotrain.networks.captioning",
        base="neurotrain.networks.captioning.Captioner",
    ),
    Family(
        name="loras",
        group="model/lora",
        module="neurotrain.networks.captioning",
        base="neurotrain.networks.captioning.Lora",
    ),
    Family(name="text_networks", group="model/network", module="neurotrain.networks.text", base="torch.nn.Module"),
    Family(
        name="tokenizers",
        group="model/tokenizer",
        module="neurotrain.networks.text",
        base="neurotrain.networks.text.Tokenizer",
    ),
    Family(
        name="tower_tunings",
        group="model/tuning",
        module="neurotrain.networks.clip",
        base="neurotrain.networks.clip.TowerTuning",
    ),
    Family(
        name="prompts",
        group="model/prompts",
        module="neurotrain.networks.clip",
        base="neurotrain.networks.clip.Prompts",
    ),
    Family(
        name="clip_text_encoders",
        group="data/encoder",
        module="neurotrain.networks.clip",
        base="neurotrain.networks.clip.ClipTextEncoder",
    ),
    Family(
        name="volumetric_networks",
        group="model/network",
        module="neurotrain.networks.volumetric",
        base="neurotrain.networks.volumetric.VolumetricNetwork",
    ),
    Family(
        name="cleanings",
        group="model/cleaning",
        module="neurotrain.inference",
        base="neurotrain.inference.MaskCleaning",
    ),
    Family(name="losses", group="model/loss", module="neurotrain.losses", base="neurotrain.losses.SegmentationLoss"),
    Family(
        name="contrastive_losses",
        group="model/loss",
        module="neurotrain.losses.contrastive",
        base="neurotrain.losses.contrastive.ContrastiveLoss",
    ),
    Family(
        name="classification_losses",
        group="model/loss",
        module="neurotrain.losses.classification",
        base="neurotrain.losses.classification.ClassificationLoss",
    ),
    Family(name="box_losses", group="model/loss", module="neurotrain.losses.boxes", base="torch.nn.Module"),
    Family(name="instance_losses", group="model/loss", module="neurotrain.losses.instances", base="torch.nn.Module"),
    Family(
        name="metrics",
        group="model/metrics",
        module="neurotrain.metrics",
        base="neurotrain.metrics.SegmentationScore",
    ),
    Family(name="schedules", group="model/schedule", module="neurotrain.tasks", base="neurotrain.tasks.Schedule"),
    Family(name="mixings", group="model/mixing", module="neurotrain.tasks", base="neurotrain.tasks.Mixing"),
    Family(
        name="distillations",
        group="model/distillation",
        module="neurotrain.tasks",
        base="neurotrain.tasks.Distillation",
    ),
    *(Family(name=name, group=group, module=module, base=base) for name, group, module, base in DIFFUSION),
    Family(name="inferers", group="model/inferer", module="neurotrain.inference", base="neurotrain.inference.Inferer"),
    Family(
        name="optimizers",
        group="model/optimizer",
        module="torch.optim",
        base="torch.optim.Optimizer",
        only=("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD"),
        partial=True,
        without=("params",),
    ),
    Family(
        name="telemetry",
        group="callbacks/metric",
        module="neurotrain.callbacks",
        base="neurotrain.callbacks.LoaderMetric",
    ),
    Family(name="callbacks", group="callbacks", module="neurotrain.callbacks", base="lightning.Callback"),
    Family(
        name="lightning_callbacks",
        group="callbacks",
        module="lightning.pytorch.callbacks",
        base="lightning.Callback",
        only=("EarlyStopping", "GradientAccumulationScheduler", "LearningRateMonitor"),
    ),
    Family(
        name="loggers",
        group="logger",
        module="neurotrain.callbacks",
        base="lightning.pytorch.loggers.logger.Logger",
    ),
    Family(
        name="lightning_loggers",
        group="logger",
        module="lightning.pytorch.loggers",
        base="lightning.pytorch.loggers.logger.Logger",
        only=("TensorBoardLogger",),
        without=("kwargs",),
    ),
    Family(
        name="trainers",
        group="trainer",
        module="lightning",
        base="lightning.Trainer",
        only=("Trainer",),
        without=OWNED_BY_THE_RUN,
    ),
    Family(
        name="strategies",
        group="trainer/strategy",
        module="neurotrain.strategies",
        base="lightning.pytorch.strategies.Strategy",
    ),
)


def members(family: Family) -> Iterator[tuple[str, type]]:
    """Yield name and class of each member of ``family``, third parties' included.

    Raises:
        ValueError: if an entry point does not derive from the family's base, or takes a name that is taken.
    """
    module = import_module(family.module)
    base = _load(family.base)
    found: dict[str, type] = {}
    for name in family.only or module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value):
            found[name] = value
    found |= _third_party(family, base, taken=found)
    yield from found.items()


def _third_party(family: Family, base: type, *, taken: Mapping[str, type]) -> dict[str, type]:
    found: dict[str, type] = {}
    for entry in _entry_points(f"neurotrain.{family.name}"):
        value = entry.load()
        if not (inspect.isclass(value) and issubclass(value, base)):
            raise ValueError(f"entry point {entry.value!r} of neurotrain.{family.name} is no {family.base}")
        if entry.name in taken:
            raise ValueError(f"entry point {entry.value!r} takes the name {entry.name!r}, which {family.module} has")
        found[entry.name] = value
    return found


def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry for entry in _all_entry_points() if entry.group == group)


@cache
def _all_entry_points() -> tuple[EntryPoint, ...]:
    """Scan the installed distributions once for all families."""
    return tuple(entry for found in distributions() for entry in found.entry_points)


def node(family: Family, member: type) -> dict[str, Any]:
    """Return the plain configuration node of one class: its target and every default of its constructor."""
    built = builds(member, populate_full_signature=True, zen_partial=family.partial or None)
    container = OmegaConf.to_container(OmegaConf.structured(built), resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items() if key not in family.without}


class _Deferred(ConfigNode):
    """A stored node that is built when a configuration first inherits it, which few of them are in one run."""

    def __init__(self, family: Family, name: str, member: type) -> None:
        self.name, self.group, self.package, self.provider = f"_{name}.yaml", family.group, None, "neurotrain"
        self._family, self._member = family, member

    @cached_property
    def node(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        built = OmegaConf.structured(node(self._family, self._member))
        assert isinstance(built, DictConfig)
        return built


def _store(store: ConfigStore, family: Family, name: str, member: type) -> None:
    """Put a node where ``ConfigStore.store`` would, without building it."""
    folder = store.repo
    for part in family.group.split("/"):
        folder = folder.setdefault(part, {})
    folder[f"_{name}.yaml"] = _Deferred(family, name, member)


def register() -> AllowList:
    """Store every member's node under ``<group>/_<Name>`` and return what configurations may construct now."""
    return _allowed(os.environ.get(ALLOW_VARIABLE, ""))


@cache
def _allowed(prefixes: str) -> AllowList:
    return AllowList.from_environment(_stored(), environment={ALLOW_VARIABLE: prefixes})


@cache
def _stored() -> dict[str, object]:
    store = ConfigStore.instance()
    store.store(name="_RunSettings", node=_defaults(RunSettings), provider="neurotrain")
    store.store(group="paths", name="_Paths", node=_defaults(Paths), provider="neurotrain")
    targets: dict[str, object] = {}
    for family in FAMILIES:
        for name, member in members(family):
            targets[f"{member.__module__}.{member.__qualname__}"] = member
            _store(store, family, name, member)
    return targets


def _defaults(settings: type[RunSettings | Paths]) -> dict[str, Any]:
    """Return what a settings class says where nobody says otherwise."""
    return {
        field.name: str(field.default) if isinstance(field.default, Path) else field.default
        for field in fields(settings)
        if field.default is not MISSING
    }


def _load(dotted: str) -> Any:  # noqa: ANN401 - any attribute
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name)
