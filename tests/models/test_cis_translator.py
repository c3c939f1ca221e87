"""The cis surrogate: recovery of planted logic, invariance, ensembles, early stopping by gene."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sctrellis import models
from sctrellis._core import draws
from sctrellis.models import _cis_translator as cis

N_CELLS = 1200


def planted(seed=0, n_cells=N_CELLS):
    """Return five genes of one group with eight peaks each: OR, AND, additive, and two that follow nothing."""
    rng = np.random.default_rng(seed)
    x = (rng.random((n_cells, 40)) < 0.5).astype(np.float32)
    one, two = x[:, 0::8], x[:, 1::8]
    effect = np.zeros((n_cells, 5))
    effect[:, 0] = 1.5 * np.maximum(one, two)[:, 0]
    effect[:, 1] = 1.5 * (one * two)[:, 1]
    effect[:, 2] = 0.8 * (one + two)[:, 2]
    size = rng.lognormal(0, 0.3, n_cells)
    y = rng.poisson(3 * size[:, None] * np.exp(effect)).astype(np.float32)
    links = sparse.csr_matrix(np.kron(np.eye(5), np.ones((1, 8))))
    parts = np.split(np.arange(n_cells), [n_cells * 7 // 10, n_cells * 8 // 10])
    split = dict(zip(("train", "validation", "test"), parts, strict=True))
    return {
        "x": sparse.csr_matrix(x),
        "y": sparse.csr_matrix(y),
        "links": links,
        "groups": np.zeros(n_cells, np.int64),
        "log_size": np.log(size).astype(np.float32),
        "split": split,
    }


def loaded(fit):
    return models.load_translator({"surrogate": fit.surrogate, "weights": fit.weights})


def fall(translator, data, g, removed):
    """Return the predicted fall of the log mean when peaks of a gene's window are closed, over the test cells."""
    cells = data["split"]["test"]
    x = sparse.csr_matrix(data["x"][cells])
    groups, log_size = torch.from_numpy(data["groups"][cells]), torch.from_numpy(data["log_size"][cells])
    closed = x.tolil()
    closed[:, [8 * g + j for j in removed]] = 0
    before, after = (translator.predict(m, g, groups, log_size) for m in (x, closed.tocsr()))
    return float((before - after).mean())


@pytest.fixture(scope="module")
def fitted():
    """One fit to the planted genes."""
    data = planted()
    return data, models.fit_cis_translator(**data, n_runs=2, config=models.CisConfig(n_steps=400))


def test_planted_logic_is_recovered(fitted):
    data, fit = fitted
    translator = loaded(fit)
    x = data["x"][data["split"]["test"]].toarray()
    cases = [
        # gene, closed peaks, true fall of the log mean in each cell
        (0, [0], 1.5 * x[:, 0] * (1 - x[:, 1])),
        (0, [0, 1], 1.5 * np.maximum(x[:, 0], x[:, 1])),
        (1, [0], 1.5 * x[:, 8] * x[:, 9]),
        (1, [0, 1], 1.5 * x[:, 8] * x[:, 9]),
        (2, [0], 0.8 * x[:, 16]),
        (2, [0, 1], 0.8 * (x[:, 16] + x[:, 17])),
    ]
    for g, removed, true in cases:
        assert fall(translator, data, g, removed) == pytest.approx(true.mean(), rel=0.2), (g, removed)
    for g in (3, 4):
        assert abs(fall(translator, data, g, range(8))) < 0.2
    lengths = np.linalg.norm(fit.weights["effect"], axis=1).reshape(5, 8)
    assert lengths[:3, :2].min() > 4 * lengths[:3, 2:].max()


