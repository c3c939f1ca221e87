import numpy as np
import pandas as pd
import pytest
from helpers import content
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import sctrellis as tr


def test_images_are_those_of_scikit_learn():
    adata = tr.datasets.digits_demo()
    images, labels = load_digits(return_X_y=True)
    at = adata.obs_names.str.removeprefix("image_").astype(int)
    np.testing.assert_allclose(adata.X * 16, images[at])
    assert (labels[at].astype(str) == adata.obs["digit"].to_numpy()).all()
    assert len(adata) == np.isin(labels, (3, 8)).sum()
    pixel = adata.var.loc["pixel_2_5"]
    assert pixel.tolist() == [2, 5]
    assert adata.var_names.get_loc("pixel_2_5") == 8 * 2 + 5


def test_split_is_stratified_and_seeded():
    adata = tr.datasets.digits_demo()
    table = pd.crosstab(adata.obs["digit"], adata.obs["cell_split"])[["train", "validation", "test"]]
    shares = table.div(table.sum(axis=1), axis=0).to_numpy()
    assert np.abs(shares - [0.64, 0.16, 0.2]).max() < 0.01
    assert content(tr.datasets.digits_demo()) == content(adata)
    assert not tr.datasets.digits_demo(seed=1).obs.equals(adata.obs)
    with pytest.raises(ValueError, match="`seed` to be at least 0"):
        tr.datasets.digits_demo(seed=-1)


def test_eights_can_be_told_from_threes():
    adata = tr.datasets.digits_demo()
    train, test = ((adata.obs["cell_split"] == part).to_numpy() for part in ("train", "test"))
    model = LogisticRegression().fit(adata.X[train], adata.obs["digit"][train])
    assert model.score(adata.X[test], adata.obs["digit"][test]) > 0.95
