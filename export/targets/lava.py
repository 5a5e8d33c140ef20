"""Loihi integers for Lava: weights of 8 to 2 bits by post-training quantisation, as a .nir file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ...errors import RequestError
from ...network.layers import Network
from ...network.nir_file import write_network
from ..flips import Calibration
from ..lava_script import write_script
from ..quantisable import CHOICES, TABLE, Settings
from ..quantise import LayerScale, quantise

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "bits": ("8", "7", "6", "5", "4", "3", "2"),
    **{name: get_args(kind) for name, kind in CHOICES.items()},
}
"""`Settings` as options."""


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The settings that options name; RequestError (E_OPTION) where they are not those."""
    if options.keys() != OPTIONS.keys() or not str(options["bits"]).isdecimal():
        raise RequestError(
            "E_OPTION", f"the options are {dict(options)}; expected one of each of {dict(OPTIONS)}"
        )
    chosen: dict[str, Any] = {name: value for name, value in options.items() if name != "bits"}
    return Settings(int(options["bits"]), **chosen)


@dataclass(frozen=True)
class LavaTarget:
    """Writes ``network.nir`` with integer arithmetic in its contract.

    ``calibration``: the inputs on which scaling ``flips`` counts changed spikes.
    """

    calibration: Calibration | None = None

    name = "lava"
    table = TABLE
    options = OPTIONS

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED, E_RANGE) for what Loihi's integers cannot hold."""
        quantise(network)

    def calibrated(self, calibration: Calibration) -> LavaTarget:
        """The same target with inputs to choose scales on."""
        return LavaTarget(calibration)

    def write(
        self, network: Network, folder: Path, options: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Quantise a float network; the manifest gets each layer's scale and caps, and where the
        calibration inputs are found again."""
        settings = settings_of(options)
        calibration = self.calibration if settings.scaling == "flips" else None
        quantised, scales = quantise(network, settings, calibration)
        write_network(quantised, folder / "network.nir")
        script = write_script(quantised, folder)
        return {
            "script": script.file,
            "calibration": None if calibration is None else calibration.to_dict(),
            "scales": [scale.to_dict() for scale in scales],
            "remarks": [*_remarks(network, scales), *script.remarks],
        }


def _remarks(network: Network, scales: tuple[LayerScale, ...]) -> Iterator[str]:
    if network.contract.reset == "subtract":
        yield (
            "its neurons subtract their threshold, which needs a neuron program of Loihi 2: Loihi "
            "1 and Lava's own LIF reset to zero"
        )
    for scale in scales:
        if scale.remark:
            yield f"layer '{scale.layer}': {scale.remark}"


PLUGIN = LavaTarget()
