"""What pages call things, the headline of a profile and of a comparison, and how a page is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from statesize.adapters.observation import DERIVATIVE, SHARED
from statesize.codes import Code
from statesize.io.text import counted, listed
from statesize.results.profiled import Profiled, comparable, model_mean
from statesize.results.summary import (
    at_middle,
    channels_of,
    keeps_everything,
    known_mean,
    largest_known,
    measured_cuts,
    middle_ceiling,
)

P = TypeVar("P", bound=Profiled)
_MOST_NAMED = 3  # models whose numbers a headline gives one by one

KINDS = {
    "sa": "softmax attention",
    "la": "linear attention",
    "wla": "weighted linear attention",
    "gla": "gated linear attention",
    "s6": "selective state space",
    "gla-s6": "gated linear attention with S6 steps",
    "attention": "softmax attention",
    "sliding": "sliding-window attention",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
}
"""What mixers are called in full whose kind is an abbreviation."""


def kind_title(kind: str) -> str:
    """A kind of mixer in full."""
    return KINDS.get(kind, kind)


def model_title(profile: Profiled) -> str:
    """A model's name; of a bundled model, whose name is the abbreviation of all its mixers, in full."""
    kinds = {str(profile.mixer(name).attrs["kind"]) for name in profile.mixers}
    # The expressions of charts know line separators of Unicode as ends of lines.
    return kind_title(profile.model) if kinds == {profile.model} else " ".join(profile.model.splitlines())


def distinct(profiles: Sequence[P], places: Sequence[str] = ()) -> list[P]:
    """The profiles; those of models that are called alike with the places that they were read from, or numbers."""
    # A chart would add up what stands under one name.
    titles = [model_title(profile) for profile in profiles]
    if len(set(places)) < len(titles):
        places = [str(number) for number in range(1, len(titles) + 1)]
    return [
        profile.called(f"{title} ({place})") if titles.count(title) > 1 else profile
        for profile, title, place in zip(profiles, titles, places, strict=True)
    ]


def position_name(profile: Profiled) -> str:
    """What a position of the inputs is: a token, or no more than a position where there are no token ids."""
    return "token" if bool((profile.tokens["token_ids"].values >= 0).any()) else "position"


def cuts_of(*profiles: Profiled) -> tuple[int, int]:
    """How many cuts of the longest text were measured in a layer, and how many there are."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    measured = max(int(measured_cuts(node).sum(1).max()) for node in nodes)
    return measured, int(np.nanmax([largest_known(node, "cuts") for node in nodes]))


def cuts_name(*profiles: Profiled) -> str:
    """How many of the cuts of the longest text were measured, such as "32 of 511 cuts" or "all 22 cuts"."""
    measured, every = cuts_of(*profiles)
    return f"all {every:,} cuts" if measured == every else f"{measured:,} of {every:,} cuts"


def by_reason(skipped: Mapping[str, object]) -> dict[str, str]:
    """What was left out, with the reason: names that share one in a row, the first three of them."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(str(reason), []).append(name.removesuffix(SHARED))
    return {listed(some): reason for reason, some in names.items()}


def headline(profile: Profiled) -> str:
    """What a model carries past the middle of its texts, of what, and how many layers lack a number: one sentence."""
    title, layers, rows = model_title(profile), comparable(profile), profile.quantities
    title = title if title == profile.model else title[:1].upper() + title[1:]
    ess, without = (model_mean(profile, [row[name] for row in rows], layers) for name in ("ess", "without_sink"))
    parts = sum(Code.PART in {note.code for note in notes} for notes in profile.limits.values())
    lost = len(profile.not_measured)
    of_all = f"of {counted(len(rows) + lost, 'layer')}"
    missing = f"; {lost} {of_all} not measured" if lost else f"; {parts} {of_all} in part" if parts else ""
    if math.isnan(ess):
        return f"{title}: nothing was measured{missing}."
    each = "layer" if all(rows[at]["kind"] == DERIVATIVE for at in layers) else "channel"
    sinks = f" ({without:.1f} without sinks)" if without != ess else ""
    nodes = [profile.mixer(profile.mixers[at]) for at in layers]
    carried = f"{title} carries {ess:.1f} numbers per {each}{sinks}"
    return f"{carried} past {middle_cut(profile)}, {_capacity(nodes)}{missing}."


