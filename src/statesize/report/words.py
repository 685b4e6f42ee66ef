"""What profiles say in words: what each model carries, what is special about it, and how several stand side by side."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from statesize.codes import Code, Note
from statesize.io.text import byte_count, counted, listed
from statesize.measurement.settings import MARKED, SINK
from statesize.measurement.statistics import FEWEST_TEXTS, Interval, between, ratio_interval, too_short
from statesize.report.names import cuts_name, cuts_of, kind_title, model_title, position_name, short_names
from statesize.results.profiled import Profiled, comparable, comparable_layers, has_sinks, model_mean
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

_SAME = 1.05
"""Ratios below this count as equal in words."""
NO_NEED = "ESS is what a layer carries of this text, not what a task needs: more of it makes no better model"
OWN_TEXTS = "TEXTS.jsonl"
"""Stands in a command for texts that its reader has to give."""


def headline(profiles: Sequence[Profiled], metric: str = "entropy") -> str:
    """What each model carries at the middle of its texts, and what it lacks; of a model alone, each kind of layers."""
    said: list[str] = []
    for profile in profiles:
        title, layers, rows = model_title(profile), comparable(profile), profile.summary_rows()
        kinds = dict.fromkeys(rows[at]["kind"] for at in layers)
        if len(profiles) == 1 and len(kinds) > 1:
            parts = {kind_title(kind): [at for at in layers if rows[at]["kind"] == kind] for kind in kinds}
            carried = [_carries(profile, metric, name, some) for name, some in parts.items()]
        else:
            carried = [_carries(profile, metric, title, layers)]
        said += [*carried, _lack(profile, title)]
    return " ".join(filter(None, said))


def model_line(profile: Profiled, metric: str = "entropy") -> str:
    """The ESS of a model at the middle, and its layers with most and least, in one line."""
    title = model_title(profile)
    carried = _carries(profile, metric, title, comparable(profile))
    return " ".join(filter(None, [carried, _sentence_case(_layer_span(profile, metric)), _lack(profile, title)]))


def layer_line(profile: Profiled) -> str:
    """The layers with most and least of a model beside others, and what it lacks; "" where there is nothing to say."""
    title, span = model_title(profile), _layer_span(profile, "entropy")
    return " ".join(filter(None, [f"Layers of {title}: ESS {span}" if span else "", _lack(profile, title)]))


def contrast(profiles: Sequence[Profiled]) -> str:
    """What each model carries; of several, which uses more of what it can hold, where that compares."""
    return capacity_use(profiles) or headline(profiles)


def findings(profiles: Sequence[Profiled]) -> str:
    """What is said first: the contrast, and of several models the ends of each; of one, how far that goes."""
    lines = map(layer_line, profiles) if len(profiles) > 1 else [_reach(profiles)]
    return "\n".join(filter(None, [contrast(profiles), *lines]))


def _carries(profile: Profiled, metric: str, name: str, layers: Sequence[int]) -> str:
    """What some layers carry at the middle, of what they keep there, and its bytes."""
    nodes, rows = [profile.mixer(profile.mixers[at]) for at in layers], profile.summary_rows()
    ends = zip(*(middle_bounds(profile.mixer(one), metric) for one in profile.mixers), strict=True)
    least, most = (model_mean(profile, end, layers) for end in ends) if rows else (math.nan, math.nan)
    if math.isnan(most):
        return f"{_sentence_case(name)}: nothing was measured."
    if not most:
        return f"{_sentence_case(name)} carries nothing past {middle_cut(profile)}."
    each = "layer" if all(rows[at]["kind"] == "derivative" for at in layers) else "channel"
    carried = f"{_sentence_case(name)} carries {_numbers((least, most))} numbers per {each} past {middle_cut(profile)}"
    if _hide(profile, metric, layers):
        sinkless = model_mean(profile, [row["sinkless_entropy"] for row in rows], layers)
        carried += f" ({sinkless:.1f} without attention sinks)"
    of, stored = _against(nodes), _stored(profile, nodes)
    known = stored and not of.startswith("of at most")
    return f"{carried}, {of}" + (f" ({byte_count(stored)} in {counted(len(layers), 'layer')})." if known else ".")


def _hide(profile: Profiled, metric: str, layers: Sequence[int]) -> bool:
    """Whether attention sinks hide some of what these layers carry."""
    rows = profile.summary_rows()
    return metric == "entropy" and any(rows[at]["sinkless_entropy"] != rows[at]["middle_entropy"] for at in layers)


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
        one = len(set(sizes)) == 1
        held = np.average(sizes, weights=[channels_of(node) for node in nodes])
        return f"of the {round(held, 1):g} that it holds{'' if one else ' on average'}"
    return f"of at most {ceiling:.0f}"


def _stored(profile: Profiled, nodes: Sequence[xr.Dataset]) -> float:
    """The bytes of layers at the middle; 0 where those of one are not known."""
    if any(note["code"] == Code.UNCHECKED for node in nodes for note in node.attrs["notes"]):
        # The check finds how many channels share a T.
        return 0.0
    stored = sum(middle_bytes(node, profile.tokens["length"].values) for node in nodes)
    return 0.0 if math.isnan(stored) else stored


def middle_cut(profile: Profiled) -> str:
    """The cut, or cuts, nearest to the middle of the texts, of those that were measured."""
    name, lengths = position_name(profile), profile.tokens["length"].values
    middles = np.concatenate([profile.mixer(layer)["middle"].values for layer in profile.mixers])
    known = {int(cut) for cut in middles[np.isfinite(middles)]}
    longest = f"{int(lengths.max()):,}"
    if len(known) == 1:
        return f"{name} {known.pop():,} of {longest if len(set(lengths)) == 1 else f'texts of up to {longest} {name}s'}"
    settings = profile.attributes["settings"]
    chosen = settings.get("positions") is not None
    return f"the {'cut nearest to the ' * chosen}middle of texts of up to {longest} {name}s"


def every_token(profile: Profiled) -> str:
    """How many cuts were measured, how all are, and what that costs; "" where all were."""
    some, every = cuts_of(profile)
    if some == every:
        return ""
    most = max(math.ceil(total / count) for count, total in zip(some, every, strict=True))
    return (
        f"Measured: {cuts_name(profile)}. --positions all measures every token, and takes up to {most} times as long."
    )


def _layer_span(profile: Profiled, metric: str) -> str:
    """Between which layers ESS lies, without sinks where there are any; "" where no two differ as printed."""
    layers, rows, names = comparable(profile), profile.summary_rows(), list(short_names(profile.mixers).values())
    if _hide(profile, metric, layers):
        start, carried = "without sinks from", [(row["sinkless_entropy"], row["sinkless_entropy"]) for row in rows]
    else:
        start, carried = "from", [middle_bounds(profile.mixer(name), metric) for name in profile.mixers]
    ordered = sorted((at for at in layers if math.isfinite(carried[at][0])), key=lambda at: sum(carried[at]))
    if not ordered:
        return ""
    least, most = (_numbers(carried[at]) for at in (ordered[0], ordered[-1]))
    ends = f"{least} in layer {names[ordered[0]]} to {most} in layer {names[ordered[-1]]}"
    return "" if least == most else f"{start} {ends}."


def _lack(profile: Profiled, title: str) -> str:
    """That it is not causal, which layers lack a measurement or check, and that the text is too short; else ""."""
    measured, lost, some = len(profile.mixers), len(profile.not_measured), len(profile.incomplete)
    codes = Code.NOT_CAUSAL, Code.UNCHECKED, Code.PART, Code.OVERSIZED, Code.NOT_READ
    others, unchecked, parts, oversized, unread = (len(profile.limited(code)) for code in codes)
    silent = sum(note.code is Code.WRITES_NOTHING for note in profile.skipped.values())
    said = (
        f"{_sentence_case(title)} is not causal: later tokens change its earlier outputs." if others else "",
        f"Measured: {measured} of {counted(measured + lost, 'layer')} of {title}." if lost else "",
        f"Measured in some texts only: {counted(some, 'layer')}; means are over these texts." if some else "",
        f"T of {counted(unchecked, 'layer')} is as the class says, and not checked." if unchecked else "",
        str(Note(Code.PART, f"{counted(parts, 'layer')}, without a mixing before or behind T.")) if parts else "",
        f"The `state_size` of {counted(oversized, 'layer')} seems too large." if oversized else "",
        f"Some heads of {counted(unread, 'layer')} are counted, but not read." if unread else "",
        f"Not counted, as nothing comes from it: {counted(silent, 'layer')}." if silent else "",
        too_short(int(profile.tokens["length"].values.max()), position_name(profile)).strip(),
    )
    return " ".join(filter(None, said))


def _reach(profiles: Sequence[Profiled]) -> str:
    """How far a finding goes."""
    texts = counted(min(int(profile.tokens.sizes["sequence"]) for profile in profiles), "text")
    hidden = len(profiles) == 1 and sink_note(profiles[0])
    sinks = "; attention sinks hide some of what is carried" if hidden else ""
    return f"This is of {texts} at one cut, and no verdict on a model{sinks}."


@dataclass(frozen=True)
class _Use:
    """What a model carries at the middle of its text, without sinks.

    Attributes:
        title: What it is called.
        held: That and what it could carry, of its layers with a state (False) and of those with a cache (True).
        share: Its share, with an interval; of its states where it has both.
        sinks: Behind the numbers, that attention sinks are left out; "" where there are none.
    """

    title: str
    held: Mapping[bool, tuple[float, float]]
    share: Interval
    sinks: str

    @property
    def numbers(self) -> str:
        """Such as "4.1 of 32 numbers per channel in states and 9.3 of 128 in caches"."""
        told = [f"{carried:.1f} of {most:.0f}" for carried, most in self.held.values()]
        told[0] += f" numbers per channel{self.sinks}"
        kinds = ("caches" if cache else "states" for cache in self.held)
        return " and ".join(f"{one} in {kind}" for one, kind in zip(told, kinds, strict=True))

    @property
    def sentence(self) -> str:
        """What it carries, without the place."""
        return f"{_sentence_case(self.title)} carries {self.numbers}"


def capacity_use(profiles: Sequence[Profiled]) -> str:
    """Which of several models uses more of what it can hold at the middle of the text; "" where no shares are known."""
    # Numbers of whole layers, and of layers of unknown size, have no size that they could be a share of.
    rows = [one.summary_rows()[at] for one in profiles for at in comparable(one)]
    known = all(math.isfinite(row["tss"]) and row["kind"] != "derivative" for row in rows)
    uses = list(map(_use, profiles)) if known else []
    if len(uses) < 2 or not all(use.share.value > 0 for use in uses):
        return ""
    cuts = [middle_cut(profile) for profile in profiles]
    if len({(str(one.attributes["tokens_sha256"]), cut) for one, cut in zip(profiles, cuts, strict=True)}) > 1:
        said = [f"{use.sentence} past {cut}." for use, cut in zip(uses, cuts, strict=True)]
        said.append("They did not all read the same tokens up to the same cut: only numbers of those that did compare.")
        return " ".join(said)
    said = list[str]()
    uses.sort(key=lambda use: use.share.value, reverse=True)
    for cache, among in ((False, "Among states"), (True, "Among caches")):
        some = [use for use in uses if set(use.held) == {cache}]
        if len(some) > 1:
            said.append(_ranked(some, among, cuts[0]))
        else:
            said += [f"{use.sentence} past {cuts[0]}." for use in some]
    # A model with both ranks nowhere.
    said += [f"{use.sentence} past {cuts[0]}." for use in uses if len(use.held) > 1]
    if len({cache for use in uses for cache in use.held}) > 1:
        said.append("Do not compare shares of states with shares of caches, which grow with the text.")
    return " ".join([*said, _reach(profiles)])


def _use(profile: Profiled) -> _Use:
    nodes, rows = [profile.mixer(name) for name in profile.mixers], profile.summary_rows()
    carried, most = [row["sinkless_entropy"] for row in rows], [middle_ceiling(node) for node in nodes]
    held, shares = dict[bool, tuple[float, float]](), list[Interval]()
    for cache in (False, True):
        if layers := [at for at in comparable(profile) if keeps_everything(nodes[at]) == cache]:
            held[cache] = model_mean(profile, carried, layers), model_mean(profile, most, layers)
            shares.append(_share_over_texts(profile, layers, *held[cache]))
    share = shares[0] if shares else Interval(math.nan)
    return _Use(model_title(profile), held, share, " without sinks" * has_sinks(profile))


def _ranked(uses: Sequence[_Use], among: str, cut: str) -> str:
    """Which of several models of one kind, the one with the largest share first, uses more of what it can hold."""
    first, last = uses[0], uses[-1]
    if first.share.value < _SAME * last.share.value:
        answer = f"{'all' if len(uses) > 2 else 'both'} use about as much of what they can hold"
    else:
        answer = f"{first.title} uses {'most' if len(uses) > 2 else 'more'} of what it can hold"
    each = ", ".join(f"{use.title} {use.share:.0%} ({use.numbers})" for use in uses)
    return f"{among}, {answer} past {cut}: {each}."


def _share_over_texts(profile: Profiled, layers: Sequence[int], carried: float, held: float) -> Interval:
    """What layers carry as a share of what they hold, with its interval where texts suffice and all heads are known."""
    rows, nodes = profile.summary_rows(), [profile.mixer(name) for name in profile.mixers]
    texts = int(profile.tokens.sizes["sequence"])
    if texts < FEWEST_TEXTS or any(row["measured"] < row["units"] for row in rows):
        return Interval(carried / held)
    ess = np.array([known_mean(without_sinks(node), 1) for node in nodes])
    most = np.array([known_mean(at_middle(node, unit_limits(node)), 1) for node in nodes])
    amounts, sizes = (
        np.array([model_mean(profile, list(one[:, text]), layers) for text in range(texts)]) for one in (ess, most)
    )
    found = ratio_interval(amounts, sizes)
    return Interval(carried / held, max(found.low, 0.0), min(found.high, 1.0))


def reading(profiles: Sequence[Profiled]) -> list[str]:
    """What the numbers of these sentences are, and what they leave out."""
    rows = [row for profile in profiles for row in profile.summary_rows()]
    each = " or ".join(sorted({"layer" if row["kind"] == "derivative" else "channel" for row in rows}))
    said = [
        f"What is carried is the effective state-size (ESS) per {each}, as entropy-ESS at one cut of each text, "
        f"which the first line names, averaged over texts, heads and layers. No more numbers can pass a cut than "
        f"there are {position_name(profiles[0])}s before it or after it, nor more than the layer can hold. "
        "Bytes count keys too."
    ]
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    for kind in dict.fromkeys(str(node.attrs["kind"]) for node in nodes if "sliding" in node.attrs["kind"]):
        if all(keeps_everything(node) for node in nodes if node.attrs["kind"] == kind):
            said.append(f"The window of {kind_title(kind)} is longer than the text: it does not act.")
    return [*said, *filter(None, map(left_out_note, profiles))]


def what_suffices(profiles: Sequence[Profiled]) -> tuple[list[str], list[str]]:
    """What ESS does not tell and truncation tests told, then what to do next: the test, where none was made."""
    tested = [
        f"What suffices{f' for {model_title(one)} ({one.model})' if len(profiles) > 1 else ''}: {said}"
        for one in profiles
        if (said := one.attributes.get("truncation"))
    ]
    if tested:
        return [*tested, f"{NO_NEED}."], []
    source: Mapping[str, str] = profiles[0].attributes.get("source") or {}
    model = profiles[0].model if source.get("kind") == "bundled" else f"MODEL --jsonl {OWN_TEXTS}"
    command = source.get("test") or f"statesize truncate {model}"
    own = f" ({OWN_TEXTS}: at least {FEWEST_TEXTS} texts of yours, one in each row)" if OWN_TEXTS in command else ""
    without = " without the prefix" if "--prefix" in source.get("command", "") else ""
    return [f"{NO_NEED}."], [f"Whether so many numbers suffice{without}, this tests{own}: {command}"]


def left_out_note(profile: Profiled) -> str:
    """Which layers were measured by their derivative, and which the averages are without, and why; "" for none."""
    return left_out([(row["layer"], row["kind"], row["tss"]) for row in profile.summary_rows()])


def left_out(layers: Sequence[tuple[str, str, float]], where: str = "here") -> str:
    """The same of layers with these names, kinds and sizes."""
    names, kept = list(short_names([name for name, _, _ in layers]).values()), comparable_layers(layers)
    by_derivative = [at for at, (_, kind, _) in enumerate(layers) if kind == "derivative"]
    if by_derivative and len(by_derivative) == len(layers):
        return (
            "Measured by the derivative of each layer, all its channels together: the numbers are of the whole layer."
        )
    inside = listed([names[at] for at in range(len(layers)) if at not in kept and at not in by_derivative])
    without = listed([names[at] for at in by_derivative])
    said = (
        f"Left out {where}, as it has no T and is measured by its derivative: {without}." if without else "",
        f"Left out {where}, as it is a part of a layer that holds more: {inside}." if inside else "",
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
    where = (
        f"in {len(led)} of {counted(len(rows), 'layer')} one {name}, mostly {name} {position} ({token!r}), {SINK}: "
        f"{share:.0%} on average. Beside it, entropy-ESS hardly shows the others: its mean over these layers is "
        f"{entropy:.1f}, and {without:.1f} without sinks."
    )
    return str(Note(Code.SINK, where))


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


def _numbers(bounds: tuple[float, float]) -> str:
    return between(*bounds, "{:.1f}".format)


def _sentence_case(name: str) -> str:
    """A name at the beginning of a sentence; that of a model, which is one word, stays as it is written."""
    return name[:1].upper() + name[1:] if " " in name.partition(" (")[0] else name
