from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

INTERFACE: int

_Value = TypeVar("_Value", np.float32, np.int32)
_Axes = tuple[int, int, int]
_Pair = tuple[int, int]
_Floats = tuple[NDArray[np.float32], NDArray[np.float32]]
_Record = tuple[
    NDArray[_Value],
    dict[int, NDArray[np.int64]],
    dict[int, NDArray[np.uint8]],
    dict[int, NDArray[_Value]],
    dict[int, NDArray[_Value]],
    dict[int, NDArray[np.int64]],
    dict[int, int],
]

class _Plan(Generic[_Value]):
    isa: str
    def run(
        self,
        inputs: Sequence[NDArray[_Value]],
        steps: int,
        *,
        spikes: int | None = None,
        currents: int = 0,
        membranes: int = 0,
        tile: int = 0,
        overflows: Sequence[int] = (),
    ) -> _Record[_Value]: ...

class _Builder(Generic[_Value]):
    def __len__(self) -> int: ...
    def input(self, shape: _Axes, limit: float = 0.0) -> int: ...
    def relay(self, shape: _Axes) -> int: ...
    def conv(
        self,
        source: int,
        target: int,
        weight: NDArray[_Value],
        bias: NDArray[_Value] | None = None,
        *,
        stride: _Pair = (1, 1),
        padding: _Pair = (0, 0),
        dilation: _Pair = (1, 1),
        groups: int = 1,
        delay: int = 0,
        shift: int = 0,
    ) -> None: ...
    def dense(
        self,
        source: int,
        target: int,
        weight: NDArray[_Value],
        bias: NDArray[_Value] | None = None,
        *,
        delay: int = 0,
        shift: int = 0,
    ) -> None: ...
    def pool(
        self,
        source: int,
        target: int,
        *,
        kernel: _Pair,
        stride: _Pair,
        padding: _Pair = (0, 0),
        mean: bool = False,
        delay: int = 0,
    ) -> None: ...
    def identity(
        self,
        source: int,
        target: int,
        factor: NDArray[_Value] | None = None,
        *,
        delay: int = 0,
    ) -> None: ...

class FloatPlan(_Plan[np.float32]): ...
class IntegerPlan(_Plan[np.int32]): ...

class FloatBuilder(_Builder[np.float32]):
    def spiking(
        self,
        shape: _Axes,
        decay: NDArray[np.float32],
        threshold: NDArray[np.float32],
        v_reset: NDArray[np.float32],
        compare: Literal["gt", "ge"],
        reset: Literal["value", "subtract", "late"],
        driven: _Floats | None = None,
        filtered: _Floats | None = None,
    ) -> int: ...
    def leaky(
        self,
        shape: _Axes,
        decay: NDArray[np.float32],
        driven: _Floats | None = None,
        filtered: _Floats | None = None,
    ) -> int: ...
    def sum(self, shape: _Axes) -> int: ...
    def build(self, output: int, isa: str = "", loops: Sequence[_Pair] = ()) -> FloatPlan: ...

class IntegerBuilder(_Builder[np.int32]):
    def spiking(
        self,
        shape: _Axes,
        du: NDArray[np.int32],
        dv: NDArray[np.int32],
        threshold: NDArray[np.int32],
        bias: NDArray[np.int32],
        compare: Literal["gt", "ge"] = "gt",
        reset: Literal["value", "subtract"] = "value",
    ) -> int: ...
    def sum(self, shape: _Axes, bias: NDArray[np.int32]) -> int: ...
    def inject(self, source: int, target: int) -> None: ...
    def build(self, output: int, isa: str = "", loops: Sequence[_Pair] = ()) -> IntegerPlan: ...

def build_info() -> dict[str, Any]: ...
