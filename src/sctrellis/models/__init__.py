"""Torch models on arrays: configurations, modules and fit functions."""

from sctrellis.models._deepsem import DeepSEM, DeepSEMConfig, fit_deepsem
from sctrellis.models._device import resolve_device
from sctrellis.models._ensemble import SEMFit
from sctrellis.models._infosem import InfoSEM, InfoSEMConfig, fit_infosem
from sctrellis.models._io import SavedModel, load, save
from sctrellis.models._prior import Features, reduce_embedding
from sctrellis.models._ridge import RidgeNetwork, ridge_network
from sctrellis.models._sem import sem_intervention, sem_logdet, sem_noise, sem_response, spectral_radius
from sctrellis.models._shrink import ShrinkConfig, ShrunkNetwork, shrink_network

__all__ = [
    "DeepSEM",
    "DeepSEMConfig",
    "Features",
    "InfoSEM",
    "InfoSEMConfig",
    "RidgeNetwork",
    "SEMFit",
    "SavedModel",
    "ShrinkConfig",
    "ShrunkNetwork",
    "fit_deepsem",
    "fit_infosem",
    "load",
    "reduce_embedding",
    "resolve_device",
    "ridge_network",
    "save",
    "sem_intervention",
    "sem_logdet",
    "sem_noise",
    "sem_response",
    "shrink_network",
    "spectral_radius",
]
