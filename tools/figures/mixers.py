"""The tables of mixers, made from their classes: what mixes, its units and state, what is around it, and its paper."""

from __future__ import annotations

import inspect
import re
from functools import cache

import torch

from statesize.lab.mixers import MIXERS, LanguageModel, Mixer, ModelConfig
from tools.figures.on_record import table

# A layer of the default shape after so many of so many tokens.
_SEEN, _TOKENS = 100, 128
_DIFFERS = "Differs from the paper: "


def mixers() -> dict[str, str]:
    """A row for each mixer of the package."""
    config, kinds = ModelConfig(), MIXERS.items()
    return {
        "table": table(
            ("name", "what a unit mixes by", "units", "TSS", "around it"),
            ((f"`{name}`", _paragraphs(mixer)[0], *_measured(name), around(mixer)) for name, mixer in kinds),
        ),
        "papers": table(
            ("name", "paper", "difference"), ((f"`{name}`", *paper_and_difference(mixer)) for name, mixer in kinds)
        ),
        "shape": f"width {config.width}, {config.heads} heads, n = {config.key_size}",
        "seen": f"{_SEEN} of {_TOKENS}",
    }


def paper_and_difference(mixer: type) -> tuple[str, str]:
    """The paper of a mixer without its title, and what differs from it, as the docstring says it in one paragraph."""
    (paragraph,) = (one for one in _paragraphs(mixer) if _DIFFERS in one)
    paper, _, difference = paragraph.partition(_DIFFERS)
    return re.sub('"[^"]*", ', "", paper).strip().removesuffix("."), difference.removesuffix(".")


def around(mixer: type[Mixer]) -> str:
    """What stands around T in the layer."""
    parts = {
        "short convolution": mixer.convolved,
        "silu": mixer.activated,
        "norm": mixer.normed,
        "silu gate": mixer.gated,
    }
    return ", ".join(name for name, there in parts.items() if there) or "nothing"


@cache
def _measured(name: str) -> tuple[str, str]:
    """Units and theoretical state-size of a mixer."""
    mixer = LanguageModel(ModelConfig(name, layers=1), torch.Generator().manual_seed(0)).blocks[0].mixer
    operator = mixer.operator(torch.zeros(1, _TOKENS, mixer.config.width))
    units = "heads" if mixer.multiplicity > 1 else "channels"
    return f"{operator.batch_shape[1]} {units}", f"{int(operator.state_size()[_SEEN]):,}"


def _paragraphs(mixer: type) -> list[str]:
    return [" ".join(one.split()).replace("|", "\\|") for one in (inspect.getdoc(mixer) or "").split("\n\n")]
