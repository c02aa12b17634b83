"""A trained TS2Vec network as an ONNX graph over windows of one length, and back as plain arrays.

Hides ONNX. Promises the network's own output, pooled over the whole window, from less work: a tap of a convolution that is
dilated by the window's length or more only ever touches padding, so it is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.encoders.contrastive import TrainedNetwork

INPUT, OUTPUT = "windows", "representation"
_OPSET, _IR = 20, 10


def export_network(trained: TrainedNetwork, window: int) -> bytes:
    """Write a centred network as an ONNX model.

    Parameters
    ----------
    trained : TrainedNetwork
        Of centred convolutions. The scale of its inputs becomes part of its first layer.
    window : int
        Bars in a window.

    Returns
    -------
    bytes
        A model that maps ``windows`` of shape (n, window, n_channels) to ``representation`` of shape (n, 320), float32:
        the largest value of each output over the window.

    Notes
    -----
    Convolutions are written with two spatial axes, one of length 1, because onnxruntime has faster kernels for those.
    """
    weight = _numbers(trained.network.input_fc.weight) / trained.spread
    bias = _numbers(trained.network.input_fc.bias) - weight @ trained.mean
    graph = _Graph()
    x = graph.add("Add", graph.add("MatMul", INPUT, graph.constant(weight.T)), graph.constant(bias))
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    x = graph.add("Unsqueeze", x, graph.integers(2))
    for block in trained.network.feature_extractor.net:
        skip = x if block.projector is None else _add_convolution(graph, x, block.projector, window)
        x = _add_convolution(graph, graph.add("Gelu", x), block.conv1.conv, window)
        x = _add_convolution(graph, graph.add("Gelu", x), block.conv2.conv, window)
        x = graph.add("Add", x, skip)
    x = graph.add("ReduceMax", x, graph.integers(2, 3), keepdims=0)
    return graph.serialise(x, (window, weight.shape[1]), len(trained.network.feature_extractor.net[-1].conv2.conv.bias))


def _add_convolution(graph: _Graph, x: str, convolution: Any, window: int) -> str:
    weight, bias = _numbers(convolution.weight), _numbers(convolution.bias)
    dilation = convolution.dilation[0]
    if weight.shape[2] > 1 and dilation >= window:
        weight = weight[:, :, 1:2]
    reach = dilation * (weight.shape[2] // 2)
    return graph.add(
        "Conv",
        x,
        graph.constant(weight[:, :, None]),
        graph.constant(bias),
        kernel_shape=[1, weight.shape[2]],
        dilations=[1, dilation],
        pads=[0, reach, 0, reach],
    )


def _numbers(parameter: Any) -> npt.NDArray[np.float64]:
    array: npt.NDArray[np.float64] = parameter.detach().cpu().double().numpy()
    return array


class _Graph:
    """Collects nodes and constants under names of their own."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: npt.NDArray[np.float64]) -> str:
        return self._keep(np.ascontiguousarray(array, dtype=np.float32))

    def integers(self, *values: int) -> str:
        return self._keep(np.array(values, dtype=np.int64))

    def _keep(self, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def serialise(self, result: str, window_shape: tuple[int, int], dims: int) -> bytes:
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [result], [OUTPUT]))
        graph = helper.make_graph(
            self._nodes,
            "ts2vec",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *window_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", dims])],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
        written: bytes = model.SerializeToString(deterministic=True)
        return written
