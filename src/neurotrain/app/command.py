"""``train.py``'s entry, light enough to answer ``--help`` before anything heavy is imported."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence

from neurotrain.app.deferred import defer_compiler, defer_torchmetrics
from neurotrain.app.overrides import MULTIRUN, folders

HELP_FLAGS = frozenset({"-h", "--help"})
SWEEP_FLAGS = frozenset({*MULTIRUN, "--resume"})

_HELP = """\
usage: train.py experiment=NAME [GROUP=CHOICE ...] [KEY=VALUE ...] [flags]

Runs an experiment and leaves runs/<experiment>/<time>-<id>/.

Groups (select with GROUP=CHOICE):
{groups}

Values, without a plus: model.network.widths=[8,16,32] trainer.max_epochs=5
  seed=N  stage=fit|validate|test|predict|sample  ckpt=PATH  source=PATH  resume=last|must|PATH
  paths.data_dir=DIR  paths.run_dir=DIR

Flags:
  --cfg job            show the composed configuration and end (--package model: one part, --resolve: no references)
  --info searchpath    show where configurations are found
  -m, --multirun       one run for each combination of comma-separated values: seed=0,1,2 (sweep.jobs=N at once)
  --resume DIR         go on with a sweep; so does the same command again. A search: hparams_search=NAME
  -sc install=bash     tab completion: eval "$(python train.py -sc install=bash)"
  --hydra-help         Hydra's own flags
"""


def main() -> None:
    """Run ``train.py``: print the help, or hand over to :func:`neurotrain.app.launch.launch`."""
    if not HELP_FLAGS.isdisjoint(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    # The imports below make about a million objects that stay: collecting in between finds nothing and takes a second.
    gc.disable()
    defer_torchmetrics()
    defer_compiler()
    from neurotrain.app.launch import launch

    gc.freeze()
    atexit.register(gc.unfreeze)  # extension modules complain of objects that are never freed
    gc.enable()
    if is_sweep(sys.argv[1:]):
        from neurotrain.app.sweep_command import main as sweep

        sweep(sys.argv[1:])
    launch()


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for several runs, a process each; beside flags and keys of Hydra's own Hydra decides.

    Example:
        >>> is_sweep(["-m", "seed=0,1"]), is_sweep(["-m", "--cfg", "job"]), is_sweep(["hparams_search=mnist_resnet"])
        (True, False, True)
    """
    wanted = [
        argument
        for argument in arguments
        if argument in SWEEP_FLAGS or (argument.startswith("hparams_search") and argument != "hparams_search=null")
    ]
    others = [argument for argument in arguments if argument not in SWEEP_FLAGS]
    return bool(wanted) and not any(argument.lstrip("+~").startswith(("-", "hydra")) for argument in others)


def help_text() -> str:
    """Return the help, with every group and choice of the user's and the shipped configurations.

    Example:
        >>> "  data: " in help_text()
        True
    """
    choices: dict[str, set[str]] = {}
    for folder in folders():
        for path in sorted(folder.rglob("*.yaml")):
            if path.parent != folder:
                group = path.parent.relative_to(folder).as_posix()
                choices.setdefault(group, set()).add(path.stem)
    first = {"experiment": 0, "data": 1, "model": 2}
    ordered = sorted(choices, key=lambda group: (first.get(group.split("/")[0], 3), group))
    return _HELP.format(groups="\n".join(f"  {group}: {', '.join(sorted(choices[group]))}" for group in ordered))
