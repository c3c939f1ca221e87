"""How much of a score is only the identity of regulator and target: the arrays behind `tl.bias_audit`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, sparse, special, stats
from scipy.sparse.linalg import lsqr

from sctrellis.metrics import _label_scores as label_scores
from sctrellis.metrics._bootstrap import MIN_GROUPS, Bootstrap, bootstrap
from sctrellis.metrics._macro import per_group

METRICS = ("auroc", "auprc", "hit_rate")
CLASSES = ("SS", "SU", "US", "UU")
MODEL, ONE_HOT, DEGREE, CHANCE = "model", "one_hot", "degree", "chance"
PAIR = "pair"
"""What is left of the model's score without its means over each regulator and over each target."""
WORDS = {
    "B0": "no better than popularity",
    "B1": "no more than gene identity",
    "B2": "a part is more than gene identity",
    "B3": "a gain that survives on unseen genes",
    "undecided": "too few regulators or targets to decide",
}
LEVEL = 0.95
N_PARTS = 5
"""Parts of the cross-validation of the log-loss."""
SAME = 1e-6
"""Share of its variance below which a score says nothing that the features beside it do not say."""


@dataclass(frozen=True)
class Pairs:
    """Training pairs with labels, and the pairs to judge with labels, scores and classes (1 SS, 2 SU, 3 US, 4 UU)."""

    train_row: np.ndarray
    train_column: np.ndarray
    train_label: np.ndarray
    row: np.ndarray
    column: np.ndarray
    label: np.ndarray
    score: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class Audit:
    """Tables of the audit, and its verdict."""

    table: pd.DataFrame
    incremental: pd.DataFrame
    correlations: pd.DataFrame
    regulators: pd.DataFrame
    imbalance: dict[str, float]
    code: str
    words: str
    scores: dict[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class _Identity:
    """What the training labels say about the judged pairs, one entry a pair."""

    one_hot: np.ndarray
    row_effect: np.ndarray
    column_effect: np.ndarray
    out_degree: np.ndarray
    in_degree: np.ndarray

    @property
    def degree(self) -> np.ndarray:
        return np.log1p(self.out_degree) + np.log1p(self.in_degree)

    def features(self, where: np.ndarray) -> np.ndarray:
        """Columns whose combinations are all that identity can add up to, with the product of both effects."""
        a, b = self.row_effect[where], self.column_effect[where]
        return np.column_stack([a, b, a * b, np.log1p(self.out_degree[where]), np.log1p(self.in_degree[where])])


def audit(pairs: Pairs, *, n_boot: int, seed: int) -> Audit:
    """Judge a score beside one-hot regression, degree and chance, and say what is left of it."""
    known = pairs.train_label
    intercept, row_effect, column_effect = label_scores.one_hot_effects(
        pairs.train_row, pairs.train_column, known, pairs.row, pairs.column
    )
    identity = _Identity(
        intercept + row_effect + column_effect,
        row_effect,
        column_effect,
        label_scores.degrees(pairs.train_row[known], pairs.row),
        label_scores.degrees(pairs.train_column[known], pairs.column),
    )
    finite = np.isfinite(pairs.score)
    # Unscored pairs come last together; regressions and correlations need a number for that.
    score = np.where(finite, pairs.score, pairs.score[finite].min() - pairs.score[finite].std() - 1e-12)
    # As a stored network would hold it, so that the same score is the same to the last bit.
    degree = identity.degree.astype(np.float32).astype(float)
    scores = {MODEL: score, ONE_HOT: identity.one_hot, DEGREE: degree, CHANCE: np.zeros(len(score))}

    present = [(name, code) for code, name in enumerate(CLASSES, 1) if (pairs.kind == code).any()]
    groups = {name: pairs.kind == code for name, code in present}
    if len(groups) != 1:
        groups = {"all": np.ones(len(score), dtype=bool), **groups}
    lines, losses, relations = [], [], []
    for name, where in groups.items():
        own = {key: vector[where] for key, vector in scores.items()}
        row, column, label = pairs.row[where], pairs.column[where], pairs.label[where]
        own[PAIR] = _without_means(_logit(own[MODEL]), row, column)
        lines += [{"pair_class": name, **line} for line in _compare(own, row, column, label, n_boot, seed)]
        losses += [
            {"pair_class": name, **line} for line in _incremental(own, identity, where, row, label, n_boot, seed)
        ]
        relations.append({"pair_class": name, **_correlate(own[MODEL], row, column, identity, where)})
    table, incremental = pd.DataFrame(lines), pd.DataFrame(losses)
    code, words = _verdict(table, incremental)
    regulators, imbalance = _imbalance(pairs)
    return Audit(table, incremental, pd.DataFrame(relations), regulators, imbalance, code, words, scores)


def _compare(
    scores: Mapping[str, np.ndarray], row: np.ndarray, column: np.ndarray, label: np.ndarray, n_boot: int, seed: int
) -> list[dict[str, Any]]:
    """Return a line per metric and level: every score with its interval, and the share that identity reproduces."""
    shared = {
        "n_pairs": len(label),
        "n_positive": int(label.sum()),
        "n_regulators": len(np.unique(row)),
        "n_targets": len(np.unique(column)),
    }
    if not label.any() or label.all():
        kind = "known edge" if not label.any() else "pair without a known edge"
        empty = dict.fromkeys(_columns(), np.nan)
        return [{"metric": m, "level": "micro", **empty, **shared, "note": f"no {kind}"} for m in METRICS]
    result = bootstrap(scores, label, rows=row, columns=column, metrics=METRICS, n_boot=n_boot, level=LEVEL, seed=seed)
    limits = result.interval().set_index(["key", "metric"])
    lines: list[dict[str, Any]] = []
    for i, metric in enumerate(METRICS):
        line: dict[str, Any] = {"metric": metric, "level": "micro"}
        for key in (MODEL, ONE_HOT, DEGREE):
            line |= _interval(key, *limits.loc[(key, metric), ["value", "low", "high"]])
        line[CHANCE] = limits.loc[(CHANCE, metric), "value"]
        for name, other in (("over_chance", CHANCE), ("over_one_hot", ONE_HOT), ("over_degree", DEGREE)):
            difference = result.difference(MODEL, other).iloc[i]
            line |= _interval(name, *difference[["value", "low", "high"]])
        fraction, why = _fraction(result, i, line)
        line |= fraction
        lines.append({**line, **shared, "note": "; ".join(filter(None, [result.reason, why]))})
    left: dict[str, Any] = {"metric": "auroc", "level": PAIR, **dict.fromkeys(_columns(), np.nan), CHANCE: 0.5}
    left |= _interval(MODEL, *limits.loc[(PAIR, "auroc"), ["value", "low", "high"]])
    left |= _interval("over_chance", *result.difference(PAIR, CHANCE).iloc[0][["value", "low", "high"]])
    lines.append({**left, **shared, "note": result.reason})
    for name, ends in (("regulator", row), ("target", column)):
        lines.append({"metric": "auroc", "level": name, **_within(scores, label, ends, name), **shared})
    return lines


def _columns() -> list[str]:
    names = [MODEL, ONE_HOT, DEGREE, "over_chance", "over_one_hot", "over_degree", "bias_fraction"]
    return [column for name in names for column in _interval(name, np.nan, np.nan, np.nan)] + [CHANCE]


def _interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}


