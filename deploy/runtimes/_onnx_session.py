"""A step graph on onnxruntime, one call per step."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from ...errors import RequestError
from ...network.layers import Network
from ...network.step_graph import current_of, states, value_of
from ...network.trace import Record, Trace
from ..recording import Recorder, run_in_parts

QUIET = 4
"""Log nothing but the end of the process: what else goes wrong comes as an exception."""
ERRORS = (
    refusals.Fail,
    refusals.InvalidArgument,
    refusals.InvalidGraph,
    refusals.InvalidProtobuf,
    refusals.NotImplemented,
    refusals.RuntimeException,
    UnicodeDecodeError,  # a damaged name, met while onnxruntime words its refusal
)


def _threads() -> int:
    """As many as OpenMP would take: OMP_NUM_THREADS, or every processor this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Higher levels may fuse the decayed membrane into a layer's sum (Conv + Add to FusedConv):
    # then even a network whose sums are exact rounds differently.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    return options


def _refused(path: Path, error: Exception) -> RequestError:
    reason = str(error).partition("\n")[0]
    return RequestError("E_ONNX", f"{path}: onnxruntime refuses it: {reason}")


class OnnxSession:
    """One step graph in onnxruntime, with currents and spikes of every layer among its outputs."""

    def __init__(self, network: Network, model: onnx.ModelProto, path: Path) -> None:
        """Raises RequestError (E_ONNX) when onnxruntime does not take the model of ``path``."""
        self._network, self._path = network, path
        self._states = states(network)
        self._outputs = [value.name for value in model.graph.output]
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
        except ERRORS as error:
            raise _refused(path, error) from error

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames (B, *input_shape), shown at every step, or (T, B, *input_shape), to a Trace.

        Raises RequestError: E_INPUT when the shape is not the network's, E_ONNX when the file's
        graph breaks down on the way.
        """
        return run_in_parts(self._network, x, steps, record, steps_held=1, run=self._part)

    def _part(self, frames: NDArray[np.float32], still: bool, recorder: Recorder) -> None:  # noqa: ARG002 - a step graph sees one frame at a time, still or not
        membranes = {
            name: np.zeros((frames.shape[1], *shape), np.float32)
            for name, shape in self._states.items()
        }
        for frame in frames:
            feed = {"x": np.ascontiguousarray(frame), **membranes}
            try:
                values = self._session.run(self._outputs, feed)
            except ERRORS as error:
                raise _refused(self._path, error) from error
            found = dict(zip(self._outputs, values, strict=True))
            membranes = {name: found[f"{name}.next"] for name in membranes}
            for layer in self._network.layers:
                recorder.add(layer, found[current_of(layer)][None], found[value_of(layer)][None])
