"""The registry of runs: what lies under ``runs/``, listed, compared, watched and removed, without importing torch."""
