"""Fit and judge: check, read, call, write, log."""

__all__: list[str] = []
