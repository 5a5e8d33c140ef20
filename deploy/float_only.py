"""What runtimes that compute forward in float32 refuse: integers, and synapses that look back."""

from __future__ import annotations

from ..errors import RequestError
from ..network.contract import Integer
from ..network.layers import Network


def refuse_integers_and_delays(network: Network, runtime: str) -> None:
    """Raise RequestError (E_UNSUPPORTED) for integer arithmetic, delayed or recurrent synapses."""
    if isinstance(network.contract.arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"runtime '{runtime}' computes in float32, this network is in integer arithmetic "
            f"({network.contract.arithmetic.weight_bits}-bit weights); run it with 'loihi'",
        )
    earlier = {network.input}
    for layer in network.layers:
        for synapse in layer.synapses:
            if synapse.delay or synapse.source not in earlier:
                raise RequestError(
                    "E_UNSUPPORTED",
                    f"runtime '{runtime}' cannot run the synapse from '{synapse.source}' into "
                    f"layer '{layer.name}': it is delayed or recurrent",
                )
        earlier.add(layer.name)
