"""The Loihi artefact: options to settings, what its manifest says, inputs handed to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dyadic_network import dyadic_network
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.flips import Calibration
from snnpipe.export.protocol import Calibrated
from snnpipe.export.quantise import Settings, quantise
from snnpipe.export.targets.lava import OPTIONS, settings_of
from snnpipe.export.write import options_of, write_targets
from snnpipe.files import read_manifest
from snnpipe.network.graph import same_network
from snnpipe.network.nir_file import read_network

CHOSEN = {"bits": "3", "scaling": "flips", "thresholds": "channel", "chip": "loihi2"}


def test_options_are_the_settings() -> None:
    (defaults,) = options_of(["lava"], {}).values()
    assert settings_of(defaults) == Settings()
    (chosen,) = options_of(["lava"], CHOSEN).values()
    assert settings_of(chosen) == Settings(3, "host", "flips", "channel", "loihi2")
    assert settings_of({**defaults, "first_layer": "graded"}) == Settings(first_layer="graded")
    with pytest.raises(RequestError, match="'bits' is '9'; expected one of 8, 7"):
        options_of(["lava"], {"bits": "9"})


@pytest.mark.parametrize(
    "broken", [{}, {"bits": "x"}, {"chip": "loihi9"}, {"bits": "12"}, {"more": "1"}]
)
def test_settings_of_another_file(broken: dict[str, Any]) -> None:
    defaults = {name: values[0] for name, values in OPTIONS.items()}
    found = {**defaults, **broken} if broken else {}
    with pytest.raises(RequestError):
        settings_of(found)


def test_the_artefact_is_what_its_manifest_says(tmp_path: Path) -> None:
    network = dyadic_network()
    levels = network.contract.input_levels
    x = np.random.default_rng(0).integers(0, levels + 1, (20, *network.input_shape))
    calibration = Calibration(x, "noise", tuple(range(20)))
    (options,) = options_of(["lava"], CHOSEN).values()
    with pytest.raises(RequestError, match="training inputs"):
        write_targets(network, ["lava"], tmp_path, None, options)
    folder = write_targets(network, ["lava"], tmp_path, None, options, calibration)["lava"]
    found = read_manifest(folder)
    assert found["options"] == options
    assert found["calibration"] == calibration.to_dict()
    assert json.loads(json.dumps(found["calibration"])) == found["calibration"]
    expected, scales = quantise(network, settings_of(found["options"]), calibration)
    assert same_network(read_network(folder / "network.nir"), expected)
    plain = json.loads(json.dumps([scale.to_dict() for scale in scales]))
    assert found["scales"] == plain
    assert found["remarks"] == []
    squared = quantise(network, Settings(8))[0]
    assert not same_network(expected, squared)


def test_other_targets_look_at_no_inputs() -> None:
    assert isinstance(plugins.load("targets", "lava"), Calibrated)
    assert not isinstance(plugins.load("targets", "nir"), Calibrated)


def test_a_subtracting_network_says_what_it_needs(tmp_path: Path) -> None:
    network = dyadic_network()
    network = network.with_contract(replace(network.contract, reset="subtract"))
    with pytest.raises(RequestError, match="reset subtract"):
        write_targets(network, ["lava"], tmp_path)
    (options,) = options_of(["lava"], {"chip": "loihi2"}).values()
    folder = write_targets(network, ["lava"], tmp_path, None, options)["lava"]
    assert any("Loihi 2" in remark for remark in read_manifest(folder)["remarks"])
