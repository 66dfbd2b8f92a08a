"""Striped pictures with their masks, for neurotrain."""
