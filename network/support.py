"""What a target or a runtime can do with each part of a network: a table, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import RequestError
from .contract import Integer
from .layers import Network

Table = Mapping[type, str | None]
"""Operation or neuron type to None (handled) or to the reason why it is refused."""


def refuse_unsupported(network: Network, cannot: str, table: Table) -> None:
    """Raise RequestError (E_UNSUPPORTED) for the first part that the table does not handle, and
    for a delayed or recurrent synapse: nothing runs or holds one yet.

    ``cannot`` begins the message (``runtime 'torch' cannot run``).
    """

    def look(part: object, layer: str, name: str) -> None:
        kind = type(part)
        reason = table.get(kind, "it does not know this type")
        if reason is not None:
            raise RequestError(
                "E_UNSUPPORTED", f"{cannot} '{name}' ({kind.__name__}, layer '{layer}'): {reason}"
            )

    earlier = {network.input}
    for layer in network.layers:
        look(layer.neuron, layer.name, layer.name)
        for synapse in layer.synapses:
            for operation in synapse.operations:
                look(operation, layer.name, operation.name)
            if synapse.delay or synapse.source not in earlier:
                raise RequestError(
                    "E_UNSUPPORTED",
                    f"{cannot} the synapse from '{synapse.source}' into layer '{layer.name}' "
                    f"(delay of {synapse.delay}): it is delayed or recurrent, and a step passes "
                    "values only forward",
                )
        earlier.add(layer.name)


def refuse_integers(network: Network, cannot: str, instead: str) -> None:
    """Raise RequestError (E_UNSUPPORTED) for integer arithmetic; ``instead`` says what to do."""
    arithmetic = network.contract.arithmetic
    if isinstance(arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"{cannot} a network in integer arithmetic ({arithmetic.weight_bits}-bit weights): it "
            f"computes in float32; {instead}",
        )
