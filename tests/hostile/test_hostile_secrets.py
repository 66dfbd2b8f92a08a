"""Secrets in the environment, in overrides and in errors: nowhere in what a run leaves."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import neurotrain
from neurotrain.app.compose import Configuration
from neurotrain.app.run_directory import RunDirectory, detach_log
from neurotrain.app.secrets import Secrets

VARIABLE = "correct-horse-battery"
SHAPED = "hf_" + "Zx9" * 8
KEY_ID = "AKIA" + "Q7" * 8
TYPED = "typed-battery-staple"


def leaked(folder: Path, *secrets: str) -> list[str]:
    """Files of a folder that hold a secret, by name or by content."""
    return [
        f"{path}: {secret}"
        for path in folder.rglob("*")
        for secret in secrets
        if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes())
    ]


def test_a_trained_run_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_ACCESS_TOKEN", VARIABLE)
    overrides = [
        "data=synthetic_drive",
        f"paths.data_dir={tmp_path / 'data'}",
        f"paths.run_dir={tmp_path / 'run'}",
        *("data.dataset.size=[96,96]", "data.dataset.train=3", "data.dataset.test=1", "data.validation=1"),
        *("data.batch_size=2", "data.samples_per_epoch=2", "data.train_transform.steps.patch.size=32"),
        *("model.network.widths=[4,8]", "model.threshold=null", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
        "trainer.check_val_every_n_epoch=1",
        "model.class_names=['${oc.env:LAB_ACCESS_TOKEN}']",
        f"name={SHAPED}",
    ]
    config = neurotrain.compose("drive_unet", overrides)
    assert VARIABLE in str(config.values)
    neurotrain.train(config)
    assert leaked(tmp_path / "run", VARIABLE, SHAPED) == []
    told = (tmp_path / "run" / "config.yaml").read_text()
    assert "${oc.env:LAB_ACCESS_TOKEN}" in told
    assert "name: '***'" in told
    shown = capfd.readouterr()
    assert VARIABLE not in shown.out + shown.err


SETTINGS: dict[str, object] = {
    "storage": {"secret": TYPED, "key": KEY_ID, "region": "eu-central-1"},
    "web": {"url": f"https://ann:{TYPED}@host.org/a?X-Amz-Signature={TYPED}", "headers": {"password": TYPED}},
    "hub": {"token": TYPED, "revision": "0" * 40, "pad_token": "<|endoftext|>"},
    "list": [{"api_key": TYPED}],
    "left": {"token": "${oc.env:LAB_ACCESS_TOKEN}", "password": None},
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunDirectory, Configuration]:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", VARIABLE)
    raw = OmegaConf.create({**SETTINGS, "note": f"uses {VARIABLE}"})
    overrides = (f"++storage.secret={TYPED}", f"note=uses {VARIABLE}", f"web.url=https://ann:{TYPED}@host.org/a")
    return RunDirectory(tmp_path / "run"), Configuration(values={}, raw=raw, overrides=overrides)


def test_what_a_run_was_told(run: tuple[RunDirectory, Configuration]) -> None:
    directory, config = run
    directory.write_start(config)
    directory.write_summary({"name": f"of {VARIABLE}", "data": {"uri": f"s3://{KEY_ID}@bucket"}, "metrics": {"a": 0.5}})
    assert leaked(directory.path, VARIABLE, TYPED, KEY_ID) == []
    told = OmegaConf.load(directory.path / "config.yaml")
    assert OmegaConf.select(told, "hub.pad_token") == "<|endoftext|>"
    assert OmegaConf.select(told, "hub.revision") == "0" * 40
    assert OmegaConf.to_container(told)["left"] == {"token": "${oc.env:LAB_ACCESS_TOKEN}", "password": None}  # type: ignore[index]
    assert (directory.path / "overrides.txt").read_text().count("***") == 3


def test_log_and_traceback(run: tuple[RunDirectory, Configuration]) -> None:
    directory, config = run
    directory.path.mkdir()
    handler = directory.attach_log(Secrets.of(config.raw))
    try:
        logger = logging.getLogger("neurotrain.hostile")
        logger.error("bad key %s, bad id %s", TYPED, KEY_ID)
        try:
            raise ValueError(f"token {VARIABLE} was refused by https://host.org/?sig={TYPED}")
        except ValueError:
            logger.exception("the run stopped")
    finally:
        detach_log(handler)
    text = (directory.path / "log.txt").read_text()
    assert text.count("***") >= 4
    assert "Traceback" in text
    assert leaked(directory.path, VARIABLE, TYPED, KEY_ID) == []


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        *((name, True) for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "PGPASSWORD_FILE_PASSWORD")),
        *((name, False) for name in ("TOKENIZERS_PARALLELISM", "KEYBOARD", "HOME", "PASSWORDLESS")),
    ],
)
def test_which_variables_are_secret(name: str, hidden: bool) -> None:
    assert (Secrets.of({}, environment={name: "a value of length"}).values != ()) is hidden