def _fraction(result: Bootstrap, i: int, line: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    model, one_hot, chance = (result.names.index(key) for key in (MODEL, ONE_HOT, CHANCE))
    gain = result.estimate[model, i] - result.estimate[chance, i]
    reproduced = result.estimate[one_hot, i] - result.estimate[chance, i]
    low = float(line["over_chance_low"])
    if gain <= 0 or low <= 0:
        return _interval("bias_fraction", np.nan, np.nan, np.nan), "the model cannot be told from chance"
    drawn = result.replicates[:, [model, one_hot], i] - result.replicates[:, [chance], i]
    limits = np.full(2, np.nan)
    kept = drawn[np.isfinite(drawn).all(axis=1) & (drawn[:, 0] > 0)]
    if len(kept):
        tail = 50 * (1 - LEVEL)
        limits = np.percentile(kept[:, 1] / kept[:, 0], [tail, 100 - tail])
    return _interval("bias_fraction", reproduced / gain, *limits), ""


def _within(scores: Mapping[str, np.ndarray], label: np.ndarray, ends: np.ndarray, name: str) -> dict[str, Any]:
    """Return AUROC within each regulator (or target): means, paired differences and Student's intervals."""
    areas = {key: per_group(vector, label, ends)["auroc"].dropna().to_numpy() for key, vector in scores.items()}
    n = len(areas[MODEL])
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) / np.sqrt(n) if n >= MIN_GROUPS else np.nan

    def summary(key: str, values: np.ndarray) -> dict[str, float]:
        if not n:
            return _interval(key, np.nan, np.nan, np.nan)
        mean, reach = values.mean(), half * (values.std(ddof=1) if n > 1 else np.nan)
        return _interval(key, mean, mean - reach, mean + reach)

    line: dict[str, Any] = dict.fromkeys(_columns(), np.nan)
    for key in (MODEL, ONE_HOT, DEGREE):
        line |= summary(key, areas[key])
    for key, other in (("over_chance", CHANCE), ("over_one_hot", ONE_HOT), ("over_degree", DEGREE)):
        line |= summary(key, areas[MODEL] - areas[other])
    note = "" if n >= MIN_GROUPS else f"only {n} {name}s with enough pairs: an interval needs {MIN_GROUPS}"
    return {**line, CHANCE: 0.5, "note": note}