def test_genes_and_peaks_can_be_permuted_and_selected():
    data = planted(n_cells=200)
    config = models.CisConfig(max_epochs=4, n_hidden=4, batch_size=64)
    names = draws.hashes(f"gene{i}" for i in range(5)), draws.hashes(f"peak{j}" for j in range(40))
    plain = models.fit_cis_translator(**data, config=config, gene_keys=names[0], peak_keys=names[1])
    rng = np.random.default_rng(1)
    genes, peaks = rng.permutation(5), rng.permutation(40)
    changed = {**data, "x": data["x"][:, peaks], "y": data["y"][:, genes], "links": data["links"][genes][:, peaks]}
    permuted = models.fit_cis_translator(**changed, config=config, gene_keys=names[0][genes], peak_keys=names[1][peaks])
    alone = {**data, "links": sparse.csr_matrix(data["links"].toarray() * (np.arange(5) == 2)[:, None])}
    single = models.fit_cis_translator(**alone, config=config, gene_keys=names[0], peak_keys=names[1])
    expected = loaded(plain).predict_all(data["x"], data["groups"], data["log_size"])
    found = loaded(permuted).predict_all(changed["x"], data["groups"], data["log_size"])
    np.testing.assert_allclose(found, expected[:, genes], atol=1e-4)
    np.testing.assert_allclose(
        loaded(single).predict_all(data["x"], data["groups"], data["log_size"])[:, 0], expected[:, 2], atol=1e-4
    )


