"""What limits a number, or why there is none: each code with its sentence, and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

HOW_TO_SUPPLY = "give the class of its mixer a method `operator(hidden)` that returns a statesize Operator"
_OPERATOR = f"G{HOW_TO_SUPPLY[1:]}"
_IF_LINEAR = f"If it is linear in its values, {HOW_TO_SUPPLY}."


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
    FEW_TEXTS = "few texts", "Too little text to tell: {}", "Give more texts."
    SOME_TEXTS = "some texts", "It was measured in some of the texts only.", "Read why the others lack it."
    SHORT_TEXT = "short text", "Too little text to tell: {}", "Give texts of 64 tokens or more."
    WORTHLESS = "context worth nothing", "The context before the cut is worth too little: {}", "Give longer texts."
    SINK = "sink", "Attention sinks: {}", "Read `without_sink`."

    # What of a layer is measured.
    PART = "in part", "Measured in part: {}", f"{_OPERATOR} of the whole, or read the numbers as those of T alone."
    BEFORE_PARTS = "mixed before its parts", "Positions are mixed before what is measured in it.", f"{_OPERATOR}."
    MIXED_BEFORE = "mixed before", "Its values are mixed before by {}: see its row.", "Read both rows."
    CONTAINS = "contains other mixing", "Its T contains {}", "Nothing: its number is of all that it mixes."
    UNSEEN = "other mixing unseen", "Whether it mixes by more than this was not seen: {}", "Compute by torch alone."
    VALUES = "values", "Its T leaves out what is done to its values.", "Read its numbers as those of T alone."
    DERIVATIVE = "derivative", "It has no T, and is measured by its derivative.", _IF_LINEAR
    SEEN = "seen in it", "Seen in it: {}", f"{_OPERATOR}."

    # How far its numbers hold.
    UNCHECKED = "unchecked", "Its T is not checked: {}.", "Make the layer such that it runs by itself, or check T."
    ROUNDED = "rounded", "It computes with more rounding than float64 has.", "Load the model in float32 or float64."
    UNKNOWN_SIZE = "state size unknown", "How many numbers it can store is unknown: {}", "Set its `state_size`."
    COUNTED = "counted so", "Its stored numbers are counted as is said here.", "Set its `state_size`, if it is another."

    # Why a layer has no numbers.
    NOT_MEASURED = "not measured", "It could not be measured.", "Read the cause."
    LATER_POSITIONS = "later positions", "attends to later positions: load it by AutoModelForCausalLM.", "Mask them."
    LOOKS_AHEAD = "looks ahead", "Later input changes what it returned before.", "Mask it."
    DIFFERS = "differs", "Its T, or its output alone, is not what the model computes.", "Read by how much, and why."
    OUTSIDE_TORCH = "outside torch", "It computes outside torch's operations.", f"Use torch, or {HOW_TO_SUPPLY}."
    UNKNOWN_OPERATION = "unknown operation", "It mixes positions by an unknown operation: {}", f"{_OPERATOR}."
    NOT_LINEAR = "not linear", "It has no T: its mixing of positions is not linear.", _IF_LINEAR
    WITHIN_POSITIONS = "within positions", "mixes within each position alone.", "Nothing: it carries nothing further."
    HELD_FIXED = "held fixed", "It reads another sequence, which does not change.", "Nothing: it remembers no text."
    NO_MIXING = "no mixing", "no mixing of positions that statesize knows was seen", f"If it mixes, {HOW_TO_SUPPLY}."
    NOT_CALLED = "not called", "the forward pass does not call it", "Call the model in a way that uses it."
    WRITES_NOTHING = "writes nothing", "It returns 0, or its input.", "Measure it once it is trained, or leave it out."

    # What a test by cutting leaves open.
    SIZES_AHEAD = (
        "sizes know the future",
        "Sizes are of the ESS of the whole text.",
        "Read the rows with sizes of others, if there are several texts.",
    )
    KEYS_KEPT = "keys kept", "Only values are cut; keys are kept whole.", "Ask `statesize cache` what a cache may lose."
    SHARED_CACHE = "shared cache", "A cache of several layers was not tried: {}", "Read the rows of single heads."
    UNMOVED = "queries not moved", "The last rows took the place of later queries: {}", "Read it as an upper bound."
    UNEQUAL_CACHES = "unequal caches", "Budgets by curves and by layer are unequal.", "Read the rows of equal ones."
    NO_FACTS = "facts untested", "A small mean loss does not show that no fact is lost.", "Ask it for facts in a text."
    NOT_EVICTED = "not evicted", "No tokens are evicted: {}", "Give longer texts."
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
    def from_json(cls, value: dict[str, str]) -> Self:
        """The note that `to_json` gave."""
        return cls(Code(value["code"]), value["detail"])


def joined(notes: Iterable[Note]) -> str:
    """Some notes as one text."""
    return " ".join(map(str, notes))
