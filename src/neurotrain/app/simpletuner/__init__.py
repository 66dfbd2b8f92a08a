"""SimpleTuner's ``multidatabackend.json`` as a data configuration of ours: JSON in, configuration and report out."""

from neurotrain.app.simpletuner.conversion import Conversion, convert_backends
from neurotrain.app.simpletuner.journal import BackendsError
from neurotrain.app.simpletuner.written import convert_file

__all__ = ["BackendsError", "Conversion", "convert_backends", "convert_file"]