def test_blocks_of_genes_change_nothing(monkeypatch):
    data = planted(n_cells=200)
    config = models.CisConfig(max_epochs=3, n_hidden=4, batch_size=64)
    null = np.random.default_rng(0).permuted(np.tile(np.arange(200), (2, 1)), axis=1)
    whole = models.fit_cis_translator(**data, config=config, null_rows=null)
    monkeypatch.setattr(cis, "_BLOCK", 2 * 64 * 5 * 4)  # two genes at a time
    parts = models.fit_cis_translator(**data, config=config, null_rows=null)
    for name, value in whole.weights.items():
        np.testing.assert_allclose(parts.weights[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(parts.null, whole.null, atol=1e-5)
    assert list(parts.history) == list(whole.history)
    for part, values in whole.history.items():
        np.testing.assert_allclose(parts.history[part], values, rtol=1e-4, err_msg=part)


def test_an_ensemble_is_the_mean_of_its_runs():
    data = planted(n_cells=200)
    config = models.CisConfig(max_epochs=4, n_hidden=4, batch_size=64)
    both = models.fit_cis_translator(**data, config=config, n_runs=2)
    first = models.fit_cis_translator(**data, config=config, n_runs=1)
    inputs = (data["x"], data["groups"], data["log_size"])
    width = first.weights["bias"].shape[1]
    assert both.weights["bias"].shape[1] == 2 * width
    np.testing.assert_allclose(both.weights["effect"][:, :width], first.weights["effect"], atol=1e-5)
    # The second run alone: its own units at full weight, and what is left of the mean intercept.
    second = {**both.weights}
    for name in ("effect", "bias", "output"):
        second[name] = both.weights[name][:, width:] * (2 if name == "output" else 1)
    second["intercept"] = 2 * both.weights["intercept"] - first.weights["intercept"]
    other = models.load_translator({"surrogate": both.surrogate, "weights": second})
    mean = (loaded(first).predict_all(*inputs) + other.predict_all(*inputs)) / 2
    np.testing.assert_allclose(loaded(both).predict_all(*inputs), mean, atol=1e-4)
    assert np.abs(loaded(first).predict_all(*inputs) - mean).max() > 1e-3


def test_permuted_pairs_teach_nothing():
    data = planted(n_cells=600)
    rng = np.random.default_rng(0)
    null = np.stack([np.concatenate([rng.permutation(part) for part in data["split"].values()])])
    fit = models.fit_cis_translator(**data, n_runs=1, null_rows=null, config=models.CisConfig(n_steps=200))
    cells = data["split"]["test"]
    true = loaded(fit).predict_all(data["x"], data["groups"], data["log_size"])[cells] - data["log_size"][cells, None]
    observed = np.log1p(data["y"].toarray() / np.exp(data["log_size"])[:, None])
    for g in range(3):
        assert np.corrcoef(true[:, g], observed[cells, g])[0, 1] > 0.4
        assert abs(np.corrcoef(fit.null[0][:, g], observed[null[0, cells], g])[0, 1]) < 0.3
        assert fit.null[0][:, g].std() < 0.5 * true[:, g].std()


def test_each_gene_keeps_its_best_state():
    data = planted(n_cells=200)
    short = models.CisConfig(max_epochs=30, n_hidden=8, batch_size=64, lr=0.05)
    fit = models.fit_cis_translator(**data, n_runs=1, config=short)
    best = fit.fit["best_epoch"][:, 0]
    assert best.shape == (5,)
    assert len(set(best.tolist())) > 1  # genes stop apart
    assert best[3:].max() < 29  # what cannot be learnt is not learnt to the end
    # Training no further than the best epoch of a gene gives that gene's weights.
    until = models.CisConfig(max_epochs=int(best[3]) + 1, n_hidden=8, batch_size=64, lr=0.05)
    again = models.fit_cis_translator(**data, n_runs=1, config=until)
    np.testing.assert_array_equal(again.weights["bias"][3], fit.weights["bias"][3])
    np.testing.assert_array_equal(again.weights["effect"][24:32], fit.weights["effect"][24:32])


@pytest.mark.parametrize("likelihood", ["nb", "gaussian"])
def test_the_loss_is_the_likelihood(likelihood):
    """The misfit differs from the negative log-likelihood by what depends on the data alone."""
    from scipy import stats

    rng = np.random.default_rng(0)
    n = 50
    y = rng.poisson(3, (n, 1)).astype(np.float32)
    log_size = rng.normal(0, 0.2, n).astype(np.float32)
    config = models.CisConfig(likelihood=likelihood, group_lasso=0.0, n_hidden=2)
    targets = cis._Targets(sparse.csr_matrix(y), log_size, np.arange(n)[None], 1)
    groups = np.zeros(n, np.int64)
    start = cis._start(targets, groups, np.arange(n), config)
    start |= {"effect": np.ones((1, 1, 2), np.float32), "bias": np.zeros((1, 1, 2), np.float32)}
    columns = sparse.csr_matrix((rng.random((n, 1)) < 0.5).astype(np.float32))
    values = []
    for weight in (0.1, 0.7):
        start["output"] = np.full((1, 1, 2), weight, np.float32)
        module = cis._CisModule(columns, np.array([0]), targets, groups, start, config)
        found = float(module.losses(torch.arange(n), torch.Generator(), 0.0)["misfit"].detach())
        log_mean = start["intercept"][0, 0] + 2 * weight * columns.toarray()[:, 0]
        if likelihood == "nb":
            mean = np.exp(log_mean + log_size)
            exact = -stats.nbinom.logpmf(y[:, 0], 8.0, 8.0 / (8.0 + mean)).mean()
        else:
            exact = -stats.norm.logpdf(y[:, 0], log_mean, np.sqrt(y.var())).mean()
        values.append((found, exact))
    assert values[1][0] - values[0][0] == pytest.approx(values[1][1] - values[0][1], rel=1e-4)
    assert abs(values[1][0] - values[0][0]) > 0.01


def test_the_dispersion_can_be_learnt():
    data = planted()
    rng = np.random.default_rng(0)
    mean = 5 * np.exp(data["log_size"])[:, None] * np.ones((1, 5))
    data["y"] = sparse.csr_matrix(rng.poisson(mean * rng.gamma(2.0, 0.5, mean.shape)).astype(np.float32))
    fit = models.fit_cis_translator(**data, n_runs=1, config=models.CisConfig(theta=None, n_steps=300))
    np.testing.assert_allclose(fit.theta, 2.0, rtol=0.3)


def test_soft_accessibility_is_read():
    data = planted(n_cells=200)
    config = models.CisConfig(max_epochs=3, n_hidden=4, batch_size=64)
    soft = data["x"].copy()
    soft.data[:] = np.random.default_rng(0).random(soft.nnz)
    fits = [models.fit_cis_translator(**{**data, "x": x}, config=config) for x in (data["x"], soft)]
    assert np.abs(fits[0].weights["effect"] - fits[1].weights["effect"]).max() > 1e-3
