"""What a chip charges for: counts of a run to the lines of a bill, one way for each model.

davies: Davies et al., IEEE Micro 38(1), 2018, Table 2. soma: the terms of Boyle et al., IEEE TCAD
44(8), 2025. synop: one price an operation. ac_mac: arithmetic alone, the literature's convention.
memory: arithmetic and every word that is moved, after Lemaire et al., arXiv:2210.13107.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..network.layers import Network, Scale, Weighted
from ..network.neurons import Spiking
from .chip import Chip, Price
from .counts import HostCounts, RunCounts
from .memory import access
from .pricing import Line, priced

Prices = Mapping[str, Price]
GRADED_MACS = "multiply-accumulates on graded values"


def _total(counts: RunCounts, field: str) -> int:
    return sum(getattr(layer, field) for layer in counts.layers)


def _active(counts: RunCounts) -> int | None:
    found = [layer.active for layer in counts.layers if layer.active is not None]
    return sum(found) if len(found) == len(counts.layers) else None


def _ways(counts: RunCounts, prices: Prices) -> list[Line]:
    """Hops and what else a message meets; graded values have no price here."""
    return [
        Line("hops_ew", "hops east or west", _total(counts, "hops_ew"),
             priced(prices.get("hop_ew_pj"))),
        Line("hops_ns", "hops north or south", _total(counts, "hops_ns"),
             priced(prices.get("hop_ns_pj"))),
        Line("interchip", "messages to another chip", _total(counts, "interchip"),
             priced(prices.get("interchip_pj"))),
        Line("macs", GRADED_MACS, _total(counts, "mac"), ()),
        Line("graded_messages", "graded values sent to a core",
             _total(counts, "graded_messages"), ()),
    ]  # fmt: skip


def _davies(counts: RunCounts, prices: Prices) -> list[Line]:
    """Synaptic operations, updates, messages and hops."""
    updates, active = _total(counts, "updates"), _active(counts)
    act, inact = prices.get("update_act_pj"), prices.get("update_inact_pj")
    synops = Line("synops", "synaptic operations", _total(counts, "ac"),
                  priced(prices.get("synop_pj")))  # fmt: skip
    if active is None:
        what = "updates; it is not known how many were active"
        done = [Line("updates", what, updates, priced(inact, act))]
    else:
        done = [
            Line("updates_active", "updates with a current or spike", active, priced(act)),
            Line("updates_inactive", "updates without either", updates - active, priced(inact)),
        ]
    messages = Line("messages", "spikes sent to a core, within a tile",
                    _total(counts, "messages"), priced(prices.get("spike_tile_pj")))  # fmt: skip
    return [synops, *done, messages, *_ways(counts, prices)]


def _soma(counts: RunCounts, prices: Prices) -> list[Line]:
    """Synaptic operations by kind, each neuron's access, update and spike, messages and hops."""
    kinds = {kind: _total(counts, f"ac_{kind}") for kind in ("dense", "conv")}
    kinds["sparse"] = _total(counts, "ac") - sum(kinds.values())
    updates, active = _total(counts, "updates"), _active(counts)
    lines = [
        Line(f"synops_{kind}", f"synaptic operations, {kind}", count,
             priced(prices.get(f"synop_{kind}_pj")))
        for kind, count in kinds.items()
    ]  # fmt: skip
    lines.append(Line("accesses", "neurons looked at", updates, priced(prices.get("access_pj"))))
    update = prices.get("update_pj")
    if active is None:
        what = "updates, all were they active; it is not known how many were"
        lines.append(Line("updates", what, updates, priced(update), maybe=True))
    else:
        lines.append(Line("updates_active", "updates with a current or spike", active,
                          priced(update)))  # fmt: skip
    lines += [
        Line("spikes_out", "spikes fired", _total(counts, "spikes"),
             priced(prices.get("spike_out_pj"))),
        Line("messages", "spikes sent to a core", _total(counts, "messages"),
             priced(prices.get("message_pj"))),
    ]  # fmt: skip
    return [*lines, *_ways(counts, prices)]


