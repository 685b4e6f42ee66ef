"""Plans: what they count is what a profile then measures."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.pretrained import tiny_llama
from oracles.tiny_families import tiny

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings
from statesize.models.capture import capture
from statesize.profiling import plan, profile
from statesize.profiling.plan import _rescale, _Trial
from statesize.results.summary import summary_row

# The name `plan` of the room is the function.
plans = import_module("statesize.profiling.plan")
TEXTS = [list(range(24)), [3, 1, 4, 1, 5, 9, 2], list(range(9))]


def small():
    config = ModelConfig(mixer="gla", vocabulary_size=32, width=16, heads=4, layers=3, key_size=3)
    return LanguageModel(config, torch.Generator().manual_seed(0))


SOME, WINDOWS = Settings(channels=2, positions=4), Settings(past=3, future=2)


@pytest.mark.few(3)
# Each model with all that it has, or with what the other settings change in it.
@pytest.mark.parametrize(
    ("build", "settings"),
    [
        *((small, settings) for settings in (Settings(), SOME)),
        *((tiny_llama, settings) for settings in (Settings(), SOME, WINDOWS)),
        pytest.param(lambda: zoo.load("sa")[0], Settings(), marks=pytest.mark.slow),
        (lambda: tiny("gemma4_text"), WINDOWS),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_it_counts_what_a_profile_measures(build, settings):
    model = build()
    planned, result = plan(model, TEXTS, settings=settings), profile(model, TEXTS, settings=settings)
    assert (planned.facts["sequences"], planned.facts["tokens"]) == (3, 40)
    nodes = {name: node.to_dataset(inherit=False) for name, node in result.tree.children.items()}
    assert [mixer.name for mixer in planned.steps] == list(nodes)
    assert [name for name in nodes if not name.endswith("#shared")] == list(result.mixers)
    spectra = 0
    for mixer, (name, node) in zip(planned.steps, nodes.items(), strict=True):
        row = summary_row(node, "", name)
        assert (mixer.kind, mixer.units, mixer.measured) == (row["kind"], row["units"], row["measured"])
        inside = node["entropy"].values[:, :, node["position"].values >= 1]
        spectra += int(np.isfinite(inside).sum())
        assert mixer.positions == np.isfinite(inside[:, 0]).sum()
        assert 1 <= mixer.block <= mixer.measured
        assert mixer.engine in node.attrs["engine"].split(", ")
    assert planned.facts["spectra"] == spectra


def test_a_model_inside_another_is_planned_as_it_is_profiled():
    held = torch.nn.DataParallel(tiny_llama())
    assert [mixer.name for mixer in plan(held, TEXTS).steps] == list(profile(held, TEXTS).tree.children)


def test_a_model_by_its_name_reads_texts_as_a_profile_does():
    text = "Return the list of names that are bound here."
    planned, result = plan("gla", text), profile("gla", text)
    assert [mixer.name for mixer in planned.steps] == list(result.mixers)
    assert planned.facts["tokens"] == int(result.tokens["length"].sum())


def test_every_figure_is_there():
    planned = plan(small(), TEXTS)
    assert planned.seconds > 0
    assert all(mixer.seconds > 0 and mixer.memory > 0 for mixer in planned.steps)
    assert planned.seconds >= sum(mixer.seconds for mixer in planned.steps)
    # The process holds Python, torch and the model at least.
    assert planned.memory is None or planned.memory > 10**7
    assert planned.facts["spectra"] == sum(mixer.count for mixer in planned.steps)


def test_layers_of_a_kind_cost_as_much():
    config = ModelConfig(mixer="gla,sa", vocabulary_size=32, width=8, heads=2, layers=8, key_size=2)
    planned = plan(LanguageModel(config, torch.Generator().manual_seed(0)), [list(range(20))])
    seconds = [mixer.seconds for mixer in planned.steps]
    assert len(set(seconds[::2])) == len(set(seconds[1::2])) == 1
    assert seconds[0] != seconds[1]


def timed(model, ids):
    trial = _Trial(model, Settings(), [12, len(ids)])
    return trial, list(trial.time_layers(ids))


def test_a_layer_of_each_kind_is_timed():
    config = ModelConfig(mixer="gla,gla,sa,gla", vocabulary_size=32, width=8, heads=2, layers=16, key_size=2)
    model = LanguageModel(config, torch.Generator().manual_seed(0))
    trial, names = timed(model, torch.arange(24))
    assert all(seconds > 0 for lengths in trial.took.values() for (seconds,) in lengths[24])
    # The third of the four layers of attention, and the seventh of the twelve others.
    assert [list(trial.kinds).index(name) for name in names] == [8, 10]
    assert [kind[0].kind for kind in trial.took] == ["gla", "sa"]
    assert list(trial.time_layers(torch.arange(12))) == names


@pytest.fixture
def measured(monkeypatch):
    """What is timed: of heads and groups how many units, of how many, the positions, and the engine."""
    seen = list[list[tuple[int, int, int, str]]]()

    def noted(works, sequence, settings):
        assert all(item.units_operator(slice(0, 1)).length == work.cut.length for item, work in works)
        seen.append(
            [(len(work.sample.units), item.units, len(work.cut.positions), work.engine.name) for item, work in works]
        )
        return [SimpleNamespace(attrs={"seconds": took}) for _ in works]

    def taking(seconds):
        nonlocal took
        took = seconds
        return seen

    took = 8.0
    monkeypatch.setattr(plans, "measure_side_by_side", noted)
    return taking


def took_of(trial):
    """What heads and groups took in the only kind of layers over the only text."""
    ((layers,),) = (lengths.values() for lengths in trial.took.values())
    return layers


def test_two_layers_of_the_only_kind_are_timed_after_the_engine_is_loaded(measured):
    seen = measured(8.0)
    trial, names = timed(tiny_llama(), torch.arange(80))
    assert seen == [[(1, 4, 64, "tridiagonal")], *[[(4, 4, 79, "tridiagonal"), (2, 2, 79, "tridiagonal")]] * 2]
    # Heads take the making of T beside.
    assert all(8 < heads < groups + 8 == 16 for heads, groups in took_of(trial))
    assert len(names) == 2


def test_as_many_heads_are_timed_as_fit(measured, monkeypatch):
    # Two of four heads, and both groups.
    monkeypatch.setattr(plans, "_TIMED", 2.5 * 8 * 80**3)
    seen = measured(8.0)
    trial, _ = timed(tiny_llama(), torch.arange(80))
    assert seen[1:] == [[(2, 4, 79, "tridiagonal"), (2, 2, 79, "tridiagonal")]] * 2
    assert all(16 < heads < 24 and groups == 8 for heads, groups in took_of(trial))


@pytest.mark.parametrize("weights", ["none", "values"])
def test_a_long_text_is_timed_on_its_first_half(monkeypatch, weights):
    seen, measure = [], plans.measure_side_by_side

    def noted(works, sequence, settings):
        seen.extend((work.cut, settings.count_accuracy, item.units_operator(slice(None))) for item, work in works)
        found = measure(works, sequence, settings)
        for one in found:
            one.attrs["seconds"] = 1.0
        return found

    monkeypatch.setattr(plans, "_SHORT", 16)
    monkeypatch.setattr(plans, "measure_side_by_side", noted)
    model, ids = tiny_llama(), torch.arange(80)
    settings = Settings(weights=weights, count_accuracy=0.01)
    trial = _Trial(model, settings, [80])
    list(trial.time_layers(ids))
    assert {(cut.length, accuracy) for cut, accuracy, _ in seen} == {(40, 0.01)}
    assert [len(cut.positions) for cut, *_ in seen[-2:]] == [39, 39]
    whole = {item.name: (item.operator.dense(), item.group.dense()) for item in capture(model, ids[None])}
    heads, groups = whole[trial.names[-1]]
    torch.testing.assert_close(seen[-2][2].dense(), heads[..., :40, :40])
    torch.testing.assert_close(seen[-1][2].dense(), groups[..., :40, :, :40])
    # Stated cost grows as the cube of the length.
    assert all(8 < heads < 9 and groups == pytest.approx(8) for heads, groups in took_of(trial))


def test_texts_of_other_lengths_take_what_grows_with_the_length_and_with_the_cost():
    costs = {tokens: float(tokens**3) for tokens in (10, 20, 40)}

    def seconds(tokens):
        return 0.01 * tokens + 1e-4 * costs[tokens]

    both = {10: seconds(10), 40: seconds(40)}
    assert _rescale(both, [40, 20], costs) == pytest.approx(seconds(40) + seconds(20))
    # A text that took no less says that all of it grows with the length alone; without one, all grows as the cost.
    assert _rescale({10: 3.0, 40: 4.0}, [40, 20], costs) == pytest.approx(4 + 2)
    assert _rescale({40: 8.0}, [40, 20], costs) == pytest.approx(8 + 1)


def test_a_large_derivative_is_timed_by_its_products_at_one_position():
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.mixer = torch.nn.Embedding(30, 64), torch.nn.GRU(64, 4, batch_first=True)

        def forward(self, tokens):
            return self.mixer(self.embedding(tokens))[0]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, ids = Wide(), torch.randint(0, 30, (80,))
    (mixer,) = plan(model, [ids]).steps
    assert (mixer.kind, mixer.engine, mixer.positions) == ("derivative", "implicit", 8)
    assert mixer.seconds > 0


def test_the_memory_sets_how_many_units_are_measured_at_once():
    with pytest.raises(InputError, match=r"memory must be at least [0-9]+MB for mixer"):
        plan(small(), TEXTS, memory=1)
    one = plan(small(), TEXTS, channels=1)
    assert [mixer.block for mixer in one.steps] == [1, 1, 1]
    most = plan(small(), TEXTS)
    assert [mixer.block for mixer in most.steps] == [4, 4, 4]
    # What four units take beside what one takes is three units.
    each = (most.steps[0].memory - one.steps[0].memory) // 3
    more = plan(small(), TEXTS, memory=one.steps[0].memory + each)
    assert [mixer.block for mixer in more.steps] == [2, 2, 2]


def test_some_sequences_stand_for_many():
    alike = [list(range(20))] * 3
    all_of_them, some = plan(small(), alike * 100), plan(small(), alike, total=300)
    assert (some.facts["sequences"], some.facts["sampled"], some.facts["tokens"]) == (300, 3, 6000)
    assert (all_of_them.facts["sequences"], all_of_them.facts["sampled"]) == (300, 300)
    assert (some.facts["spectra"], some.facts["results"]) == (
        all_of_them.facts["spectra"],
        all_of_them.facts["results"],
    )
    assert [mixer.positions for mixer in some.steps] == [mixer.positions for mixer in all_of_them.steps]
    # Sequences of two lengths, as many of each.
    mixed = plan(small(), [list(range(20)), list(range(9))], total=1000)
    assert mixed.facts["tokens"] == 500 * 29
    assert mixed.steps[0].positions == 500 * (19 + 8)
    with pytest.raises(InputError, match="total must be a whole number of at least 3"):
        plan(small(), alike, total=2)


def test_bad_input_is_refused_as_by_profile():
    with pytest.raises(InputError, match=r"positions must be at most .* got 99"):
        plan(small(), TEXTS, positions=[99])
    with pytest.raises(InputError, match="at least 2 tokens, got 1"):
        plan(small(), [[1]])


def test_sequences_too_short_to_be_measured_cost_their_share_of_the_longest():
    # Blocks of 16 positions: there is none in the two shorter sequences.
    planned = plan(small(), TEXTS, settings=Settings(past=8, future=8))
    assert [mixer.positions for mixer in planned.steps] == [24 - 16 + 1] * 3
    assert all(mixer.seconds > 0 for mixer in planned.steps)
