"""Graphs of other programs: missing ports, batch axes, single numbers, padding, strides, delays."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nir_edits import refused
from nir_graphs import Node, chain, feed_forward, graph, lif, linear, port, write
from snnpipe.network.graph import network_sha256
from snnpipe.network.layers import AvgPool, Conv, Conv1d, Delay, Network, Scale, SumPool
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate


def _read(path: Path, node: Node, caplog: pytest.LogCaptureFixture) -> tuple[Network, list[str]]:
    """The network of a graph, and what its reader noted."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "snnpipe"):
        network = read_network(write(path, node), "nir-strict")
    prefix = f"{path}: "
    assert all(record.getMessage().startswith(prefix) for record in caplog.records)
    return network, [record.getMessage().removeprefix(prefix) for record in caplog.records]


def _without(node: Node, *names: str) -> Node:
    nodes = {name: content for name, content in node["nodes"].items() if name not in names}
    return graph(nodes, [edge for edge in node["edges"] if not set(edge) & set(names)])


def _conv(size: tuple[int, int] | None = (6, 5), **changed: Any) -> Node:
    """(2, 6, 5) to (4, 6, 5)."""
    rng = np.random.default_rng(5)
    node = {
        "type": "Conv2d",
        "weight": (rng.integers(-8, 9, (4, 2, 3, 3)) / 8).astype(np.float32),
        "bias": np.arange(4, dtype=np.float32),
        "stride": np.array([1, 1]),
        "padding": np.array([1, 1]),
        "dilation": np.array([1, 1]),
        "groups": np.array(1),
        **({} if size is None else {"input_shape": np.array(size)}),
    }
    return {**node, **changed}


def _image(conv: Node, neuron: Node, *rest: tuple[str, Node], shape: Any = (2, 6, 5)) -> Node:
    """input, conv, lif, the rest, output."""
    nodes = {"input": port("Input", *shape), "conv": conv, "lif": neuron, **dict(rest)}
    nodes["output"] = port("Output", *[*nodes.values()][-1]["tau"].shape)
    return graph(nodes, chain(" ".join(nodes)))


# --- missing Input, missing Output ---


def test_missing_ports_are_put_where_their_place_is_plain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, none = _read(tmp_path / "x.nir", feed_forward(), caplog)
    assert none == []
    bare = _without(feed_forward(), "input", "output")
    found, notes = _read(tmp_path / "x.nir", bare, caplog)
    assert network_sha256(found) == network_sha256(whole)
    assert (found.input, found.output_port) == ("input", "output")
    assert notes == [
        "the graph has no Input; one of shape [4] is put before 'w'",
        "the graph has no Output; one is put behind 'out'",
    ]


def test_a_port_takes_no_name_that_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = _without(feed_forward(), "input", "output")
    node["nodes"] = {"input": node["nodes"].pop("w"), **node["nodes"], "output": linear(3, 3)}
    node["edges"] = chain("input lif v out output")
    network, _ = _read(tmp_path / "x.nir", node, caplog)
    assert (network.input, network.output_port) == ("input_2", "output_2")


