"""An ONNX model on onnxruntime: one call per step, or one for all steps."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from ...errors import RequestError
from ...network.layers import Layer, Network
from ...network.step_graph import Form, at, current_of, states, value_of
from ...network.trace import Record, Trace
from ..recording import Recorder, run_in_parts

QUIET = 4
"""Log nothing but the end of the process: what else goes wrong comes as an exception."""
Values = NDArray[np.float32]
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
    # What is optimised rounds differently, even where a network's sums are exact: a factor behind
    # a convolution is folded into its weights, the decayed membrane joins its sum (FusedConv).
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    return options


def _refused(path: Path, error: Exception) -> RequestError:
    reason = str(error).partition("\n")[0]
    return RequestError("E_ONNX", f"{path}: onnxruntime refuses it: {reason}")


class OnnxSession:
    """One model in onnxruntime, with currents and values of every layer among its outputs."""

    def __init__(self, network: Network, form: Form, model: onnx.ModelProto, path: Path) -> None:
        """Raises RequestError (E_ONNX) when onnxruntime does not take the model of ``path``."""
        self._network, self._form, self._path = network, form, path
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

        Raises RequestError: E_INPUT when the shape is not the network's or ``steps`` not what a
        graph was unrolled for, E_ONNX when the file's graph breaks down on the way.
        """
        trained = self._network.contract.steps
        if self._form == "unrolled" and steps != trained:
            raise RequestError(
                "E_INPUT", f"{self._path} is unrolled for {trained} steps, asked for {steps}"
            )
        if self._form != "step":
            return run_in_parts(
                self._network, x, steps, record, steps_held=steps, run=self._at_once
            )
        # The lines of long delays are states too: as many steps' worth of values as they hold.
        values = sum(layer.size for layer in self._network.layers)
        held = 1 + sum(math.prod(shape) for shape in self._states.values()) // values
        return run_in_parts(self._network, x, steps, record, steps_held=held, run=self._by_steps)

    def _call(self, feed: dict[str, Values]) -> dict[str, Values]:
        try:
            values = self._session.run(self._outputs, feed)
        except ERRORS as error:
            raise _refused(self._path, error) from error
        return dict(zip(self._outputs, values, strict=True))

    def _by_steps(self, frames: Values, still: bool, recorder: Recorder) -> None:  # noqa: ARG002 - a step graph sees one frame at a time, still or not
        kept = {
            name: np.zeros((frames.shape[1], *shape), np.float32)
            for name, shape in self._states.items()
        }
        for frame in frames:
            found = self._call({"x": np.ascontiguousarray(frame), **kept})
            kept = {name: found[f"{name}.next"] for name in kept}
            for layer in self._network.layers:
                current, value = found[current_of(layer)], found[value_of(layer)]
                self._add(recorder, layer, current[None], value[None], frames.shape[1])

    def _at_once(self, frames: Values, still: bool, recorder: Recorder) -> None:  # noqa: ARG002 - the graph wants every step's frame
        steps, samples = frames.shape[:2]
        found = self._call({"x": np.ascontiguousarray(frames)})
        for layer in self._network.layers:
            current, value = (
                found[name]
                if name in found
                else np.stack([found[at(name, t)] for t in range(steps)])
                for name in (current_of(layer), value_of(layer))
            )
            self._add(recorder, layer, current, value, samples)

    def _add(
        self, recorder: Recorder, layer: Layer, current: Values, value: Values, samples: int
    ) -> None:
        """Record steps of a layer, if the graph kept to the batch that it was given."""
        for found in (current, value):
            if found.shape[1:] != (samples, *layer.shape):
                raise RequestError(
                    "E_ONNX",
                    f"{self._path}: layer '{layer.name}' gives values of shape "
                    f"{list(found.shape[1:])}, expected {[samples, *layer.shape]}",
                )
        recorder.add(layer, current, value)
