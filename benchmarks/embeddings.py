"""Time window embeddings, in one run: ``python -m benchmarks.embeddings [--json] [--windows N]``.

The peer is the authors' package with the same network and weights, at its best batch size; it needs the extra ``ts2vec`` and is
otherwise not measured, which the run says. Both encode 128-bar windows of three channels in fp32 on one thread, in turns, so
that a slow moment of the machine hits both; ratios are of the best rounds, and of processor time beside. A stream, also on one
thread, is compared with encoding the last window again, by the shipped encoder at its best and by the stream's own batch form;
the goal is for the largest panel, because for few series a bar is mostly the calls themselves; work is in multiplications. The
last part, in a process of its own, fills a vector memory as a worker does, with a thread a core: from the bars in an embedded
server to rows of `signal_embeddings`, with all indexes there; its peak of memory is that process's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.backtest import cpu_model
from benchmarks.features import peak_gib
from core.market import load_dataset
from core.market.panel import Panel
from core.settings import Settings
from core.store import open_store
from core.store.research import DEFAULT_SEALED_FRACTION
from features.encoders.base import DIMS
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.contrastive import TS2VecSettings, train_network
from features.encoders.graph import export_network
from features.encoders.registry import get_encoder
from features.encoders.sessions import open_network, run_batches
from features.encoders.ts2vec import TS2VecEncoder
from features.memory import MemorySpec, refresh_memory
from features.windows import Windows, bar_channels, rolling_windows

ROUNDS, N_TIMED, N_ONES, N_BARS = 5, 256, 30, 400
BATCHES = (8, 16, 32, 64, 128)
SERIES = (1, 20, 500)
N_WINDOWS, N_SAMPLE = 100_000, 4_000
GOALS = {
    "ts2vec_over_aqf": 2.5,
    "ts2vec_over_aqf_batch_of_one": 5.0,
    "reencode_over_stream": 50.0,
    "reencode_over_stream_work": 50.0,
    "rows_per_second": 1_000.0,
}
MEMORY_GOAL_GIB = 1.5
PACKAGES = ("numpy", "onnxruntime", "torch", "ts2vec")

Clocks = tuple[float, float]


def time_rounds(ways: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, Clocks]:
    """Return the best seconds of each way, on the wall and of the processor, taking turns."""
    best = dict.fromkeys(ways, (np.inf, np.inf))
    for _ in range(rounds):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way()
            seconds = (time.perf_counter() - wall, time.process_time() - processor)
            best[name] = (min(best[name][0], seconds[0]), min(best[name][1], seconds[1]))
    return best


def time_peer(windows: Windows) -> dict[str, float]:
    """Return our windows a second and the peer's, and what one window takes, all from the same weights."""
    import torch
    from ts2vec import TS2Vec

    torch.set_num_threads(1)
    values = windows.values[:N_TIMED]
    settings = TS2VecSettings(iterations=1)
    trained = train_network(values[:64], settings)
    peer = TS2Vec(values.shape[2], device="cpu")
    peer.net.module.load_state_dict(trained.network.state_dict())
    scaled = ((values - trained.mean) / trained.spread).astype(np.float32)
    networks = {precision: open_network(export_network(trained, values.shape[1]), precision) for precision in ("fp32",)}

    def ours(part: slice, precision: Any = "fp32") -> Any:
        return run_batches(networks[precision], values[part], DIMS, precision=precision, threads=1)

    def theirs(part: slice, batch: int) -> Any:
        return peer.encode(scaled[part], encoding_window="full_series", batch_size=batch)

    whole = slice(None)
    error = float(np.abs(ours(whole) - theirs(whole, 64)).max())
    ways: dict[str, Callable[[], Any]] = {f"ts2vec {batch}": lambda batch=batch: theirs(whole, batch) for batch in BATCHES}
    ways["aqf"] = lambda: ours(whole)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        networks["bf16"] = open_network(export_network(trained, values.shape[1]), "bf16")
        ways["bf16"] = lambda: ours(whole, "bf16")
    best = time_rounds(ways)
    ones = time_rounds(
        {
            "ts2vec": lambda: [theirs(slice(i, i + 1), 1) for i in range(N_ONES)],
            "aqf": lambda: [ours(slice(i, i + 1)) for i in range(N_ONES)],
        }
    )
    fastest = min(BATCHES, key=lambda batch: best[f"ts2vec {batch}"][0])
    leanest = min(best[f"ts2vec {batch}"][1] for batch in BATCHES)
    figures = {
        "aqf_windows_per_second": N_TIMED / best["aqf"][0],
        "ts2vec_windows_per_second": N_TIMED / best[f"ts2vec {fastest}"][0],
        "ts2vec_batch": float(fastest),
        "ts2vec_over_aqf": best[f"ts2vec {fastest}"][0] / best["aqf"][0],
        "ts2vec_over_aqf_processor_time": leanest / best["aqf"][1],
        "aqf_one_ms": 1e3 * ones["aqf"][0] / N_ONES,
        "ts2vec_one_ms": 1e3 * ones["ts2vec"][0] / N_ONES,
        "ts2vec_over_aqf_batch_of_one": ones["ts2vec"][0] / ones["aqf"][0],
        "ts2vec_over_aqf_batch_of_one_processor_time": ones["ts2vec"][1] / ones["aqf"][1],
        "largest_difference": error,
    }
    if "bf16" in best:
        exact, rounded = ours(whole), ours(whole, "bf16")
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
        figures["bf16_windows_per_second"] = N_TIMED / best["bf16"][0]
        figures["bf16_smallest_cosine"] = float(((exact * rounded).sum(axis=1) / lengths).min())
    return figures