def _capacity(nodes: Sequence[xr.Dataset]) -> str:
    """What ESS at the middle is set against: tokens that are kept, the size of a state, or what could pass."""
    if all(keeps_everything(node) for node in nodes):
        kept = max(float(known_mean(at_middle(node, node["state_size"].values[:, None]), (0, 1))) for node in nodes)
        return f"of {kept:.0f} tokens kept"
    sizes, ceilings = [largest_known(node, "tss") for node in nodes], [middle_ceiling(node) for node in nodes]
    if all(size <= ceiling for size, ceiling in zip(sizes, ceilings, strict=True)):
        return f"of the {round(np.average(sizes, weights=[channels_of(node) for node in nodes]), 1):g} that it holds"
    return f"of at most {max(ceilings):.0f}"


def comparison_headline(profiles: Sequence[Profiled]) -> str:
    """What each of several models carries past the same cut, without a ranking: one sentence."""
    if len(profiles) == 1:
        return headline(profiles[0])
    differing, cuts = _differing(profiles), [f" past {middle_cut(profile)}" for profile in profiles]
    ess = [model_mean(profile, [row["ess"] for row in profile.quantities]) for profile in profiles]
    named = zip(map(model_title, profiles), ess, cuts if differing else [""] * len(cuts), strict=True)
    each = [f"{title} {carried:.1f}{cut}" for title, carried, cut in named]
    shown = listed(each) if len(each) <= _MOST_NAMED else f"{min(ess):.1f} to {max(ess):.1f} in {len(ess)} models"
    compares = f"Their {differing} differ, so ESS does not compare" if differing else f"Numbers per channel{cuts[0]}"
    return f"{compares}: {shown}.{_TOTAL.get(differing, '')}"


_TOTAL = {
    "tokenizers": " Total ESS (--wide, .summary()) does.",
    "tokenizers and texts": " Profile one short text whole with each; then total ESS (--wide, .summary()) does.",
}
"""The sentence on total ESS, by what of the profiles differs."""


def _differing(profiles: Sequence[Profiled]) -> str:
    """Name what differs between profiles, so that ESS does not compare: a key of _TOTAL, texts or cuts, or ""."""
    if len({str(profile.tree.attrs["tokens_sha256"]) for profile in profiles}) == 1:
        return "cuts" if len(set(map(middle_cut, profiles))) > 1 else ""
    named, texts = set[tuple[int, str]](), set[str]()
    for profile in profiles:
        ids, tokens, special = (profile.tokens[name].values.ravel() for name in ("token_ids", "tokens", "special"))
        named |= {*zip(ids[ids >= 0].tolist(), tokens[ids >= 0].tolist(), strict=True)}
        texts.add("".join(tokens[(ids >= 0) & ~special]).strip())
    if len(named) == len(dict(named)):
        return "texts"
    return "tokenizers" if len(texts) == 1 else "tokenizers and texts"


def middle_cut(profile: Profiled) -> str:
    """The cut nearest to the middle of the texts, of those that were measured."""
    name, lengths = position_name(profile), profile.tokens["length"].values
    middles = np.concatenate([profile.mixer(layer)["middle"].values for layer in profile.mixers])
    known, longest = np.unique(middles[np.isfinite(middles)]), int(lengths.max())
    if len(known) == 1 and len(set(lengths.tolist())) == 1:
        nearest = "" if abs(2 * known[0] - longest) <= 1 else ", the cut nearest to the middle"
        return f"{name} {int(known[0]):,} of {longest:,}{nearest}"
    return f"the middle of texts of up to {longest:,} {name}s"


def every_token(profile: Profiled) -> str:
    """How many cuts were measured, how all are, and what that costs; "" where all were."""
    measured, every = cuts_of(profile)
    if measured == every:
        return ""
    times = math.ceil(every / max(measured, 1))
    return f"Measured: {cuts_name(profile)}. --positions all measures each, in up to {times} times the time."


def run_sentence(rows: Sequence[dict[str, Any]]) -> str:
    """How far the observed run was from an unaltered one; "" where that is not known."""
    known = [row["run_difference"] for row in rows if math.isfinite(row.get("run_difference", math.nan))]
    return f"Largest change of the model's last hidden state by measuring: {max(known):.1g}." if known else ""


def reading(profiles: Sequence[Profiled]) -> list[str]:
    """What the numbers of a page are, and what they leave out."""
    return [
        "ESS is about how many numbers per channel matter to later tokens. Maps, bars and tables show it at "
        "the cut in the middle of the texts, averaged over texts and heads. Averages and norm are means over "
        f"{listed(list(dict.fromkeys(map(cuts_name, profiles))))}.",
        "The ceiling is the most that ESS could be: what the layer holds, or the tokens before or after the cut.",
        "ESS is what a layer carries of this text, not what a task needs: more of it makes no better model.",
    ]
