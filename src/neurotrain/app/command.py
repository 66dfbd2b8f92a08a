"""``train.py``'s entry, light enough to answer ``--help`` before anything heavy is imported."""

from __future__ import annotations

import atexit
import gc
import sys

from neurotrain.app.deferred import defer_compiler, defer_torchmetrics
from neurotrain.app.overrides import folders

HELP_FLAGS = frozenset({"-h", "--help"})

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
  -m, --multirun       one run for each combination of comma-separated values: seed=0,1,2
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
    launch()


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
