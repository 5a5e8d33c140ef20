"""Samples one after another through Lava's published processes, in its real runtime.

Neurons are `LIFReset`, connections `Dense`, `DelayDense` and `Conv`, the input a `RingBuffer`, and
`Reset` clears what must not reach the next sample; only the recorders are ours. See `wired` for the
request; its ``batch`` is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .frames import Arrays
from .wired import Clock, run_wired

_GRADED_BITS = 24
"""More than 0 bits of a message: values are taken as they are, and not for spikes."""


class _Published:
    """Lava's own processes."""

    front: tuple[int, ...] = ()

    def stream(self, facts: Mapping[str, Any], values: Any, clock: Clock) -> Any:
        from lava.proc.io.source import RingBuffer

        data = np.zeros((*values.shape[2:], clock.total), np.int32)
        for sample in range(clock.samples):
            for step in range(clock.steps):
                at = facts["lag"] + sample * clock.steps + step
                data[..., at] = values[step % len(values), sample]
        return RingBuffer(data=data).s_out

    def connection(self, facts: Mapping[str, Any], weight: Any, clock: Clock) -> tuple[Any, Any]:
        made = _dense(facts, weight) if facts["kind"] == "dense" else _conv(facts, weight)
        buffer = made.a_buff if facts["kind"] == "dense" else made.a_buf
        for end in sorted({(end - 1) % clock.steps for end in facts["cleared"]}):
            from lava.proc.io.reset import Reset

            Reset(interval=clock.steps, offset=end).connect_var(buffer)
        return made.s_in, made.a_out


def _bits(facts: Mapping[str, Any]) -> int:
    return _GRADED_BITS if facts["graded"] else 0


def _dense(facts: Mapping[str, Any], weight: Any) -> Any:
    from lava.proc.dense.process import DelayDense, Dense

    given = {"weight_exp": facts["exponent"], "num_message_bits": _bits(facts)}
    whole = weight.astype(int)
    if not facts["delay"]:
        return Dense(weights=whole, **given)
    return DelayDense(weights=whole, delays=np.full(whole.shape, facts["delay"]), **given)


def _conv(facts: Mapping[str, Any], weight: Any) -> Any:
    from lava.proc.conv.process import Conv

    return Conv(
        weight=weight.astype(int),
        input_shape=tuple(facts["enters"][::-1]),
        stride=tuple(facts["stride"]),
        padding=tuple(facts["padding"]),
        dilation=tuple(facts["dilation"]),
        groups=facts["groups"],
        num_message_bits=_bits(facts),
    )


def run(
    request: Mapping[str, Any], arrays: Arrays, alive: Callable[[], None]
) -> tuple[dict[str, Any], Arrays]:
    """Run all samples; what every layer did."""
    return run_wired(request, arrays, alive, _Published())
