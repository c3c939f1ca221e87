"""The structural equation solved on the regulators equals the dense inverse."""

import numpy as np
import pytest
import torch

from sctrellis.models import sem_intervention, sem_logdet, sem_noise, sem_response, spectral_radius


def system(n_regulators=7, n_genes=23, n_cells=11, *, seed=0, radius=0.8, dtype=torch.float64):
    """Noise, regulators' rows with 0 for themselves, and their gene positions in no order."""
    rng = np.random.default_rng(seed)
    regulators = rng.permutation(n_genes)[:n_regulators]
    weights = rng.normal(size=(n_regulators, n_genes))
    weights[np.arange(n_regulators), regulators] = 0
    if n_regulators > 1:
        weights *= radius / np.abs(np.linalg.eigvals(weights[:, regulators])).max()
    z = rng.normal(size=(n_cells, n_genes))
    return torch.tensor(z, dtype=dtype), torch.tensor(weights, dtype=dtype), torch.tensor(regulators)


def dense(weights, regulators):
    """``I - A`` with all genes."""
    n_genes = weights.shape[1]
    selects = torch.zeros(n_genes, len(regulators), dtype=weights.dtype)
    selects[regulators, torch.arange(len(regulators))] = 1
    return torch.eye(n_genes, dtype=weights.dtype) - selects @ weights


SIZES = [(1, 5), (7, 23), (40, 60), (12, 12)]


@pytest.mark.parametrize(("n_regulators", "n_genes"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_dense_inverse_with_its_gradients(n_regulators, n_genes, seed):
    z, weights, regulators = system(n_regulators, n_genes, seed=seed)
    outcome = torch.tensor(np.random.default_rng(seed).normal(size=z.shape))

    def measure(solve):
        x, b = z.clone().requires_grad_(), weights.clone().requires_grad_()
        values = solve(x, b)
        # A loss in which each part's gradient matters.
        total = (values[0] * outcome).sum() + (values[1] ** 2 * outcome).sum() + 3 * values[2]
        return [*values, *torch.autograd.grad(total, (x, b))]

    ours = measure(
        lambda x, b: (sem_noise(x, b, regulators), sem_response(x, b, regulators), sem_logdet(b, regulators))
    )
    theirs = measure(
        lambda x, b: (
            x @ dense(b, regulators),
            x @ torch.linalg.inv(dense(b, regulators)),
            torch.log(torch.abs(torch.linalg.det(dense(b, regulators)))),
        )
    )
    for our, their in zip(ours, theirs, strict=True):
        our, their = our.detach(), their.detach()
        assert float((our - their).abs().max()) <= 1e-10 * max(1.0, float(their.abs().max()))


def test_single_precision_is_close():
    z, weights, regulators = system(40, 60, dtype=torch.float32)
    exact = z.double() @ torch.linalg.inv(dense(weights.double(), regulators))
    got = sem_response(z, weights, regulators)
    assert got.dtype == torch.float32
    assert float((got - exact).abs().max() / exact.abs().max()) <= 1e-4
    logdet = torch.linalg.slogdet(dense(weights.double(), regulators)).logabsdet
    assert float(sem_logdet(weights, regulators)) == pytest.approx(float(logdet), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("n_regulators", "n_genes"), SIZES[1:])
def test_round_trip(n_regulators, n_genes):
    z, weights, regulators = system(n_regulators, n_genes)
    x = sem_response(z, weights, regulators)
    assert float((sem_noise(x, weights, regulators) - z).abs().max()) <= 1e-10
    again = sem_response(sem_noise(z, weights, regulators), weights, regulators)
    assert float((again - z).abs().max()) <= 1e-10


def test_gradients_by_finite_differences():
    z, weights, regulators = system(3, 6, n_cells=2)
    z.requires_grad_()
    weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, b: sem_response(z, b, regulators), (z, weights))
    assert torch.autograd.gradcheck(lambda x, b: sem_noise(x, b, regulators), (z, weights))
    assert torch.autograd.gradcheck(lambda b: sem_logdet(b, regulators), (weights,))


def test_a_loop_of_two_genes_by_hand():
    weights = torch.tensor([[0.0, 0.5, 2.0], [0.25, 0.0, 0.0]], dtype=torch.float64)
    regulators = torch.tensor([0, 1])
    x = sem_response(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), weights, regulators)
    # x0 = 1 + x1 / 4, x1 = x0 / 2, so x0 = 8 / 7.
    assert x.tolist()[0] == pytest.approx([8 / 7, 4 / 7, 16 / 7])
    assert float(sem_logdet(weights, regulators)) == pytest.approx(np.log(7 / 8))


