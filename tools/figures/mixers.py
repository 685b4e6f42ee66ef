"""The tables of mixers, made from their classes: what mixes, its units and state, what is around it, and its paper."""

from __future__ import annotations

import inspect
import re
from functools import cache

import torch

from statesize.lab.mixers import LanguageModel, ModelConfig, mixer
from tools.figures.on_record import table

# A layer of the default shape after so many of so many tokens.
_SEEN, _TOKENS = 100, 128
_DIFFERS = "Differs from the paper: "
NAMES = ("sa", "la", "wla", "gla", "s6", "gla-s6", "deltanet", "gated-deltanet")


def mixers() -> dict[str, str]:
    """A row for each mixer of the package."""
    config, kinds = ModelConfig(), [(name, mixer[name]) for name in NAMES]
    return {
        "table": table(
            ("name", "what a unit mixes by", "units", "TSS"),
            ((f"`{name}`", _paragraphs(kind)[0], *_measured(name)) for name, kind in kinds),
        ),
        "papers": table(
            ("name", "paper", "difference"), ((f"`{name}`", *paper_and_difference(kind)) for name, kind in kinds)
        ),
        "shape": f"width {config.width}, {config.heads} heads, n = {config.key_size}",
        "seen": f"{_SEEN} of {_TOKENS}",
    }


def paper_and_difference(kind: type) -> tuple[str, str]:
    """The paper of a mixer without its title, and what differs from it, as the docstring says it in one paragraph."""
    (paragraph,) = (one for one in _paragraphs(kind) if _DIFFERS in one)
    paper, _, difference = paragraph.partition(_DIFFERS)
    return re.sub('"[^"]*", ', "", paper).strip().removesuffix("."), difference.removesuffix(".")


@cache
def _measured(name: str) -> tuple[str, str]:
    """Units and theoretical state-size of a mixer."""
    layer = LanguageModel(ModelConfig(name, layers=1), torch.Generator().manual_seed(0)).blocks[0].mixer
    operator = layer.operator(torch.zeros(1, _TOKENS, layer.config.width))
    units = "heads" if layer.multiplicity > 1 else "channels"
    return f"{operator.batch_shape[1]} {units}", f"{int(operator.state_size()[_SEEN]):,}"


def _paragraphs(kind: type) -> list[str]:
    return [" ".join(one.split()).replace("|", "\\|") for one in (inspect.getdoc(kind) or "").split("\n\n")]
