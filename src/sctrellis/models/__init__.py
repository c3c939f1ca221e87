"""Torch models on arrays: configurations, modules and fit functions."""

__all__: list[str] = []
