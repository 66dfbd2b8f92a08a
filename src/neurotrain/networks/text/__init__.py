"""Texts: tokenizers whose vocabulary is plain data, and a transformer that encodes their tokens."""

from neurotrain.networks.text.tokenizer import HasTokenizer, Tokenizer
from neurotrain.networks.text.tokenizers_file import TokenizersFile
from neurotrain.networks.text.transformer import TextFeatures, TextTransformer
from neurotrain.networks.text.words import WordTokenizer

__all__ = ["HasTokenizer", "TextFeatures", "TextTransformer", "Tokenizer", "TokenizersFile", "WordTokenizer"]