def test_singular_system():
    weights = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert float(sem_logdet(weights, torch.tensor([0, 1]))) == -np.inf
    with pytest.raises(torch.linalg.LinAlgError):
        sem_response(torch.ones(1, 2), weights, torch.tensor([0, 1]))


@pytest.mark.parametrize("n_regulators", [5, 30])
@pytest.mark.parametrize("seed", range(4))
def test_spectral_radius_of_dense_networks(n_regulators, seed):
    _, weights, regulators = system(n_regulators, 2 * n_regulators, seed=seed, radius=1.2)
    radius = np.abs(np.linalg.eigvals(weights[:, regulators].numpy())).max()
    assert spectral_radius(weights, regulators) == pytest.approx(radius, rel=0.1)


def test_spectral_radius_of_a_complex_pair_and_of_a_symmetric_block():
    angle = 0.7
    turn = 0.9 * torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert spectral_radius(turn, torch.arange(2)) == pytest.approx(0.9, rel=1e-6)
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    symmetric = torch.tensor(basis @ np.diag([-1.1, 0.6, 0.5, 0.2, -0.1, 0.0]) @ basis.T)
    assert spectral_radius(symmetric, torch.arange(6)) == pytest.approx(1.1, rel=1e-4)


def test_spectral_radius_reads_the_regulators_own_block_only():
    weights = torch.zeros(2, 5, dtype=torch.float64)
    weights[:, [0, 2, 4]] = 100.0
    weights[0, 1], weights[1, 3] = 0.0, 0.0
    weights[0, 3], weights[1, 1] = 0.5, 0.5
    assert spectral_radius(weights, torch.tensor([1, 3])) == pytest.approx(0.5)


def test_spectral_radius_without_loops_is_zero():
    rng = np.random.default_rng(0)
    acyclic = torch.tensor(np.triu(rng.normal(size=(6, 6)), 1))
    assert spectral_radius(acyclic, torch.arange(6)) == 0.0


@pytest.mark.parametrize(("n_regulators", "n_genes"), [(7, 23), (12, 12)])
def test_an_intervention_solves_the_equations_of_the_free_genes(n_regulators, n_genes):
    _, weights, regulators = system(n_regulators, n_genes)
    sets = ([0], [1, 2], [int(regulators[0]), int(regulators[3]), 5])
    clamped = torch.full((3, n_genes), torch.nan, dtype=weights.dtype)
    for i, genes in enumerate(sets):
        clamped[i, genes] = torch.arange(1, len(genes) + 1, dtype=weights.dtype)
    found = sem_intervention(clamped, weights, regulators)
    effects = torch.eye(n_genes, dtype=weights.dtype) - dense(weights, regulators)
    for i, genes in enumerate(sets):
        cut = effects.clone()
        cut[:, genes] = 0
        expected = clamped[i].nan_to_num() @ torch.linalg.inv(torch.eye(n_genes, dtype=weights.dtype) - cut)
        torch.testing.assert_close(found[i], expected)
    torch.testing.assert_close(found[~clamped.isnan()], clamped[~clamped.isnan()])
    # Where effects die out, many steps end in the steady state; one step is the direct effects.
    torch.testing.assert_close(sem_intervention(clamped, weights, regulators, n_steps=400), found)
    first = sem_intervention(clamped, weights, regulators, n_steps=1)
    torch.testing.assert_close(first[0, 1:], (clamped[0].nan_to_num() @ effects)[1:])


def test_a_clamped_gene_does_not_listen():
    # 0 -> 1 -> 2, both held: 2 follows 1 alone.
    weights, regulators = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 1])
    found = sem_intervention(torch.tensor([[1.0, -1.0, torch.nan]]), weights, regulators)
    assert found.tolist() == [[1.0, -1.0, -3.0]]
