"""What every target and runtime can do with every part of a network: no row more, none less."""

from __future__ import annotations

import pytest
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export import quantise
from snnpipe.network import check_integer
from snnpipe.network.contract import Contract
from snnpipe.network.layers import Layer, Network, Synapse
from snnpipe.network.neurons import Sum
from snnpipe.network.support import PARTS, Table, refuse_unsupported

MEMBERS = [(kind, name) for kind in ("targets", "runtimes") for name in plugins.summaries(kind)]


def _holds(table: Table) -> None:
    assert set(table) == set(PARTS)
    assert None in table.values()
    for part, reason in table.items():
        assert reason is None or (len(reason) > 10 and not reason.endswith(".")), (part, reason)


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_every_part_has_one_row(kind: str, name: str) -> None:
    _holds(plugins.load(kind, name).table)


@pytest.mark.parametrize("table", [check_integer.TABLE, quantise.TABLE])
def test_every_part_has_one_row_in_integers(table: Table) -> None:
    _holds(table)


def test_a_part_without_a_row_is_refused() -> None:
    layer = Layer("a", Sum(), (2,), (Synapse("input"),))
    network = Network("input", (2,), (layer,), "a", Contract(1))
    assert refuse_unsupported(network, "x cannot run", {Sum: None}) is None
    with pytest.raises(RequestError, match=r"x cannot run 'a' \(Sum, layer 'a'\): it does not"):
        refuse_unsupported(network, "x cannot run", {})