def _incremental(
    scores: Mapping[str, np.ndarray],
    identity: _Identity,
    where: np.ndarray,
    row: np.ndarray,
    label: np.ndarray,
    n_boot: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return the cross-validated log-loss with and without the model, and what the model takes off it."""
    rng = np.random.default_rng(seed)
    regulators, group = np.unique(row, return_inverse=True)
    n = len(regulators)
    # Whole regulators are left out, so that no weight is fitted to the one it is judged on.
    part = rng.permutation(n)[group] % N_PARTS if n >= N_PARTS else rng.permutation(len(row)) % N_PARTS
    model, one_hot = _logit(scores[MODEL])[:, None], scores[ONE_HOT][:, None]
    everything = identity.features(where)
    features = {
        "base": np.zeros((len(row), 0)),
        "one_hot": one_hot,
        "model": model,
        "one_hot + model": _beside(one_hot, model),
        "identity": everything,
        "identity + model": _beside(everything, model),
    }
    usable = label.any() and not label.all()
    loss = {name: _log_loss(x, label, part) if usable else np.full(len(row), np.nan) for name, x in features.items()}
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_boot) if n >= MIN_GROUPS and usable else np.zeros((0, n))
    size = np.bincount(group, minlength=n)
    lines: list[dict[str, Any]] = []
    for name in features:
        line: dict[str, Any] = {"features": name, "log_loss": float(loss[name].mean())}
        without = name.removesuffix(" + model")
        if without == name:
            lines.append({**line, **_interval("gain", np.nan, np.nan, np.nan)})
            continue
        gain = loss[without] - loss[name]
        total = np.bincount(group, weights=gain, minlength=n)
        limits = np.full(2, np.nan)
        if len(drawn):
            tail = 50 * (1 - LEVEL)
            limits = np.percentile((drawn @ total) / (drawn @ size), [tail, 100 - tail])
        lines.append({**line, **_interval("gain", float(gain.mean()), *limits)})
    return lines


def _logit(score: np.ndarray) -> np.ndarray:
    """Return the log odds of probabilities; other scores as they are."""
    if score.min() >= 0 and score.max() <= 1:
        return special.logit(np.clip(score, 1e-6, 1 - 1e-6))
    return score


def _without_means(score: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return what an additive fit of regulators and targets leaves of a score; zeros where that is all there is."""
    regulators, i = np.unique(row, return_inverse=True)
    targets, k = np.unique(column, return_inverse=True)
    n = len(score)
    place = np.concatenate([np.arange(n), np.arange(n)])
    design = sparse.csr_matrix(
        (np.ones(2 * n), (place, np.concatenate([i, len(regulators) + k]))), shape=(n, len(regulators) + len(targets))
    )
    centred = score - score.mean()
    fitted = lsqr(design, centred, atol=1e-10, btol=1e-10, iter_lim=200)[0]
    left = centred - design @ fitted
    return left if (left**2).sum() > SAME * (centred**2).sum() else np.zeros(n)


def _beside(features: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return features with what the score adds to them; unchanged where it is only a combination of them."""
    base = np.column_stack([np.ones(len(score)), features])
    centred = score - score.mean()
    left = score - base @ np.linalg.lstsq(base, score, rcond=None)[0]
    if (left**2).sum() <= SAME * (centred**2).sum() or not (centred**2).any():
        return features
    return np.column_stack([features, left])


def _log_loss(features: np.ndarray, label: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return each pair's log-loss under a logistic regression fitted to the other parts."""
    spread = features.std(axis=0)
    x = (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    x = np.column_stack([np.ones(len(label)), x])
    loss = np.empty(len(label))
    for k in np.unique(part):
        fitted, held = part != k, part == k
        weights = _regress(x[fitted], label[fitted])
        margin = x[held] @ weights
        loss[held] = np.logaddexp(0, np.where(label[held], -margin, margin))
    return loss


def _regress(x: np.ndarray, label: np.ndarray) -> np.ndarray:
    # Penalised just enough to have a solution where a feature separates the labels.
    penalty = np.full(x.shape[1], 1e-2)
    penalty[0] = 1e-6

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = x @ weights
        value = (np.logaddexp(0, margin) - label * margin).sum() + (penalty * weights**2).sum() / 2
        return value, x.T @ (special.expit(margin) - label) + penalty * weights

    def curvature(weights: np.ndarray) -> np.ndarray:
        p = special.expit(x @ weights)
        return (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)

    start = np.zeros(x.shape[1])
    return optimize.minimize(objective, start, jac=True, hess=curvature, method="trust-exact").x


def _correlate(
    score: np.ndarray, row: np.ndarray, column: np.ndarray, identity: _Identity, where: np.ndarray
) -> dict[str, float]:
    """Return rank correlations of the score with popularity: by pair, by regulator and by target."""
    by_regulator = pd.DataFrame({"score": score, "degree": identity.out_degree[where]}).groupby(row).mean()
    by_target = pd.DataFrame({"score": score, "degree": identity.in_degree[where]}).groupby(column).mean()
    return {
        "pairs": _spearman(score, identity.degree[where].astype(np.float32)),
        "regulator_means": _spearman(by_regulator["score"], by_regulator["degree"]),
        "target_means": _spearman(by_target["score"], by_target["degree"]),
    }


def _spearman(x: Any, y: Any) -> float:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def _imbalance(pairs: Pairs) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return the labels of every regulator, and how unequally edges are spread."""

    def tally(ends: np.ndarray, label: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"n": 1, "positive": label.astype(int)}).groupby(ends).sum()

    train, test = tally(pairs.train_row, pairs.train_label), tally(pairs.row, pairs.label)
    genes = np.union1d(train.index, test.index)
    train, test = (frame.reindex(genes, fill_value=0) for frame in (train, test))
    targets = tally(pairs.train_column, pairs.train_label)
    with np.errstate(invalid="ignore"):
        regulators = pd.DataFrame(
            {
                "regulator": genes,
                "n_train": train["n"].to_numpy(),
                "train_rate": (train["positive"] / train["n"].where(train["n"] > 0)).to_numpy(),
                "n_test": test["n"].to_numpy(),
                "test_rate": (test["positive"] / test["n"].where(test["n"] > 0)).to_numpy(),
            }
        )
    overall = pairs.train_label.mean()

    def rate(ends: np.ndarray, train_ends: np.ndarray) -> np.ndarray:
        seen = pd.Series(pairs.train_label).groupby(train_ends).mean()
        return seen.reindex(ends).fillna(overall).to_numpy()

    by_row, by_column = rate(pairs.row, pairs.train_row), rate(pairs.column, pairs.train_column)
    return regulators, {
        "gini_out_degree": _gini(train["positive"].to_numpy()[train["n"].to_numpy() > 0]),
        "gini_in_degree": _gini(targets["positive"].to_numpy()),
        "entropy_out_degree": _entropy(train["positive"].to_numpy()[train["n"].to_numpy() > 0]),
        "entropy_in_degree": _entropy(targets["positive"].to_numpy()),
        "variance_regulator": _explained(pairs.label, by_row),
        "variance_target": _explained(pairs.label, by_column),
        "variance_both": _explained(pairs.label, by_row, by_column),
    }


def _gini(counts: np.ndarray) -> float:
    """Return 0 where all have equally many, towards 1 where one has all."""
    counts, n = np.sort(counts).astype(float), len(counts)
    if not counts.sum():
        return np.nan
    return float(2 * (np.arange(1, n + 1) * counts).sum() / (n * counts.sum()) - (n + 1) / n)


def _entropy(counts: np.ndarray) -> float:
    """Return the entropy of the shares by that of equal shares: 1 where all have equally many."""
    if len(counts) < 2 or not counts.sum():
        return np.nan
    return float(stats.entropy(counts) / np.log(len(counts)))


def _explained(label: np.ndarray, *rates: np.ndarray) -> float:
    """Return the share of the variance of labels that a linear function of rates explains."""
    y = label - label.mean()
    if not y.any():
        return np.nan
    x = np.column_stack([rate - rate.mean() for rate in rates])
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - (left**2).sum() / (y**2).sum())


def _verdict(table: pd.DataFrame, incremental: pd.DataFrame) -> tuple[str, str]:
    """Return code and sentence, from the limits of intervals only."""
    area: dict[tuple[str, str], Mapping[Any, Any]] = {
        (line["pair_class"], line["level"]): line for line in table.to_dict("records") if line["metric"] == "auroc"
    }
    gains: dict[str, Mapping[Any, Any]] = {
        line["pair_class"]: line for line in incremental.to_dict("records") if line["features"] == "identity + model"
    }
    classes = [name for name in CLASSES if (name, "micro") in area]
    seen = next((name for name in classes if name != "UU"), None)

    unseen, survives = "Unseen genes were not judged: split with `scheme='infosem'` for them.", None
    if "UU" in classes:
        micro = area["UU", "micro"]
        within = area.get(("UU", "regulator"))
        above = _above(micro["over_chance_low"])
        inside = None if within is None else _above(within["over_chance_low"])
        if inside is None and above is not None:  # too few regulators with enough pairs of either kind
            inside = _above(area["UU", PAIR]["over_chance_low"])
        value = _said(micro, "model")
        if above is None:
            unseen = f"Unseen genes decide nothing: {micro['note'] or 'no interval'} (AUROC {value})."
        elif above and inside is not False:
            left = area["UU", PAIR]
            own = "also" if _above(left["over_chance_low"]) else "not"
            survives = "B3"
            unseen = (
                f"Between unseen genes AUROC is {value}, above chance; {own} by what the score says of a pair beyond "
                f"its two genes: {_said(left, 'model')}."
            )
        elif above or inside:
            survives = "B2"
            where = "between regulators, not within them" if above else "within regulators, not over all pairs"
            unseen = f"Between unseen genes the gain is only {where} (AUROC {value} over all pairs)."
        else:
            survives, unseen = "none", f"Between unseen genes AUROC is {value}: not told from chance."
    if survives == "B3" and seen is None:
        return "B3", f"{_head('B3')} {unseen}"
    if seen is None:
        code = survives if survives == "B2" else "B1" if survives == "none" else "undecided"
        return code, f"{_head(code)} {unseen} One-hot regression is at chance there by construction."

    micro, gain = area[seen, "micro"], gains[seen]
    beaten = micro["over_degree_high"] <= 0
    adds = _above(gain["gain_low"])
    genes = {"SS": "seen genes", "SU": "unseen targets", "US": "unseen regulators"}[seen]
    compared = (
        f"On {genes} AUROC is {_said(micro, 'model')}, of one-hot regression {_said(micro, 'one_hot')} and of degree "
        f"{_said(micro, 'degree')}; beside identity the model takes {gain['gain']:.4f} "
        f"({gain['gain_low']:.4f} to {gain['gain_high']:.4f}) off the log-loss."
    )
    if survives in ("B3", "B2"):
        code = survives
    elif np.isnan(micro["over_degree_high"]) or adds is None:
        code = "undecided"
    else:
        code = "B0" if beaten else "B2" if adds else "B1"
    return code, f"{_head(code)} {compared} {unseen}"


def _head(code: str) -> str:
    return f"{WORDS[code].capitalize()}."


def _above(low: float) -> bool | None:
    return None if np.isnan(low) else bool(low > 0)


def _said(line: Mapping[Any, Any], name: str) -> str:
    value, low, high = (line[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"
