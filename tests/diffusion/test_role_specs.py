"""Roles that do not fit together are refused by name, with both values, before any weight is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from neurotrain.diffusion import (
    IncompatibleRolesError,
    LatentSpec,
    RoleSpec,
    RuntimeSpec,
    check_roles,
    check_schedule,
)
from neurotrain.diffusion.families import AnalyticFamily
from neurotrain.diffusion.roles import Role
from neurotrain.networks.denoisers import PointMLP
from neurotrain.networks.gaussian_mixture import GaussianMixture
from neurotrain.noise import FlowSchedule, KarrasSchedule, ScaledLinearSchedule

_TEXT = {"text": (77, 768)}
_SPEC = LatentSpec(
    channels=4,
    layout="BCHW",
    schedule=ScaledLinearSchedule(),
    prediction="epsilon",
    vae="sd15-7f3a",
    scale=0.18215,
    condition=_TEXT,
)


def _check(teacher: LatentSpec, student: LatentSpec = _SPEC, **runtime: object) -> None:
    specs = {
        "student": RoleSpec(latent=student),
        "teacher": RoleSpec(latent=teacher, runtime=RuntimeSpec(**runtime)),  # pyright: ignore[reportArgumentType]
    }
    check_roles(specs, provided=_TEXT)
    check_schedule(specs, leader="student")


def test_another_autoencoder_is_refused() -> None:
    with pytest.raises(
        IncompatibleRolesError, match="'student' and 'teacher' differ in vae: 'sd15-7f3a' and 'sdxl-11'"
    ):
        _check(replace(_SPEC, vae="sdxl-11"))


def test_other_channels_are_refused() -> None:
    with pytest.raises(IncompatibleRolesError, match="'student' and 'teacher' differ in channels: 4 and 16"):
        _check(replace(_SPEC, channels=16))


def test_a_schedule_that_does_not_convert_is_refused() -> None:
    student = replace(_SPEC, schedule=FlowSchedule())  # reaches pure noise, which the teacher never saw
    with pytest.raises(
        IncompatibleRolesError, match=r"'student' and 'teacher' differ in schedule: FlowSchedule.*Scaled"
    ):
        _check(_SPEC, student)


def test_a_missing_text_encoder_is_refused() -> None:
    specs = {"student": RoleSpec(latent=_SPEC)}
    with pytest.raises(
        IncompatibleRolesError, match=r"role 'student' needs the conditioning 'text' of shape \(77, 768\)"
    ):
        check_roles(specs, provided={})
    with pytest.raises(IncompatibleRolesError, match=r"'student'.*'text': \(77, 768\) and \(77, 2048\)"):
        check_roles(specs, provided={"text": (77, 2048)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0.13}, "scale: 0.18215 and 0.13"),
        ({"shift": 0.1}, "shift: 0.0 and 0.1"),
        ({"layout": "BCTHW"}, "layout: 'BCHW' and 'BCTHW'"),
    ],
)
def test_other_latents_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(IncompatibleRolesError, match=message):
        _check(replace(_SPEC, **change))  # pyright: ignore[reportArgumentType]


def test_another_way_to_run_is_refused() -> None:
    with pytest.raises(IncompatibleRolesError, match=r"attention: \(\) and \('kv_cache',\)"):
        _check(_SPEC, attention=("kv_cache",))


def test_what_converts_exactly_passes() -> None:
    _check(replace(_SPEC, prediction="v"))
    _check(replace(_SPEC, schedule=FlowSchedule()))  # knows every noise level of the student
    _check(replace(_SPEC, schedule=KarrasSchedule(sigma_max=1000.0)), replace(_SPEC, timestep_range=(0.01, 1.0)))
    _check(_SPEC, replace(_SPEC, schedule=FlowSchedule(), timestep_range=(0.05, 0.9)))
    _check(_SPEC, dtype="bfloat16")


def test_a_range_of_times_that_the_teacher_does_not_know_is_refused() -> None:
    with pytest.raises(IncompatibleRolesError, match="Narrow the timestep_range of 'student'"):
        _check(replace(_SPEC, timestep_range=(0.1, 1.0)))


def test_a_family_refuses_before_it_makes_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a network was made")

    monkeypatch.setattr(AnalyticFamily, "network", forbidden)
    family = AnalyticFamily(
        mixture=GaussianMixture(), schedule=FlowSchedule(), schedules={"teacher": ScaledLinearSchedule()}
    )
    with pytest.raises(IncompatibleRolesError, match="'teacher'"):
        family.assemble({"student": Role(network=PointMLP(width=8, depth=1)), "teacher": Role()})


def test_roles_that_refer_to_nothing_are_refused() -> None:
    family = AnalyticFamily(mixture=GaussianMixture(), schedule=FlowSchedule())
    student = Role(network=PointMLP(width=8, depth=1))
    with pytest.raises(ValueError, match="nearest: 'student'"):
        family.assemble({"student": student, "critic": Role(initialize_from="studnt")})
    with pytest.raises(ValueError, match="in circles: a -> b -> a"):
        family.assemble({"student": student, "a": Role(initialize_from="b"), "b": Role(initialize_from="a")})
    with pytest.raises(ValueError, match="no role 'student'"):
        family.assemble({"teacher": Role()})


@pytest.mark.parametrize(
    ("given", "message"),
    [({"ema_decay": 0.9}, "ema_decay=0.9 has no effect"), ({"gradient_clip": 0.0}, "gradient_clip=0.0")],
)
def test_settings_without_effect_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Role(**given)  # pyright: ignore[reportArgumentType]
