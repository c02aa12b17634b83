import numpy as np
import pytest

from core.errors import ConfigurationError, ShapeError
from features.encoders import minirocket
from features.encoders.files import FittedState, save_state
from features.encoders.minirocket import MiniRocketEncoder
from tests.features.encoders.members import WINDOWS, needs_sktime


@needs_sktime
def test_features_are_those_of_sktimes_own_transformer():
    from sktime.transformations.rocket import MiniRocketMultivariate

    encoder = MiniRocketEncoder(seed=5).fit(WINDOWS)
    turned = np.ascontiguousarray(WINDOWS.values.transpose(0, 2, 1))
    before = np.random.get_state()  # noqa: NPY002  sktime seeds this generator
    features = MiniRocketMultivariate(num_kernels=2_016, random_state=5).fit_transform(turned).to_numpy(dtype=float)
    np.random.set_state(before)  # noqa: NPY002
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    _, _, directions = np.linalg.svd(scaled, full_matrices=False)
    scores = scaled @ directions[:320].T
    expected = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    got = encoder.encode(WINDOWS)
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-4)


@needs_sktime
def test_very_short_windows_are_refused():
    with pytest.raises(ShapeError, match="at least 9 bars, had 8"):
        MiniRocketEncoder().fit(WINDOWS.values[:, :8])


def test_without_sktime_it_says_what_to_install(monkeypatch, tmp_path):
    path = tmp_path / "fit.encoder"
    state = FittedState(name="minirocket", version="1", window_shape=(128, 3), trained_until=None, payload={}, settings={})
    save_state(path, state)
    monkeypatch.setattr(minirocket, "find_spec", lambda name: None)
    for use in (lambda: MiniRocketEncoder().fit(WINDOWS), lambda: MiniRocketEncoder.load(path)):
        with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[minirocket\]'"):
            use()


def test_a_seed_that_sktime_cannot_take_is_refused():
    with pytest.raises(ConfigurationError, match="`seed` must be in"):
        MiniRocketEncoder(seed=-1)
