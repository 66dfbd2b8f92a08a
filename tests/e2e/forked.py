"""The server that runs are forked from: it has imported everything, which takes longer than most of the runs."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext


def server() -> ForkServerContext:
    """The context of processes that are forked from a server, once that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["everything_imported"])
    # Before Python 3.14 the server imports without this process's path, finds nothing, and says nothing.
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        first = context.Process(target=int)
        first.start()
        first.join()
        first.close()
    finally:
        if earlier is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = earlier
    return context
