import numpy as np
import pytest
from sklearn.decomposition import PCA

from core.errors import ConfigurationError, MissingDataError, ShapeError
from features.encoders import DIMS, Encoder, get_encoder
from features.windows import rolling_windows
from tests.features.panels import build_panel

WINDOWS = rolling_windows(build_panel(900, 6, gaps=False))


def test_embeddings_have_320_numbers_and_unit_length():
    encoder = get_encoder("pca")
    embeddings = encoder.fit(WINDOWS).encode(WINDOWS)
    assert isinstance(encoder, Encoder)
    assert embeddings.shape == (len(WINDOWS), DIMS) == (len(WINDOWS), 320)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    assert (encoder.name, encoder.dims) == ("pca", 320)


def test_components_equal_those_of_scikit_learn_up_to_sign():
    flat = WINDOWS.values.reshape(len(WINDOWS), -1).astype(float)
    spread = flat.std(axis=0)
    scores = PCA(320, svd_solver="full").fit_transform((flat - flat.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
    expected = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    got = get_encoder("pca").fit(WINDOWS).encode(WINDOWS)
    np.testing.assert_allclose(np.abs(got[:, :50]), np.abs(expected[:, :50]), atol=1e-5)
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-5)


def test_the_same_windows_give_the_same_fit():
    first, second = get_encoder("pca").fit(WINDOWS), get_encoder("pca").fit(WINDOWS.values)
    assert first.sha256 == second.sha256
    np.testing.assert_array_equal(first.encode(WINDOWS), second.encode(WINDOWS))


def test_other_windows_give_another_hash():
    assert get_encoder("pca").fit(WINDOWS).sha256 != get_encoder("pca").fit(WINDOWS.values[:-1]).sha256


def test_a_window_is_encoded_alone_as_in_company():
    encoder = get_encoder("pca").fit(WINDOWS)
    np.testing.assert_allclose(encoder.encode(WINDOWS.values[7:8])[0], encoder.encode(WINDOWS)[7], atol=1e-6)
    assert encoder.encode(WINDOWS.values[:0]).shape == (0, 320)


def test_too_few_windows_are_refused_with_advice():
    with pytest.raises(MissingDataError, match=r"at least 321 windows, got 320; use more symbols"):
        get_encoder("pca").fit(WINDOWS.values[:320])


def test_windows_that_repeat_are_refused():
    with pytest.raises(MissingDataError, match="fewer than 320 directions"):
        get_encoder("pca").fit(np.repeat(WINDOWS.values[:100], 5, axis=0))


def test_nan_small_windows_and_wrong_shapes_are_refused():
    broken = WINDOWS.values.copy()
    broken[3, 4, 0] = np.nan
    with pytest.raises(MissingDataError, match="NaN"):
        get_encoder("pca").fit(broken)
    with pytest.raises(ShapeError, match="at least 320 inputs"):
        get_encoder("pca").fit(WINDOWS.values[:, :100])
    with pytest.raises(ShapeError, match="n_windows, window, n_channels"):
        get_encoder("pca").fit(WINDOWS.values[0])
    fitted = get_encoder("pca").fit(WINDOWS)
    with pytest.raises(ShapeError, match="128, 3"):
        fitted.encode(WINDOWS.values[:, :100])
    with pytest.raises(MissingDataError, match="NaN"):
        fitted.encode(broken)


def test_an_encoder_that_is_not_fitted_says_so():
    with pytest.raises(MissingDataError, match="not fitted"):
        get_encoder("pca").encode(WINDOWS)
    with pytest.raises(MissingDataError, match="not fitted"):
        get_encoder("pca").sha256


@pytest.mark.parametrize("name", ["ts2vec", "minirocket"])
def test_later_encoders_are_refused(name):
    with pytest.raises(ConfigurationError, match="later release"):
        get_encoder(name)


def test_unknown_encoders_are_refused():
    with pytest.raises(ConfigurationError, match="must be"):
        get_encoder("nosuch")
