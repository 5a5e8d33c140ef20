"""Semantics: what a NIR file leaves open, and how each framework would read it.

A NIR file fixes equations in continuous time. How they become steps is the reader's choice: the
step, the decay and the gain it gives, the comparison, the reset and its moment. A semantics names
one such choice; reading under it gives a network whose own contract says all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from .contract import Compare, Contract, InputCoding, Reset
from .node_fields import Params

Wide = NDArray[np.float64]
Accepts = Callable[[str, Params, float], str]
"""Of a node type, its parameters and dt: why the framework cannot read it; empty when it can."""

FOREIGN_TOLERANCE = 1e-6
"""A gain that misses 1 by no more is 1: r and tau of foreign files are often float32."""


@dataclass(frozen=True)
class Semantics:
    """One reading of NIR files.

    ``integrator``: decay 1 - dt/tau (euler), exp(-dt/tau) (exp) or exp(-1/tau), tau in steps.
    ``input_gain`` of LIF, IF and LI: physical r*(1 - decay), for IF r*dt; unit 1; r_ignored as
    physical with r = 1, for IF 1. ``v_reset``: the file's, or zero whatever it says.
    ``refused``: what no point of the contract says and nothing runs.
    """

    contract: Contract
    integrator: Literal["euler", "exp", "exp_steps"] = "euler"
    input_gain: Literal["physical", "unit", "r_ignored"] = "physical"
    v_reset: Literal["file", "zero"] = "file"
    gain_tolerance: float = 0.0
    accepts: Accepts = lambda _kind, _params, _dt: ""
    refused: str = ""

    def decay(self, tau: NDArray[Any]) -> Wide:
        """What is left of a state after one step, float64; ``tau`` in seconds (exp_steps: steps).

        Raises RequestError (E_VALUE) where it leaves [0, 1).
        """
        wide, dt = tau.astype(np.float64), self.contract.dt
        with np.errstate(over="ignore"):  # a tiny tau: the decay is then far below 0
            ratio = 1 / wide if self.integrator == "exp_steps" else dt / wide
        decay: Wide = 1 - ratio if self.integrator == "euler" else np.exp(-ratio)
        single = decay.astype(np.float32)
        if single.min() < 0 or single.max() >= 1:
            worst = wide.min() if single.min() < 0 else wide.max()
            raise RequestError(
                "E_VALUE",
                f"holds {worst:.6g} s, with dt {dt:.6g} s the decay leaves [0, 1)",
            )
        return decay

    def gain(self, r: NDArray[Any], decay: Wide) -> NDArray[np.float32]:
        """The factor on what enters a membrane with this decay (below 1)."""
        unit, ignored = self.input_gain == "unit", self.input_gain == "r_ignored"
        factor = np.ones_like(decay) if unit else (1 - decay) * (1 if ignored else r)
        return self._near_one(factor)

    def gain_without_leak(self, r: NDArray[Any]) -> NDArray[np.float32]:
        """The same for IF, whose equation has no time constant."""
        wide = r.astype(np.float64)
        physical = self.input_gain == "physical"
        return self._near_one(wide * self.contract.dt if physical else np.ones_like(wide))

    def synaptic_gain(self, weight: NDArray[Any], decay: Wide) -> NDArray[np.float32]:
        """The same for r and w_in of neurons with a synaptic current, physical everywhere."""
        return self._near_one(weight * (1 - decay))

    def leak(self, v_leak: NDArray[Any], decay: Wide) -> NDArray[np.float32]:
        """What v_leak adds to a membrane in every step."""
        return (v_leak * (1 - decay)).astype(np.float32)

    def _near_one(self, factor: Wide) -> NDArray[np.float32]:
        near = abs(factor - 1) <= self.gain_tolerance
        with np.errstate(over="ignore"):  # infinite where float32 ends; `check` refuses it
            return np.where(near, 1.0, factor).astype(np.float32)

    def reason(self) -> str:
        """Why nothing can be read under it here; empty when it can."""
        return self.refused or self.contract.refused()

    def summary(self) -> dict[str, str]:
        """What is open in a file, and how this semantics settles it: `check` prints it."""
        contract = self.contract
        decays = {"euler": "1 - dt/tau", "exp": "exp(-dt/tau)", "exp_steps": "exp(-1/tau)"}
        gains = {"physical": "r*(1 - decay), IF r*dt", "unit": "1", "r_ignored": "r taken as 1"}
        late = ", one step late" if contract.late_reset else ""
        resets = {"value": "to v_reset", "subtract": "by subtraction" + late, "none": "none"}
        reset = resets[contract.reset]
        return {
            "dt": f"{contract.dt:g} s",
            "decay": decays[self.integrator],
            "input gain": gains[self.input_gain],
            "fires at": "v > threshold" if contract.compare == "gt" else "v >= threshold",
            "reset": "to 0" if contract.reset == "value" and self.v_reset == "zero" else reset,
            "spikes per step": contract.spikes_per_step,
            "cannot read": self.reason(),
        }


def _is(params: Params, name: str, *wanted: NDArray[Any] | float) -> bool:
    """Whether a parameter is one of these, as closely as foreign files hold it."""
    close = (np.isclose(params[name], value, rtol=FOREIGN_TOLERANCE) for value in wanted)
    return any(bool(np.all(found)) for found in close)


def _snntorch(kind: str, params: Params, dt: float) -> str:
    if kind == "IF":
        return "snnTorch has no IF: its importer makes a neuron with decay 0.9 of it"
    if kind == "CubaLIF" and not _is(params, "r", params["tau_mem"] / dt):
        return "snnTorch takes r of tau_mem/dt only"
    leaks = "v_leak" in params and params["v_leak"].any()
    return "snnTorch has no v_leak" if leaks else ""


def _norse(_kind: str, params: Params, _dt: float) -> str:
    leaks = "v_leak" in params and params["v_leak"].any()
    return "norse starts its membranes at v_leak, which is not run" if leaks else ""


def _spikingjelly(kind: str, params: Params, dt: float) -> str:
    for name in ("v_leak", "v_reset"):
        if name in params and params[name].any():
            return f"SpikingJelly starts its membranes at v_reset, and {name} is not 0"
    if kind == "LIF" and not _is(params, "r", 1.0, params["tau"] / dt):
        return "SpikingJelly takes r of 1 or tau/dt only"
    if kind == "IF" and not _is(params, "r", 1 / dt):
        return "SpikingJelly takes r of 1/dt only"
    if kind == "CubaLIF" and not (
        _is(params, "r", params["tau_mem"] / dt) and _is(params, "w_in", params["tau_syn"] / dt)
    ):
        return "SpikingJelly takes r of tau_mem/dt and w_in of tau_syn/dt only"
    return ""


def _preset(**fields: Any) -> Semantics:
    own = {name: fields.pop(name) for name in _CONTRACT & fields.keys()}
    return Semantics(
        Contract(steps=1, input_coding="events", **own), gain_tolerance=FOREIGN_TOLERANCE, **fields
    )


_CONTRACT = {"dt", "compare", "reset", "reset_time", "spikes_per_step", "v_min"}

PRESETS: Mapping[str, Semantics] = {
    "snnpipe": _preset(),
    "nir-strict": _preset(),
    "snntorch": _preset(
        reset="subtract", reset_time="next_after_decay", v_reset="zero", accepts=_snntorch
    ),
    "snntorch-import": _preset(v_reset="zero", accepts=_snntorch),
    "spikingjelly": _preset(compare="ge", accepts=_spikingjelly),
    "norse": _preset(dt=1e-3, input_gain="r_ignored", v_reset="zero", accepts=_norse),
    "sinabs": _preset(
        dt=1.0,
        integrator="exp_steps",
        input_gain="unit",
        compare="ge",
        reset="subtract",
        spikes_per_step="many",
        v_min="minus_threshold",
    ),
    "lava": _preset(
        refused="Lava hands spikes on one step late from every layer to the next, and drops the "
        "biases of recurrent synapses"
    ),
}
"""Semantics by name. T is 1: no file says it. Inputs are events, one frame a step."""


def named(
    name: str,
    dt: float | None = None,
    compare: Compare | None = None,
    reset: Reset | None = None,
    input_coding: InputCoding | None = None,
) -> Semantics:
    """A preset, single points of it changed. Raises RequestError: E_SEMANTICS, E_CONTRACT for a
    step that is none."""
    found = PRESETS.get(name)
    if found is None:
        raise RequestError(
            "E_SEMANTICS",
            f"there is no semantics '{name}'{nearest(name, PRESETS)}; known: {', '.join(PRESETS)}",
        )
    if reason := found.reason():
        raise RequestError("E_SEMANTICS", f"the semantics '{name}' cannot be run here: {reason}")
    points: dict[str, Any] = {"dt": dt, "compare": compare, "reset": reset}
    points["input_coding"] = input_coding
    changed = {point: value for point, value in points.items() if value is not None}
    if reset == "value":
        changed["reset_time"] = "same_step"
    return replace(found, contract=Contract.from_dict({**found.contract.to_dict(), **changed}))


def readable() -> str:
    """The names under which files can be read here, for a message."""
    names = [n for n, found in PRESETS.items() if not found.reason()]
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def summaries() -> dict[str, str]:
    """Every preset and one line about it, for a list."""

    def line(preset: Semantics) -> str:
        if reason := preset.reason():
            return f"not run here: {reason}"
        found = preset.summary()
        return f"dt {found['dt']}, fires at {found['fires at']}, reset {found['reset']}"

    return {name: line(preset) for name, preset in PRESETS.items()}
