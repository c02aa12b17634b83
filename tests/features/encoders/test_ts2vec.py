import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError, DataError, MissingDataError
from core.market import load_dataset
from features.encoders import contrastive, get_encoder, registry, sessions
from features.encoders.contrastive import TS2VecSettings
from features.encoders.files import FittedState, load_state, pack_array, save_state
from features.encoders.ts2vec import TS2VecEncoder
from features.windows import rolling_windows
from tests.features.encoders.members import TINY, WINDOWS, needs_torch
from tests.features.panels import build_panel

SHIPPED = registry._SHIPPED / "ts2vec-sp500_20.encoder"
GOLDEN = Path(__file__).with_name("ts2vec_authors.npy")


def golden_windows() -> np.ndarray:
    """Windows of closed form, so that their authors' representation can be kept in a file of 5 kB."""
    bars = np.arange(128.0)
    price = np.stack([0.1 * np.sin(bars / 9), 0.002 * bars, -0.3 * (bars > 64), 0.05 * np.cos(bars / 3) * bars / 128])
    returns = np.diff(price, axis=1, prepend=price[:, :1])
    return np.stack([returns / 0.01, price, np.abs(returns)], axis=2)


def test_the_shipped_encoder_gives_what_the_authors_code_gave_from_its_weights():
    np.testing.assert_allclose(get_encoder("ts2vec").represent(golden_windows()), np.load(GOLDEN), atol=1e-5)


def test_the_shipped_encoder_stopped_learning_long_before_the_seal():
    panel = load_dataset("sp500_20")
    visible = int(panel.n_bars * 0.8)
    for name in registry.PRETRAINED:
        encoder = get_encoder(name)
        assert encoder.window_shape == (128, 3)
        assert encoder.sha256 == registry.PRETRAINED[name]
        assert panel.index[int(visible * 0.6) - 7] < encoder.trained_until <= panel.index[int(visible * 0.6) - 1]


