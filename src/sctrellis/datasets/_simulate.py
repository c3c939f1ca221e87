"""Expression simulated from a structural equation model whose network is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import linalg, optimize, sparse, special

from sctrellis._core import checks, record, slots
from sctrellis._core.keys import REGULATORS

if TYPE_CHECKING:
    from anndata import AnnData

# One child seed a part, in this order: a part may be drawn differently, or not at all, without moving the others.
# New parts go to the end.
_PARTS = (
    "order",
    "structure",
    "hubs",
    "weights",
    "signs",
    "embedding",
    "control",
    "loadings",
    "baseline",
    "noise",
    "confounders",
    "depth",
    "dispersion",
    "counts",
    "dropout",
)


@dataclass(frozen=True)
class _Network:
    """A planted network: `effects` has shape (n_regulators, n_vars), `regulators` holds increasing gene positions."""

    regulators: np.ndarray
    effects: sparse.csr_matrix
    radius: float
    embedding: np.ndarray | None
    prior: Mapping[str, np.ndarray] | None


def simulate_grn(
    n_obs: int = 800,
    n_vars: int = 200,
    n_regulators: int = 30,
    *,
    density: float | None = None,
    positive: float | None = None,
    weights: tuple[float, float] | None = None,
    hubs: float = 0.0,
    max_radius: float = 0.5,
    nonlinear: bool = False,
    noise_std: float = 1.0,
    n_confounders: int = 0,
    confounder_std: float = 1.0,
    counts: bool = False,
    depth: float | None = None,
    depth_std: float = 0.3,
    mean_std: float = 1.0,
    dispersion: float = 0.1,
    dropout: float = 0.0,
    embedding: Literal["informative", "random"] | None = None,
    n_dims: int = 32,
    prior_strength: float = 0.8,
    seed: int | None = 0,
) -> "AnnData":
    r"""Simulate cells from a structural equation model with a known regulatory network.

    The defaults give a linear Gaussian model: what a method recovers there is the most that it can hope for.
    `nonlinear`, `n_confounders` and `counts` each break one assumption of such a method.

    Parameters
    ----------
    n_obs
        Number of cells. The network does not depend on it.
    n_vars
        Number of genes.
    n_regulators
        Number of genes that may regulate. Their positions among the genes are random.
    density
        Fraction of regulator-gene pairs that are edges, in (0, 1]; met exactly. None is 0.06, or 0.1 with an
        `embedding`.
    positive
        Fraction of edges that activate, in [0, 1]; met exactly. None is 0.7, or 1 with an `embedding`.
    weights
        Smallest and largest absolute effect, drawn uniformly. None is ``(0.3, 0.8)``, or effects that follow the
        score of the pair with an `embedding` (see Notes).
    hubs
        Standard deviation of the log of the regulators' propensities to have targets; 0 gives no hubs.
    max_radius
        Largest spectral radius of the effects among regulators, in (0, 1): where it is passed, all effects of the
        network are scaled down by one factor.
    nonlinear
        Whether effects saturate: a regulator acts through the hyperbolic tangent of its level.
    noise_std
        Standard deviation of each gene's own noise.
    n_confounders
        Number of unseen factors that act on all genes.
    confounder_std
        Standard deviation that all unseen factors together add to a gene's noise, on average over genes.
    counts
        Whether to measure the cells by counting: levels become log rates, and `X` the log of depth-normalised counts.
    depth
        Mean counts of a cell; None is `n_vars`, one count a gene. This and the next four apply with `counts`.
    depth_std
        Standard deviation of the log of the cells' depths.
    mean_std
        Standard deviation of the genes' log base rates.
    dispersion
        Squared coefficient of variation of the counts beyond Poisson noise; 0 gives Poisson counts.
    dropout
        Mean probability that a count is lost and becomes 0, in [0, 1); rarely expressed genes lose more.
    embedding
        ``"informative"`` draws the network from gene embeddings. ``"random"`` gives the same network and cells beside
        embeddings that know nothing of them: the control. None gives no embedding.
    n_dims
        Dimensions of the embedding.
    prior_strength
        How far the embeddings decide which pairs are edges, in [0, 1]; 0 makes them uninformative.
    seed
        Seed of all draws; None draws one and records it. The same seed gives identical results.

    Returns
    -------
    An AnnData of `n_obs` cells, named ``cell_0``, …, and `n_vars` genes, named ``gene_0``, …, with

    `adata.X` : float32, shape (n_obs, n_vars)
        Expression, never negative. Without `counts` a dense array of the levels, each gene shifted to minimum 0;
        with `counts` a CSR matrix, ``log1p`` of the counts scaled to the median total.
    `adata.var["is_regulator"]` : bool
        Candidate regulators.
    `adata.varp["truth"]` : csr_matrix, float32, shape (n_vars, n_vars)
        1 for each edge, row = regulator, column = target; a known network as other functions expect it.
    `adata.varp["truth_effect"]` : csr_matrix, float32, shape (n_vars, n_vars)
        The signed effects on the same edges.
    `adata.varm["embedding"]` : float32, shape (n_vars, n_dims)
        With `embedding`.
    `adata.var["offset"]` : float
        Without `counts`: what was added to the levels of a gene.
    `adata.layers["counts"]` : csr_matrix, float32, shape (n_obs, n_vars)
        With `counts`; also `adata.obs["depth"]`, the expected counts of a cell, and `adata.var["log_rate"]`, the base
        rates.
    `adata.obsm["confounders"]`, `adata.varm["confounder_loadings"]` : float32
        With `n_confounders`: the unseen factors, shape (n_obs, n_confounders), and how they act, shape (n_vars,
        n_confounders).
    `adata.uns["simulate_grn"]` : dict
        The record: arguments, seed, and under ``"fit"`` the number of edges and the spectral radius. With an
        informative embedding, ``"weights"`` holds the vectors `w_regulator` and `w_target` of Notes.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or outside its range.

    Notes
    -----
    Cells are rows. With the effect ``A[i, k]`` of regulator i on gene k and noise ``z``, the levels ``x`` solve

    .. math:: x = f(x) A + z, \qquad f(x) = x \text{ or } \tanh(x),

    elementwise. Only rows of regulators in ``A`` are not zero, so the linear model needs one solve of size
    n_regulators, and the nonlinear one iterates over the regulators alone. There `max_radius` bounds the radius of
    the *absolute* effects, which makes the iteration a contraction: each cell has exactly one solution.

    Edges are the pairs with the highest scores. Without an embedding, scores are Gumbel noise, so that pairs are drawn
    without replacement in proportion to the propensity of their regulator. With embeddings ``h``,

    .. math:: s_{ik} = \sqrt{\rho}\,\mu_{ik} + \sqrt{1 - \rho}\,\varepsilon_{ik}, \qquad
              \mu_{ik} = h_i^\top w_1 + h_k^\top w_2,

    where :math:`\rho` is `prior_strength`, :math:`\mu` has mean 0 and variance 1 over the pairs, and
    :math:`\varepsilon` is Laplace noise of scale 1. Effects are then half of 0.4 plus the excess of the score over
    the lowest score of an edge, unless `weights` says otherwise.

    With `counts`, expected counts are the depth of the cell times the softmax over genes of ``log_rate + x``; counts
    are Poisson with gamma-distributed rates. A count is lost with the probability
    ``1 / (1 + exp(log1p(expected) - c))``, where ``c`` gives the mean asked for.

    Each part has a random stream of its own: another `n_obs`, or `counts`, leaves the network as it was, and more
    `dropout` only adds zeros. Time and memory grow with ``n_obs * n_vars + n_regulators * n_vars``, and with
    ``n_regulators ** 3``.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(100, 50, 10)
    >>> adata.shape, int(adata.var["is_regulator"].sum()), adata.varp["truth"].nnz
    ((100, 50), 10, 29)
    >>> adata = tr.datasets.simulate_grn(100, 50, 10, counts=True, embedding="informative")
    >>> adata.varm["embedding"].shape
    (50, 32)
    """
    params = record.arguments(simulate_grn, locals())
    from anndata import AnnData

    if not isinstance(embedding, str | None):
        msg = (
            f"Expected `embedding` to be 'informative', 'random' or None, found {type(embedding).__name__}. "
            "Vectors of your own go in afterwards, with `sctrellis.pp.gene_embedding`."
        )
        raise TypeError(msg)
    informed = checks.choice("embedding", embedding, (None, "informative", "random")) is not None
    params["density"] = (0.1 if informed else 0.06) if density is None else density
    params["positive"] = (1.0 if informed else 0.7) if positive is None else positive
    params["weights"] = (0.3, 0.8) if weights is None and not informed else weights
    params["depth"] = n_vars if depth is None else depth
    _check(params)
    seed = checks.seed(seed)
    children = np.random.SeedSequence(seed).spawn(len(_PARTS))
    streams = {part: np.random.default_rng(child) for part, child in zip(_PARTS, children, strict=True)}

    network = _plant(params, streams)
    levels, confounders, loadings = _levels(params, network, streams)
    parts = _measure(params, levels, streams) if counts else _shift(levels)
    varm = {} if network.embedding is None else {"embedding": network.embedding}
    if n_confounders:
        parts["obsm"] = {"confounders": confounders.astype(np.float32)}
        varm["confounder_loadings"] = loadings.T.astype(np.float32)
    adata = AnnData(
        parts["X"],
        obs=pd.DataFrame(parts.get("obs"), index=[f"cell_{i}" for i in range(n_obs)]),
        var=pd.DataFrame(parts["var"], index=[f"gene_{i}" for i in range(n_vars)]),
        layers=parts.get("layers"),
        obsm=parts.get("obsm"),
    )

    effects = _square(network.effects, network.regulators, n_vars)
    truth = effects.copy()
    truth.data = np.ones_like(truth.data)
    is_regulator = np.zeros(n_vars, dtype=bool)
    is_regulator[network.regulators] = True
    run = record.build(
        "simulate_grn",
        adata,
        params=params,
        seed=seed,
        slots={"network": "varp/truth", "effects": "varp/truth_effect"},
        fit={"n_edges": int(truth.nnz), "spectral_radius": network.radius},
        weights=network.prior,
    )
    slots.write(
        adata,
        var={REGULATORS: is_regulator},
        varp={"truth": truth, "truth_effect": effects},
        varm=varm,
        uns={"simulate_grn": run},
    )
    return adata


def _check(params: Mapping[str, Any]) -> None:
    checks.integer("n_obs", params["n_obs"])
    n_vars = checks.integer("n_vars", params["n_vars"], minimum=2)
    if checks.integer("n_regulators", params["n_regulators"]) > n_vars:
        msg = f"Expected `n_regulators` to be at most `n_vars` = {n_vars}, found {params['n_regulators']}."
        raise ValueError(msg)
    checks.integer("n_dims", params["n_dims"])
    checks.integer("n_confounders", params["n_confounders"], minimum=0)
    checks.number("density", params["density"], low=0, high=1, open_low=True)
    checks.number("max_radius", params["max_radius"], low=0, high=1, open_low=True, open_high=True)
    checks.number("dropout", params["dropout"], low=0, high=1, open_high=True)
    for name in ("positive", "prior_strength"):
        checks.number(name, params[name], low=0, high=1)
    for name in ("noise_std", "depth"):
        checks.number(name, params[name], low=0, high=np.finfo(float).max, open_low=True)
    for name in ("hubs", "confounder_std", "depth_std", "mean_std", "dispersion"):
        checks.number(name, params[name], low=0, high=np.finfo(float).max)
    for name in ("nonlinear", "counts"):
        checks.choice(name, params[name], (True, False))
    if params["weights"] is not None:
        _check_weights(params["weights"])
    if params["dropout"] and not params["counts"]:
        msg = f"`dropout={params['dropout']}` loses counts, and there are none: pass `counts=True` too."
        raise ValueError(msg)
    checks.dense_size(
        (params["n_obs"], n_vars), "The simulated matrix", "Lower `n_obs` or `n_vars`.", itemsize=np.float64().itemsize
    )


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, tuple | list) or len(weights) != 2:
        msg = f"Expected `weights` to be a pair (smallest, largest) of absolute effects, found {weights!r}."
        raise TypeError(msg)
    low = checks.number("weights[0]", weights[0], low=0, high=np.finfo(float).max, open_low=True)
    checks.number("weights[1]", weights[1], low=low, high=np.finfo(float).max)


def _plant(params: Mapping[str, Any], streams: Mapping[str, np.random.Generator]) -> _Network:
    n_vars, n_regulators = params["n_vars"], params["n_regulators"]
    regulators = np.sort(streams["order"].permutation(n_vars)[:n_regulators])
    own = (np.arange(n_regulators), regulators)
    embedding = prior = None
    if params["embedding"] is None:
        score = streams["structure"].gumbel(size=(n_regulators, n_vars))
    else:
        embedding = streams["embedding"].standard_normal((n_vars, params["n_dims"]))
        w_regulator, w_target = streams["embedding"].standard_normal((2, params["n_dims"]))
        mu = (embedding[regulators] @ w_regulator)[:, None] + embedding @ w_target
        others = np.ones(mu.shape, dtype=bool)
        others[own] = False
        scale = mu[others].std() or 1.0  # a single pair has no spread
        mu = (mu - mu[others].mean()) / scale
        prior = {"w_regulator": w_regulator / scale, "w_target": w_target / scale}
        strength = params["prior_strength"]
        score = np.sqrt(strength) * mu + np.sqrt(1 - strength) * streams["structure"].laplace(size=mu.shape)
        if params["embedding"] == "random":
            embedding, prior = streams["control"].standard_normal(embedding.shape), None
        embedding = embedding.astype(np.float32)
    score += params["hubs"] * streams["hubs"].standard_normal((n_regulators, 1))
    score[own] = -np.inf

    n_edges = max(1, round(params["density"] * n_regulators * (n_vars - 1)))
    edges = np.sort(np.argpartition(score, -n_edges, axis=None)[-n_edges:])
    row, column = np.divmod(edges, n_vars)
    if params["weights"] is None:
        chosen = score.ravel()[edges]
        size = 0.5 * (0.4 + chosen - chosen.min())
    else:
        low, high = params["weights"]
        size = streams["weights"].uniform(low, high, size=n_edges)
    n_negative = n_edges - round(params["positive"] * n_edges)
    size[streams["signs"].permutation(n_edges)[:n_negative]] *= -1
    effects = sparse.csr_matrix((size, (row, column)), shape=(n_regulators, n_vars))

    # The radius of |A| is at least that of A, and what makes the nonlinear iteration contract.
    block = effects[:, regulators].toarray()
    radius = float(np.abs(linalg.eigvals(np.abs(block) if params["nonlinear"] else block)).max())
    if radius > params["max_radius"]:
        effects *= params["max_radius"] / radius
        radius = float(params["max_radius"])
    return _Network(regulators, effects, radius, embedding, prior)


def _levels(
    params: Mapping[str, Any], network: _Network, streams: Mapping[str, np.random.Generator]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return levels x that solve x = f(x) A + z, and the factors (n_obs, k) and loadings (k, n_vars) inside z."""
    n_obs, n_vars, n_factors = params["n_obs"], params["n_vars"], params["n_confounders"]
    z = params["noise_std"] * streams["noise"].standard_normal((n_obs, n_vars))
    factors = streams["confounders"].standard_normal((n_obs, n_factors))
    loadings = streams["loadings"].standard_normal((n_factors, n_vars))
    loadings *= params["confounder_std"] / np.sqrt(max(n_factors, 1))
    z += factors @ loadings

    block = network.effects[:, network.regulators].toarray()
    z_regulators = z[:, network.regulators]
    if not params["nonlinear"]:
        active = linalg.solve((np.eye(len(block)) - block).T, z_regulators.T).T
    else:
        state = z_regulators
        while True:
            following = np.tanh(state) @ block + z_regulators
            settled = np.abs(following - state).max() < 1e-10
            state = following
            if settled:
                break
        active = np.tanh(state)
    z += active @ network.effects
    return z, factors, loadings


