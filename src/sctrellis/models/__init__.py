"""Torch models on arrays: configurations, modules and fit functions."""

from sctrellis.models._cis_translator import CisConfig, CisTranslator, fit_cis_translator
from sctrellis.models._crossmodal import CrossmodalTranslator
from sctrellis.models._crossmodal_fit import CrossmodalConfig, fit_crossmodal
from sctrellis.models._deepsem import DeepSEM, DeepSEMConfig, fit_deepsem
from sctrellis.models._device import resolve_device
from sctrellis.models._edge_features import LabelledPairs
from sctrellis.models._ensemble import SEMFit
from sctrellis.models._infosem import InfoSEM, InfoSEMConfig, fit_infosem
from sctrellis.models._io import SavedModel, load, save
from sctrellis.models._prior import Features, reduce_embedding
from sctrellis.models._regnet import RegNet, RegNetConfig, load_regnet
from sctrellis.models._regnet_fit import RegNetFit, fit_regnet
from sctrellis.models._regnet_transfer import TransferConfig, transfer_regnet
from sctrellis.models._ridge import RidgeNetwork, ridge_network
from sctrellis.models._sem import sem_intervention, sem_logdet, sem_noise, sem_response, spectral_radius
from sctrellis.models._shrink import ShrinkConfig, ShrunkNetwork, shrink_network
from sctrellis.models._translator import Effects, Translator, TranslatorFit, load_translator

__all__ = [
    "CisConfig",
    "CisTranslator",
    "CrossmodalConfig",
    "CrossmodalTranslator",
    "DeepSEM",
    "DeepSEMConfig",
    "Effects",
    "Features",
    "InfoSEM",
    "InfoSEMConfig",
    "LabelledPairs",
    "RegNet",
    "RegNetConfig",
    "RegNetFit",
    "RidgeNetwork",
    "SEMFit",
    "SavedModel",
    "ShrinkConfig",
    "ShrunkNetwork",
    "TransferConfig",
    "Translator",
    "TranslatorFit",
    "fit_cis_translator",
    "fit_crossmodal",
    "fit_deepsem",
    "fit_infosem",
    "fit_regnet",
    "load",
    "load_regnet",
    "load_translator",
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
    "transfer_regnet",
]
