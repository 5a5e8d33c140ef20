"""Local functions of the ONNX forms: one step of each variant of a neuron, and a delay.

The neurons' are those of `network.dynamics`; product and sum stay two operations, so that each
rounds by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from ...network.contract import Contract
from ...network.neurons import (
    IF,
    Array,
    Cuba,
    Neuron,
    Resetting,
    Spiking,
    Stateful,
    is_driven,
    parameters,
)
from ...network.step_graph import DOMAIN

OPSET = 21


def used_parameters(neuron: Neuron, contract: Contract) -> Mapping[str, Array]:
    """The parameters that make a difference under this contract."""
    unused = set[str]() if is_driven(neuron) else {"gain", "leak"}
    if contract.reset != "value":
        unused.add("v_reset")
    return {name: values for name, values in parameters(neuron).items() if name not in unused}


def _name(neuron: Neuron, contract: Contract) -> str:
    """The neuron and all that sets its variant apart, such as ``LIF_gt_subtract_late_driven``."""
    parts = [type(neuron).__name__]
    if isinstance(neuron, Spiking):
        parts.append(contract.compare)
    if isinstance(neuron, Resetting):
        parts += [contract.reset, *(["late"] if contract.late_reset else [])]
    return "_".join([*parts, *(["driven"] if is_driven(neuron) else [])])


@dataclass
class _Body:
    """The nodes and the equations of a function while they are written down."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)

    def add(self, equation: str, *operations: str) -> None:
        """An equation and the operations that compute it, each ``result = Operator inputs``."""
        self.equations.append(equation)
        for operation in operations:
            output, _, kind, *inputs = operation.split()
            node = helper.make_node(kind, inputs, [output])
            if kind == "Cast":
                node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
            self.nodes.append(node)

    def function(self, name: str, inputs: list[str], outputs: list[str]) -> onnx.FunctionProto:
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_function(DOMAIN, name, inputs, outputs, self.nodes, opsets)
        made.doc_string = "; ".join(self.equations)
        return made


def _drive(body: _Body, neuron: Neuron) -> str:
    """The name of what enters the membrane."""
    current = "current"
    if isinstance(neuron, Cuba):
        body.add(
            "i_next = synaptic_decay*i + synaptic_gain*current",
            "faded = Mul synaptic_decay i",
            "entered = Mul synaptic_gain current",
            "i_next = Add faded entered",
        )
        current = "i_next"
    if not is_driven(neuron):
        return current
    if isinstance(neuron, IF):
        body.add(f"drive = gain*{current}", f"drive = Mul gain {current}")
    else:
        body.add(
            f"drive = gain*{current} + leak",
            f"amplified = Mul gain {current}",
            "drive = Add amplified leak",
        )
    return "drive"


def _membrane(body: _Body, neuron: Neuron, drive: str, u: str) -> None:
    """The membrane ``u`` before the decision."""
    if isinstance(neuron, IF):
        body.add(f"{u} = v + {drive}", f"{u} = Add v {drive}")
    else:
        body.add(f"{u} = decay*v + {drive}", "kept = Mul decay v", f"{u} = Add kept {drive}")


def _fires(body: _Body, u: str, spikes: str, compare: str) -> None:
    sign, kind = (">=", "GreaterOrEqual") if compare == "ge" else (">", "Greater")
    body.add(
        f"{spikes} = {u} {sign} threshold",
        f"{spikes}_fires = {kind} {u} threshold",
        f"{spikes} = Cast {spikes}_fires",
    )


def _late(body: _Body, neuron: Neuron, drive: str, compare: str) -> None:
    """A reset one step late: the spike before is told from the membrane that was kept."""
    _fires(body, "v", "last", compare)
    _membrane(body, neuron, drive, "u")
    body.add("v_next = u - threshold*last", "owed = Mul threshold last", "v_next = Sub u owed")
    _fires(body, "v_next", "spikes", compare)


def _in_step(body: _Body, neuron: Neuron, drive: str, contract: Contract) -> None:
    """A reset in the step of the spike."""
    _membrane(body, neuron, drive, "u")
    _fires(body, "u", "spikes", contract.compare)
    if contract.reset == "value":
        body.add(
            "v_next = u - u*spikes + v_reset*spikes",
            "fallen = Mul u spikes",
            "stayed = Sub u fallen",
            "rest = Mul v_reset spikes",
            "v_next = Add stayed rest",
        )
    else:
        body.add(
            "v_next = u - threshold*spikes",
            "fallen = Mul threshold spikes",
            "v_next = Sub u fallen",
        )


def neuron_function(neuron: Neuron, contract: Contract) -> onnx.FunctionProto:
    """The step of any neuron but a Sum: (current, v, i, parameters) to (value, v_next, i_next),
    states where it has them. Equal variants give equal functions."""
    body = _Body()
    drive = _drive(body, neuron)
    if not isinstance(neuron, Stateful):
        _fires(body, drive, "spikes", contract.compare)
    elif not isinstance(neuron, Resetting):
        _membrane(body, neuron, drive, "membrane")
        body.add("v_next = membrane", "v_next = Identity membrane")
    elif contract.late_reset:
        _late(body, neuron, drive, contract.compare)
    else:
        _in_step(body, neuron, drive, contract)
    states = [name for name, kind in (("v", Stateful), ("i", Cuba)) if isinstance(neuron, kind)]
    return body.function(
        _name(neuron, contract),
        ["current", *states, *used_parameters(neuron, contract)],
        [
            "spikes" if isinstance(neuron, Spiking) else "membrane",
            *(f"{name}_next" for name in states),
        ],
    )


def delay_function() -> onnx.FunctionProto:
    """A delay of one step or more: (what enters, what is under way) to (what comes out, next)."""
    body = _Body()
    constants: dict[str, Any] = {
        "oldest": {"value_int": 0},
        "one": {"value_ints": [1]},
        "end": {"value_ints": [2**31 - 1]},
    }
    body.nodes = [helper.make_node("Constant", [], [n], **value) for n, value in constants.items()]
    body.nodes += [
        helper.make_node("Unsqueeze", ["entering", "one"], ["newest"]),
        helper.make_node("Concat", ["past", "newest"], ["line"], axis=1),
        helper.make_node("Gather", ["line", "oldest"], ["leaving"], axis=1),
        helper.make_node("Slice", ["line", "one", "end", "one"], ["past_next"]),
    ]
    body.equations.append(
        "leaving is the oldest of past; past_next = past without it, and entering"
    )
    return body.function("Delay", ["entering", "past"], ["leaving", "past_next"])
