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
        "try:\n    torchmetrics.MeanMetrik\nexcept AttributeError as error:\n    assert 'MeanMetrik' in str(error)\n"
        "else:\n    raise SystemExit('a name that does not exist was found')\n"
        "print(float(torchmetrics.functional.accuracy(__import__('torch').tensor([1, 0]),"
        " __import__('torch').tensor([1, 1]), task='binary')))"
    )
    assert told == "0.5"


def test_nothing_of_the_compiler_is_imported_before_something_is_compiled() -> None:
    told = _run(
        "import sys, torch\n"
        "from neurotrain.app.deferred import defer_compiler, defer_torchmetrics\n"
        "defer_compiler(), defer_torchmetrics()\n"
        "from lightning.fabric.wrappers import _unwrap_compiled\n"
        "network = torch.nn.Linear(2, 1)\n"
        "optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)\n"
        "before = network.weight.detach().clone()\n"
        "def step():\n"
        "    optimizer.zero_grad()\n"
        "    network(torch.ones(4, 2)).sum().backward()\n"
        "    optimizer.step()\n"
        "torch.use_deterministic_algorithms(True)\n"
        "step()\n"
        "assert not torch.equal(before, network.weight) and _unwrap_compiled(network) == (network, None)\n"
        "late = 'torch._dynamo.eval_frame' in sys.modules\n"
        "import torch._dynamo.utils as first\n"
        "from torch._dynamo import utils as second\n"
        "assert first is second is sys.modules['torch._dynamo.utils'] and first.__spec__.loader is not None\n"
        "compiled = torch.compile(network, backend='eager')\n"
        "assert torch.equal(compiled(torch.ones(3, 2)), network(torch.ones(3, 2)))\n"
        "assert _unwrap_compiled(compiled)[0] is network and 'torch._dynamo.eval_frame' in sys.modules\n"
        "step()\n"
        "assert torch._inductor.config.deterministic and callable(torch._inductor.compile)\n"
        "print(late, type(torch._dynamo).__name__, type(torch._inductor).__name__)"
    )
    assert told == "False module module"
