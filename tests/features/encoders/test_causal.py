import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from features.encoders import get_encoder
from features.encoders.causal import CausalTS2VecEncoder, _SlidingMax
from features.encoders.contrastive import TS2VecSettings
from features.encoders.files import FittedState, load_state, save_state, unpack_array
from features.encoders.gelu import gelu
from features.encoders.registry import _SHIPPED
from features.windows import bar_channels, steady_windows
from tests.features.encoders.members import needs_torch
from tests.features.panels import build_panel

PANEL = build_panel(420, 3, gaps=False, bars_only_close=True)
CHANNELS = bar_channels(PANEL)[127:]
WINDOWS = steady_windows(PANEL, stride=1)
ENCODER = get_encoder("ts2vec_causal")


def stream_all(bars: np.ndarray) -> list[np.ndarray | None]:
    stream = ENCODER.stream(bars.shape[1])
    return [stream.update(bar) for bar in bars]


def test_a_stream_gives_what_encoding_each_window_gives():
    streamed = stream_all(CHANNELS)
    assert all(row is None for row in streamed[:127])
    batch = ENCODER.encode(WINDOWS).reshape(3, -1, 320)
    got = np.stack([row for row in streamed if row is not None], axis=1)
    assert got.shape == batch.shape == (3, len(CHANNELS) - 127, 320)
    np.testing.assert_allclose(got, batch, atol=1e-5)


def test_the_network_is_a_causal_ts2vec_by_a_plain_count():
    part = {name: unpack_array(content) for name, content in _shipped().payload.items()}
    window = WINDOWS.values[5].astype(float)

    def gelu(x):
        return x * norm.cdf(x)

    def convolve(x, name, dilation):
        weight, bias = part[f"{name}.weight"].astype(float), part[f"{name}.bias"]
        out = np.full((len(x), weight.shape[2]), np.nan)
        for bar in range((len(weight) - 1) * dilation, len(x)):
            out[bar] = bias + sum(x[bar - (len(weight) - 1 - tap) * dilation] @ weight[tap] for tap in range(len(weight)))
        return out

    x = convolve(window, "entrance", 1)
    for block in range(4):
        x = x + convolve(gelu(convolve(gelu(x), f"{block}.conv1", 2**block)), f"{block}.conv2", 2**block)
    x = convolve(gelu(convolve(gelu(x), "last.conv1", 1)), "last.conv2", 1) + convolve(x, "last.projector", 1)
    assert np.isnan(x[:60]).all() and np.isfinite(x[60:]).all()
    expected = np.nanmax(x, axis=0) - part["centre"]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(ENCODER.encode(window[None])[0], expected, atol=1e-5)


def test_a_stream_forgets_what_came_before_its_window():
    other = CHANNELS.copy()
    other[:50] += 1.0
    same, changed = stream_all(CHANNELS), stream_all(other)
    np.testing.assert_allclose(same[-1], changed[-1], atol=1e-6)
    assert np.abs(same[140] - changed[140]).max() > 1e-3


def test_a_series_that_does_not_move_has_no_embedding():
    bars = CHANNELS.copy()
    bars[10:, 1] = bars[10, 1]
    streamed = stream_all(bars)
    assert np.isfinite(streamed[136]).all()
    for row in streamed[137:]:
        assert np.isnan(row[1]).all() and np.isfinite(row[[0, 2]]).all()


def test_a_refused_bar_leaves_the_stream_as_it_was():
    stream, expected = ENCODER.stream(3), stream_all(CHANNELS)
    gap = CHANNELS[0].copy()
    gap[1, 2] = np.nan
    for position, bar in enumerate(CHANNELS[:140]):
        with pytest.raises(MissingDataError, match="after a gap"):
            stream.update(gap)
        with pytest.raises(ShapeError, match=r"\(3, 3\), had \(2, 3\)"):
            stream.update(bar[:2])
        row = stream.update(bar)
        assert (row is None) == (position < 127)
    np.testing.assert_array_equal(row, expected[139])


def test_a_stream_needs_a_series_and_a_fit():
    with pytest.raises(ConfigurationError, match="`n_series` must be at least 1"):
        ENCODER.stream(0)
    with pytest.raises(MissingDataError, match="not fitted"):
        CausalTS2VecEncoder().stream(1)


def test_gelu_is_exact_to_single_precision():
    x = np.linspace(-10, 10, 39_999, dtype=np.float32).reshape(3, -1)
    np.testing.assert_allclose(gelu(x), x.astype(float) * norm.cdf(x.astype(float)), atol=2e-6)
    assert gelu(x[:, ::2]).shape == (3, 6667)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 9), values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60))
def test_the_sliding_maximum_is_that_of_the_last_values(length, values):
    pool = _SlidingMax(length, (1, 1))
    for position, value in enumerate(values):
        got = pool.step(np.full((1, 1), value, dtype=np.float32))
        assert got == np.float32(max(values[max(0, position - length + 1) : position + 1]))


def test_a_file_with_a_right_hash_but_no_network_is_refused(tmp_path):
    whole = _shipped()
    payload = {name: content for name, content in whole.payload.items() if name != "2.conv2.weight"}
    state = FittedState(
        name=whole.name, version=whole.version, window_shape=(128, 3), trained_until=None, payload=payload, settings={}
    )
    save_state(tmp_path / "fit", state)
    with pytest.raises(DataError, match="does not hold a causal network"):
        CausalTS2VecEncoder.load(tmp_path / "fit")


@needs_torch
def test_the_exported_network_equals_torchs():
    import torch

    from features.encoders.causal import _pack, _represent, _unpack
    from features.encoders.contrastive import train_network

    values = WINDOWS.values[::9]
    trained = train_network(values, TS2VecSettings(hidden=8, depth=3, iterations=3), causal=True)
    scaled = torch.from_numpy(((values - trained.mean) / trained.spread).astype(np.float32))
    with torch.inference_mode():
        expected = trained.network(scaled)[:, 28:].amax(1).numpy()
    np.testing.assert_allclose(_represent(_unpack(_pack(trained)), values), expected, atol=1e-5)


@needs_torch
def test_a_network_that_sees_more_than_a_window_is_refused():
    with pytest.raises(ConfigurationError, match="an output sees 253 bars, a window has 128"):
        CausalTS2VecEncoder(TS2VecSettings(depth=6)).fit(WINDOWS)


def _shipped() -> FittedState:
    return load_state(_SHIPPED / "ts2vec_causal-sp500_20.encoder")