@pytest.mark.parametrize(
    ("first", "shape"),
    [
        (linear(4, 7), (7,)),
        (lif(4), (4,)),
        (_conv(), (2, 6, 5)),
        (_conv(groups=np.array(2)), (4, 6, 5)),
    ],
)
def test_a_first_node_that_says_its_shape(
    first: Node, shape: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = lif(4, 6, 5) if len(shape) == 3 else lif(4)
    node = graph({"first": first, "lif": out, "output": port("Output", *out["tau"].shape)},
                 chain("first lif output"))  # fmt: skip
    network, notes = _read(tmp_path / "x.nir", node, caplog)
    assert network.input_shape == shape
    assert notes == [f"the graph has no Input; one of shape {list(shape)} is put before 'first'"]


@pytest.mark.parametrize("first", [_conv(None), {"type": "Scale", "scale": np.array(2.0)}, lif()])
def test_a_first_node_that_does_not_say_its_shape_is_refused(first: Node, tmp_path: Path) -> None:
    node = graph({"first": first, "output": port("Output", 4)}, chain("first output"))
    message = refused(write(tmp_path / "x.nir", node), "E_SHAPE")
    assert f"node 'first' ({first['type']}) does not say its shape" in message


def test_two_places_for_a_port_are_refused(tmp_path: Path) -> None:
    two = _without(feed_forward(other=lif(4)), "input")
    two["edges"] += chain("other lif")
    message = refused(write(tmp_path / "x.nir", two), "E_EDGES")
    assert "no Input, and 2 nodes are fed by nothing ('other', 'w')" in message
    ends = _without(feed_forward(other=lif(4)), "output")
    ends["edges"] += chain("w other")
    assert "2 nodes feed nothing" in refused(write(tmp_path / "y.nir", ends), "E_EDGES")
    ring = graph({"a": lif(4), "b": lif(4)}, chain("a b a"))
    assert "(none)" in refused(write(tmp_path / "z.nir", ring), "E_EDGES")


# --- batch axes ---


def _batched(*, output: tuple[int, ...] = (1, 3), start: int = 1) -> Node:
    """(1, 2, 6, 5), every population with the batch in front."""
    nodes = {
        "input": port("Input", 1, 2, 6, 5),
        "conv": _conv(None),
        "lif": lif(1, 4, 6, 5),
        "flat": {"type": "Flatten", "start_dim": np.array(start), "end_dim": np.array(-1),
                 "input_type": np.array([1, 4, 6, 5])},
        "fc": linear(3, 120),
        "out": lif(1, 3),
        "output": port("Output", *output),
    }  # fmt: skip
    return graph(nodes, chain("input conv lif flat fc out output"))


def _unbatched() -> Node:
    node = _batched()
    nodes = node["nodes"]
    nodes |= {"input": port("Input", 2, 6, 5), "lif": lif(4, 6, 5), "out": lif(3)}
    nodes |= {"output": port("Output", 3)}
    nodes["flat"] |= {"start_dim": np.array(0), "input_type": np.array([4, 6, 5])}
    return node


BATCH = "shapes with a batch of 1 in front, read without it"


@pytest.mark.parametrize("output", [(1, 3), (3,)])
def test_a_batch_of_one_is_read_without_it(
    output: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, none = _read(tmp_path / "x.nir", _unbatched(), caplog)
    network, notes = _read(tmp_path / "x.nir", _batched(output=output), caplog)
    assert (none, notes) == ([], [BATCH])
    assert network_sha256(network) == network_sha256(plain)


def test_an_output_with_batch_and_time_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = feed_forward(output=port("Output", 1, 1, 3))
    network, notes = _read(tmp_path / "x.nir", node, caplog)
    assert notes == ["the output's shape [1, 1, 3], axes of 1 in front, read as [3]"]
    plain, _ = _read(tmp_path / "x.nir", feed_forward(), caplog)
    assert network_sha256(network) == network_sha256(plain)


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3, 1), (4,), (1, 1, 2, 3)])
def test_an_output_of_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", feed_forward(output=port("Output", *shape)))
    assert f"shape is {list(shape)}, what reaches it has [3]" in refused(path, "E_SHAPE")


def test_a_batch_of_two_is_refused(tmp_path: Path) -> None:
    node = _batched()
    node["nodes"]["input"] = port("Input", 2, 2, 6, 5)
    refused(write(tmp_path / "x.nir", node), "E_SHAPE")


# --- single numbers ---


def test_single_numbers_are_taken_for_all_and_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, notes = _read(tmp_path / "x.nir", feed_forward(lif=lif()), caplog)
    plain, _ = _read(tmp_path / "x.nir", feed_forward(), caplog)
    assert notes == ["node 'lif' has single numbers as parameters, taken for all [4]"]
    assert network_sha256(network) == network_sha256(plain)


def test_one_single_number_among_arrays_is_taken_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = feed_forward(lif={**lif(4), "v_reset": np.array(0.0)})
    network, notes = _read(tmp_path / "x.nir", node, caplog)
    plain, _ = _read(tmp_path / "x.nir", feed_forward(), caplog)
    assert notes == []
    assert network_sha256(network) == network_sha256(plain)


