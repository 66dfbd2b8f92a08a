from __future__ import annotations

import subprocess
import sys


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_lightning_starts_without_what_torchmetrics_imports() -> None:
    heavy = _run(
        "from neurotrain.app.deferred import defer_torchmetrics\n"
        "defer_torchmetrics()\n"
        "import sys, neurotrain.app.train\n"
        "print(sorted({'scipy.signal', 'torchvision', 'transformers', 'torchmetrics.functional'} & sys.modules.keys()))"
    )
    assert heavy == "[]"


def test_the_package_is_whole_once_it_is_used() -> None:
    told = _run(
        "from neurotrain.app.deferred import defer_torchmetrics\n"
        "defer_torchmetrics()\n"
        "import lightning, torchmetrics\n"
        "from torchmetrics import Metric, MetricCollection\n"
        "first = torchmetrics.__version__\n"
        "from torchmetrics import MeanMetric\n"
        "from torchmetrics.classification import BinaryAccuracy\n"
        "assert type(torchmetrics).__name__ == 'module', type(torchmetrics)\n"
        "assert issubclass(MeanMetric, Metric) and torchmetrics.Metric is Metric\n"
        "assert torchmetrics.MetricCollection is MetricCollection and first == torchmetrics.__version__\n"
        "assert issubclass(BinaryAccuracy, lightning.pytorch.core.module.Metric)\n"
        "assert set(torchmetrics.__all__) <= set(dir(torchmetrics))\n"
        "print(float(torchmetrics.functional.accuracy(__import__('torch').tensor([1, 0]),"
        " __import__('torch').tensor([1, 1]), task='binary')))"
    )
    assert told == "0.5"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    told = _run(
        "from neurotrain.app.deferred import defer_torchmetrics\n"
        "defer_torchmetrics()\n"
        "import torchmetrics\n"
        "try:\n    torchmetrics.MeanMetrik\nexcept AttributeError as error:\n    print(error)"
    )
    assert "MeanMetrik" in told
