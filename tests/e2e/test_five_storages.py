"""One segmentation from a folder, S3, URLs in a CSV file, Hugging Face Parquet and tar shards at once."""

from __future__ import annotations

import csv
import json
import random
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from killing import assert_runs_equal, chosen, killed_at, run
from servers import CREDENTIALS, start_http, start_moto

from neurotrain.data.convert import convert
from neurotrain.data.datasets import Drive, SegmentationDataset, SyntheticDrive
from neurotrain.storage import S3Storage

SOURCES = ("folder", "s3", "csv", "huggingface", "webdataset")
STEPS_PER_EPOCH, EPOCHS, SAVE_EVERY, BATCH = 6, 3, 4, 5
LAST = STEPS_PER_EPOCH * EPOCHS


@dataclass(frozen=True)
class Laid:
    """Where the five layouts lie.

    Attributes:
        folder: ``paths.data_dir``.
        name: of the dataset in the bucket.
        environment: of a run.
    """

    folder: Path
    name: str
    environment: Mapping[str, str]


def _laid(dataset: SegmentationDataset, folder: Path, *, servers: tuple[str, Path, str], name: str) -> Laid:
    """Convert a dataset into the five layouts; ``name`` keeps those of several datasets apart on the servers."""
    endpoint, web, url = servers
    for layout in ("folder", "huggingface", "webdataset"):
        convert(dataset, layout=layout, target=folder / f"DRIVE-{layout}")
    bucket = S3Storage(bucket="lab", prefix=f"{name}/DRIVE-folder", endpoint_url=endpoint, **CREDENTIALS)
    convert(dataset, layout="folder", target=bucket, splits=["train"])
    (web / name).mkdir()
    convert(dataset, layout="table", target=web / name / "DRIVE-table", base_url=f"{url}/{name}/DRIVE-table")
    (folder / "DRIVE-table").mkdir()
    (folder / "DRIVE-table" / "train.csv").write_bytes(_training_rows(web / name / "DRIVE-table"))
    environment = {
        "NEUROTRAIN_BUCKET": "lab",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": CREDENTIALS["key"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["secret"],
        "AWS_DEFAULT_REGION": CREDENTIALS["region"],
    }
    return Laid(folder, name, environment)


def _training_rows(table: Path) -> bytes:
    """The table without the test split."""
    (path,) = table.glob("*.csv")
    rows = path.read_text(encoding="utf-8").splitlines()
    return "\n".join([rows[0], *(row for row in rows[1:] if ",train," in row)]).encode()


def _overrides(laid: Laid, run_dir: Path, *, workers: int = 0) -> list[str]:
    members = [f"data.sources.{name}.train_transform.steps.patch.size=32" for name in SOURCES]
    return [
        *members,
        f"paths.data_dir={laid.folder}",
        f"paths.run_dir={run_dir}",
        "data.sources.csv.train.web.allowed_hosts=[127.0.0.1]",
        f"data.sources.s3.train.storage.prefix={laid.name}/DRIVE-folder",
        f"data.batch_size={BATCH}",
        f"data.samples_per_epoch={BATCH * STEPS_PER_EPOCH}",
        f"data.num_workers={workers}",
        "model.network.widths=[4,8]",
        "model.network.dropout=0.1",
        "model/inferer=full_image",
        f"trainer.max_epochs={EPOCHS}",
        "trainer.check_val_every_n_epoch=1",
        "trainer.log_every_n_steps=1",
        "trainer.precision=32-true",
        f"callbacks.checkpoint.every_n_steps={SAVE_EVERY}",
        "callbacks.figures=null",
    ]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    web = tmp_path_factory.mktemp("web")
    with start_moto() as moto, start_http(web) as http:
        moto.make_bucket("lab")
        yield moto.url, web, http.url


@pytest.fixture(scope="module")
def rendered(servers: tuple[str, Path, str], tmp_path_factory: pytest.TempPathFactory) -> Laid:
    folder = tmp_path_factory.mktemp("rendered")
    dataset = SyntheticDrive(root=folder / "source", train=6, test=1, size=(96, 96))
    return _laid(dataset, folder, servers=servers, name="rendered")


@pytest.fixture(scope="module")
def whole(rendered: Laid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    overrides = [*_overrides(rendered, run_dir), "test=false"]
    assert run("drive_mixture", overrides, environment=rendered.environment) == 0
    return run_dir


def test_real_drive_from_all_five(shared_data: Path, servers: tuple[str, Path, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    laid = _laid(Drive(root=shared_data / "DRIVE"), tmp_path / "data", servers=servers, name="real")
    run_dir = tmp_path / "run"
    overrides = [*_overrides(laid, run_dir, workers=2), "trainer.max_epochs=1"]
    assert run("drive_mixture", overrides, environment=laid.environment) == 0
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert summary["data"]["sources"]["train"] == dict.fromkeys(SOURCES, 20)
    assert summary["data"]["counts"] == {"train": 100, "test": 20}
    statistics = summary["data"]["statistics"]
    assert (statistics["read"], statistics["replaced"]) == (BATCH * STEPS_PER_EPOCH, 0)
    assert 0.0 <= summary["metrics"]["test/auc"] <= 1.0


def _kills() -> list[tuple[int, bool, int]]:
    """Twenty seeded steps: some before the first checkpoint, most in mid-epoch after one; workers 0 and 2 in turn."""
    draw = random.Random(7)
    early = [draw.randrange(1, SAVE_EVERY) for _ in range(4)]
    middle = [draw.choice([s for s in range(SAVE_EVERY + 1, LAST) if s % STEPS_PER_EPOCH]) for _ in range(16)]
    return [(step, index % 3 == 2, 2 * (index % 2)) for index, step in enumerate([*early, *middle])]


@pytest.mark.parametrize(("step", "inside", "workers"), chosen(_kills(), always=(0, 13)))
def test_a_killed_mixture_ends_bit_equal(
    step: int, inside: bool, workers: int, whole: Path, rendered: Laid, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    overrides = [*_overrides(rendered, run_dir, workers=workers), "test=false"]
    killed = [*overrides, *killed_at(step, inside=inside)]
    assert run("drive_mixture", killed, environment=rendered.environment) == -signal.SIGKILL
    assert not list(run_dir.glob("summary.json"))
    assert run("drive_mixture", [*overrides, "resume=last"], environment=rendered.environment) == 0
    assert_runs_equal(run_dir, whole, steps=LAST)


def test_shares_are_what_they_should_be(whole: Path) -> None:
    with (whole / "metrics.csv").open(newline="") as file:
        assert sum(1 for _ in csv.DictReader(file)) >= LAST
    summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
    assert summary["data"]["mixture"]["weights"] == "uniform"
    assert summary["data"]["statistics"]["planned"] == BATCH * LAST
