"""Numbers in, numbers out: arrays, no AnnData."""

from sctrellis.metrics._auroc import auroc
from sctrellis.metrics._average_precision import auprc_ratio, average_precision
from sctrellis.metrics._bootstrap import Bootstrap, bootstrap
from sctrellis.metrics._calibration_error import calibration_error
from sctrellis.metrics._calibration_table import calibration_table
from sctrellis.metrics._calibrators import Calibrator, fit_calibrator
from sctrellis.metrics._cells_null import cells_null
from sctrellis.metrics._certificate import Certificate, certificate
from sctrellis.metrics._collinear_groups import collinear_groups
from sctrellis.metrics._component_audit import component_audit
from sctrellis.metrics._component_removal import component_removal
from sctrellis.metrics._counting_noise import counting_noise, thinned_noise
from sctrellis.metrics._degree_null import DegreeNull, degree_null
from sctrellis.metrics._early_precision import early_precision, early_precision_ratio
from sctrellis.metrics._eb_weight import eb_weight
from sctrellis.metrics._effective_size import EffectiveSize, effective_size
from sctrellis.metrics._exchangeability import exchangeability
from sctrellis.metrics._gold_check import GoldCheck, gold_check
from sctrellis.metrics._hit_rate import hit_rate, hit_rate_ceiling
from sctrellis.metrics._information import Information, information
from sctrellis.metrics._knockoff_filter import e_bh, knockoff_qvalues
from sctrellis.metrics._knockoffs import Knockoffs, knockoffs
from sctrellis.metrics._label_bounds import label_bounds
from sctrellis.metrics._learning_curve import learning_curve
from sctrellis.metrics._macro import macro, per_group
from sctrellis.metrics._maximum_entropy import maximum_entropy
from sctrellis.metrics._measurement_reliability import measurement_reliability
from sctrellis.metrics._null_test import NullTest, null_test
from sctrellis.metrics._partial_test import PartialTest, partial_test
from sctrellis.metrics._perturbation_baselines import perturbation_baselines
from sctrellis.metrics._perturbation_metrics import perturbation_metrics
from sctrellis.metrics._perturbation_skill import perturbation_skill
from sctrellis.metrics._power_curve import PowerCurve, power_curve
from sctrellis.metrics._power_law import PowerLaw, power_law
from sctrellis.metrics._precision_recall_curve import precision_recall_curve
from sctrellis.metrics._ranking_table import ranking_table
from sctrellis.metrics._reliability_curve import reliability_curve
from sctrellis.metrics._selection_bound import selection_bound
from sctrellis.metrics._shuffled_network import shuffled_network

__all__ = [
    "Bootstrap",
    "Calibrator",
    "Certificate",
    "DegreeNull",
    "EffectiveSize",
    "GoldCheck",
    "Information",
    "Knockoffs",
    "NullTest",
    "PartialTest",
    "PowerCurve",
    "PowerLaw",
    "auprc_ratio",
    "auroc",
    "average_precision",
    "bootstrap",
    "calibration_error",
    "calibration_table",
    "cells_null",
    "certificate",
    "collinear_groups",
    "component_audit",
    "component_removal",
    "counting_noise",
    "degree_null",
    "e_bh",
    "early_precision",
    "early_precision_ratio",
    "eb_weight",
    "effective_size",
    "exchangeability",
    "fit_calibrator",
    "gold_check",
    "hit_rate",
    "hit_rate_ceiling",
    "information",
    "knockoff_qvalues",
    "knockoffs",
    "label_bounds",
    "learning_curve",
    "macro",
    "maximum_entropy",
    "measurement_reliability",
    "null_test",
    "partial_test",
    "per_group",
    "perturbation_baselines",
    "perturbation_metrics",
    "perturbation_skill",
    "power_curve",
    "power_law",
    "precision_recall_curve",
    "ranking_table",
    "reliability_curve",
    "selection_bound",
    "shuffled_network",
    "thinned_noise",
]
