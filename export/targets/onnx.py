"""ONNX: one step of the network with its states as inputs and outputs, or all steps in a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ...errors import CouldNotRunError, RequestError
from ...network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Network,
    Scale,
    SumPool,
)
from ...network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Sum, Threshold
from ...network.step_graph import FORMS, Form, file_of, states
from ...network.support import Recurrent, Table, refuse_integers, refuse_unsupported

MOST_STATE = 2**24
"""Numbers a sample that one state of the step graph may hold."""

TABLE: Table = dict.fromkeys(
    (
        *(Dense, Conv, Conv1d, Scale, SumPool, AvgPool, Flatten, Delay, Recurrent),
        *(LIF, IF, LI, CubaLIF, CubaLI, Threshold, Sum),
    )
)


class OnnxTarget:
    """Writes one file, opset 21, float32, batch size free, as `network.step_graph` lays it out.

    Option ``form``: ``step`` writes ``network.onnx``, one step with explicit states; ``scan``
    ``network.scan.onnx``, all steps in one call; ``unrolled`` ``network.unrolled.onnx``, the same
    without control flow, for 16 steps at most.
    """

    name = "onnx"
    table = TABLE
    options: Mapping[str, tuple[str, ...]] = {"form": FORMS}

    def check(self, network: Network) -> None:
        """Raise RequestError: E_UNSUPPORTED for integer arithmetic, E_RANGE for long delays."""
        cannot = "target 'onnx' cannot write"
        refuse_unsupported(network, cannot, TABLE)
        refuse_integers(network, cannot, "integer networks are written by nir and netx")
        for name, shape in states(network).items():
            if math.prod(shape) > MOST_STATE:
                raise RequestError(
                    "E_RANGE",
                    f"{cannot} '{name.partition('.')[2]}': its state holds {math.prod(shape):,} "
                    f"numbers a sample, handed on at every step; expected {MOST_STATE:,} at most",
                )

    def write(
        self, network: Network, folder: Path, options: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Write the file; equal networks give equal bytes.

        Raises RequestError: E_UNSUPPORTED for integer arithmetic, E_NAME when two values would get
        one name, E_RANGE for more steps than are unrolled and above the 2 GiB of an ONNX file;
        CouldNotRunError (E_MISSING) when onnx is not installed.
        """
        self.check(network)
        try:
            from ._onnx_forms import build, describe, encode
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                f"target 'onnx' needs the package onnx ({error}); "
                "install it with pip install 'snnpipe[onnx]'",
            ) from error
        form = cast(Form, options["form"])
        model = build(network, form)
        (folder / file_of(form)).write_bytes(encode(model))
        return {"file": file_of(form), "form": form, **describe(model)}


PLUGIN = OnnxTarget()