def _synop(counts: RunCounts, prices: Prices) -> list[Line]:
    """One price that holds everything a synaptic operation brings with it."""
    what = "synaptic operations, with all they bring"
    return [
        Line("synops", what, _total(counts, "ac"), priced(prices.get("synop_pj"))),
        Line("macs", GRADED_MACS, _total(counts, "mac"), ()),
    ]


def _ac_mac(counts: RunCounts, prices: Prices) -> list[Line]:
    """Arithmetic alone: an addition per spike and synapse, a MAC per graded value and weight."""
    return [
        Line("acs", "accumulates, one per spike and synapse", _total(counts, "ac"),
             priced(prices.get("ac_pj"))),
        Line("macs", GRADED_MACS, _total(counts, "mac"), priced(prices.get("mac_pj"))),
    ]  # fmt: skip


def stored_weights(network: Network, name: str) -> int:
    """Weights that a layer's synapses hold."""
    operations = (op for s in network.layer(name).synapses for op in s.operations)
    return sum(
        (op.scale if isinstance(op, Scale) else op.weight).size
        for op in operations
        if isinstance(op, Weighted)
    )


def _memory(
    chip: Chip, network: Network, counts: RunCounts, host: HostCounts, prices: Prices
) -> list[Line]:
    """Operations, and the words they move: each layer's memories at the price of their sizes."""
    memory = chip.memory
    if memory is None:  # the file's reader holds model and table together
        return []
    lines = [
        Line("additions", "additions", _total(counts, "ac") + _total(counts, "mac"),
             priced(prices.get("add_pj"))),
        Line("multiplications", "multiplications", _total(counts, "mac"),
             priced(prices.get("mul_pj"))),
        Line("compares", "compares with a threshold", _total(counts, "updates"),
             priced(prices.get("compare_pj"))),
        Line("decays", "products with a decay", _total(counts, "leaky"),
             priced(prices.get("decay_pj"))),
    ]  # fmt: skip
    for layer in counts.layers:
        neurons, weights = layer.neurons, stored_weights(network, layer.layer)
        sources = {synapse.source for synapse in network.layer(layer.layer).synapses}
        inputs = sum(math.prod(network.shape_of(source)) for source in sources)
        moved = (
            ("weight_reads", "weights read", layer.ac + layer.mac, memory.weight_bits, weights),
            ("input_reads", "graded inputs read", layer.mac, memory.activation_bits, inputs),
            ("states", "membranes read or written", 2 * (layer.ac + layer.updates),
             memory.state_bits, neurons),
            ("spikes", "addresses of spikes written or read", 2 * layer.sent,
             memory.address_bits, neurons),
        )  # fmt: skip
        lines += [
            Line(name, what, count, (access(chip, bits, size * bits),))
            for name, what, count, bits, size in moved
        ]
    out = network.layer(network.output)
    sent, bits = (
        (host.spikes_out, memory.address_bits)
        if isinstance(out.neuron, Spiking)
        else (host.values_out, memory.state_bits)
    )
    lines.append(Line("outputs", "outputs written", sent, (access(chip, bits, out.size * bits),)))
    return _merged(lines)


def _merged(lines: list[Line]) -> list[Line]:
    """Lines of one name and price as one: a price is one unknown, so its counts are summed."""
    found: dict[tuple[str, tuple[Price, ...]], Line] = {}
    for line in lines:
        key = (line.name, line.prices)
        count = line.count + (found[key].count if key in found else 0)
        found[key] = Line(line.name, line.what, count, line.prices)
    return list(found.values())


_PLAIN: Mapping[str, Callable[[RunCounts, Prices], list[Line]]] = {
    "davies": _davies,
    "soma": _soma,
    "synop": _synop,
    "ac_mac": _ac_mac,
}


def lines_of(chip: Chip, network: Network, counts: RunCounts, prices: Prices) -> list[Line]:
    """The lines of a chip's model; those that count nothing are among them."""
    if chip.model == "memory":
        return _memory(chip, network, counts, counts.host, prices)
    return _PLAIN[chip.model](counts, prices)
