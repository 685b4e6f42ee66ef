"""Options that several commands have: how a model is loaded, which processes measure it, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Group, Parameter, Token, validators

from statesize.errors import InputError

if TYPE_CHECKING:
    from statesize.parallel.ray import RayCluster


Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
MOST = 10**9
"""The largest count that an option takes."""
Count: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=MOST))]
_TOKENS = validators.Number(gte=2, lte=MOST)
MaxTokens: TypeAlias = Annotated[int, Parameter(name=("--max-tokens", "--tokens"), validator=_TOKENS)]
Seed: TypeAlias = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63))]
Listed: TypeAlias = Annotated[list[str], Parameter(negative="", consume_multiple=1)]
"""Several values of one option, with commas or spaces between them."""
NoOption: TypeAlias = Annotated[Any, Parameter(parse=False)]
"""What a command does not take of the options that others have."""


def listed(given: Sequence[str | int]) -> list[str]:
    """The values of an option that takes several."""
    return [name.strip() for value in given for name in str(value).split(",") if name.strip()]


def whole_numbers(name: str, given: Sequence[str]) -> list[int]:
    """Numbers with commas or spaces between them."""
    try:
        return [int(number) for number in listed(given)]
    except ValueError as error:
        raise InputError(
            f"{name} must be whole numbers such as 64,128, got {' '.join(given)!r}. It takes all words up to the next "
            "option: give the model first."
        ) from error


def share(name: str, text: str) -> float:
    """A share such as 25%, or 0.25."""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        meant = f"Did you mean {text}%?" if 1 <= number < 100 and "%" not in text else "Give one such as 25%."
        raise InputError(f"{name} must be a share between 0 and 100 %, got {text!r}. {meant}")
    return number


OFTEN = Group("Used most", sort_key=1)
Output: TypeAlias = Annotated[Path | None, Parameter(group=OFTEN)]


def check_model(model: str, command: str = "") -> None:
    """Refuse a model that is not there or not for a command, before what loads models is imported."""
    from statesize.models.plugins import plugin_of, refuse_name

    refuse_name(model)
    if (plugin := plugin_of(model)) is not None:
        plugin.check(model, command)


def model_for(command: str = "") -> Parameter:
    """A model of a command, refused as soon as its name is read."""

    def check(_: object, model: str) -> None:
        check_model(model, command)

    return Parameter(validator=check)


ModelName: TypeAlias = Annotated[str, model_for()]


@Parameter(name="*")
@dataclass(frozen=True)
class Loading:
    """How the model is loaded.

    Attributes:
        revision: Branch, tag or commit of a model of the hub.
        device: Where the model runs, such as cpu or cuda:0.
        dtype: Dtype of the weights and of the run. Default: as stored; weights of half precision run in float32 where
            memory suffices.
        allow_pickle: Read weights that are not safetensors, by torch.load with weights_only=True.
        trust_remote_code: Run Python code that comes with the model.
    """

    revision: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None
    allow_pickle: Flag = False
    trust_remote_code: Flag = False


@dataclass(frozen=True)
class LoadingMany(Loading):  # noqa: D101 -- the help of its options is that of the others
    revision: NoOption = None


Ray: TypeAlias = Annotated[bool | str, Parameter(metavar="[ADDRESS]", negative="", show_default=False)]


def ray_cluster(ray: bool | str, gpus: float = 0.0) -> RayCluster | None:
    """Processes with so many GPUs each on Ray, at an address or started here; None is this process."""
    if ray is False:
        return None
    from statesize.parallel.ray import RayCluster

    return RayCluster(ray if isinstance(ray, str) else None, gpus=gpus)


def _layers(_: object, tokens: Sequence[Token]) -> list[int | str]:
    return [int(value) if value.isdigit() else value for value in listed([token.value for token in tokens])]


AllOrSome: TypeAlias = Literal["all"] | int | None
LayerNames: TypeAlias = Annotated[list[int | str] | None, Parameter(negative="", consume_multiple=1, converter=_layers)]
