"""All engines in the order in which "auto" tries them, and the choice among them."""

from __future__ import annotations

from statesize.errors import EngineError
from statesize.operators import Operator
from statesize.spectra.convolution import ConvolutionEngine
from statesize.spectra.cut import Cut
from statesize.spectra.engine import Engine
from statesize.spectra.exact.dense import DenseEngine
from statesize.spectra.exact.square_root import SquareRootEngine
from statesize.spectra.implicit.implicit import ImplicitEngine
from statesize.spectra.lanes.small_state import SmallStateEngine
from statesize.spectra.shifts.chunked import ChunkedEngine
from statesize.spectra.shifts.streaming import StreamingEngine
from statesize.spectra.shifts.tridiagonal import TridiagonalEngine

ORDER: tuple[Engine, ...] = (
    SmallStateEngine(),
    ChunkedEngine(),
    ConvolutionEngine(),
    StreamingEngine(),
    ImplicitEngine(),
    TridiagonalEngine(),
    SquareRootEngine(),
    DenseEngine(),
)
ENGINES = {engine.name: engine for engine in ORDER}


def choose_engine(operator: Operator, cut: Cut, outputs: tuple[str, ...], name: str = "auto") -> Engine:
    """The engine of a name, or for "auto" the fastest that computes these outputs; refuses one that declines."""
    known = isinstance(name, str) and name in ("auto", *ENGINES)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not known:
        raise EngineError(f"engine must be one of auto, {', '.join(ENGINES)}, got {name!r}.")
    able = [engine for engine in ORDER if engine.unsupported_reason(operator, cut, outputs) is None]
    if name == "auto" and able:
        asked = (engine for engine in able if not isinstance(operator, engine.slower_on))
        return next(engine for engine in asked if engine.slower_reason(operator, cut, outputs) is None)
    if name == "auto" or ENGINES[name] not in able:
        tried = ENGINES["implicit" if name == "auto" else name]
        reason = tried.unsupported_reason(operator, cut, outputs)
        others = ", ".join(engine.name for engine in able) or "none"
        raise EngineError(f"engine {tried.name!r} {reason}; these can: {others}")
    return ENGINES[name]
