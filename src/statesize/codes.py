"""What limits a number, or why there is none: each code with its sentence, and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, cast

HOW_TO_SUPPLY = "give the class of its mixer a method `operator(hidden)` that returns a statesize Operator"
_OPERATOR = f"G{HOW_TO_SUPPLY[1:]}"


class Code(StrEnum):
    """What limits a number; code compares these, and only people read the sentences."""

    sentence: str
    cure: str

    def __new__(cls, value: str, sentence: str, cure: str) -> Self:
        """A code with its sentence, in which {} stands for the detail, and its cure."""
        code = str.__new__(cls, value)
        code._value_, code.sentence, code.cure = value, sentence, cure
        return code

    # The model and its texts.
    NOT_CAUSAL = "not causal", "The model is not causal: {}", "Mask later positions."
    FEW_TEXTS = "few texts", "Too little text to tell: {}", "Give 5 texts or more."
    SOME_TEXTS = "some texts", "It was measured in some of the texts only.", "Read why the others lack it."
    SHORT_TEXT = "short text", "Too little text to tell: {}", "Give texts of 64 tokens or more."
    WORTHLESS = (
        "context worth nothing",
        "The context before the cut is worth too little for a loss of it to show: {}",
        "Give longer texts.",
    )
    SINK = "sink", "Attention sinks: {}", "Read `without_sink`."

    # What of a layer is measured.
    PART = "in part", "Measured in part: {}", f"{_OPERATOR} of the whole, or read the numbers as those of T alone."
    BEFORE_PARTS = "mixed before its parts", "Positions are mixed before what is measured in it.", f"{_OPERATOR}."
    MIXED_BEFORE = "mixed before", "Its values are mixed before by {}: see its row.", "Read both rows."
    CONTAINS = "contains other mixing", "Its T contains {}", "Nothing: its number is of all that it mixes."
    UNSEEN = (
        "other mixing unseen",
        "Whether it mixes by more than this was not seen: {}",
        "Let it return a dimension of positions, and compute by torch alone.",
    )
    VALUES = "values", "Its T leaves out what is done to its values.", "Read its numbers as those of T alone."
    DERIVATIVE = "derivative", "It has no T, and is measured by its derivative.", f"{_OPERATOR}, if there is one."
    SEEN = "seen in it", "Seen in it: {}", f"{_OPERATOR}."

    # How far its numbers hold.
    UNCHECKED = "unchecked", "Its T is not checked: {}.", "Make the layer such that it runs by itself, or check T."
    ROUNDED = "rounded", "It computes with more rounding than float64 has.", "Load the model in float32 or float64."
    UNKNOWN_SIZE = "state size unknown", "How many numbers it can store is unknown: {}", "Set its `state_size`."
    COUNTED = "counted so", "Its stored numbers are counted as is said here.", "Set its `state_size`, if it is another."

    # Why a layer has no numbers.
    NOT_MEASURED = "not measured", "It could not be measured.", "Read the cause."
    LATER_POSITIONS = (
        "later positions",
        "attends to later positions: an encoder, a prefix model, or cross-attention to another sequence of as many "
        "positions. statesize measures causal models: mask later positions. If the model is of transformers, load "
        "it by AutoModelForCausalLM.",
        "Mask later positions, or load it by AutoModelForCausalLM.",
    )
    LOOKS_AHEAD = "looks ahead", "It must be causal, and later input changes what it returned before.", "Mask it."
    DIFFERS = (
        "differs",
        "Its T, or what it returns alone, is not what the model computes.",
        "Read by how much, and why.",
    )
    OUTSIDE_TORCH = (
        "outside torch",
        "It computes outside torch's operations, where statesize cannot follow: {}",
        f"Compute by torch alone, or {HOW_TO_SUPPLY}.",
    )
    UNKNOWN_OPERATION = (
        "unknown operation",
        "It mixes positions by an operation that statesize does not know: {}",
        f"Write it by others, or {HOW_TO_SUPPLY}.",
    )
    NOT_LINEAR = (
        "not linear",
        "It mixes positions, and nothing with an entry for each position is linear in another: it has no T.",
        f"{_OPERATOR}, if there is one.",
    )
    WITHIN_POSITIONS = (
        "within positions",
        "mixes no positions of the text: other numbers at half of them change what it returns at no other one, so that "
        "its softmax is over something else, such as the heads of each token.",
        "Nothing: it carries nothing from token to token.",
    )
    HELD_FIXED = "held fixed", "It reads another sequence, which does not change.", "Nothing: it remembers no text."
    NO_MIXING = (
        "no mixing",
        f"no mixing of positions that statesize knows was seen in it; if it mixes, {HOW_TO_SUPPLY}",
        f"{_OPERATOR}, if it mixes.",
    )
    NOT_CALLED = "not called", "the forward pass does not call it", "Call the model in a way that uses it."
    WRITES_NOTHING = (
        "writes nothing",
        "It returns 0, or what it takes: whether it mixes positions cannot be seen.",
        "Measure it once it is trained, or leave it out.",
    )
    # What a test by cutting leaves open.
    SIZES_AHEAD = (
        "sizes know the future",
        "Sizes are multiples of the ESS of the whole text, which its future changes.",
        "Read the rows with sizes of other texts.",
    )
    KEYS_KEPT = (
        "keys kept",
        "Only values are cut. Keys are kept whole, and take as many bytes where they are stored.",
        "Ask `statesize cache` what a cache may lose.",
    )
    SHARED_CACHE = (
        "shared cache",
        "What a cache of several layers must hold for all of them was not tried: {}",
        "Read the rows of single heads.",
    )
    UNMOVED = (
        "queries not moved",
        "Nothing that is known turns queries to later positions, so the last rows took their place: {}",
        "Read their part without hindsight as an upper bound that is not tight.",
    )
    UNEQUAL_CACHES = (
        "unequal caches",
        "Rows by curves need caches of unequal length, and rows by layer need layers of unequal length.",
        "Read the rows of equal tokens for a cache of one length.",
    )
    NO_FACTS = (
        "facts untested",
        "A small mean loss does not show that no single fact of the context is lost with its tokens.",
        "Ask a model with that cache for facts before you rely on it.",
    )
    NOT_EVICTED = "not evicted", "No tokens are evicted: {}", "Give longer texts, or a larger --max-tokens."
    NOT_CUT = "not cut", "It cannot be cut.", "Read the cause."
    NOT_COMPARABLE = "not comparable", "Its numbers do not compare with those of other points.", "Read the cause."


NOTHING_LOST = frozenset({Code.NO_MIXING, Code.NOT_CALLED, Code.WITHIN_POSITIONS, Code.HELD_FIXED, Code.WRITES_NOTHING})
"""Codes of layers without numbers in which no mixing of the measured positions is left out."""


@dataclass(frozen=True)
class Note:
    """A code, and what is particular here: what its sentence has a place for, or a text in place of the sentence."""

    code: Code
    detail: str = ""

    def __str__(self) -> str:
        """The sentence that people read."""
        before, place, behind = self.code.sentence.partition("{}")
        return f"{before}{self.detail}{behind}" if place else self.detail or before

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Why something was refused: the note that it was raised with, or its message."""
        note = error.args[0] if error.args else ""
        return note if isinstance(note, cls) else cls(Code.NOT_MEASURED, str(error))

    def to_json(self) -> dict[str, str]:
        """What `from_json` reads."""
        return {"code": self.code.value, "detail": self.detail}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The note of a code and a detail by these names; anything else is a ValueError."""
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        if fields.keys() != {"code", "detail"} or not all(isinstance(text, str) for text in fields.values()):
            raise ValueError(f"a note must have a code and a detail, got {value!r}")
        return cls(Code(fields["code"]), fields["detail"])


def joined(notes: Iterable[Note]) -> str:
    """Some notes as one text."""
    return " ".join(map(str, notes))
