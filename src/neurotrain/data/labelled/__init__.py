"""Small labelled pictures that lie together in a few files: MNIST and CIFAR as their authors publish them."""

from neurotrain.data.labelled.arrays import LabelledArraySource, LabelledImages
from neurotrain.data.labelled.cifar import CifarSource
from neurotrain.data.labelled.mnist import MnistSource

__all__ = ["CifarSource", "LabelledArraySource", "LabelledImages", "MnistSource"]
