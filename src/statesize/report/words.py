"""What profiles say in words: one sentence of facts, its details, and one line per model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, repeat
from typing import TypeAlias

import numpy as np
import xarray as xr

from statesize.adapters.observation import NOT_CAUSAL, OVERSIZED, PART, UNCHECKED
from statesize.io.text import byte_count, counted, listed
from statesize.measurement.settings import MARKED, SINK
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, between, mean_interval, too_short
from statesize.report.names import kind_title, model_title, model_titles, position_name, short_names
from statesize.results.profiled import Profiled, comparable, has_sinks, model_mean
from statesize.results.summary import (
    at_middle,
    binding,
    channels_of,
    ess_values,
    keeps_everything,
    known_mean,
    largest_size,
    middle_bounds,
    middle_bytes,
    middle_ceiling,
    unit_limits,
    without_sinks,
)

Bounds: TypeAlias = tuple[float, float]

_SAME = 1.05
"""Ratios below this count as equal in words."""
_NAMED = 4
"""Layers with most ESS that a sentence names."""


@dataclass(frozen=True)
class Headline:
    """The sentence, and the numbers behind it."""

    sentence: str
    detail: str


@dataclass(frozen=True)
class _Party:
    """A model, or the layers of one kind in it.

    Attributes:
        layers: Between which ESS of each of its layers lies there, by the layer's name.
        state_bytes: What all of them hold there, of the longest text; 0 where that is not known.
        bounds: Between which ESS lies at the middle of the texts, numbers per channel; equal where it is exact.
        sinkless: Entropy-ESS there without the columns of attention sinks; NaN where there are none.
        of: What it is set against, in words.
        place: Where that is, in words.
        idle: Whether they are sliding windows that are longer than the text.
        derived: Whether they are measured by their derivative: what is carried is of whole layers, not of channels.
    """

    name: str
    layers: Mapping[str, Bounds]
    state_bytes: float
    bounds: Bounds
    sinkless: float
    of: str
    place: str
    idle: bool
    derived: bool

    @property
    def carried(self) -> float:
        """The middle of the bounds."""
        return sum(self.bounds) / 2

    @property
    def bytes_per_layer(self) -> float:
        return self.state_bytes / len(self.layers)


def headline(profiles: Sequence[Profiled], metric: str = "entropy", titles: Sequence[str] = ()) -> Headline:
    """The two models, or kinds of layers of one model, whose memory and ESS differ most at the middle; or the one."""
    whole = len(profiles) > 1
    titles = titles or model_titles(profiles)
    parties = [
        party
        for profile, title in zip(profiles, titles, strict=True)
        for party in _parties(profile, metric, title, whole=whole)
    ]
    parties = [party for party in parties if party.carried > 0]
    lack = "".join(f" {said}" for one, title in zip(profiles, titles, strict=True) if (said := _lack(one, title)))
    if not parties:
        return Headline(f"Nothing was measured that carries anything.{lack}", "")
    same_text = len({str(profile.attributes["tokens_sha256"]) for profile in profiles}) == 1
    alike = [party for party in parties if not party.derived]
    # Numbers of whole layers are never set against those of channels.
    alike = alike if len(alike) > 1 else [party for party in parties if party.derived]
    if len(alike) < 2 or not same_text:
        sentence = " ".join(map(_alone, parties[:3])) + lack
        return Headline(sentence, _detail(parties[:3], profiles, metric, whole=True))
    if not whole:
        # Kinds of layers are compared by one layer of each, however many the model has.
        alike = [replace(party, state_bytes=party.bytes_per_layer) for party in alike]
    pair = max(combinations(alike, 2), key=lambda two: abs(_surplus(two[0]) - _surplus(two[1])))
    # The first is the one that the sentence says more of: of bytes where it speaks of them, else of what is carried.
    apart = _memory(*pair) >= _SAME
    pair = sorted(pair, key=lambda party: (apart and party.state_bytes, party.carried), reverse=True)
    return Headline(_sentence(*pair, whole=whole) + lack, _detail(pair, profiles, metric, whole=whole))


@dataclass(frozen=True)
class _Use:
    """What a model carries at the middle of its text.

    Attributes:
        title: What it is called.
        held: That and what it could carry, of its layers with a state (False) and of those with a cache (True).
        share: Its share, with an interval; of its states where it has both.
        sinks: Behind the unit, that attention sinks are left out; "" where there are none.
    """

    title: str
    held: Mapping[bool, Bounds]
    share: Interval
    sinks: str

    @property
    def name(self) -> str:
        """The title at the beginning of a sentence."""
        return _sentence_case(self.title)

    @property
    def numbers(self) -> str:
        return _held_numbers(self.held, f" numbers per channel{self.sinks}")


def capacity_use(profiles: Sequence[Profiled], titles: Sequence[str] = ()) -> str:
    """Which of several models uses more of what it can hold at the middle of the text, then how far that goes."""
    titles = titles or model_titles(profiles)
    parties = [_parties(*given, whole=True)[0] for given in zip(profiles, repeat("entropy"), titles)]
    # Numbers of whole layers, and of layers of unknown size, have no size that they could be a share of.
    sized = all(math.isfinite(one.summary_rows()[at]["tss"]) for one in profiles for at in comparable(one))
    if len(profiles) < 2 or not sized or any(party.derived or not party.carried > 0 for party in parties):
        return ""
    uses = list(map(_use, profiles, titles))
    cuts = [(one.attributes["tokens_sha256"], party.place) for one, party in zip(profiles, parties, strict=True)]
    if len(set(cuts)) == 1:
        return f"{' '.join(_ranked_by_kind(uses, f' past {parties[0].place}'))} {_reach(profiles)}"
    found = zip(uses, parties, strict=True)
    carried = " ".join(f"{use.name} carries {use.numbers} past {party.place}." for use, party in found)
    shared, alone = read_alike(titles, cuts)
    apart = "They did not read the same tokens up to the same cut, so these numbers do not compare."
    if shared:
        apart = f"Only numbers of the same tokens and cut compare: those of {shared}."
        apart += f" Other tokens, or another cut: {alone}." * bool(alone)
    return f"{carried} {apart}"


def _use(profile: Profiled, title: str) -> _Use:
    held = _held(profile)
    carried, most = next(iter(held.values()))
    return _Use(title, held, _share_over_texts(profile, carried / most), " without sinks" * has_sinks(profile))


def _ranked_by_kind(uses: Sequence[_Use], past: str) -> list[str]:
    """Sentences that rank models by their shares; a cache grows with the text, so it ranks among caches only."""
    uses = sorted(uses, key=lambda use: use.share.value, reverse=True)
    states, caches, hybrids = (
        [use for use in uses if set(use.held) == kinds] for kinds in ({False}, {True}, {False, True})
    )
    if uses in (states, caches):
        return [_ranked(uses, past)]
    if len(states) > 1:
        said = [_ranked(states, past, "Among states, ")]
    else:
        said = [f"{use.name} carries {use.numbers}{past}." for use in states]
    if len(caches) > 1:
        said.append(_ranked(caches, past, "Among caches, "))
    else:
        said += [f"{use.name} keeps every token and carries {use.numbers}." for use in caches]
    # Those of a model with states and caches rank nowhere.
    said += [f"{use.name} carries {use.numbers}{'' if said else past}." for use in hybrids[:1]]
    said += [f"{use.name}: {_held_numbers(use.held, use.sinks)}." for use in hybrids[1:]]
    if hybrids or len(states) == len(caches) == 1:
        said.append("Do not compare shares of states with shares of caches, which grow with the text.")
    return said


def _ranked(uses: Sequence[_Use], past: str, among: str = "") -> str:
    """Which of several models, the one with the largest share first, uses more of what it can hold."""
    first, last = uses[0], uses[-1]
    if first.share.value < _SAME * last.share.value:
        answer, they = f"{'all' if len(uses) > 2 else 'both'} use about as much", "they"
        answer = answer if among else answer.capitalize()
    else:
        answer, they = f"{first.title if among else first.name} uses {'most' if len(uses) > 2 else 'more'}", "it"
    each = ", ".join(f"{use.title} {use.share:.0%} ({use.numbers})" for use in uses)
    return f"{among}{answer} of what {they} can hold{past}: {each}."


def read_alike(titles: Sequence[str], texts: Sequence[Hashable]) -> tuple[str, str]:
    """The models that have a text in common, and those whose text no other has; "" where there are none."""
    groups = [[title for title, text in zip(titles, texts, strict=True) if text == one] for one in dict.fromkeys(texts)]
    shared = "; ".join(" and ".join(group) for group in groups if len(group) > 1)
    return shared, " and ".join(group[0] for group in groups if len(group) == 1)


def _reach(profiles: Sequence[Profiled]) -> str:
    """How far a finding goes."""
    texts = counted(min(int(profile.tokens.sizes["sequence"]) for profile in profiles), "text")
    hidden = len(profiles) == 1 and sink_note(profiles[0])
    sinks = "; attention sinks hide some of what is carried" if hidden else ""
    return f"This is of {texts} at one cut, and no verdict on a model{sinks}."


def _held(profile: Profiled) -> dict[bool, Bounds]:
    """What a channel carries at the middle without sinks, and could, in layers with a state (False), a cache (True)."""
    nodes = [profile.mixer(name) for name in profile.mixers]
    carried, most = [*_sinkless(profile).values()], [middle_ceiling(node) for node in nodes]
    of_kind = {
        kind: [at for at in comparable(profile) if keeps_everything(nodes[at]) == kind] for kind in (False, True)
    }
    return {
        kind: (model_mean(profile, carried, layers), model_mean(profile, most, layers))
        for kind, layers in of_kind.items()
        if layers
    }


def _held_numbers(held: Mapping[bool, Bounds], unit: str) -> str:
    told = [f"{carried:.1f} of {most:.0f}" for carried, most in held.values()]
    return f"{told[0]}{unit}" + (f" in states and {told[1]} in caches" if len(told) > 1 else "")


def _share_over_texts(profile: Profiled, share: float) -> Interval:
    """A share with its interval over texts, where these suffice and all heads were measured."""
    rows, nodes = profile.summary_rows(), [profile.mixer(name) for name in profile.mixers]
    texts = int(profile.tokens.sizes["sequence"])
    if texts < FEWEST_TEXTS or any(row["measured"] < row["units"] for row in rows):
        return Interval(share)
    ess = np.array([known_mean(without_sinks(node), 1) for node in nodes])
    most = np.array([known_mean(at_middle(node, unit_limits(node)), 1) for node in nodes])
    layers = comparable(profile)
    carried, held = ([model_mean(profile, list(one[:, text]), layers) for text in range(texts)] for one in (ess, most))
    found = mean_interval(np.array(carried) / np.array(held))
    return Interval(share, max(found.low, 0.0), min(found.high, 1.0))


def _surplus(party: _Party) -> float:
    return math.log((party.state_bytes or 1) / party.carried)


def _lack(profile: Profiled, title: str) -> str:
    """That it is not causal, which layers lack a measurement or check, and that the text is too short; else ""."""
    measured, lost = len(profile.mixers), len(profile.not_measured)
    marks = NOT_CAUSAL, UNCHECKED, PART, OVERSIZED
    others, unchecked, parts, oversized = (
        sum(len(names) for note, names in profile.notes.items() if mark in note) for mark in marks
    )
    said = (
        f"{_sentence_case(title)} is not causal: later tokens change its earlier outputs." if others else "",
        f"Measured: {measured} of {counted(measured + lost, 'layer')} of {title}." if lost else "",
        f"T of {counted(unchecked, 'layer')} is as the class says, and not checked." if unchecked else "",
        f"{PART}: {counted(parts, 'layer')}, without a mixing before or behind T." if parts else "",
        f"The `state_size` of {counted(oversized, 'layer')} seems too large." if oversized else "",
        too_short(int(profile.tokens["length"].values.max()), position_name(profile)).strip(),
    )
    return " ".join(filter(None, said))


def _memory(one: _Party, other: _Party) -> float:
    """How many times the bytes of the one that stores less the other stores; NaN where one is not known."""
    least, most = sorted((one.state_bytes, other.state_bytes))
    return most / least if least > 0 else math.nan


def model_line(profile: Profiled, metric: str = "entropy") -> str:
    """The ESS of a model at the middle, and its layers with most and least, in one line."""
    (party,) = _parties(profile, metric, model_title(profile), whole=True)
    if math.isnan(party.carried):
        return f"{_sentence_case(party.name)}: nothing was measured."
    said = [_alone(party), _sentence_case(_layer_span(profile, party)), _lack(profile, model_title(profile))]
    return " ".join(filter(None, said))


def layer_line(profile: Profiled) -> str:
    """The layers with most and least of a model beside others, and what it lacks; "" where there is nothing to say."""
    (party,) = _parties(profile, "entropy", model_title(profile), whole=True)
    span = _layer_span(profile, party)
    layers = f"Layers of {party.name}: ESS {span}" if span else ""
    return " ".join(filter(None, (layers, _lack(profile, party.name))))


def _layer_span(profile: Profiled, party: _Party) -> str:
    """Between which layers ESS lies, without sinks where there are any; "" where there are no two that differ."""
    names, start, carried = short_names(profile.mixers), "from", party.layers
    if not math.isnan(party.sinkless):
        start, carried = "without sinks from", {name: (ess, ess) for name, ess in _sinkless(profile).items()}
    ends = _ends({names[layer]: carried[layer] for layer in party.layers})
    return f"{start} {ends}." if ends else ""


def _sinkless(profile: Profiled) -> dict[str, float]:
    """Entropy-ESS of each layer at the middle without the columns of sinks."""
    return {row["layer"]: row["sinkless_entropy"] for row in profile.summary_rows()}


def leading_layers(profile: Profiled) -> str:
    """The layers that remember most, without sinks and with them; "" where none has a sink."""
    if not has_sinks(profile):
        return ""
    names, with_sinks = short_names(profile.mixers), {r["layer"]: r["middle_entropy"] for r in profile.summary_rows()}
    first, second = (
        ", ".join(names[layer] for layer in sorted(known, key=known.__getitem__, reverse=True)[:_NAMED])
        for known in (_sinkless(profile), with_sinks)
    )
    return f"Which layers remember most of the text? Without sinks, {first}; with them, {second}."


def contrast(profiles: Sequence[Profiled], titles: Sequence[str] = ()) -> str:
    """Which of several models uses more of what it can hold, and whose memory differs most; of one, what it carries."""
    shares, texts = capacity_use(profiles, titles), {str(one.attributes["tokens_sha256"]) for one in profiles}
    # With other texts the second would say again what each model carries.
    sentence = "" if shares and len(texts) > 1 else headline(profiles, titles=titles).sentence
    return "\n".join(filter(None, (shares, sentence)))


def findings(profiles: Sequence[Profiled]) -> str:
    """What is said first: the contrast, and of several models the ends of each; of one, how far that goes."""
    lines = map(layer_line, profiles) if len(profiles) > 1 else [_reach(profiles)]
    return "\n".join(filter(None, [contrast(profiles), *lines]))


def _ends(bounds: Mapping[str, Bounds]) -> str:
    """The layers with least and most; "" where there are no two that differ as printed."""
    known = {name: ends for name, ends in bounds.items() if math.isfinite(ends[0])}
    ordered = sorted(known, key=lambda name: sum(known[name]))
    if len(ordered) < 2:
        return ""
    ends = ordered[0], ordered[-1]
    least, most = (_numbers(known[name]) for name in ends)
    return "" if least == most else f"{least} in layer {ends[0]} to {most} in layer {ends[1]}"


def _mean(profile: Profiled, bounds: Sequence[Bounds], layers: Sequence[int] | None = None) -> Bounds:
    least, most = (model_mean(profile, ends, layers) for ends in zip(*bounds, strict=True))
    return least, most


def _numbers(bounds: Bounds) -> str:
    return between(*bounds, "{:.1f}".format)


def left_out_note(profile: Profiled) -> str:
    """Which layers were measured by their derivative, and which the averages are without, and why; "" for none."""
    rows, names, kept = profile.summary_rows(), list(short_names(profile.mixers).values()), comparable(profile)
    by_derivative = [at for at, row in enumerate(rows) if row["kind"] == "derivative"]
    if by_derivative and len(by_derivative) == len(rows):
        return (
            "Measured by the derivative of each layer, all its channels together: the numbers are of the whole layer."
        )
    inside = listed([names[at] for at in range(len(rows)) if at not in kept and at not in by_derivative])
    without = listed([names[at] for at in by_derivative])
    said = (
        f"Left out here, as it has no T and is measured by its derivative: {without}." if without else "",
        f"Left out here, as it is a part of a layer that holds more: {inside}." if inside else "",
    )
    return " ".join(filter(None, said))


def sink_note(profile: Profiled) -> str:
    """Which layers attend to one token before all others, and what that does to their ESS; "" where none does."""
    rows = profile.summary_rows()
    led = [row for row in rows if row["sink_share"] > MARKED and row["sinkless_entropy"] != row["middle_entropy"]]
    if not led:
        return ""
    share = sum(row["sink_share"] for row in led) / len(led)
    position = Counter(int(row["sink_position"]) for row in led).most_common(1)[0][0]
    token, name = str(profile.tokens["tokens"].values[0, position]), position_name(profile)
    entropy, without = (sum(row[name] for row in led) / len(led) for name in ("middle_entropy", "sinkless_entropy"))
    return (
        f"Attention sinks: in {len(led)} of {counted(len(rows), 'layer')} one {name}, mostly {name} {position} "
        f"({token!r}), {SINK}: {share:.0%} on average. Beside it, entropy-ESS hardly shows the others: its mean over "
        f"these layers is {entropy:.1f}, and {without:.1f} without sinks."
    )


def sink_notes(profiles: Sequence[Profiled]) -> list[str]:
    """The notes of all models that have one, with their names where there are several."""
    notes = [(model_title(profile), sink_note(profile)) for profile in profiles]
    return [f"{title}: {note}" if len(profiles) > 1 else note for title, note in notes if note]


def telling_layer(profile: Profiled) -> int:
    """The layer whose ESS changes most along the first text, relative to its mean, where its own size limits it."""
    changes: list[float] = []
    for name in profile.mixers:
        node = profile.mixer(name)
        curve = ess_values(node, "entropy")[0].mean(0)
        inside = curve[binding(node)[0] & np.isfinite(curve)]
        changes.append(float(inside.std() / inside.mean()) if inside.size and inside.mean() > 0 else 0.0)
    return int(np.argmax(changes)) if changes else 0


def _parties(profile: Profiled, metric: str, title: str, *, whole: bool) -> list[_Party]:
    """The model, or each kind of its layers where it is alone and has several."""
    rows = profile.summary_rows()
    nodes = [profile.mixer(name) for name in profile.mixers]
    carried = [middle_bounds(node, metric) for node in nodes]
    layers = comparable(profile)
    kinds = dict.fromkeys(rows[at]["kind"] for at in layers)
    chosen = {title: layers}
    if not whole and len(kinds) > 1:
        chosen = {kind_title(kind): [at for at in layers if rows[at]["kind"] == kind] for kind in kinds}
    return [
        _Party(
            name,
            {profile.mixers[at]: carried[at] for at in layers},
            _stored(profile, nodes if whole else [nodes[at] for at in layers]),
            _mean(profile, carried, layers),
            _without_sinks(profile, metric, layers),
            _against([nodes[at] for at in layers]),
            middle_cut(profile),
            all("sliding" in rows[at]["kind"] and keeps_everything(nodes[at]) for at in layers),
            all(rows[at]["kind"] == "derivative" for at in layers),
        )
        for name, layers in chosen.items()
    ]


def _stored(profile: Profiled, nodes: Sequence[xr.Dataset]) -> float:
    """The bytes of layers at the middle; 0 where those of one are not known."""
    if any(UNCHECKED in str(node.attrs["note"]) for node in nodes):
        # The check finds how many channels share a T.
        return 0.0
    stored = sum(middle_bytes(node, profile.tokens["length"].values) for node in nodes)
    return 0.0 if math.isnan(stored) else stored


def _sentence(more: _Party, less: _Party, *, whole: bool) -> str:
    first, second = (more.name, less.name) if whole else (f"a layer of {more.name}", f"one of {less.name}")
    ends = (less.bounds[1], less.bounds[0] or math.nan)
    least, most = (one / other for one, other in zip(more.bounds, ends, strict=True))
    # Without a least number of the other there is no most.
    times = f"at least {_times(least)} ×" if math.isnan(most) else f"{between(least, most, _times)} ×"
    ratio = "about as many" if 1 / _SAME < least <= most < _SAME else f"{times} as many"
    memory, numbers = _memory(more, less), "numbers per layer" if more.derived else "numbers per channel"
    numbers += "" if math.isnan(more.sinkless) and math.isnan(less.sinkless) else ", attention sinks included"
    if memory < _SAME:
        same = f"{'' if memory == 1 else 'about '}the same number of bytes"
        return f"Past {more.place}, {first} and {second} store {same}; {first} carries {ratio} {numbers}."
    known = math.isfinite(memory)
    stores = f"stores {_times(memory)} × the bytes of {second} and " if known else ""
    other = "" if known else f" as {second}"
    return f"Past {more.place}, {first} {stores}carries {ratio} {numbers}{other}."


def _alone(party: _Party) -> str:
    each = "layer" if party.derived else "channel"
    without = "" if math.isnan(party.sinkless) else f" ({party.sinkless:.1f} without attention sinks)"
    carries = f"{_sentence_case(party.name)} carries {_numbers(party.bounds)} numbers per {each}"
    known = party.state_bytes > 0 and not party.of.startswith("of at most")
    stored = f" ({byte_count(party.state_bytes)} in {counted(len(party.layers), 'layer')})" if known else ""
    return f"{carries} past {party.place}{without}, {party.of}{stored}."


def _without_sinks(profile: Profiled, metric: str, layers: Sequence[int]) -> float:
    """Entropy-ESS at the middle without the columns of sinks; NaN where no layer has one, and for counts."""
    rows = profile.summary_rows()
    if metric != "entropy" or all(rows[at]["sinkless_entropy"] == rows[at]["middle_entropy"] for at in layers):
        return math.nan
    return model_mean(profile, [row["sinkless_entropy"] for row in rows], layers)


def _against(nodes: Sequence[xr.Dataset]) -> str:
    """What ESS at the middle is set against: tokens that are kept, the size of a state, or what could pass."""
    ceiling = max(middle_ceiling(node) for node in nodes)
    if all(keeps_everything(node) for node in nodes):
        # Behind the middle fewer tokens read than are kept.
        kept = max(float(known_mean(at_middle(node, node["state_size"].values[:, None]), (0, 1))) for node in nodes)
        passing = f"the {ceiling:.0f} that can pass, with " if round(ceiling) < round(kept) else ""
        return f"of {passing}{kept:.0f} tokens kept"
    sizes = [largest_size(node) for node in nodes]
    if all(size <= middle_ceiling(node) for size, node in zip(sizes, nodes, strict=True)):
        one = len(set(sizes)) == 1 and not any(node.attrs["state_sizes"] for node in nodes)
        held = np.average(sizes, weights=[channels_of(node) for node in nodes])
        return f"of the {round(held, 1):g} that it holds{'' if one else ' on average'}"
    return f"of at most {ceiling:.0f}"


def middle_cut(profile: Profiled) -> str:
    """The cut, or cuts, nearest to the middle of the texts."""
    name, lengths = position_name(profile), profile.tokens["length"].values
    middles = np.concatenate([profile.mixer(layer)["middle"].values for layer in profile.mixers])
    known = {int(cut) for cut in middles[np.isfinite(middles)]}
    if len(known) == 1 and len(set(lengths.tolist())) == 1:
        return f"{name} {known.pop():,} of {int(lengths[0]):,}"
    return f"the middle of texts of up to {int(lengths.max()):,} {name}s"


def _detail(parties: Sequence[_Party], profiles: Sequence[Profiled], metric: str, *, whole: bool) -> str:
    """What the numbers of the sentence are, and which layers and sinks lead."""
    joint = " against " if len({party.derived for party in parties}) == 1 else " and "
    named = "entropy-ESS" if metric == "entropy" else "count of singular values"
    carried = joint.join(f"{_numbers(party.bounds)} numbers in {party.name}" for party in parties)
    each = " or ".join("layer" if derived else "channel" for derived in sorted({party.derived for party in parties}))
    said = [
        f"What is carried is the effective state-size (ESS) per {each}: {carried}, as {named} at the middle of "
        f"each text, averaged over texts, heads and layers. No more numbers can pass a cut than there are "
        f"{position_name(profiles[0])}s before it or after it, nor more than the layer can hold.",
    ]
    if all(party.state_bytes > 0 for party in parties):
        stored = " against ".join(byte_count(party.state_bytes) for party in parties)
        said.append(f"{'Stored' if whole else 'Stored by a layer'} there, keys of caches included: {stored}.")
    said += [f"The window of {party.name} is longer than the text: it does not act." for party in parties if party.idle]
    said += [note for profile in profiles if (note := left_out_note(profile))]
    if len(profiles) == 1 and sink_note(profiles[0]):
        said.append("Attention sinks hide what else some layers carry, see below.")
    return " ".join(said)


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _sentence_case(name: str) -> str:
    """A name at the beginning of a sentence; that of a model, which is one word, stays as it is written."""
    return name[:1].upper() + name[1:] if " " in name.partition(" (")[0] else name
