"""What diffusion adds to the registry: entry-point name, group, package and base of each family of classes."""

from __future__ import annotations

_DISTILLATION = "neurotrain.tasks.distillation"
_NETWORKS = "neurotrain.networks"

DIFFUSION: tuple[tuple[str, str, str, str], ...] = (
    (
        "mixtures",
        "data/mixture",
        f"{_NETWORKS}.gaussian_mixture",
        f"{_NETWORKS}.gaussian_mixture.GaussianMixture",
    ),
    ("clips", "data/clips", f"{_NETWORKS}.moving_shapes", f"{_NETWORKS}.moving_shapes.MovingShapes"),
    ("exact_denoisers", "model/network", f"{_NETWORKS}.moving_shapes", f"{_NETWORKS}.denoisers.Denoiser"),
    ("corrected_mixtures", "model/network", f"{_NETWORKS}.gaussian_mixture", f"{_NETWORKS}.denoisers.Denoiser"),
    ("denoisers", "model/network", f"{_NETWORKS}.denoisers", f"{_NETWORKS}.denoisers.Denoiser"),
    ("discriminators", "model/network", f"{_NETWORKS}.discriminators", f"{_NETWORKS}.discriminators.FeatureHeads"),
    ("noise_schedules", "model/noise", "neurotrain.noise", "neurotrain.noise.NoiseSchedule"),
    ("training_times", "model/times", "neurotrain.noise", "neurotrain.noise.TimeSampling"),
    ("roles", "model/role", "neurotrain.diffusion", "neurotrain.diffusion.Role"),
    ("pipelines", "model/pipeline", "neurotrain.diffusion.families", "neurotrain.diffusion.families.Family"),
    ("low_ranks", "model/low_rank", "neurotrain.diffusion.families", "neurotrain.diffusion.families.Lora"),
    ("picture_scores", "model/score", "neurotrain.diffusion.scores", "neurotrain.diffusion.scores.PictureScore"),
    ("regressions", "model/regression", _DISTILLATION, f"{_DISTILLATION}.TrajectoryRegression"),
    ("distillation_methods", "model/method", _DISTILLATION, f"{_DISTILLATION}.Method"),
)
