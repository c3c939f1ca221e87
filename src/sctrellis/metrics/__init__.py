"""Numbers in, numbers out: arrays, no AnnData."""

from sctrellis.metrics._auroc import auroc
from sctrellis.metrics._average_precision import auprc_ratio, average_precision
from sctrellis.metrics._bootstrap import Bootstrap, bootstrap
from sctrellis.metrics._counting_noise import counting_noise, thinned_noise
from sctrellis.metrics._early_precision import early_precision, early_precision_ratio
from sctrellis.metrics._eb_weight import eb_weight
from sctrellis.metrics._hit_rate import hit_rate, hit_rate_ceiling
from sctrellis.metrics._macro import macro, per_group
from sctrellis.metrics._precision_recall_curve import precision_recall_curve
from sctrellis.metrics._ranking_table import ranking_table

__all__ = [
    "Bootstrap",
    "auprc_ratio",
    "auroc",
    "average_precision",
    "bootstrap",
    "counting_noise",
    "early_precision",
    "early_precision_ratio",
    "eb_weight",
    "hit_rate",
    "hit_rate_ceiling",
    "macro",
    "per_group",
    "precision_recall_curve",
    "ranking_table",
    "thinned_noise",
]
