"""Models that statesize trains: heads of any size, of balanced or selected states, in float or int8, fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import nn

from statesize.check import refuse, require_kind, share_of
from statesize.errors import ModelError
from statesize.lab.compression.proposals import Ranking
from statesize.lab.compression.shrinking import fine_tuned, rounded_model
from statesize.lab.mixers.checkpoint import save_checkpoint
from statesize.lab.mixers.config import REDUCIBLE, ROUNDED
from statesize.lab.mixers.model import LanguageModel
from statesize.models.files import write_tokenizer
from statesize.reduction.reducible import Bases, Made, Reducible, ReductionRequest, refuse_second_cut
from statesize.reduction.windows import TokenWindows, text_of
from statesize.texts.tokens import AnyTokenizer


class TrainedModel(Reducible):
    """A `LanguageModel`."""

    model: LanguageModel

    @property
    def state_size(self) -> int:
        """The size of a key."""
        return self.model.config.key_size

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """As the configuration has them."""
        return self.model.config.state_sizes

    @property
    def state_bytes(self) -> int:
        """The bytes of the layers' own caches."""
        caches = [block.mixer.initial_cache(1) for block in self.model.blocks if block.mixer.kind in REDUCIBLE]
        return sum(part.nbytes for cache in caches for part in cache[1:])

    @property
    def positions(self) -> int | None:
        """Those that were learnt, if any."""
        return self.model.config.positions or None

    def kept(self, request: ReductionRequest) -> int:
        """States of all heads together."""
        config, n = self.model.config, self.state_size
        heads = sum(map(self._units, range(config.layers)))
        if not heads:
            raise ModelError(
                f"model must have layers of {', '.join(REDUCIBLE)}, got {config.mixer}. What it keeps of a text has no "
                "fixed size that could be cut."
            )
        if config.state_sizes or config.state_bits:
            refuse_second_cut()
        if request.free_basis:
            refuse("free_basis", "left out for all models but Mamba-2", True)
        if request.int8 and not self._rounds:
            refuse("int8", f"left out unless all layers are of {', '.join(sorted(ROUNDED))}", config.mixer)
        share = share_of(request.state, n)
        if not request.int8 and share == 1:
            refuse("state", "less than all of it", request.state, "Ask for int8 to round a whole state.")
        if round(share * n * heads) < heads:
            refuse("state", f"at least 1 of {n} numbers per head", request.state)
        return round(share * n * heads)

    def check_tokenizer(self, tokenizer: AnyTokenizer) -> None:
        """One that tokenizer.json can hold."""
        require_kind("tokenizer", tokenizer, Tokenizer, "a Tokenizer of the library tokenizers")

    def cut(
        self, kept: int, calibration: TokenWindows, choice: TokenWindows, request: ReductionRequest
    ) -> tuple[nn.Module, nn.Module, str]:
        """By the way of spreading the states over the heads that loses least on the windows for the choice."""
        ranking = Ranking.of(self.model, calibration, request.on_share)
        control, (cut, words) = self.model, ranking.best_cut(kept, choice)
        steps = request.fine_tune
        if steps:
            text = torch.cat([text_of(calibration.targets), text_of(choice.targets)])
            cut, control = (fine_tuned(one, text, request.length, steps) for one in (cut, control))
            words.append(f"{steps} steps of fine-tuning")
        if request.int8:
            cut = rounded_model(cut)
            words.append("int8")
        return control, cut, ", ".join(words)

    def every_cut(self, shares: Sequence[float], calibration: TokenWindows) -> tuple[list[Made], Bases]:
        """By each way of spreading the states over the heads, in float and, where it can be, in int8."""
        ranking = Ranking.of(self.model, calibration)
        heads = sum(map(len, ranking.bases.values()))
        made = [Made("uncut", 1.0, "int8", rounded_model(self.model))] if self._rounds else []
        for share in shares:
            cuts = ranking.cuts(max(heads, round(share * self.state_size * heads)))
            for way, cut in cuts.items():
                made.append(Made(way, share, "float", cut))
                if self._rounds:
                    made.append(Made(way, share, "int8", rounded_model(cut)))
        return made, {f"layers.{layer}.mixer": own for layer, own in ranking.bases.items()}

    def save(self, folder: Path, tokenizer: AnyTokenizer) -> None:
        """As a checkpoint with tokenizer.json beside it."""
        save_checkpoint(self.model, folder)
        write_tokenizer(folder, cast("Tokenizer", tokenizer))

    def rounded(self) -> nn.Module | None:
        """A copy that rounds after each token."""
        return rounded_model(self.model) if self._rounds else None

    @property
    def _rounds(self) -> bool:
        return set(self.model.config.pattern) <= ROUNDED

    def _units(self, layer: int) -> int:
        """How many sizes a layer has."""
        mixer = self.model.config.mixer_of(layer)
        return 0 if mixer not in REDUCIBLE else 1 if mixer == "s6" else self.model.config.heads
