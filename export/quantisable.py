"""What can become Loihi integers, and in which of several ways: settings and refusals by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import RequestError
from ..network.check_integer import TABLE as INTEGERS
from ..network.contract import Grid
from ..network.dynamics import DECAY_UNITS
from ..network.layers import Layer, Network, Scale
from ..network.neurons import IF, LIF, CubaLIF, Resetting, decay_of, is_driven
from ..network.support import Table

FirstLayer = Literal["host", "graded"]
Scaling = Literal["mse", "flips"]
Thresholds = Literal["layer", "channel"]
ChipName = Literal["loihi1", "loihi2"]
CHOICES = {
    "first_layer": FirstLayer,
    "scaling": Scaling,
    "thresholds": Thresholds,
    "chip": ChipName,
}
"""What the settings can be, the default first."""

TABLE: Table = {**INTEGERS, Scale: None}
"""What `quantise` brings to integers: pools and scales are given weights."""
GRADED_MAX = 255
"""A graded spike carries a byte."""


@dataclass(frozen=True)
class Settings:
    """How a network becomes integers.

    ``first_layer``: an analog frame is turned into currents by the host, or enters as graded
    spikes; of events nothing changes. ``scaling``: scales of least squared error of the weights, or
    of the fewest changed spikes on calibration inputs. ``thresholds``: one scale for a layer, or
    one for each channel, on Loihi 1 at most as many to a core as it holds thresholds.
    """

    weight_bits: int = 8
    first_layer: FirstLayer = "host"
    scaling: Scaling = "mse"
    thresholds: Thresholds = "layer"
    chip: ChipName = "loihi1"

    def __post_init__(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise RequestError("E_RANGE", f"weight bits must be 2 to 8, found {self.weight_bits}")
        for name, kind in CHOICES.items():
            found, known = getattr(self, name), get_args(kind)
            if found not in known:
                raise RequestError(
                    "E_OPTION", f"{name} is {found!r}; expected one of {', '.join(known)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def refused(layer: Layer, what: str) -> RequestError:
    """That Loihi's integers cannot hold a layer, and why."""
    return RequestError("E_UNSUPPORTED", f"target 'lava' cannot hold layer '{layer.name}': {what}")


def check_contract(network: Network, settings: Settings) -> None:
    """Raise RequestError (E_UNSUPPORTED) for a contract that the settings' chip cannot keep."""
    contract = network.contract
    if not isinstance(contract.arithmetic, Grid):
        already = contract.arithmetic.kind == "integer"
        raise RequestError(
            "E_UNSUPPORTED",
            "target 'lava' starts from a network on the grid; "
            + (
                "this one is in Loihi integers already: use target nir"
                if already
                else "this one has float32 weights: export its run, which rounds them"
            ),
        )
    if contract.compare != "gt":
        raise RequestError(
            "E_UNSUPPORTED",
            f"Loihi fires above the threshold; this network says compare {contract.compare}",
        )
    if contract.late_reset or contract.reset not in ("value", "subtract"):
        raise RequestError(
            "E_UNSUPPORTED",
            "Loihi resets in the step of the spike; this network says reset "
            f"{contract.reset}, {contract.reset_time}",
        )
    spiking = [layer for layer in network.layers if isinstance(layer.neuron, Resetting)]
    if contract.reset == "subtract" and settings.chip == "loihi1" and spiking:
        raise refused(
            spiking[0],
            "the network says reset subtract, and Loihi 1 resets to zero; choose chip loihi2, or "
            "train with reset value",
        )
    if settings.first_layer == "graded" and contract.input_coding == "direct":
        if settings.chip == "loihi1":
            raise RequestError(
                "E_UNSUPPORTED",
                "Loihi 1 has no graded spikes: choose first layer host, or chip loihi2",
            )
        if contract.input_levels > GRADED_MAX:
            raise RequestError(
                "E_UNSUPPORTED",
                f"the input has levels up to {contract.input_levels}, a graded spike carries "
                f"{GRADED_MAX} at most: first layer host",
            )


def check_layer(network: Network, layer: Layer, host: bool) -> None:
    """Raise RequestError (E_UNSUPPORTED) for a layer that cannot become integers; ``host``: the
    host computes its current."""
    neuron = layer.neuron
    if isinstance(neuron, Resetting):
        if is_driven(neuron):
            raise refused(layer, "its current has a gain or a leak")
        decays = [decay_of(neuron)]
        decays += [neuron.synaptic_decay] if isinstance(neuron, CubaLIF) else []
        if any((d * np.float64(DECAY_UNITS) % 1).any() or (d < 0).any() for d in decays):
            raise refused(layer, "its decay is not a multiple of 1/4096")
        if isinstance(neuron, CubaLIF) and (neuron.synaptic_decay >= 1).any():
            raise refused(layer, "its synaptic current never decays")
        if neuron.v_reset.any():
            raise refused(layer, "it resets to a value other than zero")
    if not host:
        return
    if {synapse.source for synapse in layer.synapses} != {network.input}:
        raise refused(layer, "it joins the analog input with spikes; choose first layer graded")
    if isinstance(neuron, CubaLIF):
        raise refused(
            layer,
            "the host writes biases, and those go past its synaptic current; choose first layer "
            "graded",
        )
    if not isinstance(neuron, LIF | IF):
        raise refused(layer, "a read-out fed by the analog input leaves nothing to run on the chip")
