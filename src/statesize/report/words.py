"""What profiles say in words: names in full, one sentence of facts, and one line a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations

import numpy as np

from statesize.measurement.chart import METRICS
from statesize.measurement.columns import MARKED
from statesize.results.summary import Profiled, average, binding, ess_values, known_mean, stored_channels

KINDS = {
    "sa": "softmax attention",
    "la": "linear attention",
    "wla": "weighted linear attention",
    "gla": "gated linear attention",
    "s6": "selective state space",
    "gla-s6": "gated linear attention with S6 steps",
    "s4d": "diagonal state space",
    "hyena": "long convolution",
    "nla": "normalised linear attention",
    "attention": "softmax attention",
    "sliding": "sliding-window attention",
    "linear-transformer": "linear attention of 1 + elu",
    "based": "linear attention of Taylor features",
    "hedgehog": "linear attention of Hedgehog",
    "gla-full": "gated linear attention with output gate",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "gated slots": "gated slot attention",
    "bounded memory": "attention with bounded memory",
    "kimi delta attention": "Kimi delta attention",
    "preconditioned kimi delta attention": "preconditioned Kimi delta attention",
}
"""What mixers are called in full."""


def kind_title(kind: str) -> str:
    """A kind of mixer in full."""
    return KINDS.get(kind, kind)


def model_title(profile: Profiled) -> str:
    """A model's name; of a bundled model, whose name is the abbreviation of all its mixers, in full."""
    kinds = {str(profile.mixer(name).attrs["kind"]) for name in profile.mixers}
    return kind_title(profile.model) if kinds == {profile.model} else profile.model


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the dotted parts that all begin and end with: layers.0.mixer, layers.1.mixer are 0 and 1."""
    parts = [name.split(".") for name in names]
    shortest = min((len(part) for part in parts), default=0)
    start = 0
    while start < shortest - 1 and len({part[start] for part in parts}) == 1:
        start += 1
    end = 0
    while end < shortest - start - 1 and len({part[-1 - end] for part in parts}) == 1:
        end += 1
    return {name: ".".join(part[start : len(part) - end]) for name, part in zip(names, parts, strict=True)}


_SAME = 1.05
"""Ratios below this count as equal in words."""


@dataclass(frozen=True)
class Headline:
    """The sentence, and the numbers behind it."""

    sentence: str
    detail: str


@dataclass(frozen=True)
class _Party:
    name: str
    memory: float  # numbers that all its layers store, at the end of the longest sequence
    carried: float  # total ESS
    possible: float  # what it could have been at the same cuts
    channels: int  # that are stored

    @property
    def surplus(self) -> float:
        return math.log(self.memory / self.carried)


def headline(profiles: Sequence[Profiled], metric: str = "entropy") -> Headline:
    """The two models, or kinds of layers of one model, whose memory and ESS differ most; or the only one."""
    parties = [party for profile in profiles for party in _parties(profile, metric, whole=len(profiles) > 1)]
    parties = [party for party in parties if party.memory > 0 and party.carried > 0]
    if not parties:
        return Headline("Nothing was measured that carries anything.", "")
    longest = max(int(profile.tokens["length"].values.max()) for profile in profiles)
    same_text = len({str(profile.attributes["tokens_sha256"]) for profile in profiles}) == 1
    if len(parties) == 1 or not same_text:
        return Headline(" ".join(_alone(party) for party in parties[:3]), _detail(parties[:3], metric, longest))
    pair = max(combinations(parties, 2), key=lambda two: abs(two[0].surplus - two[1].surplus))
    pair = sorted(pair, key=lambda party: (party.memory, party.carried), reverse=True)
    return Headline(_sentence(*pair), _detail(pair, metric, longest))


def model_line(profile: Profiled, metric: str = "entropy") -> str:
    """How much of its memory a model uses, in one line."""
    name = _sentence_case(model_title(profile))
    nodes = {short: profile.mixer(layer) for layer, short in short_names(profile.mixers).items()}
    means = {layer: average(node, ess_values(node, metric)).mean for layer, node in nodes.items()}
    known = {layer: mean for layer, mean in means.items() if math.isfinite(mean)}
    if not known:
        return f"{name}: nothing was measured."
    most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    spread = f", from {known[least]:.1f} in layer {least} to {known[most]:.1f} in layer {most}" if most != least else ""
    return f"{name} carries {np.mean(list(known.values())):.1f} numbers per channel on average{spread}."


def sink_note(profile: Profiled) -> str:
    """Which layers attend to one token before all others, and what that does to their ESS; "" where none does."""
    rows = profile.summary_rows()
    led = [row for row in rows if row["sink_share"] > MARKED and math.isfinite(row["sink_entropy"])]
    if not led:
        return ""
    share = sum(row["sink_share"] for row in led) / len(led)
    position = Counter(int(row["sink_position"]) for row in led).most_common(1)[0][0]
    token = str(profile.tokens["tokens"].values[0, position])
    entropy, without = (sum(row[name] for row in led) / len(led) for name in ("sink_entropy", "sinkless_entropy"))
    return (
        f"Attention sinks: in {len(led)} of {len(rows)} layers one token, mostly token {position} ({token!r}), takes "
        f"more than {MARKED:.0%} of the attention, {share:.0%} on average. Its column leads the singular values and "
        f"hides the others: entropy-ESS of these heads is {entropy:.1f} with it and {without:.1f} without it, at three "
        "cuts."
    )


def sink_notes(profiles: Sequence[Profiled]) -> list[str]:
    """The notes of all models that have one, with their names where there are several."""
    notes = [(model_title(profile), sink_note(profile)) for profile in profiles]
    return [f"{title}: {note}" if len(profiles) > 1 else note for title, note in notes if note]


def telling_layer(profile: Profiled, metric: str = "entropy") -> int:
    """The layer whose ESS changes most along the first text, relative to its mean, where its own size limits it."""
    changes: list[float] = []
    for name in profile.mixers:
        node = profile.mixer(name)
        curve = ess_values(node, metric)[0].mean(0)
        inside = curve[binding(node)[0] & np.isfinite(curve)]
        changes.append(float(inside.std() / inside.mean()) if inside.size and inside.mean() > 0 else 0.0)
    return int(np.argmax(changes)) if changes else 0


def _parties(profile: Profiled, metric: str, *, whole: bool) -> list[_Party]:
    """The model, or each kind of its layers where it is alone and has several."""
    by_party: dict[str, list[float]] = {}
    title = model_title(profile)
    kinds = {str(profile.mixer(name).attrs["kind"]) for name in profile.mixers}
    for name, row in zip(profile.mixers, profile.summary_rows(), strict=True):
        party = title if whole or len(kinds) == 1 else f"{kind_title(row['kind'])} of {title}"
        total = row["total_entropy"] if metric == "entropy" else row["total_relative_count"]
        stored = stored_channels(profile.mixer(name), profile.group(name))
        node = profile.mixer(name)
        ceiling = known_mean(node["ceiling"].values[:, node["position"].values >= 1], (0, 1))
        figures = np.nan_to_num([row["tss"] * stored, total, float(ceiling) * stored, stored])
        by_party[party] = list(np.add(by_party.get(party, [0.0] * 4), figures))
    return [
        _Party(name, memory, carried, possible, int(stored))
        for name, (memory, carried, possible, stored) in by_party.items()
    ]


def _sentence(more: _Party, less: _Party) -> str:
    memory, carried = more.memory / less.memory, more.carried / less.carried
    if memory < _SAME:
        ratio = "about as much" if carried < _SAME else f"{_times(carried)} as much"
        return f"{_sentence_case(more.name)} and {less.name} keep the same memory, and the first carries {ratio}."
    ratio = "about as much" if 1 / _SAME < carried < _SAME else f"{_times(carried)} as much"
    return f"{_sentence_case(more.name)} keeps {_times(memory)} the memory of {less.name} and carries {ratio}."


def _alone(party: _Party) -> str:
    memory, carried = party.memory / party.channels, party.carried / party.channels
    return (
        f"{_sentence_case(party.name)} keeps {memory:.0f} numbers per channel by the end of the text and carries "
        f"{carried:.1f} of them on average."
    )


def _detail(parties: Sequence[_Party], metric: str, longest: int) -> str:
    named = "entropy-ESS" if metric == "entropy" else "count of singular values"
    memory, carried, possible = (
        " against ".join(f"{getattr(party, name):,.0f}" for party in parties)
        for name in ("memory", "carried", "possible")
    )
    return (
        f"Memory is what all layers keep while they read: {memory} numbers at the end of {longest:,} tokens. What they "
        "carry is about how many of these the rest of the text depends on, the effective state-size (ESS): "
        f"{carried} on average over all cuts of the text ({named}), of {possible} that were possible."
    )


def _times(ratio: float) -> str:
    rounded = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f"{rounded} ×"


def _sentence_case(name: str) -> str:
    """A name at the beginning of a sentence; that of a model, which is one word, stays as it is written."""
    return name[:1].upper() + name[1:] if " " in name else name


PAGE_METRICS = ("entropy", "relative_count")
"""What a page can show; an absolute tolerance says little without the operator's scale and stays in the profile."""


