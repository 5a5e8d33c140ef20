"""Measured energy: counters of the machine read around runs and around idleness in turns.

RAPL, as Linux shows it under /sys/class/powercap, counts microjoules of a processor package and
wraps; NVML counts millijoules of a GPU; a board's hwmon sensor tells its power. A counter that is
absent, may not be read or stands still is no counter: that is said with its reason, never 0 J.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Literal, Protocol

from ..errors import CouldNotRunError, RequestError

ROOT = Path("/sys")
State = Literal["ok", "absent", "denied", "stale"]
Read = Callable[[Path], str]
STALE_S = 0.1
"""A counter that does not move in so long a load does not count."""
ROUNDS = 7
_POWERS = ("power1_input", "power1_average")


class Sensor(Protocol):
    """A counter of energy since some start: ``read`` gives microjoules and never falls."""

    name: str

    def read(self) -> int:
        """Microjoules so far."""


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _number(read: Read, path: Path) -> int:
    """A whole number in a file; CouldNotRunError (E_SENSOR) says absent, denied or unreadable."""
    try:
        return int(read(path).strip())
    except FileNotFoundError:
        raise CouldNotRunError("E_SENSOR", f"absent: there is no {path}") from None
    except PermissionError:
        raise CouldNotRunError(
            "E_SENSOR",
            f"denied: {path} may not be read by this user; since Linux 5.10 it is root's; run the "
            "measurement as root, or have the administrator open it (sysfs.conf: mode)",
        ) from None
    except (OSError, ValueError) as error:
        raise CouldNotRunError("E_SENSOR", f"absent: {path} holds no number ({error})") from error


class RaplZone:
    """One package of a processor: its counter, unwrapped. It must be read at least once a turn of
    the counter; two turns between readings cannot be told from one.
    """

    def __init__(self, zone: Path, read: Read = _text) -> None:
        self._zone, self._read = zone, read
        self.name = f"RAPL {read(zone / 'name').strip()}"
        self._range = _number(read, zone / "max_energy_range_uj")
        self._last = _number(read, zone / "energy_uj")
        self._turns = 0

    def read(self) -> int:
        """Microjoules so far."""
        now = _number(self._read, self._zone / "energy_uj")
        if now < self._last:
            self._turns += self._range
        self._last = now
        return now + self._turns


class HwmonPower:
    """A board's sensor of power, integrated between readings; good for steady loads only."""

    def __init__(
        self, chip: Path, read: Read = _text, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock = read, clock
        self.name = f"hwmon {read(chip / 'name').strip()}"
        found = [chip / name for name in _POWERS if (chip / name).exists()]
        if not found:
            raise CouldNotRunError("E_SENSOR", f"absent: {chip} tells no power")
        self._power = found[0]
        self._then, self._watts, self._sum = clock(), _number(read, self._power), 0.0

    def read(self) -> int:
        """Microjoules so far: the mean of two readings of power times the time between them."""
        now, power = self._clock(), _number(self._read, self._power)
        self._sum += (now - self._then) * (power + self._watts) / 2
        self._then, self._watts = now, power
        return round(self._sum)


class Nvml:
    """A GPU's own counter, through nvidia-ml-py; Volta or later."""

    def __init__(self, index: int = 0) -> None:
        try:
            self._lib: Any = importlib.import_module("pynvml")
        except ImportError:
            raise CouldNotRunError(
                "E_SENSOR", "absent: the Python package nvidia-ml-py is not installed"
            ) from None
        self._said(self._lib.nvmlInit)
        self._gpu = self._said(self._lib.nvmlDeviceGetHandleByIndex, index)
        name = self._said(self._lib.nvmlDeviceGetName, self._gpu)
        self.name = f"NVML {name if isinstance(name, str) else name.decode()}"
        self.read()

    def _said(self, ask: Callable[..., Any], *about: Any) -> Any:
        try:
            return ask(*about)
        except self._lib.NVMLError as error:
            raise CouldNotRunError("E_SENSOR", f"absent: NVML says {error}") from error

    def read(self) -> int:
        """Microjoules since the driver was loaded."""
        return int(self._said(self._lib.nvmlDeviceGetTotalEnergyConsumption, self._gpu)) * 1000


def packages(root: Path = ROOT, read: Read = _text) -> list[RaplZone]:
    """RAPL's packages. Core, uncore and dram lie inside them, or beside, and are not added.

    Raises CouldNotRunError (E_SENSOR): absent or denied, and why.
    """
    zones = sorted((root / "class" / "powercap").glob("intel-rapl:*"))
    top = [zone for zone in zones if zone.name.count(":") == 1]
    found = [RaplZone(zone, read) for zone in top if _is_package(zone, read)]
    if not found:
        raise CouldNotRunError(
            "E_SENSOR",
            f"absent: {root / 'class' / 'powercap'} lists no processor package, as in most virtual "
            "machines",
        )
    return found


def _is_package(zone: Path, read: Read) -> bool:
    try:
        return read(zone / "name").strip().startswith("package")
    except OSError:
        return False


class Together:
    """Several counters as one."""

    def __init__(self, parts: list[RaplZone]) -> None:
        self._parts = parts
        self.name = " + ".join(part.name for part in parts)

    def read(self) -> int:
        """Microjoules so far."""
        return sum(part.read() for part in self._parts)


def check_moves(sensor: Sensor, load: Callable[[], object],
                clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
    """Raises CouldNotRunError (E_SENSOR): stale, when the counter stands still under a load."""
    before, start = sensor.read(), clock()
    while clock() - start < STALE_S:
        load()
    if sensor.read() <= before:
        raise CouldNotRunError(
            "E_SENSOR", f"stale: {sensor.name} did not move in {STALE_S} s of work"
        )


@dataclass(frozen=True)
class Measured:
    """Energy of one load by a counter, joules of one inference.

    ``gross``: medians of the runs; ``net``: less the idle power of the same minutes; ``low`` and
    ``high``: the least and the largest net run; ``uncertainty``: standard, of the mean net energy;
    ``resolved``: whether the net energy is three of those or more. ``idle_w``: mean idle power. The
    counter sees everything that its package does.
    """

    sensor: str
    rounds: int
    inferences: int
    seconds: float
    idle_w: float
    gross: float
    net: float
    low: float
    high: float
    uncertainty: float
    resolved: bool


def measure_here(
    load: Callable[[], object],
    inferences: int,
    seconds: float = 10.0,
    rounds: int = ROUNDS,
    root: Path = ROOT,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], object] = time.sleep,
) -> Measured:
    """Energy of ``load`` by this machine's processor packages, idle for as long in turns.

    ``load`` is repeated until a turn lasts about ``seconds``. Raises CouldNotRunError (E_SENSOR):
    absent, denied or stale, and why.
    """
    sensor = Together(packages(root))
    check_moves(sensor, load, clock)
    begun = clock()
    load()
    length = clock() - begun
    repeats = max(1, -int(-seconds // length)) if length > 0 else 1

    def turn() -> None:
        for _ in range(repeats):
            load()

    return measure(
        sensor, turn, lambda: rest(repeats * length), repeats * inferences, rounds, clock
    )


def _turn(
    sensor: Sensor, work: Callable[[], object], clock: Callable[[], float]
) -> tuple[float, float]:
    """(joules, seconds) of some work."""
    before, start = sensor.read(), clock()
    work()
    return (sensor.read() - before) / 1e6, clock() - start


def measure(
    sensor: Sensor,
    load: Callable[[], object],
    idle: Callable[[], object],
    inferences: int,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.monotonic,
) -> Measured:
    """Energy of ``load``, which makes ``inferences``, held against ``idle`` in turns.

    One turn should last ten seconds or more; the first is thrown away. Raises CouldNotRunError
    (E_SENSOR) when the counter stands still, RequestError (E_MEASURE) for fewer than 3 rounds.
    """
    if rounds < 3 or inferences < 1:
        raise RequestError(
            "E_MEASURE",
            f"rounds is {rounds} and inferences is {inferences}; expected 3 rounds or more and 1 "
            "inference or more",
        )
    load()
    runs, rests = [], []
    for _ in range(rounds):
        rests.append(_turn(sensor, idle, clock))
        runs.append(_turn(sensor, load, clock))
    if not all(joules > 0 for joules, _ in runs):
        raise CouldNotRunError("E_SENSOR", f"stale: {sensor.name} stood still during a run")
    watts = [joules / seconds for joules, seconds in rests if seconds > 0]
    if not watts:
        raise CouldNotRunError("E_SENSOR", "stale: no time passed while idle")
    idle_w = mean(watts)
    net = [(joules - idle_w * seconds) / inferences for joules, seconds in runs]
    seconds = mean(length for _, length in runs)
    spread = stdev(joules for joules, _ in runs) ** 2 / rounds
    idle_spread = (seconds * stdev(watts)) ** 2 / len(watts) if len(watts) > 1 else 0.0
    uncertainty = (spread + idle_spread) ** 0.5 / inferences
    return Measured(
        sensor.name,
        rounds,
        inferences,
        seconds,
        idle_w,
        median(joules for joules, _ in runs) / inferences,
        median(net),
        min(net),
        max(net),
        uncertainty,
        median(net) > 0 and median(net) >= 3 * uncertainty,
    )