def _shift(levels: np.ndarray) -> dict[str, Any]:
    """Return the levels with each gene shifted to minimum 0: log-normalised values are never negative."""
    offset = -levels.min(axis=0)
    return {"X": (levels + offset).astype(np.float32), "var": {"offset": offset}}


def _measure(
    params: Mapping[str, Any], levels: np.ndarray, streams: Mapping[str, np.random.Generator]
) -> dict[str, Any]:
    """Return log-normalised counts of cells with the given log rates."""
    n_obs, n_vars = levels.shape
    log_rate = params["mean_std"] * streams["baseline"].standard_normal(n_vars)
    # The mean of a log-normal is exp(m + s^2/2): depths average to `depth` whatever their spread.
    spread = params["depth_std"]
    depth = params["depth"] * np.exp(spread * streams["depth"].standard_normal(n_obs) - spread**2 / 2)
    expected = depth[:, None] * special.softmax(log_rate + levels, axis=1)
    rate = expected
    if params["dispersion"]:
        shape = 1 / params["dispersion"]
        rate = expected * streams["dispersion"].gamma(shape, 1 / shape, size=expected.shape)
    drawn = streams["counts"].poisson(rate)
    if params["dropout"]:
        drawn[streams["dropout"].random(drawn.shape) < _dropout(expected, params["dropout"])] = 0
    raw = sparse.csr_matrix(drawn.astype(np.float32))
    total = np.asarray(raw.sum(axis=1)).ravel()
    # A cell without a count stays all zero.
    size = np.median(total[total > 0]) / np.maximum(total, 1) if total.any() else np.ones(n_obs)
    x = (sparse.diags(size) @ raw).log1p().tocsr().astype(np.float32)
    return {"X": x, "obs": {"depth": depth}, "var": {"log_rate": log_rate}, "layers": {"counts": raw}}


def _dropout(expected: np.ndarray, mean: float) -> np.ndarray:
    """Return the probability that each count is lost: logistic in its log expectation, with the given mean."""
    level = np.log1p(expected)
    span = float(level.max()) + 40.0
    midpoint = optimize.brentq(lambda c: special.expit(c - level).mean() - mean, -span, span, xtol=1e-6)
    return special.expit(midpoint - level)


def _square(effects: sparse.csr_matrix, regulators: np.ndarray, n_vars: int) -> sparse.csr_matrix:
    """Return effects of regulators, shape (n_regulators, n_vars), as a gene x gene CSR."""
    coo = effects.tocoo()
    values = coo.data.astype(np.float32)
    return sparse.csr_matrix((values, (regulators[coo.row], coo.col)), shape=(n_vars, n_vars))
