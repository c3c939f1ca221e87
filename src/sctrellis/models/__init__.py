"""Torch models on arrays: configurations, modules and fit functions."""

from sctrellis.models._ridge import RidgeNetwork, ridge_network

__all__ = ["RidgeNetwork", "ridge_network"]
