"""Random integer networks whose host currents Lava's neurons take: in multiples of 64."""

from __future__ import annotations

from dataclasses import replace

from snnpipe.network.contract import Integer
from snnpipe.network.layers import Network


def with_whole_exponents(network: Network) -> Network:
    """Bias exponents of 6 or 7 where the host computes the current."""
    arithmetic = network.contract.arithmetic
    assert isinstance(arithmetic, Integer)
    raised = {name: 6 + scale % 2 for name, scale in arithmetic.host_scale.items()}
    exponents = {**arithmetic.bias_exponents, **raised}
    arithmetic = replace(arithmetic, bias_exponents=exponents)
    return network.with_contract(network.contract.with_arithmetic(arithmetic))