def metric_titles(profiles: Sequence[Profiled]) -> dict[str, str]:
    """The metrics that were measured of any layer, with what a page calls them; entropy first."""
    nodes = [profile.mixer(name) for profile in profiles for name in profile.mixers]
    ratios = profiles[0].attributes["relative_tolerances"]
    named = f", singular values above {100 * ratios[0]:g} % of the largest" if ratios else ""
    known = any(np.isfinite(ess_values(node, "relative_count")).any() for node in nodes)
    return {
        metric: METRICS[metric] + (named if metric != "entropy" else "")
        for metric in PAGE_METRICS
        if metric == "entropy" or known
    }


def words(profiles: Sequence[Profiled], metrics: Sequence[str]) -> dict[str, str]:
    """The parts `headline`, `lead` and `lines` of a page, as HTML; the page's script shows those of one metric."""
    said = {metric: headline(profiles, metric) for metric in metrics}
    return {
        "headline": _by_metric(metrics, lambda metric: escape(said[metric].sentence)),
        "lead": _by_metric(metrics, lambda metric: escape(said[metric].detail)),
        "lines": _by_metric(
            metrics, lambda metric: "<br>".join(escape(model_line(profile, metric)) for profile in profiles)
        ),
    }


def _by_metric(metrics: Sequence[str], text: Callable[[str], str]) -> str:
    return "".join(
        f'<span data-metric="{metric}"{"" if metric == metrics[0] else " hidden"}>{text(metric)}</span>'
        for metric in metrics
    )
