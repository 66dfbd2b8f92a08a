"""Pictures and clips that are denoised as they are: networks of ours, and diffusers' ``UNet2DModel``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurotrain.diffusion.adapter import Adapter, PreparedBatch
from neurotrain.diffusion.context import Condition, SharedContext
from neurotrain.diffusion.families.adapted import AdaptedFamily
from neurotrain.diffusion.families.base import PipelineContract, abilities_of
from neurotrain.diffusion.families.export import save_weights
from neurotrain.diffusion.families.folders import PipelineFolder, diffusers_library
from neurotrain.diffusion.families.lora import Lora
from neurotrain.diffusion.families.schedulers import prediction_of, schedule_of, scheduler_config
from neurotrain.diffusion.roles import Role, RoleHandle
from neurotrain.diffusion.scores import PictureScore
from neurotrain.diffusion.specs import Abilities, IncompatibleRolesError, LatentSpec, RoleSpec
from neurotrain.diffusion.validation import Validator
from neurotrain.networks.denoisers import Denoiser, DiffusersDenoiser, PlainUNet
from neurotrain.noise import NoiseSchedule

LABEL = "label"
_CLIP = 4
"""Axes of a clip: channels, frames, height and width."""


class PixelAdapter(Adapter):
    """Pictures or clips in [-1, 1] as latents.

    Args:
        context: what the roles share.
        class_shares: probability of each class where samples are drawn; empty: nothing steers.
    """

    def __init__(self, *, context: SharedContext, class_shares: tuple[float, ...]) -> None:
        super().__init__(context=context)
        self._shares = torch.tensor(class_shares, dtype=torch.float64)

    def prepare_batch(self, batch: Mapping[str, Any]) -> PreparedBatch:
        """The images (of clips, ``video``), and their classes where those steer.

        Raises:
            ValueError: if the images have another shape.
        """
        key = "video" if len(self.context.shape) == _CLIP else "image"
        if key not in batch:
            raise ValueError(f"the batch has no {key!r}, only {', '.join(batch)}")
        image: Tensor = batch[key]
        if image.shape[1:] != self.context.shape:
            raise ValueError(
                f"{key}s of shape {tuple(image.shape[1:])}: the pipeline's shape is {tuple(self.context.shape)}"
            )
        return PreparedBatch(image, {LABEL: batch["label"]} if len(self._shares) else {})

    def encode(self, sample: Tensor) -> Tensor:
        """From [0, 1] to [-1, 1]."""
        return sample * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        """To pictures in [0, 1]; what lies outside is cut off."""
        return (latent * 0.5 + 0.5).clamp(0, 1)

    def draw_condition(self, count: int, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Classes by their shares."""
        if not len(self._shares):
            return {}
        shares = self._shares.to(generator.device)
        return {LABEL: torch.multinomial(shares, count, replacement=True, generator=generator)}

    def evaluate(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output."""
        return network(x_t, t, condition)

    def features(self, network: nn.Module, x_t: Tensor, t: Tensor, condition: Condition) -> list[Tensor]:
        """What the network says of itself."""
        assert isinstance(network, Denoiser)
        return network.features(x_t, t, condition)


class PixelFamily(AdaptedFamily):
    """Pictures, or clips, of one size, steered by a class or by nothing.

    A role has a network of ours, or takes its own from a pipeline with a ``UNet2DModel`` (``DDPMPipeline``,
    ``DDIMPipeline``), which then says schedule and prediction type itself.

    Args:
        schedule: of the noise, of networks of ours.
        shape: channels, height and width of a picture; channels, frames, height and width of a clip.
        class_shares: probability of each class where samples are drawn, which need not add up to 1; empty: no class
            steers.
        timestep_range: smallest and largest time that methods use.
        schedules: of networks of ours that have another schedule than ``schedule``, by role.
        path: pipeline that roles without a network take theirs from: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: other pipelines, by role; folders.
        lora: low-rank additions, by role.
        score: of samples, for validation; None: there is none.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.
    """

    contract = PipelineContract(required=("unet", "scheduler"))

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        shape: tuple[int, ...] = (1, 28, 28),
        class_shares: tuple[float, ...] = (),
        timestep_range: tuple[float, float] = (0.0, 1.0),
        schedules: dict[str, NoiseSchedule] | None = None,
        path: str | None = None,
        revision: str | None = None,
        paths: dict[str, str] | None = None,
        lora: dict[str, Lora] | None = None,
        score: PictureScore | None = None,
    ) -> None:
        super().__init__(lora=lora)
        if len(shape) not in (_CLIP - 1, _CLIP):
            raise ValueError(f"shape={shape}: expected (channels, height, width), or frames behind the channels")
        if min(shape) < 1 or any(share < 0 for share in class_shares):
            raise ValueError(f"shape={shape} must be positive, class_shares at least 0")
        if revision is not None and path is None:
            raise ValueError(f"revision={revision!r} has no effect without a path")
        self.schedule, self._shape, self._shares = schedule, tuple(shape), tuple(class_shares)
        self._range = timestep_range
        self._schedules = dict(schedules or {})
        self._folders = {name: PipelineFolder(other) for name, other in (paths or {}).items()}
        self._folder = None if path is None else PipelineFolder(path, revision)
        self._score = score

    def spec(self, name: str, role: Role) -> RoleSpec:
        """What a network of ours says of itself, or the configuration of a pipeline.

        Raises:
            IncompatibleRolesError: if the pipeline's class cannot steer it, or the channels are others.
        """
        abilities = Abilities(network=PlainUNet.__name__)
        if role.network is None:
            found = self._of_folder(name)
        else:
            if not isinstance(role.network, Denoiser):
                raise ValueError(f"network of role {name!r}: {type(role.network).__name__} is no Denoiser")
            abilities = abilities_of(role.network)
            found = (
                role.network.channels,
                self._schedules.get(name, self.schedule),
                role.network.prediction,
                role.network.condition,
            )
        channels, schedule, prediction, condition = found
        if channels != self._shape[0]:
            raise IncompatibleRolesError(
                f"role {name!r} and the pipeline differ in channels: {channels} and {self._shape[0]}"
            )
        frames = None if role.network is None else role.network.frames
        expected = self._shape[1] if len(self._shape) == _CLIP else None
        if frames != expected:
            raise IncompatibleRolesError(f"role {name!r} and the pipeline differ in frames: {frames} and {expected}")
        if self._shares and LABEL not in condition:
            raise IncompatibleRolesError(f"role {name!r} knows no classes, the pipeline has {len(self._shares)}")
        needed = {LABEL: condition[LABEL]} if LABEL in condition and (self._shares or role.network is None) else {}
        return RoleSpec(
            latent=LatentSpec(
                channels=channels,
                layout="BCHW" if frames is None else "BCTHW",
                frames=frames,
                schedule=schedule,
                prediction=prediction,
                # A pretrained network knows all times, whatever the others are trained at.
                timestep_range=self._range if role.network is not None or role.trainable else (0.0, 1.0),
                condition=needed,
            ),
            abilities=abilities,
        )

    def network(self, name: str, role: Role) -> nn.Module:
        """``UNet2DModel`` of the role's pipeline."""
        folder = self._folder_of(name)
        _, schedule, prediction, condition = self._of_folder(name)
        kind = diffusers_library("PixelFamily").UNet2DModel
        model = kind.from_pretrained(str(folder.root / "unet"), use_safetensors=True, local_files_only=True)
        return PlainUNet(model=model, schedule=schedule, prediction=prediction, condition=condition)

    def context(self, leader: LatentSpec) -> SharedContext:
        """Size, schedule and classes."""
        return SharedContext(
            shape=self._shape,
            schedule=leader.schedule,
            timestep_range=leader.timestep_range,
            condition=self.provided(),
            fingerprint=repr(("pixels", self._shape, self._shares)),
        )

    def provided(self) -> dict[str, tuple[int, ...]]:
        """The class, where there are any."""
        return {LABEL: ()} if self._shares else {}

    def adapter(self, context: SharedContext) -> PixelAdapter:
        """Of pictures."""
        return PixelAdapter(context=context, class_shares=self._shares)

    def validator(self, adapter: Adapter) -> Validator:
        """Scores as was given."""
        reference = None if self._score is None else self._score.reference
        return Validator(adapter=adapter, score=self._score, reference=reference)

    def export(self, handle: RoleHandle, folder: Path, *, merge: bool = True) -> None:
        """Weights of a network of ours; of a ``UNet2DModel`` the pipeline that samples with it.

        Raises:
            ValueError: if diffusers has no scheduler for it, or a low-rank addition cannot be written apart.
        """
        network = handle.module
        if not isinstance(network, DiffusersDenoiser):
            self.check_merge(handle, merge=merge)
            save_weights(network, folder)
            return
        if not merge:
            self.save_lora(handle, folder, part="unet")
            return
        kind, settings = scheduler_config(network.schedule, network.prediction)
        library = diffusers_library("PixelFamily")
        pipeline = library.DDIMPipeline if kind == "DDIMScheduler" else library.DDPMPipeline
        made = pipeline(unet=self.merged_model(handle), scheduler=getattr(library, kind)(**settings))
        made.save_pretrained(folder, safe_serialization=True)

    def _folder_of(self, name: str) -> PipelineFolder:
        folder = self._folders.get(name, self._folder)
        if folder is None:
            raise ValueError(f"role {name!r} has no network, and the pipeline no path to take one from")
        return folder

    def _of_folder(self, name: str) -> tuple[int, NoiseSchedule, Any, Mapping[str, tuple[int, ...]]]:
        folder = self._folder_of(name)
        folder.check(self.contract, classes={"unet": ("UNet2DModel",)})
        config, scheduler = folder.config("unet"), folder.config("scheduler")
        if config.get("center_input_sample"):
            raise ValueError(f"{folder.path}: center_input_sample=True is not known: pictures are in [-1, 1]")
        channels = PlainUNet.latent_channels(config)
        return channels, schedule_of(scheduler), prediction_of(scheduler), PlainUNet.conditions(config)