@pytest.mark.parametrize("shape", [(1,), (5,), (4, 1), (2, 2)])
def test_populations_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", feed_forward(lif=lif(*shape)))
    message = refused(path, "E_SHAPE")
    assert f"its parameters have shape {list(shape)}, what reaches it has [4]" in message


def test_a_missing_w_in_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = {"tau_syn": 2e-4, "tau_mem": 4e-4, "r": 4.0, "v_leak": 0.0, "v_threshold": 1.0}
    cuba = {"type": "CubaLIF", **{name: np.full(4, value) for name, value in values.items()}}
    network, notes = _read(tmp_path / "x.nir", feed_forward(lif=cuba), caplog)
    assert notes == [
        "no w_in in the file, taken as 1: lif", "no v_reset in the file, taken as 0: lif"
    ]  # fmt: skip
    assert float(network.layers[0].neuron.synaptic_gain) == 0.5


# --- padding and strides ---


@pytest.mark.parametrize(
    ("dilation", "padding"), [((1, 1), (1, 1)), ((2, 1), (2, 1)), ((1, 3), (1, 3))]
)
def test_padding_same_keeps_the_size(
    dilation: tuple[int, int],
    padding: tuple[int, int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    conv = _conv(padding="same", dilation=np.array(dilation))
    network, _ = _read(tmp_path / "x.nir", _image(conv, lif(4, 6, 5)), caplog)
    (found,) = network.layers[0].synapses[0].operations
    assert isinstance(found, Conv)
    assert found.padding == padding
    assert network.layers[0].shape == (4, 6, 5)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": np.array([2, 1])},
        {"weight": np.ones((4, 2, 2, 3), np.float32)},
        {"weight": np.ones((4, 2, 3, 4), np.float32)},
    ],
)
def test_padding_same_on_one_side_more_is_refused(changed: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _image(_conv(padding="same", **changed), lif(4, 6, 5)))
    assert "padding 'same'" in refused(path, "E_UNSUPPORTED")


def test_conv1d_is_read_with_padding_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conv = {"type": "Conv1d", "input_shape": np.array(9), "weight": np.ones((4, 1, 5), np.float32),
            "bias": np.ones(4, np.float32), "stride": np.array(1), "padding": "same",
            "dilation": np.array(2), "groups": np.array(2)}  # fmt: skip
    node = _image(conv, lif(4, 9), shape=(2, 9))
    network, _ = _read(tmp_path / "x.nir", node, caplog)
    (found,) = network.layers[0].synapses[0].operations
    assert isinstance(found, Conv1d)
    assert (found.padding, found.dilation, found.stride, found.groups) == (4, 2, 1, 2)
    node["nodes"]["conv"] = {**conv, "padding": "valid"}
    node["nodes"] |= {"lif": lif(4, 1), "output": port("Output", 4, 1)}
    network, _ = _read(tmp_path / "x.nir", node, caplog)
    assert network.layers[0].shape == (4, 1)


def _pooled(kind: str, stride: tuple[int, int], *population: int) -> Node:
    pool = {"type": kind, "kernel_size": np.array([2, 2]), "stride": np.array(stride),
            "padding": np.array([0, 0])}  # fmt: skip
    return _image(_conv(), lif(4, 6, 5), ("pool", pool), ("end", lif(*population)))


@pytest.mark.parametrize(("kind", "type_"), [("SumPool2d", SumPool), ("AvgPool2d", AvgPool)])
def test_pools_of_stride_one_are_repaired_when_nothing_fits(
    kind: str, type_: type, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, notes = _read(tmp_path / "x.nir", _pooled(kind, (1, 1), 4, 3, 2), caplog)
    assert len(notes) == 1
    assert notes[0].startswith("the pools 'pool' say stride 1, which fits no population behind")
    meant, none = _read(tmp_path / "x.nir", _pooled(kind, (2, 2), 4, 3, 2), caplog)
    assert none == []
    assert network_sha256(network) == network_sha256(meant)
    (pool,) = network.layers[1].synapses[0].operations
    assert isinstance(pool, type_)


def test_pools_of_stride_one_that_fit_are_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network, notes = _read(tmp_path / "x.nir", _pooled("SumPool2d", (1, 1), 4, 5, 4), caplog)
    assert notes == []
    assert network.layers[1].synapses[0].operations[0].stride == (1, 1)


def test_pools_that_fit_neither_way_are_refused_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _pooled("SumPool2d", (1, 1), 4, 4, 4))
    assert "what reaches it has [4, 5, 4]" in refused(path, "E_SHAPE")


