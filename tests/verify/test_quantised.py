"""What the report says of quantisation: scales as chosen, neurons counted, layers that died."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from dyadic_network import dyadic_network
from snnpipe.export.quantise import Settings, quantise
from snnpipe.network.layers import Network
from snnpipe.network.neurons import Resetting
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import unpack
from snnpipe.verify.chain import Request, verify
from snnpipe.verify.page import page_missing, render
from snnpipe.verify.quantised import quantisation
from snnpipe.verify.report import report


def asked(edit: Any = None) -> Request:
    network = dyadic_network()
    settings = Settings(4, thresholds="channel")
    integer, scales = quantise(network, settings)
    if edit is not None:
        integer = edit(integer)
    levels = network.contract.input_levels
    x = np.random.default_rng(1).integers(0, levels + 1, (30, *network.input_shape))
    made = {"settings": settings.to_dict(), "layers": [scale.to_dict() for scale in scales]}
    return Request(network, x, None, {}, integer=integer, quantisation=made)


def dead(network: Network) -> Network:
    """The network with thresholds in its last spiking layer that nothing reaches."""
    layers = list(network.layers)
    place = max(n for n, layer in enumerate(layers) if isinstance(layer.neuron, Resetting))
    neuron: Any = layers[place].neuron
    layers[place] = replace(
        layers[place], neuron=replace(neuron, threshold=np.float32(131_071) * np.ones(()))
    )
    return replace(network, layers=tuple(layers))


def test_neurons_are_counted_as_the_traces_have_them() -> None:
    request = asked()
    found = quantisation(verify(request))
    assert found is not None
    assert request.integer is not None
    assert found["settings"]["weight_bits"] == 4
    assert found["samples"] == 30
    assert [row["layer"] for row in found["layers"]] == [x.name for x in request.integer.layers]
    frames, steps = request.network.frames(request.x), request.network.contract.steps
    traces = {"float": simulate(request.network, frames, steps)}
    traces["integer"] = simulate(request.integer, frames, steps)
    for row in found["layers"]:
        if not row["fires"]:
            assert "changed" not in row
            continue
        shape = request.network.layer(row["layer"]).shape
        spikes = {k: unpack(t.spikes[row["layer"]], shape) for k, t in traces.items()}
        for name, bits in spikes.items():
            assert row[name] == {
                "spikes": int(bits.sum()),
                "silent": int((~bits.any(axis=(0, 1))).sum()),
                "saturated": int(bits.all(axis=(0, 1)).sum()),
            }
        assert row["changed"] == int((spikes["float"] != spikes["integer"]).sum())
        assert row["decisions"] == spikes["float"].size
        assert row["scale"]["least"] <= row["scale"]["most"]


def test_a_layer_that_died_is_named() -> None:
    request = asked(dead)
    document = report(verify(request), "run")
    warnings = document["quantisation"]["warnings"]
    name = next(x.name for x in reversed(request.network.layers) if isinstance(x.neuron, Resetting))
    assert any(f"layer '{name}' died" in warning for warning in warnings)
    assert report(verify(asked()), "run")["quantisation"]["warnings"] == []
    if page_missing() is None:
        page = render(document)
        assert "Quantisation" in page
        assert f"layer &#39;{name}&#39; died" in page


def test_nothing_is_said_where_nothing_was_quantised() -> None:
    request = replace(asked(), integer=None, quantisation=None)
    assert quantisation(verify(request)) is None
    assert report(verify(request), "run")["quantisation"] is None
