"""How stored inputs become frames: one for all steps, or, of events, one a step."""

from __future__ import annotations

import numpy as np
import pytest
from snnpipe.errors import RequestError
from snnpipe.network.contract import Contract, InputCoding
from snnpipe.network.layers import Dense, Layer, Network, Synapse
from snnpipe.network.neurons import Sum


def network(coding: InputCoding) -> Network:
    synapse = Synapse("input", (Dense("fc", np.ones((4, 6), np.float32)),))
    contract = Contract(3, input_coding=coding, input_scale=0.5, input_levels=9)
    return Network("input", (6,), (Layer("out", Sum(), (4,), (synapse,)),), "out", contract)


def test_events_are_stored_sample_by_sample_and_enter_time_first() -> None:
    found = network("events")
    assert found.stored_shape == (3, 6)
    x = np.random.default_rng(1).integers(0, 10, (5, 3, 6)).astype(np.uint8)
    frames = found.frames(x)
    assert (frames.shape, frames.dtype) == ((3, 5, 6), np.float32)
    assert np.array_equal(frames[2, 4], x[4, 2] / 2)
    assert frames.flags.c_contiguous


def test_a_still_input_stays_as_it_is() -> None:
    found = network("direct")
    assert found.stored_shape == (6,)
    for shape in ((5, 6), (3, 5, 6)):
        x = np.random.default_rng(1).integers(0, 10, shape)
        assert np.array_equal(found.frames(x), x / 2)


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (5, 4, 6), (6, 3), (5, 3, 6, 1)])
def test_events_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"stored as \[B, 3, 6\]") as caught:
        network("events").frames(np.zeros(shape, np.uint8))
    assert caught.value.code == "E_INPUT"