def test_two_repairs_at_once_are_both_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = _pooled("SumPool2d", (1, 1), 1, 4, 3, 2)
    node["nodes"] |= {"input": port("Input", 1, 2, 6, 5), "lif": lif(1, 4, 6, 5)}
    network, notes = _read(tmp_path / "x.nir", node, caplog)
    assert notes[0] == BATCH
    assert notes[1].startswith("the pools 'pool' say stride 1")
    assert [layer.shape for layer in network.layers] == [(4, 6, 5), (4, 3, 2)]


# --- delays and scales ---


def _delayed(seconds: Any) -> Node:
    node = feed_forward(wait={"type": "Delay", "delay": np.asarray(seconds)})
    node["edges"] = chain("input w lif wait v out output")
    return node


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 0), (1e-4, 1), (3e-4, 3), (0.1, 1000)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_delay_of_whole_steps(
    seconds: float, steps: int, dtype: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = _delayed(np.full(4, seconds, dtype))
    network, notes = _read(tmp_path / "x.nir", node, caplog)
    assert notes == []
    wait = network.layers[1].synapses[0].operations[0]
    assert wait == Delay("wait", steps)
    if steps <= 3:
        x = np.ones((12, 1, 4), np.float32)
        plain, _ = _read(tmp_path / "y.nir", feed_forward(), caplog)
        late, now = (simulate(n, x, 12).outputs for n in (network, plain))
        assert np.array_equal(late[steps:], now[: 12 - steps])
        assert not late[:steps].any()


@pytest.mark.parametrize("seconds", [0.5e-4, 1.5e-4, 1.00001e-4, -1e-4, 4.4e-5])
def test_a_delay_that_is_no_whole_number_of_steps_is_refused(
    seconds: float, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.nir", _delayed(np.full(4, seconds)))
    message = refused(path, "E_VALUE")
    assert f"node 'wait' (Delay): delay holds {seconds:.6g} s, which is" in message
    assert "steps of 0.0001 s" in message


def test_delays_per_neuron_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nir", _delayed([1e-4, 1e-4, 2e-4, 1e-4]))
    message = refused(path, "E_UNSUPPORTED")
    assert "node 'wait' (Delay): delay holds 0.0001 to 0.0002 s; one delay for all" in message


def test_a_delay_beyond_all_steps_is_refused(tmp_path: Path) -> None:
    assert "'wait'" in refused(write(tmp_path / "x.nir", _delayed(np.full(4, 1e6))), "E_VALUE")


@pytest.mark.parametrize("shape", [(5,), (1, 4), (4, 4)])
def test_delays_and_scales_of_another_shape_are_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = write(tmp_path / "x.nir", _delayed(np.full(shape, 1e-4)))
    message = refused(path, "E_SHAPE")
    assert f"node 'wait' (Delay): delay has shape {list(shape)}, what reaches it has [4]" in message
    node = feed_forward(wait={"type": "Scale", "scale": np.full(shape, 2.0)})
    node["edges"] = chain("input w lif wait v out output")
    assert "scale has shape" in refused(write(tmp_path / "y.nir", node), "E_SHAPE")


@pytest.mark.parametrize("shape", [(), (4, 1, 1), (4, 6, 5)])
def test_a_scale_for_all_for_channels_or_for_each(
    shape: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).integers(1, 9, shape).astype(np.float32)
    rest = [("scale", {"type": "Scale", "scale": values}), ("end", lif(4, 6, 5))]
    network, _ = _read(tmp_path / "x.nir", _image(_conv(), lif(4, 6, 5), *rest), caplog)
    (scale,) = network.layers[1].synapses[0].operations
    assert isinstance(scale, Scale)
    assert np.array_equal(scale.scale, values)
