"""What families of text-to-image pipelines of diffusers share: latents of an autoencoder, prompts of several encoders.

The pipeline of diffusers is loaded without its denoiser and encodes prompts by its own code; each role has its
denoiser.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from neurotrain.diffusion.context import SharedContext, Unconditional
from neurotrain.diffusion.families.adapted import AdaptedFamily
from neurotrain.diffusion.families.base import Approve, Assembly
from neurotrain.diffusion.families.folders import PipelineContractError, PipelineFolder, diffusers_library
from neurotrain.diffusion.families.lora import Lora
from neurotrain.diffusion.families.prompt_adapter import GUIDANCE, PromptAdapter
from neurotrain.diffusion.families.schedulers import prediction_of, schedule_of, scheduler_config
from neurotrain.diffusion.roles import Role, RoleHandle, missing_role
from neurotrain.diffusion.specs import Abilities, IncompatibleRolesError, LatentSpec, RoleSpec, RuntimeSpec
from neurotrain.networks.denoisers import DiffusersDenoiser
from neurotrain.networks.encoders import DiffusersVAE
from neurotrain.noise import NoiseSchedule, Prediction

_SIZES = ("hidden_size", "d_model", "num_hidden_layers", "num_layers", "vocab_size", "projection_dim")


def _encoders(folder: PipelineFolder) -> dict[str, str]:
    """Class and sizes of each text encoder: a denoiser that another one has trained is steered by noise."""
    found: dict[str, str] = {}
    for part, (_, kind) in folder.parts.items():
        if part.startswith("text_encoder"):
            config = folder.config(part)
            sizes = ", ".join(f"{name}={config[name]}" for name in _SIZES if config.get(name) is not None)
            found[part] = f"{kind}({sizes})"
    return found


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Of what encoders made of one text: other encoders make something else of it."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class PromptedFamily(AdaptedFamily):
    """A pipeline of diffusers with an autoencoder and text encoders.

    Args:
        path: pipeline: a folder, or ``owner/name`` on the hub.
        revision: commit on the hub, 40 digits.
        paths: pipelines that other roles take their denoiser from, by role; folders.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        prompts: that samples are drawn with.
        negative_prompt: of the second call of guidance.
        unconditional: what channels become in that call; those not named become the negative prompt's, or stay.
        schedule: replaces the pipeline's; None: what its scheduler says.
        timestep_range: smallest and largest time that methods use.
        dtype: of all weights.
        lora: low-rank additions, by role.

    Raises:
        ValueError: if a value is out of range, or a pipeline is not where it should be.
    """

    part: ClassVar[str]
    classes: ClassVar[Mapping[str, tuple[str, ...]]]
    negatives: ClassVar[Mapping[str, Unconditional]]
    """What channels become in the second call of guidance, unless the configuration says otherwise."""
    layout: ClassVar[str] = "BCHW"
    """Axes of latents, see :class:`neurotrain.diffusion.LatentSpec`."""
    sample_key: ClassVar[str] = "image"
    """What a batch calls its samples."""
    guidance: float | None = None
    """Scale of guidance of the configuration, where a family has it."""

    def __init__(
        self,
        *,
        path: str,
        revision: str | None,
        paths: dict[str, str] | None,
        height: int,
        width: int,
        prompts: tuple[str, ...],
        negative_prompt: str,
        unconditional: dict[str, Unconditional] | None,
        schedule: NoiseSchedule | None,
        timestep_range: tuple[float, float],
        dtype: Literal["float32", "bfloat16"],
        lora: dict[str, Lora] | None,
    ) -> None:
        super().__init__(lora=lora)
        if not prompts:
            raise ValueError("prompts=(): one at least is needed to draw samples with")
        self._folder = PipelineFolder(path, revision)
        self._folders = {name: PipelineFolder(other) for name, other in (paths or {}).items()}
        self._size, self._prompts, self._negative_prompt = (height, width), tuple(prompts), negative_prompt
        self._unconditional: dict[str, Unconditional] = {**self.negatives, **(unconditional or {})}
        self._schedule, self._range, self._dtype = schedule, timestep_range, dtype
        self._folder.check(self.contract, classes=self.classes)
        self._shape = self._latent_shape()
        self.scale, self.shift = self.latent_scale(self._folder.config("vae"))

    def assemble(
        self, roles: Mapping[str, Role], *, leader: str = "student", approve: Approve | None = None
    ) -> Assembly:
        """See :meth:`Family.assemble`.

        Raises:
            ValueError: if a setting names a role that is not there, or a role whose network would not be made by it.
        """
        for setting, names in {"paths": tuple(self._folders), **self.by_role()}.items():
            for name in names:
                if name not in roles:
                    raise ValueError(f"{setting}: {missing_role(name, roles)}")
                if roles[name].initialize_from is not None:
                    raise ValueError(
                        f"{setting} of role {name!r} has no effect beside initialize_from="
                        f"{roles[name].initialize_from!r}, which copies that role's network"
                    )
        asks = (GUIDANCE in self._needed(name) for name in roles if self.is_denoiser(name))
        if self.guidance is not None and not any(asks):
            raise ValueError(f"guidance={self.guidance} has no effect: no role's network asks for a scale")
        return super().assemble(roles, leader=leader, approve=approve)

    def by_role(self) -> dict[str, tuple[str, ...]]:
        """Settings of networks that are given by role, and the roles that they name."""
        return {}

    @property
    def told_guidance(self) -> float | None:
        """Scale that networks which ask for one are told, where the method says none; None: they are told none."""
        return self.guidance

    @abstractmethod
    def conditions(self, config: Mapping[str, Any], *, role: str) -> dict[str, tuple[int, ...]]:
        """Channels that a denoiser of this configuration needs."""

    @abstractmethod
    def encode_prompts(
        self,
        pipeline: Any,  # noqa: ANN401 - of diffusers
        prompts: list[str],
        *,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Channels of prompts, by the pipeline's own code: ``(B, ...)`` each."""

    @abstractmethod
    def load(self, folder: PipelineFolder, *, role: str) -> nn.Module:
        """The denoiser of a pipeline, by diffusers."""

    @abstractmethod
    def wrap(self, model: nn.Module, *, spec: LatentSpec) -> DiffusersDenoiser:
        """The denoiser as methods call it."""

    @abstractmethod
    def load_pipeline(self, folder: PipelineFolder) -> Any:  # noqa: ANN401 - of diffusers
        """The pipeline without its denoiser and what the contract leaves out."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of all weights."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self._dtype]

    @property
    def image_tokens(self) -> int:
        """Length of a picture's sequence, in squares of two by two latents."""
        return (self._shape[-2] // 2) * (self._shape[-1] // 2)

    def latent_scale(self, config: Mapping[str, Any]) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
        """Scale and shift of latents, from the autoencoder's configuration; see ``LatentSpec``."""
        return float(config["scaling_factor"]), float(config.get("shift_factor") or 0.0)

    def spec(self, name: str, role: Role) -> RoleSpec:
        """What the role's pipeline says in its configurations.

        Raises:
            ValueError: if the role brings a network of its own.
        """
        if role.network is not None:
            raise ValueError(
                f"network of role {name!r}: {type(self).__name__} takes all networks from pipelines; name one in paths"
            )
        folder = self._checked(name)
        config, vae, scheduler = (folder.config(part) for part in (self.part, "vae", "scheduler"))
        needed = self._needed(name)
        scale, shift = self.latent_scale(vae)
        return RoleSpec(
            latent=LatentSpec(
                channels=self.denoiser.latent_channels(config),
                layout=self.layout,
                schedule=self._schedule or schedule_of(scheduler, image_tokens=self.image_tokens),
                prediction=prediction_of(scheduler),
                vae=DiffusersVAE(path=str(folder.root), subfolder="vae").fingerprint(),
                scale=scale,
                shift=shift,
                frames=self._shape[1] if "T" in self.layout else None,
                timestep_range=self._range if role.trainable else (0.0, 1.0),  # a pretrained one knows all times
                # The scale of guidance comes from the method, not from an encoder.
                condition={channel: shape for channel, shape in needed.items() if channel != GUIDANCE},
            ),
            runtime=RuntimeSpec(dtype=self._dtype),
            abilities=self.abilities(name, scalars=(GUIDANCE,) if GUIDANCE in needed else ()),
        )

    def abilities(self, name: str, *, scalars: tuple[str, ...]) -> Abilities:
        """What a role's network can be asked.

        Args:
            name: of the role.
            scalars: that it must be told.
        """
        needs = scalars if self.told_guidance is None else ()
        return Abilities(network=self.denoiser.__name__, scalars=scalars, needs=needs)

    denoiser: ClassVar[type[DiffusersDenoiser]]

    def _checked(self, name: str) -> PipelineFolder:
        """The pipeline of a role, once it is of this family and its denoiser was trained with the same encoders.

        Raises:
            PipelineContractError: if it is of another family.
            IncompatibleRolesError: if it has other encoders.
        """
        folder = self._folders.get(name)
        if folder is None:
            return self._folder
        try:
            folder.check(self.contract, classes=self.classes)
        except PipelineContractError as error:
            raise PipelineContractError(f"role {name!r}: {error}") from error
        theirs, ours = _encoders(folder), _encoders(self._folder)
        for part in sorted({*theirs, *ours}):
            if theirs.get(part) != ours.get(part):
                raise IncompatibleRolesError(
                    f"role {name!r} and the pipeline differ in {part}: {theirs.get(part)} and {ours.get(part)}"
                )
        return folder

    def _needed(self, name: str) -> dict[str, tuple[int, ...]]:
        """Channels that a role's network needs."""
        return self.conditions(self._folders.get(name, self._folder).config(self.part), role=name)

    def network(self, name: str, role: Role) -> nn.Module:
        """The denoiser of the role's pipeline."""
        folder = self._folders.get(name, self._folder)
        return self.wrap(self.load(folder, role=name), spec=self.spec(name, role).latent)

    def context(self, leader: LatentSpec) -> SharedContext:
        """Autoencoder, text encoders and the negative prompt, loaded once."""
        self.pipeline = self.load_pipeline(self._folder)
        parts: dict[str, Any] = {
            name: getattr(self.pipeline, name) for name in self._folder.parts if name.startswith("text_encoder")
        }
        modules = [self.pipeline.vae, *(part for part in parts.values() if part is not None)]
        for module in modules:
            module.eval().requires_grad_(False)
        with torch.no_grad():
            negative = self.encode_prompts(self.pipeline, [self._negative_prompt], device=torch.device("cpu"))
        return SharedContext(
            shape=self._shape,
            schedule=leader.schedule,
            timestep_range=leader.timestep_range,
            vae=self.pipeline.vae,
            text_encoders={name: part for name, part in parts.items() if part is not None},
            condition=self.provided(),
            negative={name: value[0] for name, value in negative.items()},
            unconditional=self._unconditional,
            fingerprint=repr(
                (leader.vae, self._shape, self._prompts, _digest(negative), sorted(self._unconditional.items()))
            ),
        )

    def adapter(self, context: SharedContext) -> PromptAdapter:
        """Of pictures and prompts."""
        return PromptAdapter(context=context, family=self, pipeline=self.pipeline, prompts=self._prompts)

    def export(self, handle: RoleHandle, folder: Path, *, merge: bool = True) -> None:
        """The whole pipeline with the role's denoiser, and a scheduler of its times; or its low-rank addition alone.

        Raises:
            ValueError: if diffusers has no scheduler for it, or there is no addition to be written apart.
        """
        if not merge:
            self.save_lora(handle, folder, part=self.part)
            return
        latent = handle.spec.latent
        kind, settings = self.exported_scheduler(latent.schedule, latent.prediction)
        scheduler = getattr(diffusers_library(type(self).__name__), kind)(**settings)
        parts = {**self.pipeline.components, self.part: self.merged_model(handle), "scheduler": scheduler}
        type(self.pipeline)(**self.export_parts(parts)).save_pretrained(folder, safe_serialization=True)

    def exported_scheduler(self, schedule: NoiseSchedule, prediction: Prediction) -> tuple[str, dict[str, Any]]:
        """Class and arguments of the scheduler that is written with a role.

        Raises:
            ValueError: if diffusers has none for it.
        """
        return scheduler_config(schedule, prediction)

    def export_parts(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the pipeline's constructor, from its parts."""
        return parts

    def _latent_shape(self) -> tuple[int, ...]:
        vae = self._folder.config("vae")
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        height, width = self._size
        if height < 1 or width < 1 or height % factor or width % factor:
            raise ValueError(
                f"height={height}, width={width}: expected multiples of {factor}, the autoencoder's factor"
            )
        return int(vae["latent_channels"]), height // factor, width // factor

    def tokens(self, tokenizer: str) -> int:
        """Length that a tokenizer of the pipeline pads to."""
        return int(self._folder.config(tokenizer)["model_max_length"])
