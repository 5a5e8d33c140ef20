"""What a target or a runtime can do with each part of a network: a table, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from ..errors import RequestError
from .contract import Integer
from .layers import Network, Operation
from .neurons import Neuron

Table = Mapping[type, str | None]
"""Operation or neuron type to None (handled) or to the reason why it is refused; `Recurrent` stands
for synapses that carry the values of the last step."""


_UNKNOWN = "it does not know this type"


class Recurrent:
    """The row of recurrent synapses in a `Table`."""


PARTS: tuple[type, ...] = (*get_args(Operation), *get_args(Neuron), Recurrent)
"""All that a network can be made of: the rows of every table."""


def refuse_unsupported(network: Network, cannot: str, table: Table) -> None:
    """Raise RequestError (E_UNSUPPORTED) for the first part that the table does not handle.

    ``cannot`` begins the message (``runtime 'torch' cannot run``).
    """

    def look(part: object, layer: str, name: str) -> None:
        kind = type(part)
        reason = table.get(kind, _UNKNOWN)
        if reason is not None:
            raise RequestError(
                "E_UNSUPPORTED", f"{cannot} '{name}' ({kind.__name__}, layer '{layer}'): {reason}"
            )

    for layer in network.layers:
        look(layer.neuron, layer.name, layer.name)
        for synapse in layer.synapses:
            for operation in synapse.operations:
                look(operation, layer.name, operation.name)
            if (
                network.late(layer, synapse)
                and (reason := table.get(Recurrent, _UNKNOWN)) is not None
            ):
                raise RequestError(
                    "E_UNSUPPORTED",
                    f"{cannot} the recurrent synapse from '{synapse.source}' into layer "
                    f"'{layer.name}': {reason}",
                )


def refuse_integers(network: Network, cannot: str, instead: str) -> None:
    """Raise RequestError (E_UNSUPPORTED) for integer arithmetic; ``instead`` says what to do."""
    arithmetic = network.contract.arithmetic
    if isinstance(arithmetic, Integer):
        raise RequestError(
            "E_UNSUPPORTED",
            f"{cannot} a network in integer arithmetic ({arithmetic.weight_bits}-bit weights): it "
            f"computes in float32; {instead}",
        )
