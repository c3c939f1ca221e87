"""simulate_grn: what it plants, what it measures, what it refuses."""

import anndata
import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.metrics import average_precision_score, roc_auc_score

import sctrellis as tr
from sctrellis import settings
from sctrellis._core import record

simulate = tr.datasets.simulate_grn


def effects(adata):
    return adata.varp["truth_effect"].toarray().astype(float)


def levels(adata):
    return adata.X - adata.var["offset"].to_numpy()


def fingerprint(adata):
    network = adata.varp["truth_effect"]
    return network.indptr.tobytes(), network.indices.tobytes(), network.data.tobytes()


def pairs(adata):
    """Mask of candidate pairs: regulators x genes, self pairs left out."""
    mask = np.repeat(adata.var["is_regulator"].to_numpy()[:, None], adata.n_vars, axis=1)
    np.fill_diagonal(mask, False)
    return mask


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("n_confounders", [0, 2])
def test_levels_give_back_the_noise(nonlinear, n_confounders):
    adata = simulate(4000, 30, 8, density=0.2, noise_std=0.7, nonlinear=nonlinear, n_confounders=n_confounders, seed=3)
    x = levels(adata)
    z = x - (np.tanh(x) if nonlinear else x) @ effects(adata)
    if n_confounders:
        z = z - adata.obsm["confounders"] @ adata.varm["confounder_loadings"].T
    z = z / 0.7
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(4000)
    covariance = np.cov(z.T)
    error = (covariance - np.eye(30)) * np.sqrt(4000) / np.sqrt(1 + np.eye(30))
    assert np.abs(error).max() < 5
    assert 0.7 < (error**2).mean() < 1.3
    assert stats.kstest(z.ravel()[::7], "norm").pvalue > 1e-3


