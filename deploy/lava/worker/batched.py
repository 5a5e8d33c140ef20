"""Many samples side by side in Lava's real runtime: neurons are Lava's own `LIFReset`, connections
are `processes.Batched`, which does what Lava's do for a whole batch. See `wired` for the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .frames import Arrays
from .wired import Clock, run_wired


class _Batches:
    """Processes with a batch in front of all other axes."""

    def __init__(self, batch: int) -> None:
        self.front: tuple[int, ...] = (batch,)
        self._made = 0

    def _shared(self, values: Any) -> str:
        from .processes import SHARED

        self._made += 1
        name = f"given{self._made}"
        SHARED[name] = values
        return name

    def stream(self, facts: Mapping[str, Any], values: Any, clock: Clock) -> Any:
        from .processes import Feed

        name = self._shared(values)
        return Feed(name=name, batch=clock.batch, lag=facts["lag"], steps=clock.steps).s_out

    def connection(self, facts: Mapping[str, Any], weight: Any, clock: Clock) -> tuple[Any, Any]:
        from .processes import Batched

        name = self._shared(weight)
        made = Batched(facts=dict(facts), weight=name, batch=clock.batch, steps=clock.steps)
        return made.s_in, made.a_out


def run(
    request: Mapping[str, Any], arrays: Arrays, alive: Callable[[], None]
) -> tuple[dict[str, Any], Arrays]:
    """Run all samples; what every layer did."""
    return run_wired(request, arrays, alive, _Batches(int(request["batch"])))
