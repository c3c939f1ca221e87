"""Simulators with known truth, and readers of published data."""

__all__: list[str] = []