def test_encoding_needs_no_torch():
    script = (
        "import sys, numpy as np\n"
        "from features.encoders import get_encoder\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "encoders = [get_encoder(name) for name in ('ts2vec', 'ts2vec_causal')]\n"
        "windows = np.random.default_rng(0).standard_normal((9, 128, 3))\n"
        "assert all(encoder.encode(windows).shape == (9, 320) for encoder in encoders)\n"
        "print(sorted({'torch', 'ts2vec', 'onnx', 'sktime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_shipped_encoder_tells_turbulent_windows_from_calm_ones():
    panel = build_panel(3_000, 2, gaps=False, bars_only_close=True)
    calm = np.exp(np.log(panel.close[:, 0]) * 0.5)
    turbulent = np.exp(np.log(panel.close[:, 1]) * 1.5)
    windows = rolling_windows(panel.replace(close=np.column_stack([calm, turbulent])), stride=20)
    is_calm = windows.symbol == panel.symbols[0]
    embeddings = get_encoder("ts2vec").encode(windows)
    near = embeddings @ embeddings.T
    apart = np.abs(windows.start[:, None] - windows.start[None, :]) >= 128
    nearest = np.where(apart, near, -2.0).argmax(axis=1)
    assert (is_calm[nearest] == is_calm).mean() > 0.95


def test_threads_do_not_change_an_embedding():
    one, three = (TS2VecEncoder.load(SHIPPED, threads=threads).encode(WINDOWS) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"precision": "fp16"}, "`precision` must be"), ({"threads": -1}, "`threads` must be")],
)
def test_unknown_options_are_refused(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        TS2VecEncoder(**arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hidden": 0}, "`hidden` must be"),
        ({"iterations": 0}, "`iterations` must be"),
        ({"learning_rate": 1.0}, "`learning_rate` must be"),
        ({"patience": 0}, "`patience` must be"),
    ],
)
def test_settings_that_cannot_train_are_refused(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        TS2VecSettings(**arguments)


def test_without_torch_training_and_bf16_say_what_to_install(monkeypatch):
    monkeypatch.setattr(contrastive, "find_spec", lambda name: None)
    monkeypatch.setattr(sessions, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[ts2vec\]'"):
        TS2VecEncoder().fit(WINDOWS)
    with pytest.raises(ConfigurationError, match='use precision="fp32"'):
        TS2VecEncoder.load(SHIPPED, precision="bf16")


@pytest.mark.parametrize("model", [b"", b"not a model"])
def test_a_file_with_a_right_hash_but_no_network_is_refused(model, tmp_path):
    payload = {"centre": pack_array(np.zeros(320, dtype=np.float32))} | ({"model.onnx": model} if model else {})
    state = FittedState(
        name="ts2vec", version="1", window_shape=(128, 3), trained_until=None, payload=payload, settings={"losses": []}
    )
    save_state(tmp_path / "fit", state)
    with pytest.raises(DataError, match=r"no network|cannot run the encoder's network"):
        TS2VecEncoder.load(tmp_path / "fit")


@needs_torch
def test_the_network_equals_the_authors_code_without_its_padded_taps():
    from ts2vec import TS2Vec

    from features.encoders.contrastive import train_network
    from features.encoders.graph import export_network

    values = WINDOWS.values[::5]
    settings = replace(TINY, depth=9)
    trained = train_network(values, settings)
    authors = TS2Vec(3, hidden_dims=8, depth=9, device="cpu")
    authors.net.module.load_state_dict(trained.network.state_dict())
    expected = authors.encode((values - trained.mean) / trained.spread, encoding_window="full_series", batch_size=64)
    model = export_network(trained, 128)
    got = sessions.run_batches(sessions.open_network(model, "fp32"), values, 320, precision="fp32", threads=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert len(model) < 0.7 * 4 * sum(parameter.numel() for parameter in trained.network.parameters())


@needs_torch
def test_the_kept_representations_are_those_of_the_authors_code_whatever_its_padded_taps_hold():
    import onnx
    import torch
    from onnx import numpy_helper
    from ts2vec import TS2Vec

    graph = onnx.load_model_from_string(load_state(SHIPPED).payload["model.onnx"]).graph
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    authors = TS2Vec(3, device="cpu")
    network = authors.net.module
    chance = torch.Generator().manual_seed(0)
    layers = []
    for block in network.feature_extractor.net:
        layers += [layer for layer in (block.projector, block.conv1.conv, block.conv2.conv) if layer is not None]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first, second = (next(node for node in graph.node if node.op_type == kind) for kind in ("MatMul", "Add"))
    with torch.no_grad():
        network.input_fc.weight.copy_(constants[first.input[1]].T)
        network.input_fc.bias.copy_(constants[second.input[1]])
        for layer, node in zip(layers, convolutions, strict=True):
            kept = constants[node.input[1]].squeeze(2)
            whole = torch.randn(layer.weight.shape, generator=chance)
            if kept.shape == whole.shape:
                whole = kept
            else:
                whole[:, :, 1:2] = kept
            layer.weight.copy_(whole)
            layer.bias.copy_(constants[node.input[2]])
    representation = authors.encode(golden_windows(), encoding_window="full_series")
    np.testing.assert_allclose(np.load(GOLDEN), representation, atol=1e-5)


@needs_torch
def test_bf16_points_the_same_way():
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bf16 instructions")
    exact, rounded = TS2VecEncoder.load(SHIPPED), TS2VecEncoder.load(SHIPPED, precision="bf16")
    first, second = exact.represent(WINDOWS), rounded.represent(WINDOWS)
    cosine = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert cosine.min() > 0.9999 and (first != second).any()
    assert (exact.encode(WINDOWS) * rounded.encode(WINDOWS)).sum(axis=1).min() > 0.998


@needs_torch
@pytest.mark.parametrize("causal", [False, True])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(causal, tmp_path):
    import torch

    class Killed(Exception):
        pass

    def kill(said):
        if said.iteration == 50:
            raise Killed

    settings = replace(TINY, iterations=60, hidden=2, depth=2, batch_size=4)
    values = WINDOWS.values[:20, :16]
    whole = contrastive.train_network(values, settings, causal=causal)
    checkpoint = tmp_path / "kept"
    with pytest.raises(Killed):
        contrastive.train_network(values, settings, causal=causal, checkpoint=checkpoint, on_round=kill)
    rounds = []
    resumed = contrastive.train_network(values, settings, causal=causal, checkpoint=checkpoint, on_round=rounds.append)
    assert [(said.iteration, said.iterations) for said in rounds] == [(60, 60)]
    assert resumed.losses == whole.losses and len(whole.losses) == 2
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name
    with pytest.raises(DataError, match="of other windows or settings"):
        contrastive.train_network(values[1:], settings, causal=causal, checkpoint=checkpoint)
    checkpoint.write_bytes(b"half a checkpoint")
    with pytest.raises(DataError, match="cannot be read"):
        contrastive.train_network(values, settings, causal=causal, checkpoint=checkpoint)


@needs_torch
def test_a_training_that_no_longer_improves_stops_early():
    rounds = []
    settings = TS2VecSettings(hidden=1, depth=1, iterations=2_000, patience=1, learning_rate=1e-12, batch_size=2)
    trained = contrastive.train_network(WINDOWS.values[:4, :8], settings, on_round=rounds.append)
    assert len(trained.losses) == len(rounds) < 40
    assert trained.losses[-1] > min(trained.losses) and np.argmin(trained.losses) == len(trained.losses) - 2


@needs_torch
def test_a_single_window_cannot_be_contrasted():
    with pytest.raises(MissingDataError, match="at least 2 windows, got 1"):
        TS2VecEncoder(TINY).fit(WINDOWS.values[:1])


@needs_torch
def test_embeddings_classify_shapes_that_raw_values_cannot():
    rng = np.random.default_rng(1)
    phase = rng.uniform(0, 2 * np.pi, (120, 1))
    angle = 2 * np.pi * np.arange(48) / 12 + phase
    is_square = np.arange(120) % 2 == 1
    waves = np.where(is_square[:, None], np.sign(np.sin(angle)), np.sin(angle) * 2**0.5)
    series = (waves + 0.2 * rng.standard_normal(waves.shape))[:, :, None]
    train, test = np.arange(120) < 60, np.arange(120) >= 60
    encoder = TS2VecEncoder(TS2VecSettings(hidden=16, depth=4, iterations=60, batch_size=8)).fit(series[train])
    embeddings = encoder.encode(series)
    nearest = (embeddings[test] @ embeddings[train].T).argmax(axis=1)
    assert (is_square[train][nearest] == is_square[test]).mean() >= 0.95
