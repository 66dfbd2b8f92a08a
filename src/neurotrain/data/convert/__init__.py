"""From any source or dataset into another layout, byte for byte."""

from neurotrain.data.convert.conversion import LAYOUTS, Conversion, Layout, convert

__all__ = ["LAYOUTS", "Conversion", "Layout", "convert"]
