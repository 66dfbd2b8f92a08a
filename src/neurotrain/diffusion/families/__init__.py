"""Families of models: each module puts the pipelines of one kind together."""

from neurotrain.diffusion.families.adapted import AdaptedFamily
from neurotrain.diffusion.families.analytic import AnalyticFamily, AnalyticTeacher, PointAdapter, ode_solution
from neurotrain.diffusion.families.base import Assembly, Family, PipelineContract, load_weights
from neurotrain.diffusion.families.export import Exporting
from neurotrain.diffusion.families.flow_transformer import FluxFamily, StableDiffusion3Family
from neurotrain.diffusion.families.folders import PipelineContractError, PipelineFolder
from neurotrain.diffusion.families.latent_unet import LatentUNetFamily
from neurotrain.diffusion.families.lora import Lora
from neurotrain.diffusion.families.pixel import PixelAdapter, PixelFamily
from neurotrain.diffusion.families.prompt_adapter import PromptAdapter
from neurotrain.diffusion.families.prompted import PromptedFamily
from neurotrain.diffusion.families.wan import WanFamily

__all__ = [
    "AdaptedFamily",
    "AnalyticFamily",
    "AnalyticTeacher",
    "Assembly",
    "Exporting",
    "Family",
    "FluxFamily",
    "LatentUNetFamily",
    "Lora",
    "PipelineContract",
    "PipelineContractError",
    "PipelineFolder",
    "PixelAdapter",
    "PixelFamily",
    "PointAdapter",
    "PromptAdapter",
    "PromptedFamily",
    "StableDiffusion3Family",
    "WanFamily",
    "load_weights",
    "ode_solution",
]