@pytest.mark.parametrize("n_confounders", [0, 1])
def test_covariance_matches_the_closed_form(n_confounders):
    n = 5000
    adata = simulate(n, 40, 10, density=0.15, n_confounders=n_confounders, confounder_std=0.8, seed=1)
    total = np.linalg.inv(np.eye(40) - effects(adata))
    noise = np.eye(40)
    if n_confounders:
        loadings = adata.varm["confounder_loadings"].astype(float)
        noise = noise + loadings @ loadings.T
        assert np.mean(loadings**2) == pytest.approx(0.64, rel=0.6)
    expected = total.T @ noise @ total
    variance = (np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n
    error = (np.cov(adata.X.astype(float).T) - expected) / np.sqrt(variance)
    assert np.abs(error).max() < 5.5
    assert 0.5 < (error**2).mean() < 1.7


@pytest.mark.parametrize("options", [{}, {"nonlinear": True}, {"embedding": "informative"}, {"hubs": 2.0}])
@pytest.mark.parametrize("max_radius", [0.2, 0.5])
def test_radius_is_bounded(options, max_radius):
    adata = simulate(20, 60, 20, density=0.3, max_radius=max_radius, **options)
    block = effects(adata)
    block = np.abs(block) if options.get("nonlinear") else block
    radius = np.abs(np.linalg.eigvals(block)).max()
    assert radius == pytest.approx(max_radius, rel=1e-4)
    assert adata.uns["simulate_grn"]["fit"]["spectral_radius"] == pytest.approx(radius, rel=1e-4)


def test_weights_below_the_radius_are_kept():
    values = np.abs(simulate(20, 200, 10, density=0.02, max_radius=0.99, weights=(0.3, 0.8)).varp["truth_effect"].data)
    assert 0.3 <= values.min() < 0.45
    assert 0.65 < values.max() <= 0.8


@pytest.mark.parametrize("density", [0.01, 0.06, 0.5, 1.0])
@pytest.mark.parametrize("positive", [0.0, 0.7, 1.0])
def test_density_and_signs_are_exact(density, positive):
    adata = simulate(5, 80, 12, density=density, positive=positive)
    network = adata.varp["truth_effect"]
    n_edges = round(density * 12 * 79)
    assert network.nnz == adata.varp["truth"].nnz == n_edges == adata.uns["simulate_grn"]["fit"]["n_edges"]
    assert (network.data > 0).sum() == round(positive * n_edges)
    assert (network.data != 0).all()
    assert (adata.varp["truth"].data == 1).all()
    assert network.diagonal().sum() == 0
    sources = np.unique(network.nonzero()[0])
    assert adata.var["is_regulator"].to_numpy()[sources].all()


def test_defaults_are_the_planted_linear_model():
    adata = simulate()
    assert adata.shape == (800, 200)
    assert adata.var["is_regulator"].sum() == 30
    assert adata.varp["truth"].nnz == round(0.06 * 30 * 199)
    assert (adata.varp["truth_effect"].data > 0).mean() == pytest.approx(0.7, abs=0.002)
    assert adata.X.dtype == np.float32
    assert (adata.X.min(axis=0) == 0).all()
    first = np.flatnonzero(adata.var["is_regulator"])
    assert first.max() > 100, "regulators must not stand at the front"


def test_hubs_spread_the_out_degrees():
    def spread(hubs):
        degrees = [
            np.asarray(simulate(2, 200, 30, hubs=hubs, seed=seed).varp["truth"].sum(axis=1)).ravel()
            for seed in range(5)
        ]
        return np.mean([np.sort(d)[-3:].sum() / d.sum() for d in degrees])

    shares = [spread(hubs) for hubs in (0.0, 0.7, 1.5)]
    assert shares[0] < 0.2
    assert np.all(np.diff(shares) > 0.08)


def prior(adata):
    run = record.read(adata, "simulate_grn")
    h = adata.varm["embedding"].astype(float)
    return (h @ run["weights"]["w_regulator"])[:, None] + h @ run["weights"]["w_target"]


def test_informative_embeddings_predict_edges():
    aurocs, auprcs = [], []
    for seed in range(5):
        adata = simulate(5, embedding="informative", seed=seed)
        mask, mu = pairs(adata), prior(adata)
        truth = adata.varp["truth"].toarray()[mask]
        aurocs.append(roc_auc_score(truth, mu[mask]))
        auprcs.append(average_precision_score(truth, mu[mask]))
        assert mu[mask].std() == pytest.approx(1, rel=1e-4)
        assert (adata.varp["truth_effect"].data > 0).all()
        assert truth.mean() == pytest.approx(0.1, abs=1e-3)
    assert min(aurocs) > 0.85
    assert np.mean(auprcs) > 0.5


def test_effects_follow_the_score_of_the_pair():
    adata = simulate(5, embedding="informative", prior_strength=1.0, max_radius=0.99)
    rows, columns = adata.varp["truth_effect"].nonzero()
    size = adata.varp["truth_effect"].data
    mu = prior(adata)[rows, columns]
    expected = 0.5 * (0.4 + mu - mu.min())
    np.testing.assert_allclose(size / size.max(), expected / expected.max(), rtol=1e-4)
    unscored = pairs(adata)
    unscored[rows, columns] = False
    assert prior(adata)[unscored].max() < mu.min()


def test_random_embeddings_know_nothing_of_the_same_cells():
    aurocs = []
    for seed in range(5):
        informed, control = (simulate(40, embedding=kind, seed=seed) for kind in ("informative", "random"))
        assert control.X.tobytes() == informed.X.tobytes()
        assert fingerprint(control) == fingerprint(informed)
        assert "weights" not in control.uns["simulate_grn"]
        h, mask = control.varm["embedding"].astype(float), pairs(control)
        assert abs(np.corrcoef(h.ravel(), informed.varm["embedding"].ravel())[0, 1]) < 0.06
        true = informed.uns["simulate_grn"]["weights"]
        mu = (h @ true["w_regulator"])[:, None] + h @ true["w_target"]
        aurocs.append(roc_auc_score(control.varp["truth"].toarray()[mask], mu[mask]))
    assert abs(np.mean(aurocs) - 0.5) < 0.15


def test_prior_strength_zero_is_uninformative_and_one_is_exact():
    scores = []
    for strength in (0.0, 0.4, 1.0):
        adata = simulate(5, embedding="informative", prior_strength=strength, seed=2)
        mask = pairs(adata)
        scores.append(roc_auc_score(adata.varp["truth"].toarray()[mask], prior(adata)[mask]))
    assert abs(scores[0] - 0.5) < 0.06
    assert scores[0] + 0.1 < scores[1] < scores[2] == 1.0


def test_counts_have_the_expected_library_size_and_noise():
    n, phi = 3000, 0.25
    adata = simulate(n, 40, 8, counts=True, depth=400, depth_std=0.4, dispersion=phi)
    raw = adata.layers["counts"]
    assert isinstance(raw, sparse.csr_matrix)
    assert (raw.data == np.rint(raw.data)).all()
    assert raw.data.min() >= 1
    depth = adata.obs["depth"].to_numpy()
    assert depth.mean() == pytest.approx(400, rel=0.04)
    assert np.log(depth).std() == pytest.approx(0.4, rel=0.06)
    # Levels are the same as without counts, so expectations can be formed independently.
    rate = np.exp(adata.var["log_rate"].to_numpy() + levels(simulate(n, 40, 8)))
    expected = depth[:, None] * rate / rate.sum(axis=1, keepdims=True)
    total = np.asarray(raw.sum(axis=1)).ravel()
    assert np.mean(total / depth) == pytest.approx(1, abs=0.01)
    residual = (raw.toarray() - expected) ** 2 / (expected + phi * expected**2)
    assert residual.mean() == pytest.approx(1, abs=0.03)


def test_no_dispersion_is_poisson():
    adata = simulate(3000, 40, 8, counts=True, dispersion=0, depth=400)
    rate = np.exp(adata.var["log_rate"].to_numpy() + levels(simulate(3000, 40, 8)))
    expected = adata.obs["depth"].to_numpy()[:, None] * rate / rate.sum(axis=1, keepdims=True)
    assert ((adata.layers["counts"].toarray() - expected) ** 2 / expected).mean() == pytest.approx(1, abs=0.02)


def test_counts_are_normalised_as_scanpy_does():
    import scanpy as sc

    adata = simulate(50, 40, 8, counts=True)
    again = anndata.AnnData(adata.layers["counts"].copy())
    sc.pp.normalize_total(again)
    sc.pp.log1p(again)
    np.testing.assert_allclose(adata.X.toarray(), again.X.toarray(), rtol=1e-5)
    assert isinstance(adata.X, sparse.csr_matrix)


def test_dropout_only_adds_zeros_and_spares_high_counts():
    options = {"n_obs": 300, "counts": True, "depth": 1000}
    kept = [simulate(dropout=dropout, **options).layers["counts"] for dropout in (0.0, 0.2, 0.5)]
    zeros = [1 - k.nnz / np.prod(k.shape) for k in kept]
    assert zeros[0] < zeros[1] < zeros[2]
    for more, less in zip(kept[1:], kept[:-1], strict=True):
        np.testing.assert_array_equal(more.data, less.toarray()[more.nonzero()])
    whole = kept[0].toarray()
    lost = (whole > 0) & (kept[2].toarray() == 0)
    assert lost[(whole > 0) & (whole <= 2)].mean() > lost[whole > 20].mean() + 0.2


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_dropout_has_the_mean_asked_for(mean):
    # Where counts are never 0 by chance, every zero is a lost count.
    adata = simulate(300, 50, 10, counts=True, depth=5e5, mean_std=0.2, dispersion=0, dropout=mean)
    assert 1 - adata.layers["counts"].nnz / (300 * 50) == pytest.approx(mean, abs=0.02)


def test_cells_without_a_count_stay_zero():
    adata = simulate(50, 20, 4, counts=True, depth=0.5)
    empty = np.asarray(adata.layers["counts"].sum(axis=1)).ravel() == 0
    assert empty.any()
    assert np.isfinite(adata.X.data).all()
    assert adata.X[empty].nnz == 0
    assert simulate(5, 4, 2, counts=True, depth=1e-12).X.nnz == 0


OPTIONS = [
    {},
    {"nonlinear": True, "n_confounders": 2},
    {"counts": True, "dropout": 0.2, "hubs": 1.0},
    {"embedding": "informative"},
    {"embedding": "random", "counts": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_same_seed_same_bytes(options):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (simulate(40, 50, 10, seed=seed, **options) for seed in (5, 5, 6))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002

    def dense(x):
        return x.toarray().tobytes() if sparse.issparse(x) else x.tobytes()

    assert dense(first.X) == dense(second.X) != dense(other.X)
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)
    for key in first.varm:
        assert first.varm[key].tobytes() == second.varm[key].tobytes() != other.varm[key].tobytes()
    assert first.var.equals(second.var)


@pytest.mark.parametrize(
    "options", [{"n_obs": 300}, {"counts": True}, {"n_confounders": 3}, {"noise_std": 2.0}, {"nonlinear": False}]
)
@pytest.mark.parametrize("embedding", [None, "informative"])
def test_cells_do_not_move_the_network(options, embedding):
    base = simulate(40, 50, 10, embedding=embedding)
    other = simulate(**{"n_obs": 40, "n_vars": 50, "n_regulators": 10, "embedding": embedding} | options)
    assert fingerprint(base) == fingerprint(other)
    assert base.var["is_regulator"].equals(other.var["is_regulator"])
    if embedding:
        assert base.varm["embedding"].tobytes() == other.varm["embedding"].tobytes()


def test_seed_none_is_recorded_and_gives_the_same_again():
    first = simulate(20, 20, 4, seed=None)
    seed = int(first.uns["simulate_grn"]["seed"])
    assert first.uns["simulate_grn"]["params"]["seed"] == seed
    assert simulate(20, 20, 4, seed=seed).X.tobytes() == first.X.tobytes()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("options", OPTIONS)
def test_round_trip(tmp_path, form, options):
    adata = simulate(30, 25, 5, **options)
    path = tmp_path / f"a.{form}"
    getattr(adata, f"write_{form}")(path)
    again = getattr(anndata, f"read_{form}")(path)
    one, two = record.read(adata, "simulate_grn"), record.read(again, "simulate_grn")
    assert one.keys() == two.keys()
    assert sorted(map(str, one["params"].items())) == sorted(map(str, two["params"].items()))
    assert one["fit"] == two["fit"]
    assert fingerprint(adata) == fingerprint(again)
    assert adata.var["is_regulator"].equals(again.var["is_regulator"])
    for slot in ("varm", "obsm"):
        for key in getattr(adata, slot):
            np.testing.assert_array_equal(getattr(adata, slot)[key], getattr(again, slot)[key])


def test_record_holds_the_arguments_as_used():
    params = simulate(20, 30, 5, embedding="informative", counts=True).uns["simulate_grn"]["params"]
    assert (params["density"], params["positive"], params["depth"], params["n_obs"]) == (0.1, 1.0, 30, 20)
    params = simulate(20, 30, 5).uns["simulate_grn"]["params"]
    assert (params["density"], params["positive"], list(params["weights"])) == (0.06, 0.7, [0.3, 0.8])


def test_smallest_worlds():
    for embedding in (None, "informative", "random"):
        tiny = simulate(1, 2, 1, embedding=embedding)
        assert tiny.varp["truth"].nnz == 1
        assert np.isfinite(tiny.varp["truth_effect"].data).all()
    everything = simulate(30, 10, 10, density=1.0)
    assert everything.varp["truth"].nnz == 90
    assert np.isfinite(everything.X).all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_obs": 0}, ValueError, "`n_obs` to be at least 1, found 0"),
        ({"n_obs": 10.0}, TypeError, "`n_obs` to be an integer, found 10.0"),
        ({"n_vars": 1}, ValueError, "`n_vars` to be at least 2"),
        ({"n_vars": "many"}, TypeError, "`n_vars` to be an integer"),
        ({"n_regulators": 201}, ValueError, "`n_regulators` to be at most `n_vars` = 200, found 201"),
        ({"n_regulators": 0}, ValueError, "`n_regulators` to be at least 1"),
        ({"density": 0}, ValueError, r"`density` to lie in \(0, 1\], found 0"),
        ({"density": 6}, ValueError, "`density`"),
        ({"density": float("nan")}, ValueError, "`density`"),
        ({"positive": 1.1}, ValueError, r"`positive` to lie in \[0, 1\]"),
        ({"weights": 0.5}, TypeError, "`weights` to be a pair"),
        ({"weights": (0.8, 0.3)}, ValueError, r"`weights\[1\]` to lie in \[0.8"),
        ({"weights": (-0.3, 0.3)}, ValueError, r"`weights\[0\]`"),
        ({"hubs": -1}, ValueError, "`hubs`"),
        ({"max_radius": 1.0}, ValueError, r"`max_radius` to lie in \(0, 1\)"),
        ({"noise_std": 0}, ValueError, "`noise_std`"),
        ({"noise_std": float("inf")}, ValueError, "`noise_std`"),
        ({"n_confounders": -1}, ValueError, "`n_confounders` to be at least 0"),
        ({"confounder_std": "x"}, TypeError, "`confounder_std` to be a number"),
        ({"counts": True, "depth": 0}, ValueError, "`depth`"),
        ({"counts": True, "dispersion": -0.1}, ValueError, "`dispersion`"),
        ({"counts": True, "dropout": 1.0}, ValueError, r"`dropout` to lie in \[0, 1\)"),
        ({"dropout": 0.1}, ValueError, "pass `counts=True`"),
        ({"counts": "yes"}, ValueError, "`counts` to be one of True, False"),
        ({"embedding": "good"}, ValueError, "`embedding` to be one of None, 'informative', 'random'; found 'good'"),
        ({"embedding": np.zeros((200, 2))}, TypeError, "found ndarray.*pp.gene_embedding"),
        ({"n_dims": 0}, ValueError, "`n_dims`"),
        ({"prior_strength": 2}, ValueError, "`prior_strength`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"seed": 1.5}, TypeError, "`seed`"),
    ],
)
def test_bad_input(options, error, match):
    with pytest.raises(error, match=match):
        simulate(**options)


def test_too_large_a_matrix_is_refused(monkeypatch):
    monkeypatch.setattr(settings, "max_dense_gb", 0.001)
    with pytest.raises(ValueError, match="The simulated matrix needs .* GB.*Lower `n_obs`"):
        simulate(2000, 200)


def test_cells_are_fit_for_every_reader():
    from sctrellis._core import slots

    for options in OPTIONS:
        adata = simulate(60, 50, 10, **{"depth": 2000.0} | options)
        slots.read_matrix(adata)  # warnings are errors: nothing may look scaled, raw or constant
        assert slots.read_regulators(adata).sum() == 10
        assert slots.read_network(adata, "truth").nnz == adata.varp["truth"].nnz
