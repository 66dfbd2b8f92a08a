"""What each run would import and register anew, done once in the server that the runs are forked from."""

import importlib.util

import aiohttp  # noqa: F401
import s3fs  # noqa: F401

from neurotrain.app.compose import prepare
from neurotrain.app.train import train  # noqa: F401

if importlib.util.find_spec("datasets") is not None:
    import datasets  # noqa: F401

prepare()
