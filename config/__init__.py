"""The shipped settings, as the package `collector.shipped` (pyproject.toml maps it to config/)."""