def count_work(encoder: CausalTS2VecEncoder) -> tuple[int, int]:
    """Return the multiplications of a window in the batch form and of a bar in a stream."""
    network, bars = encoder._fitted().network, encoder.window_shape[0]
    step = window = 0
    for layer in (network.entrance, *(layer for pair in network.hidden for layer in pair), *network.last):
        bars -= layer.reach
        step += layer.weight.size
        window += layer.weight.size * bars
    return window, step


def time_stream(panel: Panel) -> dict[str, float]:
    """Return microseconds a series for a new bar by a stream, and for its last window again."""
    causal = get_encoder("ts2vec_causal")
    centred = get_encoder("ts2vec")
    assert isinstance(causal, CausalTS2VecEncoder) and isinstance(centred, TS2VecEncoder)
    centred.threads = 1
    channels = bar_channels(panel)[127:]
    window, step = count_work(causal)
    figures: dict[str, float] = {"reencode_over_stream_work": window / step}
    for n in SERIES:
        bars = np.tile(channels, (1, -(-n // channels.shape[1]), 1))[:, :n]
        stream = causal.stream(n)
        for bar in bars[:128]:
            stream.update(bar)
        last = np.ascontiguousarray(bars[:128].transpose(1, 0, 2))
        n_bars = max(N_BARS // n, 8)
        best = time_rounds(
            {
                "stream": lambda n_bars=n_bars, stream=stream, bars=bars: [stream.update(b) for b in bars[128 : 128 + n_bars]],
                "again": lambda last=last: centred.encode(last),
                "batch form": lambda last=last: causal.encode(last),
            }
        )
        figures[f"stream_us_{n}"] = 1e6 * best["stream"][0] / n_bars / n
        figures[f"reencode_us_{n}"] = 1e6 * best["again"][0] / n
        figures[f"reencode_batch_form_us_{n}"] = 1e6 * best["batch form"][0] / n
        figures[f"reencode_over_stream_{n}"] = figures[f"reencode_us_{n}"] / figures[f"stream_us_{n}"]
    figures["reencode_over_stream"] = figures[f"reencode_over_stream_{SERIES[-1]}"]
    return figures


def build_panel(n_windows: int) -> Panel:
    """Return a random walk of 20 symbols that has at least so many windows of stride 1 before the seal."""
    n_bars = int((-(-n_windows // 20) + 128) / (1 - DEFAULT_SEALED_FRACTION))
    closes = 100.0 * np.cumprod(1.0 + 0.01 * np.random.default_rng(7).standard_normal((n_bars, 20)), axis=0)
    index = pd.bdate_range("2006-01-02", periods=n_bars, tz="UTC")
    return Panel(index=index, symbols=tuple(f"S{i:02d}" for i in range(20)), close=closes)


def time_store(n_windows: int) -> dict[str, float]:
    """Return windows a second from bars to rows, and of encoding alone, and this process's peak of memory."""
    encoder = get_encoder("ts2vec")
    panel = build_panel(n_windows)
    folder = Path(tempfile.mkdtemp(prefix="aqf-bench-"))
    folder.chmod(0o711)
    try:
        with open_store(Settings(home=folder / "home")) as store:
            dataset = store.service.import_dataset(panel, name="walk", source="benchmark", synthetic=True)
            sample = rolling_windows(panel.slice(0, 400), stride=1)
            encoder.encode(sample.values[:64])
            start = time.perf_counter()
            encoder.encode(sample.values[:N_SAMPLE])
            alone = time.perf_counter() - start
            start = time.perf_counter()
            done = refresh_memory(store.researcher, dataset, MemorySpec(encoder="ts2vec", stride=1))
            seconds = time.perf_counter() - start
    finally:
        shutil.rmtree(folder)
    return {
        "n_windows": done.written,
        "rows_per_second": done.written / seconds,
        "encoded_per_second": N_SAMPLE / alone,
        "store_seconds": seconds,
        "peak_gib": peak_gib(),
    }


def run_benchmark(n_windows: int = N_WINDOWS) -> dict[str, Any]:
    """Run everything and return the figures."""
    from importlib.metadata import version

    panel = load_dataset("sp500_20")
    panel = panel.slice(panel.n_bars - 700)
    figures: dict[str, Any] = {}
    if find_spec("torch") and find_spec("ts2vec") and find_spec("onnx"):
        figures |= time_peer(rolling_windows(panel))
    with threadpool_limits(1, user_api="blas"):
        figures |= time_stream(panel)
    command = [sys.executable, "-m", "benchmarks.embeddings", "--store-only", "--windows", str(n_windows)]
    figures |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    figures |= {package: version(package) for package in PACKAGES if find_spec(package)}
    return figures | {"cpu": cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    """Print the figures beside their goals, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--windows", type=int, default=N_WINDOWS, help=f"windows to store (default {N_WINDOWS:,})")
    parser.add_argument("--store-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    figures = time_store(arguments.windows) if arguments.store_only else run_benchmark(arguments.windows)
    if arguments.json or arguments.store_only:
        print(json.dumps(figures, indent=2))
        return
    if "ts2vec_over_aqf" in figures:
        print(f"windows a second on one thread: aqf {figures['aqf_windows_per_second']:,.0f}, ", end="")
        print(f"ts2vec {figures['ts2vec_windows_per_second']:,.0f} in batches of {figures['ts2vec_batch']:.0f}; ", end="")
        print(f"largest difference {figures['largest_difference']:.1e}; one window {figures['aqf_one_ms']:.2f} ms, ", end="")
        print(f"ts2vec {figures['ts2vec_one_ms']:.2f} ms")
        for name in ("ts2vec_over_aqf_processor_time", "ts2vec_over_aqf_batch_of_one_processor_time"):
            print(f"{name:44}{figures[name]:>10.1f}")
    else:
        print("ts2vec was not measured: install the extra ts2vec")
    if "bf16_windows_per_second" in figures:
        print(f"bf16: {figures['bf16_windows_per_second']:,.0f} windows a second, ", end="")
        print(f"smallest cosine {figures['bf16_smallest_cosine']:.5f}")
    for name, goal in GOALS.items():
        if name in figures:
            print(f"{name:44}{figures[name]:>10.1f} (goal {goal:g})")
    for n in SERIES:
        print(f"a new bar of {n} series, each: {figures[f'stream_us_{n}']:,.1f} us; the window again ", end="")
        print(f"{figures[f'reencode_us_{n}']:,.0f} us ({figures[f'reencode_over_stream_{n}']:.0f} times), ", end="")
        print(f"by the stream's batch form {figures[f'reencode_batch_form_us_{n}']:,.0f} us")
    print(f"{figures['n_windows']:,} windows to rows: {figures['store_seconds']:.0f} s; encoding alone ", end="")
    print(
        f"{figures['encoded_per_second']:,.0f} windows a second; peak {figures['peak_gib']:.2f} GiB (goal {MEMORY_GOAL_GIB:g})"
    )
    print(f"{figures['cpu']}, {figures['cores']} cores; Python {figures['python']}, ", end="")
    print(", ".join(f"{package} {figures[package]}" for package in PACKAGES if package in figures))


if __name__ == "__main__":
    main()
