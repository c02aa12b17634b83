import numpy as np
import pytest
from sklearn.decomposition import PCA

from core.errors import MissingDataError, ShapeError
from features.encoders import get_encoder
from tests.features.encoders.members import WINDOWS


def test_components_equal_those_of_scikit_learn_up_to_sign():
    flat = WINDOWS.values.reshape(len(WINDOWS), -1).astype(float)
    spread = flat.std(axis=0)
    scores = PCA(320, svd_solver="full").fit_transform((flat - flat.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
    expected = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    got = get_encoder("pca").fit(WINDOWS).encode(WINDOWS)
    np.testing.assert_allclose(np.abs(got[:, :50]), np.abs(expected[:, :50]), atol=1e-5)
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-5)


def test_too_few_windows_are_refused_with_advice():
    with pytest.raises(MissingDataError, match=r"at least 321 windows, got 320; use more symbols"):
        get_encoder("pca").fit(WINDOWS.values[:320])


def test_windows_that_repeat_are_refused():
    with pytest.raises(MissingDataError, match="fewer than 320 directions"):
        get_encoder("pca").fit(np.repeat(WINDOWS.values[:100], 5, axis=0))


def test_small_windows_are_refused():
    with pytest.raises(ShapeError, match="at least 320 inputs"):
        get_encoder("pca").fit(WINDOWS.values[:, :100])
