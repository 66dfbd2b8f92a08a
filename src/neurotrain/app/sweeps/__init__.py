"""Sweeps: trials of one experiment on a grid or by a search, each in a process of its own, none run twice."""
