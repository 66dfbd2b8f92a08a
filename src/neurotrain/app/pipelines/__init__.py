"""Pipelines: a file of tasks with dependencies, run side by side, taken up where they were killed."""
