"""Runs an exported network over windows: onnxruntime in fp32, or torch in bf16.

Hides batches and threads. Promises that neither changes a result by more than rounding. Both libraries are imported when
they are first needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, DataError
from features.encoders.graph import INPUT, OUTPUT

Precision = Literal["fp32", "bf16"]
Batch = npt.NDArray[np.float32]
RunBatch = Callable[[Batch], Batch]

_BATCH = {"fp32": 8, "bf16": 32}


def open_network(model: bytes, precision: Precision) -> RunBatch:
    """Return what maps a batch of windows to representations, on one thread.

    Raises
    ------
    ConfigurationError
        If the precision is unknown, or this machine cannot do bf16.
    DataError
        If the model cannot be run.

    Notes
    -----
    onnxruntime has no bf16 kernels for processors (its `Conv` refuses the type and `MatMul` is not implemented for it), so
    bf16 goes through torch, and needs it. There only the convolutions are bf16: with the first layer and the sums over
    blocks in bf16 too, cosines to fp32 fall to 0.9998.
    """
    if precision == "fp32":
        return _open_onnxruntime(model)
    if precision == "bf16":
        return _open_torch(model)
    raise ConfigurationError(f'`precision` must be "fp32" or "bf16", was {precision!r}.')


def run_batches(run: RunBatch, values: npt.NDArray[np.floating], dims: int, *, precision: Precision, threads: int) -> Batch:
    """Run a network over all windows in batches that fit the processor's cache.

    Parameters
    ----------
    run : callable
        As `open_network` returns it.
    values : ndarray of shape (n_windows, window, n_channels)
    dims : int
        Width of a representation.
    precision : {"fp32", "bf16"}
    threads : int
        Batches in flight; 0 for as many as the machine has cores.

    Returns
    -------
    ndarray of shape (n_windows, dims), float32
    """
    if threads < 0:
        raise ConfigurationError(f"`threads` must be 0 (all cores) or more, was {threads}.")
    out = np.empty((len(values), dims), dtype=np.float32)
    size = _BATCH[precision]

    def fill(start: int) -> None:
        part = slice(start, start + size)
        out[part] = run(np.ascontiguousarray(values[part], dtype=np.float32))

    starts = range(0, len(values), size)
    workers = min(threads or os.cpu_count() or 1, len(starts))
    if workers <= 1:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(fill, starts):
                pass
    return out


def _open_onnxruntime(model: bytes) -> RunBatch:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.NotImplemented) as error:
        raise DataError(f"onnxruntime cannot run the encoder's network: {error}; fit the encoder again.") from error
    names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    if names != [INPUT, OUTPUT]:
        raise DataError(f"the encoder's network must map {INPUT} to {OUTPUT}, names {names}; fit the encoder again.")

    def run(batch: Batch) -> Batch:
        result: Batch = session.run(None, {INPUT: batch})[0]
        return result

    return run


def _open_torch(model: bytes) -> RunBatch:
    if find_spec("torch") is None or find_spec("onnx") is None:
        raise ConfigurationError(
            "bf16 needs torch and onnx, because onnxruntime cannot do it on a processor: "
            "pip install 'agentic-quantitative-framework[ts2vec]', or use precision=\"fp32\"."
        )
    import onnx
    import torch
    from onnx import helper, numpy_helper

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise ConfigurationError('this processor has no bf16 instructions; use precision="fp32".')
    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            constants.update({name: constants[name].bfloat16() for name in node.input[1:]})
    steps = [
        (node, {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}) for node in graph.node
    ]
    operators: dict[str, Callable[..., Any]] = {
        "Add": torch.add,
        "MatMul": torch.matmul,
        "Gelu": lambda x: torch.nn.functional.gelu(x.bfloat16()),
        "Identity": lambda x: x,
        "Transpose": lambda x, perm: x.permute(perm),
        "Unsqueeze": lambda x, axes: x.unsqueeze(int(axes)),
        "ReduceMax": lambda x, axes, keepdims: x.amax(tuple(axes.tolist())),
        "Conv": lambda x, weight, bias, kernel_shape, dilations, pads: torch.nn.functional.conv2d(
            x.bfloat16(), weight, bias, padding=tuple(pads[:2]), dilation=tuple(dilations)
        ),
    }

    def run(batch: Batch) -> Batch:
        known = dict(constants)
        known[INPUT] = torch.from_numpy(batch)
        with torch.inference_mode():
            for node, attributes in steps:
                known[node.output[0]] = partial(operators[node.op_type], **attributes)(*(known[name] for name in node.input))
        result: Batch = known[OUTPUT].float().numpy()
        return result

    return run
