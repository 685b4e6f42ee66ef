"""How a model is loaded, and which processes measure it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Group, Parameter, validators

from statesize.cli.options.kinds import Count, Flag

if TYPE_CHECKING:
    from statesize.parallel.executor import Make
    from statesize.parallel.ray import OnRay

Crew: TypeAlias = "Callable[[Make], OnRay]"

# Other processes measure, or nothing is measured.
PLACE = Group(validator=validators.LimitedChoice(), show=False)


@Parameter(name="*")
@dataclass(frozen=True)
class Loading:
    """How the model is loaded.

    Attributes:
        revision: Branch, tag or commit of a model of the hub.
        device: Where the model runs, such as cpu or cuda:0.
        dtype: Dtype to load the weights in, and to run the model in. Default: as stored.
        allow_pickle: Read weights that are no safetensors, by torch.load with weights_only=True.
        trust_remote_code: Run Python code that comes with the model.
    """

    revision: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None
    allow_pickle: Flag = False
    trust_remote_code: Flag = False


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Who measures.

    Attributes:
        ray: Spread the sequences over processes that each hold the model. They run on the Ray cluster at HOST:PORT or
            ray://HOST:PORT, on the one that runs here (auto), or, without an address, on Ray started on this machine.
        ray_cpus: Cores of each of these processes.
    """

    ray: Annotated[
        bool | str, Parameter(group=("Parameters", PLACE), metavar="[ADDRESS]", negative="", show_default=False)
    ] = False
    ray_cpus: Count = 1

    def check(self) -> None:
        """Refuse Ray where it is not installed."""
        from importlib.util import find_spec

        from statesize.errors import InputError

        if self.ray is not False and find_spec("ray") is None:
            raise InputError("Ray is not installed; pip install ray, or run without it")

    @contextmanager
    def crew(self) -> Generator[Crew | None]:
        """Workers on Ray for the time of a block; None where this process measures itself."""
        if self.ray is False:
            yield None
            return
        from statesize.parallel.ray import OnRay
        from statesize.parallel.ray_session import ray_session

        with ray_session(self.ray if isinstance(self.ray, str) else None) as ray:
            yield partial(OnRay, ray, cpus=self.ray_cpus, threads=self.ray_cpus)
