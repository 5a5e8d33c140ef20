"""Measured energy on a tree of files in the place of /sys, with a clock of our own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.hardware import measure as module
from snnpipe.hardware.measure import (
    HwmonPower,
    Nvml,
    RaplZone,
    Together,
    check_moves,
    measure,
    measure_here,
    packages,
)

RANGE = 262_143_328_850


class Machine:
    """A clock and the counters that run with it, at watts that change with the load."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.watts = root, 0.0, 10.0
        self.zones: list[Path] = []

    def zone(self, name: str, title: str, energy: str = "0", top: str = str(RANGE)) -> Path:
        folder = self.root / "class" / "powercap" / name
        folder.mkdir(parents=True)
        (folder / "name").write_text(title + "\n")
        (folder / "energy_uj").write_text(energy + "\n")
        if top:
            (folder / "max_energy_range_uj").write_text(top + "\n")
        self.zones.append(folder)
        return folder

    def run(self, seconds: float, watts: float) -> None:
        self.now += seconds
        for zone in self.zones:
            spent = int((zone / "energy_uj").read_text()) + round(seconds * watts * 1e6)
            (zone / "energy_uj").write_text(str(spent % RANGE))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def denied(name: str):
    """Reads files, but not this one; a mode does not stop root."""

    def read(path: Path) -> str:
        if path.name == name:
            raise PermissionError(13, "denied")
        return path.read_text()

    return read


def test_a_counter_that_wraps(machine):
    zone = machine.zone("intel-rapl:0", "package-0", "262143000000")
    sensor = RaplZone(zone)
    start = sensor.read()
    (zone / "energy_uj").write_text("1000000")
    assert sensor.read() - start == 1_328_850
    (zone / "energy_uj").write_text("3000000")
    assert sensor.read() - start == 3_328_850
    (zone / "energy_uj").write_text("2000000")  # a second turn
    assert sensor.read() - start == 3_328_850 - 1_000_000 + RANGE


def test_two_turns_between_readings_cannot_be_told_from_one(machine):
    zone = machine.zone("intel-rapl:0", "package-0", "5")
    sensor = RaplZone(zone)
    machine.run(2 * RANGE / 1e6, 1.0)
    assert sensor.read() == 5  # nothing seems to have happened: read it once a turn


def test_packages_are_added_and_what_lies_in_them_is_not(machine):
    machine.zone("intel-rapl:0", "package-0", "100")
    machine.zone("intel-rapl:0:0", "core", "70")
    machine.zone("intel-rapl:0:1", "dram", "30")
    machine.zone("intel-rapl:1", "package-1", "1000")
    machine.zone("intel-rapl:2", "psys", "9999")
    both = packages(machine.root)
    assert [zone.name for zone in both] == ["RAPL package-0", "RAPL package-1"]
    together = Together(both)
    assert (together.name, together.read()) == ("RAPL package-0 + RAPL package-1", 1100)


