"""Slots out as tables."""

__all__: list[str] = []
