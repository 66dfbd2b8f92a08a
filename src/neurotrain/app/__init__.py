"""The only place that knows Hydra: configuration, its strict check, and the entry points."""