def test_absent_denied_and_unreadable_are_said(machine, tmp_path):
    with pytest.raises(CouldNotRunError, match=r"absent: .*lists no processor package") as caught:
        packages(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("E_SENSOR", 3)
    zone = machine.zone("intel-rapl:0", "package-0", "100")
    with pytest.raises(CouldNotRunError, match=r"denied: .*energy_uj may not be read"):
        packages(machine.root, denied("energy_uj"))
    (zone / "energy_uj").write_text("a lot\n")
    with pytest.raises(CouldNotRunError, match="holds no number"):
        packages(machine.root)
    (zone / "energy_uj").write_text("5")
    sensor = RaplZone(zone)
    (zone / "energy_uj").unlink()
    with pytest.raises(CouldNotRunError, match="absent: there is no"):
        sensor.read()
    bare = machine.zone("intel-rapl:1", "package-1", "100", top="")
    with pytest.raises(CouldNotRunError, match="max_energy_range_uj"):
        RaplZone(bare)


def test_a_counter_that_stands_still_is_stale(machine):
    sensor = RaplZone(machine.zone("intel-rapl:0", "package-0", "100"))

    def stuck() -> None:
        machine.now += 0.05

    with pytest.raises(CouldNotRunError, match=r"stale: RAPL package-0 did not move in 0.1 s"):
        check_moves(sensor, stuck, machine.clock)
    check_moves(sensor, lambda: machine.run(0.05, 1.0), machine.clock)
    with pytest.raises(CouldNotRunError, match="stale"):
        measure(sensor, stuck, stuck, 1, 3, machine.clock)


def test_a_load_over_idleness(machine):
    """10 s at 25 W for 1000 inferences, 10 W idle: 150 J net, 0.15 J each; across a wrap."""
    machine.zone("intel-rapl:0", "package-0", str(RANGE - 10**9))
    sensor = packages(machine.root)[0]
    found = measure(
        sensor,
        lambda: machine.run(10.0, 25.0),
        lambda: machine.run(10.0, 10.0),
        1000,
        7,
        machine.clock,
    )
    assert found.sensor == "RAPL package-0"
    assert (found.rounds, found.inferences, found.seconds) == (7, 1000, 10.0)
    assert found.idle_w == pytest.approx(10.0)
    assert found.gross == pytest.approx(0.25)
    assert found.net == found.low == found.high == pytest.approx(0.15)
    assert found.uncertainty == pytest.approx(0.0, abs=1e-12)
    assert found.resolved


def test_a_turn_is_long_enough(machine):
    """2 s a load, 10 s a turn: five loads in each of three turns, two more for a look before."""
    machine.zone("intel-rapl:0", "package-0")
    machine.zone("intel-rapl:1", "package-1")
    loads = []

    def load() -> None:
        loads.append(machine.now)
        machine.run(2.0, 8.0)

    found = measure_here(
        load, 50, 9.5, 3, machine.root, machine.clock, lambda s: machine.run(s, 3.0)
    )
    assert (found.seconds, found.inferences, found.rounds) == (10.0, 250, 3)
    assert found.idle_w == pytest.approx(6.0)  # two packages
    assert found.net == pytest.approx((16.0 - 6.0) * 10.0 / 250)
    assert len(loads) == 1 + 1 + 4 * 5
    with pytest.raises(CouldNotRunError, match="absent"):
        measure_here(load, 50, root=machine.root / "no")


def test_what_noise_hides_is_not_resolved(machine):
    machine.zone("intel-rapl:0", "package-0")
    sensor = packages(machine.root)[0]
    idles = iter([9.0, 11.0, 10.0, 12.0])
    loads = iter([10.0, 9.0, 12.0, 11.0, 10.2])
    found = measure(
        sensor,
        lambda: machine.run(10.0, next(loads)),
        lambda: machine.run(10.0, next(idles)),
        1,
        4,
        machine.clock,
    )
    # Runs of 90, 120, 110, 102 J (the first is thrown away) against 105 J of idleness.
    assert (found.idle_w, found.gross) == (10.5, 106.0)
    assert (found.low, found.high) == (-15.0, 15.0)
    assert found.uncertainty == pytest.approx((161.0 / 4 + 100 * (5 / 3) / 4) ** 0.5)
    assert not found.resolved
    with pytest.raises(RequestError, match="rounds is 2"):
        measure(sensor, lambda: None, lambda: None, 1, 2)


def test_a_load_below_idleness_is_not_resolved(machine):
    """Another program worked while this one rested: that is no energy of the load."""
    machine.zone("intel-rapl:0", "package-0")
    sensor = packages(machine.root)[0]
    idles = iter([14.0, 15.0, 16.0])
    found = measure(
        sensor,
        lambda: machine.run(10.0, 10.0),
        lambda: machine.run(10.0, next(idles)),
        1,
        3,
        machine.clock,
    )
    assert found.net == -50.0
    assert found.uncertainty < 50.0 / 3
    assert not found.resolved


def test_a_sensor_of_power_is_integrated(machine):
    chip = machine.root / "hwmon0"
    chip.mkdir()
    (chip / "name").write_text("ina2xx\n")
    with pytest.raises(CouldNotRunError, match="tells no power"):
        HwmonPower(chip, clock=machine.clock)
    (chip / "power1_input").write_text("2000000\n")  # microwatts
    sensor = HwmonPower(chip, clock=machine.clock)
    machine.now = 4.0
    (chip / "power1_input").write_text("3000000\n")
    assert sensor.read() == 10_000_000
    assert sensor.name == "hwmon ina2xx"


def test_a_gpu_through_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(CouldNotRunError, match="nvidia-ml-py is not installed"):
        Nvml()
    fake = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    fake.NVMLError = NVMLError
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetHandleByIndex = lambda index: index
    fake.nvmlDeviceGetName = lambda gpu: b"A GPU"
    fake.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: 1234
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    gpu = Nvml()
    assert (gpu.name, gpu.read()) == ("NVML A GPU", 1_234_000)

    def unsupported(gpu):
        raise NVMLError("Not Supported")

    fake.nvmlDeviceGetTotalEnergyConsumption = unsupported
    for ask in (gpu.read, Nvml):
        with pytest.raises(CouldNotRunError, match="absent: NVML says Not Supported"):
            ask()


def test_the_library_is_not_imported_unasked():
    assert "pynvml" not in vars(module)
