"""Node-wise ridge in closed form equals refits, gene by gene and fold by fold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sctrellis import datasets, metrics
from sctrellis._core import universe
from sctrellis._core.rows import Rows
from sctrellis.models import _ridge, ridge_network
from sctrellis.models._batches import Standardised
from sctrellis.models._ridge import _choose, _System

SHAPES = {"dual": (30, 42), "primal": (90, 25), "square": (40, 40)}


def cells(n_obs, n_vars, *, seed=0, n_regulators=8):
    """Correlated genes, one of them with an outlier that is clipped, and regulators in no order."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_obs, n_vars)) + rng.normal(size=(n_obs, 3)) @ rng.normal(size=(3, n_vars))
    x[:, 1] = 0.01 * x[:, 1]
    x[0, 1] = 1_000.0
    regulators = np.zeros(n_vars, dtype=bool)
    regulators[rng.permutation(n_vars)[:n_regulators]] = True
    return x.astype(np.float32), regulators


def standardised(x):
    return Standardised(Rows(x)).take(slice(None)).astype(np.float64)


def ratio_of(fit, network, regulators):
    """AUPRC ratio of absolute weights on the pairs that BEELINE counts."""
    score = np.full(network.shape, -np.inf)
    score[regulators] = np.abs(fit)
    row, column = universe.pairs(network, regulators).nonzero()
    return metrics.auprc_ratio(score[row, column], np.asarray(network[row, column]).ravel() > 0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("rho", [0.05, 3.0])
def test_equals_ridge_regression_of_every_gene(shape, rho):
    x, regulators = cells(*shape)
    fit = ridge_network(Rows(x), regulators, rho=rho)
    z = standardised(x)
    exact = -fit.precision / fit.precision_diagonal
    for target in range(z.shape[1]):
        others = np.arange(z.shape[1]) != target
        model = Ridge(alpha=len(z) * rho, fit_intercept=False, solver="cholesky")
        coefficients = np.zeros(z.shape[1])
        coefficients[others] = model.fit(z[:, others], z[:, target]).coef_
        kept = regulators & others
        assert np.abs(exact[kept[regulators], target] - coefficients[kept]).max() <= 1e-8
        assert np.abs(fit.weights[:, target] - coefficients[regulators]).max() <= 1e-6
    assert fit.rho == rho
    assert fit.cv == {}


def test_clips_outliers():
    x, regulators = cells(200, 5, n_regulators=2)
    z = standardised(x)
    assert z.max() == 10
    fit = ridge_network(Rows(x), regulators, rho=0.1)
    unclipped = (x - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64)
    for matrix, equal in ((z, True), (unclipped, False)):
        precision = np.linalg.inv(matrix.T @ matrix / len(z) + 0.1 * np.eye(5))[regulators]
        assert np.allclose(fit.precision, precision, atol=1e-6) == equal


@pytest.mark.parametrize("others", [1.0, 7.0])
def test_both_systems_agree(others):
    x, regulators = cells(*SHAPES["dual"])
    dual = ridge_network(Rows(x), regulators, rho=0.7, others=others)
    # Each cell twice: the same correlations, and more cells than genes.
    primal = ridge_network(Rows(np.concatenate([x, x])), regulators, rho=0.7, others=others)
    assert np.abs(dual.precision - primal.precision).max() <= 1e-8
    assert np.abs(dual.precision_diagonal - primal.precision_diagonal).max() <= 1e-8


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("others", [4.0, 10.0])
def test_others_are_shrunk_more(shape, others):
    x, regulators = cells(*shape)
    rho = 0.4
    fit = ridge_network(Rows(x), regulators, rho=rho, others=others)
    z = standardised(x)
    penalty = rho * np.where(regulators, 1.0, others)
    for target in range(z.shape[1]):
        kept = np.arange(z.shape[1]) != target
        gram = z[:, kept].T @ z[:, kept] / len(z) + np.diag(penalty[kept])
        coefficients = np.zeros(z.shape[1])
        coefficients[kept] = np.linalg.solve(gram, z[:, kept].T @ z[:, target] / len(z))
        assert np.abs(fit.weights[:, target] - coefficients[regulators]).max() <= 2e-6
    precision = np.linalg.inv(z.T @ z / len(z) + np.diag(penalty))
    assert np.allclose(fit.precision, precision[regulators], rtol=1e-6, atol=1e-6)
    assert np.allclose(fit.precision_diagonal, precision.diagonal(), rtol=1e-6)
    assert fit.others == others


def test_a_very_large_ratio_leaves_the_regulators_alone():
    x, regulators = cells(*SHAPES["primal"])
    z = standardised(x)[:, regulators]
    fit = ridge_network(Rows(x), regulators, rho=0.2, others=1e8)
    alone = ridge_network(Rows(x[:, regulators]), np.ones(regulators.sum(), bool), rho=0.2)
    assert np.abs(fit.weights[:, regulators] - alone.weights).max() <= 1e-5
    target = np.flatnonzero(~regulators)[0]
    y = standardised(x)[:, target]
    model = Ridge(alpha=len(z) * 0.2, fit_intercept=False).fit(z, y)
    assert np.abs(fit.weights[:, target] - model.coef_).max() <= 1e-5


def test_full_returns_every_gene():
    x, regulators = cells(*SHAPES["dual"])
    fit = ridge_network(Rows(x), regulators, rho=0.5, others=3.0)
    full = ridge_network(Rows(x), regulators, rho=0.5, others=3.0, full=True)
    assert np.allclose(full.weights[regulators], fit.weights, atol=1e-7)
    penalty = 0.5 * np.where(regulators, 1.0, 3.0)
    z = standardised(x)
    precision = np.linalg.inv(z.T @ z / len(z) + np.diag(penalty))
    assert np.allclose(full.precision, precision, rtol=1e-6, atol=1e-6)
    assert (full.weights.diagonal() == 0).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("others", [1.0, 5.0])
def test_cross_validation_equals_refits(shape, others):
    x, regulators = cells(*shape)
    x[:, 3] = 2.0  # a constant gene is predicted by nothing and counted nowhere
    n_obs, n_vars = x.shape
    fit = ridge_network(Rows(x), regulators, others=others, seed=3)
    assert len(fit.cv["rho"]) >= 3
    assert np.allclose(np.diff(np.log2(fit.cv["rho"])), 1)
    assert (fit.cv["others"] == others).all()
    z = standardised(x)
    penalty = np.where(regulators, 1.0, others)
    folds = np.random.default_rng(3).permutation(n_obs).reshape(5, -1)
    tried = fit.cv["error"].argmin() + np.array([-1, 0, 1])
    for rho, error in zip(fit.cv["rho"][tried], fit.cv["error"][tried], strict=True):
        errors = []
        for fold in folds:
            kept_cells = np.setdiff1d(np.arange(n_obs), fold)
            for target in np.flatnonzero(x.std(axis=0) > 0):
                kept = np.arange(n_vars) != target
                train, test = z[np.ix_(kept_cells, kept)], z[np.ix_(fold, kept)]
                gram = train.T @ train + len(kept_cells) * rho * np.diag(penalty[kept])
                coefficients = np.linalg.solve(gram, train.T @ z[kept_cells, target])
                errors.append(((z[fold, target] - test @ coefficients) ** 2).mean())
        assert error == pytest.approx(np.mean(errors), rel=1e-6)
    # The choice lies at or beyond the best strength, within the tolerance.
    best = fit.cv["error"].argmin()
    assert fit.rho >= fit.cv["rho"][best] * (1 - 1e-9)
    assert np.interp(np.log2(fit.rho), np.log2(fit.cv["rho"]), fit.cv["error"]) <= 1.05 * fit.cv["error"][best]


def test_a_ratio_is_chosen_by_error():
    rng = np.random.default_rng(0)
    regulators = np.arange(60) < 5
    activity = rng.normal(size=(100, 5))
    x = np.hstack([activity, activity @ rng.normal(size=(5, 55)) + 2 * rng.normal(size=(100, 55))])
    fit = ridge_network(Rows(x), regulators, others=None)
    smallest = {ratio: fit.cv["error"][fit.cv["others"] == ratio].min() for ratio in np.unique(fit.cv["others"])}
    assert set(smallest) == {1.0, 10.0, 100.0}
    assert fit.others == min(smallest, key=smallest.get)
    alone = ridge_network(Rows(x), regulators, others=fit.others)
    assert alone.rho == fit.rho
    assert np.array_equal(alone.weights, fit.weights)
    # All genes are regulators: there is nothing to choose.
    assert set(ridge_network(Rows(x), np.ones(60, bool), others=None).cv["others"]) == {1.0}


def curve(function, start=1.0, tolerance=0.05):
    """What is chosen on a curve over log2 of the strength, in log2; each point may be asked for once."""
    asked = []

    def error(rho):
        assert rho not in asked
        asked.append(rho)
        return function(np.log2(rho))

    chosen, cv = _choose(error, start, tolerance)
    assert sorted(asked) == pytest.approx(list(cv["rho"]))
    assert [function(np.log2(rho)) for rho in cv["rho"]] == pytest.approx(list(cv["error"]))
    return np.log2(chosen)


@pytest.mark.parametrize("start", [3, -2, 9])
def test_choice_interpolates_the_tolerance(start):
    # The bound 0.525 lies halfway between 0.51, one step from the minimum, and 0.54, two steps from it.
    assert curve(lambda s: 0.5 + 0.01 * (s - 3) ** 2, start=2.0**start) == pytest.approx(4.5)


def test_choice_without_tolerance_is_the_minimum():
    assert curve(lambda s: 0.5 + 0.01 * (s - 3) ** 2, tolerance=0.0) == pytest.approx(3)


def test_choice_keeps_nine_tenths_of_what_is_explained():
    # 5 % of 0.9 would be 0.045; a tenth of the 0.1 explained is 0.01, reached one step from the minimum.
    assert curve(lambda s: 0.9 + 0.01 * (s - 3) ** 2) == pytest.approx(4)
    # The empty model is never admitted.
    assert curve(lambda s: 1 - 0.02 * np.exp(-((s - 1) ** 2))) < 3


def test_choice_where_nothing_is_explained():
    assert curve(lambda s: 1 + 0.01 * (s - 2) ** 2) == pytest.approx(2)


def test_choice_at_the_ends_of_the_grid():
    # It is lowest at 2^-12 times the start, and passes 0.525 in the middle between two points.
    assert curve(lambda s: 0.5 + 0.01 * (s + 12)) == pytest.approx(-9.5)
    assert curve(lambda s: 0.5 + 0.01 * s, start=2.0**10, tolerance=0.0) == pytest.approx(-2)
    assert 12 <= curve(lambda s: 0.5 - 0.001 * s) <= 17
    assert curve(lambda s: 0.5) == 16  # flat: the strongest


@pytest.mark.parametrize("x", [[[0, 1], [1, 0]], np.array([[0, 1] * 20, [1, 0] * 20]), "binary"])
def test_cells_that_sum_to_exactly_nothing(x):
    """Genes sum to 0 over the cells: power iterations must not start from ones."""
    if isinstance(x, str):
        rng = np.random.default_rng(0)
        x = np.stack([rng.permutation(np.repeat([0, 1], 10)) for _ in range(40)], axis=1)
    x = np.tile(np.asarray(x, dtype=np.float32), (5, 1))[: max(10, len(x))]
    fit = ridge_network(Rows(x), np.arange(x.shape[1]) < 2)
    assert np.isfinite(fit.weights).all()
    assert np.isfinite(fit.rho)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_largest_eigenvalue(shape):
    x, _ = cells(*shape)
    z = standardised(x)
    system = _System(Standardised(Rows(x)), None, torch.device("cpu"))
    # It only sets where the search for a strength starts: close eigenvalues may be taken together.
    assert system.largest_eigenvalue() == pytest.approx(np.linalg.eigvalsh(z.T @ z / len(z))[-1], rel=0.03)


def test_cells_are_drawn_only_where_both_sides_are_large(monkeypatch):
    monkeypatch.setattr(_ridge, "MAX_SYSTEM", 40)
    x, regulators = cells(60, 50)
    everyone = np.ones(50, dtype=bool)
    z = standardised(x)

    def exact(z):
        return np.linalg.inv(z.T @ z / len(z) + 0.5 * np.eye(z.shape[1]))

    fit = ridge_network(Rows(x), everyone, rho=0.5)
    # 40 cells of 50 genes: ten directions are left with the penalty alone.
    eigenvalues = np.linalg.eigvalsh(fit.precision)
    assert (np.abs(eigenvalues - 2) < 1e-8).sum() == 10
    full = exact(z)
    assert np.corrcoef(fit.precision.ravel(), full.ravel())[0, 1] > 0.9
    assert np.array_equal(fit.precision, ridge_network(Rows(x), everyone, rho=0.5).precision)
    assert not np.allclose(fit.precision, ridge_network(Rows(x), everyone, rho=0.5, seed=1).precision)
    assert np.isfinite(ridge_network(Rows(x), regulators, others=None).weights).all()
    # Genes or cells alone may pass the limit.
    assert np.allclose(ridge_network(Rows(x[:, :40]), everyone[:40], rho=0.5).precision, exact(z[:, :40]))
    few = standardised(x[:40])
    assert np.allclose(ridge_network(Rows(x[:40]), everyone, rho=0.5).precision, exact(few))


@pytest.mark.parametrize("n_vars", [20, 180])
def test_few_cells_are_held_out_where_there_are_many(monkeypatch, n_vars):
    x, regulators = cells(150, n_vars)
    whole = ridge_network(Rows(x), regulators)
    monkeypatch.setattr(_ridge, "_CV_CELLS", 20)
    part = ridge_network(Rows(x), regulators)
    assert not np.array_equal(part.cv["error"], whole.cv["error"])
    assert part.cv["error"].min() == pytest.approx(whole.cv["error"].min(), rel=0.2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", [{"rho": 0.5}, {"others": None}])
def test_constant_genes_change_nothing(shape, options):
    x, regulators = cells(*shape)
    wide = np.insert(x, [0, 4, 4], 3.5, axis=1)
    wide_regulators = np.insert(regulators, [0, 4, 4], [True, False, True])
    constant = wide.std(axis=0) == 0
    if "rho" not in options:  # more genes may ask for the other system, and so round differently
        options = {"rho": ridge_network(Rows(x), regulators, **options).rho, "others": 1.0}
    fit = ridge_network(Rows(x), regulators, **options)
    got = ridge_network(Rows(wide), wide_regulators, **options)
    assert (got.weights[:, constant] == 0).all()
    assert (got.weights[constant[wide_regulators]] == 0).all()
    assert np.allclose(got.weights[~constant[wide_regulators]][:, ~constant], fit.weights, atol=1e-6)
    assert np.isfinite(got.precision).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", [{}, {"rho": 0.3}, {"others": None}, {"rho": 0.3, "others": 6.0}])
def test_permuted_genes_permute_the_result(shape, options):
    x, regulators = cells(*shape)
    fit = ridge_network(Rows(x), regulators, **options)
    order = np.random.default_rng(5).permutation(shape[1])
    moved = ridge_network(Rows(x[:, order]), regulators[order], **options)
    rows = np.argsort(np.argsort(order)[regulators])  # of the first fit, in the order of the second
    assert moved.rho == pytest.approx(fit.rho, rel=1e-8)
    assert moved.others == fit.others
    assert np.abs(moved.precision - fit.precision[np.ix_(rows, order)]).max() <= 1e-8 * np.abs(fit.precision).max()
    assert np.abs(moved.precision_diagonal - fit.precision_diagonal[order]).max() <= 1e-8 * fit.precision.max()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_permuted_cells_change_nothing(shape):
    x, regulators = cells(*shape)
    fit = ridge_network(Rows(x), regulators, rho=0.3)
    moved = ridge_network(Rows(x[np.random.default_rng(5).permutation(shape[0])]), regulators, rho=0.3)
    assert np.abs(moved.precision - fit.precision).max() <= 1e-8 * np.abs(fit.precision).max()


def test_global_random_state_is_neither_read_nor_written():
    x, regulators = cells(40, 30)
    before = torch.get_rng_state()
    first = ridge_network(Rows(x), regulators, others=None)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert np.array_equal(first.weights, ridge_network(Rows(x), regulators, others=None).weights)


@pytest.mark.data
@pytest.mark.parametrize(
    ("cell", "network", "published"),
    [
        ("mDC", "STRING", 1.66),
        ("mDC", "Non-Specific", 1.79),
        ("mDC", "Specific", 1.04),
        ("mESC", "Specific", 1.05),
        ("mESC", "Non-Specific", 1.56),
        ("mESC", "STRING", 2.15),
        ("mESC", "Lofgof", 1.20),
        ("mHSC-L", "Specific", 1.02),
        ("mHSC-L", "Non-Specific", 3.04),
        ("mHSC-L", "STRING", 6.97),
    ],
)
@pytest.mark.filterwarnings("ignore:.*genes of the:UserWarning")
def test_reference_figures(data_dir, cell, network, published):
    adata = datasets.beeline(cell, network, path=data_dir)
    regulators = adata.var["is_regulator"].to_numpy()
    fit = ridge_network(Rows(adata.X), regulators, rho=30.0)
    assert ratio_of(fit.weights, adata.varp["network"], regulators) == pytest.approx(published, abs=0.02, rel=0.01)


@pytest.mark.data
@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_more_gradient_descent_is_worse(data_dir, stride):
    """Early stopping is the regulariser: plain descent on the same loss loses what it had after 20 steps."""
    adata = datasets.beeline("mDC", "STRING", path=data_dir)
    regulators = adata.var["is_regulator"].to_numpy()
    z = Standardised(Rows(adata.X)).take(slice(None))
    step = np.float32(0.5 / np.linalg.eigvalsh(z @ z.T)[-1])
    targets = np.arange(0, z.shape[1], stride)
    own = (targets, np.arange(len(targets)))
    network = adata.varp["network"]
    row, column = universe.pairs(network, regulators).nonzero()
    row, column = row[np.isin(column, targets)], column[np.isin(column, targets)]
    labels = np.asarray(network[row, column]).ravel() > 0
    weights = np.zeros((z.shape[1], len(targets)), dtype=np.float32)
    ratios = {}
    for n_steps in range(1, 1_001):
        weights += step * (z.T @ (z[:, targets] - z @ weights))
        weights[own] = 0
        if n_steps in (20, 1_000):
            ratios[n_steps] = metrics.auprc_ratio(np.abs(weights[row, np.searchsorted(targets, column)]), labels)
    assert ratios[1_000] < ratios[20] - 0.15
    if stride == 1:
        assert ratios[20] == pytest.approx(1.65, abs=0.03)
        assert ratios[1_000] == pytest.approx(1.22, abs=0.03)
