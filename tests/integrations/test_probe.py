"""A probe of a model in training: when it measures, which heads it can afford, what it logs and leaves unchanged."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.pretrained import tiny_llama

import statesize
from statesize.errors import InputError, ModelError
from statesize.integrations import probe
from statesize.integrations.probe import FEWEST_HEADS, MARGIN, RECORD, Cost, Probe, Probing, affordable_heads
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import Settings

TEXTS = torch.randint(32, (2, 20), generator=torch.Generator().manual_seed(1))


def news(caplog):
    """The warnings of a training, but for the one that depends on the machine."""
    return [message for record in caplog.records if "a reading takes" not in (message := record.getMessage())]


def model_of(mixer="gla", heads=4, key_size=4):
    shape = ModelConfig(mixer=mixer, vocabulary_size=32, width=16, heads=heads, layers=2, key_size=key_size)
    return LanguageModel(shape, torch.Generator().manual_seed(0))


def test_a_reading_is_what_a_profile_says():
    model = model_of()
    values = Probing(Probe(TEXTS, every=1, share=math.inf, settings=Settings(positions=8))).step(model, 1)
    profile = statesize.profile(model, TEXTS, positions=8, channels="all")
    expected = statesize.compare([profile]).models[0]
    names = {"average": "average_entropy", "middle": "ess", "total": "total_entropy"}
    for name, column in (names | {"state_utilisation": "state_utilisation"}).items():
        assert values[f"ess/{name}"] == expected[column]
    assert not {"ess/ceiling_utilisation", "ess/sinkless", "ess/sink_share"} & values.keys()
    assert values["ess/bits"] == 32
    for row in profile.summary_rows():
        assert values[f"ess/layer_state_utilisation/{row['layer']}"] == row["state_utilisation"]


def test_a_reading_of_attention_has_its_sinks():
    model, probe = tiny_llama(), Probe(TEXTS, share=math.inf, settings=Settings(positions=8))
    values, rows = Probing(probe).step(model, 100), probe.measure(model).summary_rows()
    for name, column in (("middle", "ess"), ("sinkless", "without_sink"), ("sink_share", "sink_share")):
        assert values[f"ess/{name}"] == pytest.approx(np.mean([row[column] for row in rows]))
    assert [values[f"ess/layer_sink_share/{row['layer']}"] for row in rows] == [row["sink_share"] for row in rows]


class OwnLayer(torch.nn.Module):
    """Linear attention of two heads, which says its operator and nothing else."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(16, 16) for _ in range(3))

    def heads(self, part, hidden):
        return part(hidden).unflatten(-1, (2, 8)).transpose(1, 2)

    def operator(self, hidden):
        key = self.heads(self.key, hidden)
        return statesize.Recurrence(A=torch.ones_like(key), B=key, C=self.heads(self.query, hidden))

    def forward(self, hidden):
        scores = self.heads(self.query, hidden) @ self.heads(self.key, hidden).mT
        return (scores.tril() @ self.heads(self.value, hidden)).transpose(1, 2).flatten(2)


class ChangedLayer(OwnLayer):
    """The same, of which a part can be shut, and T be lost."""

    numbers, lost = 8, False

    def heads(self, part, hidden):
        shut = torch.arange(8) >= self.numbers if part is not self.value else torch.zeros(8, dtype=torch.bool)
        return super().heads(part, hidden).masked_fill(shut, 0)

    def operator(self, hidden):
        if self.lost:
            raise ModelError("It has no T.")
        key, query = (self.heads(part, hidden)[..., : self.numbers] for part in (self.key, self.query))
        return statesize.Recurrence(A=torch.ones_like(key), B=key, C=query)


def changed_layers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(32, 16), ChangedLayer(), ChangedLayer())
    return model, Probing(Probe(torch.randint(32, (2, 24)), every=1, share=math.inf, settings=Settings(positions=8)))


def test_a_layer_that_is_lost_later_is_told_once_with_how_many_averages_are_over(caplog):
    model, probing = changed_layers()
    layers = []
    for step, lost in enumerate((False, True, True, False)):
        model[2].lost = lost
        layers.append(probing.step(model, step)["ess/layers"])
    assert layers == [2, 1, 1, 2]
    lost, again = news(caplog)
    assert lost == "Step 1: 2 was not measured: It has no T. From here on, averages are over 1 of 2 layers."
    assert again == "Step 3: From here on, averages are over 2 of 2 layers."


def test_a_state_of_which_less_is_found_later_is_no_smaller_one(caplog):
    model, probing = changed_layers()
    before = probing.step(model, 0)
    model[1].numbers = 2
    after = probing.step(model, 1)
    share = "ess/layer_state_utilisation/1"
    assert after[share] <= 2 / 8 < before[share]
    assert after["ess/state_utilisation"] < before["ess/state_utilisation"]
    assert news(caplog) == []
    model[1].numbers = 8
    assert probing.step(model, 2)[share] == before[share]


@pytest.mark.parametrize(("steps", "begins"), [(None, "at about step"), (10, "after the end of this training")])
def test_a_reading_that_waits_says_until_when_in_this_training(steps, begins, caplog):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(32, 16), OwnLayer())
    probing = Probing(Probe(TEXTS, every=1, share=1e-9, settings=Settings(positions=[4])), steps)
    first, *others = (probing.step(model, step) for step in (1, 2, 3))
    assert (first["ess/heads"], others) == (2, [None, None])
    (waits,) = news(caplog)
    assert waits.startswith(f"Step 2: the next reading is {begins}")


@pytest.mark.parametrize(("steps", "advised"), [(None, False), (1000, True), (100, False)])
def test_a_costly_reading_is_told_once_in_processor_time_and_steps_of_the_training(steps, advised, caplog, monkeypatch):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(32, 16), OwnLayer())
    clock = [0.0]
    monkeypatch.setattr("statesize.integrations.probe.time.process_time", lambda: clock[0])
    probing = Probing(Probe(TEXTS, every=10, share=math.inf, settings=Settings(positions=4)), steps)
    measured = probe._measured
    monkeypatch.setattr(probe, "_measured", lambda *given: (clock.append(clock.pop() + 6), measured(*given))[1])
    shares = []
    for step in range(31):
        clock[0] += 0.5
        values = probing.step(model, step)
        shares += [values["ess/share_of_time"]] if values else []
    (costly,) = [message for message in map(str, caplog.messages) if "a reading takes" in message]
    # Ten steps of 0.5 s lie between two readings of 6 s, and one before the first.
    assert shares[1] == pytest.approx(12 / 17.5)
    assert costly.startswith("Step 10: a reading takes 6 s of a processor, as long as 12 steps.")
    assert costly.endswith(" Probe(every=600) makes it 2 %.") == advised
    assert "4 readings, 24.0 s of a processor; the last, at step 30: ESS " in repr(probing)


class OpeningLayer(OwnLayer):
    """The same, whose operator does not know that it may look ahead, or of a term that opens later."""

    ahead, gate = False, 0.0

    def forward(self, hidden):
        mixed = super().forward(hidden)
        mixed = mixed + self.gate * self.value(hidden).cumsum(1)
        return mixed + hidden.mean(1, keepdim=True) if self.ahead else mixed


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("ahead", True, "2 was not measured: Mixer 2 must be causal"), ("gate", 0.5, "2: Measured in part")],
)
def test_what_a_model_becomes_in_a_training_is_told_at_the_next_reading(name, value, words, caplog):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(32, 16), OpeningLayer(), OpeningLayer())
    probing = Probing(Probe(TEXTS, every=1, share=math.inf, settings=Settings(positions=8)))
    assert [probing.step(model, step)["ess/layers"] for step in range(2)] == [2, 2]
    before = news(caplog)
    setattr(model[2], name, value)
    probing.step(model, 2)
    assert words in " ".join(news(caplog)[len(before) :])


def test_a_short_training_shows_several_readings_by_default():
    probing, model = Probing(Probe(TEXTS, every=25, settings=Settings(positions=2))), model_of()
    readings = [reading for step in range(101) if (reading := probing.step(model, step))]
    assert [reading["ess/heads"] for reading in readings] == [2] * 5
    # What takes longer than that waits as before.
    probing._spent += probe.BEGINNING
    assert probing.step(model, 125) is None


def test_a_reading_that_did_not_fit_is_made_up_for_at_a_step_that_is_not_due():
    probing, model = Probing(Probe(TEXTS, every=4, share=0.5, settings=Settings(positions=2))), model_of()
    assert probing.step(model, 4)
    probing._spent += 1e6
    assert probing.step(model, 8) is None
    probing._spent -= 2e6
    assert probing.step(model, 9)["ess/heads"] == 4
    assert probing.step(model, 10) is None


def test_a_training_that_diverged_goes_on_and_is_told_of_once(caplog):
    probing, model = Probing(Probe(TEXTS, every=1, share=math.inf, settings=Settings(positions=2))), model_of()
    weights = copy.deepcopy(model.state_dict())
    assert probing.step(model, 1)
    for first in (2, 5):
        caplog.clear()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(math.nan)
        assert probing.step(model, first) is None
        assert probing.step(model, first + 1) is None
        (record,) = caplog.records
        assert record.getMessage().startswith(f"Step {first}: the probe was not measured: ")
        model.load_state_dict(weights)
        assert probing.step(model, first + 2)


class Failing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 4)

    def forward(self, input_ids):
        raise KeyError("attention_mask")


def test_what_cannot_be_measured_is_tried_again_within_its_share_of_the_time(caplog):
    probing = Probing(Probe(TEXTS, every=1, share=1e-9, settings=Settings(positions=2)))
    assert probing.step(Failing(), 1) is None
    spent = probing._spent
    assert probing.step(model_of(), 2) is None
    assert probing._spent == spent
    probing._spent = 0
    assert probing.step(model_of(), 3)


def test_a_probe_is_checked_before_a_training():
    with pytest.raises(ModelError):
        Probe(TEXTS).measure(torch.nn.Embedding(32, 4))
    for make, named in (
        (lambda: Probing(TEXTS), "probe"),
        (lambda: Probe(TEXTS, every=0), "every"),
        (lambda: Probing(Probe(TEXTS)).step(0, model_of()), "model"),
        (lambda: Probing(Probe(TEXTS)).step(model_of(), "first"), "step"),
        (lambda: Probe(TEXTS, settings=Settings(positions=[999])), "positions"),
        (lambda: Probe(TEXTS, settings=Settings(channels=2)), "channels"),
    ):
        with pytest.raises(InputError, match=named):
            make()


def test_a_probe_serves_several_trainings_also_from_an_iterator():
    probe, model = Probe(iter(TEXTS), every=1, share=math.inf, settings=Settings(positions=2)), model_of()
    readings = [Probing(probe).step(model, 1) for _ in range(2)]
    assert readings[0]["ess/heads"] == 4
    assert readings[0]["ess/total"] == readings[1]["ess/total"]


COSTS = st.builds(
    Cost,
    fixed=st.floats(0, 10),
    head=st.floats(0, 1),
    units=st.lists(st.integers(1, 200), min_size=1, max_size=8).map(tuple),
)


@given(COSTS, st.floats(0, 100))
def test_the_answer_fits_and_one_more_does_not(cost, seconds):
    heads = affordable_heads(cost, seconds)
    widest = max(cost.units)
    fewest = min(FEWEST_HEADS, widest)
    assert heads == 0 or fewest <= heads <= widest
    if heads:
        assert MARGIN * cost.seconds(heads) <= seconds
    if heads < widest:
        assert MARGIN * cost.seconds(max(heads + 1, fewest)) > seconds


def test_readings_are_added_and_a_place_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    probing = Probing(Probe(TEXTS))
    for step in (2, 4):
        probing.keep(tmp_path / "new", step, {"ess/average": step / 8})
    lines = [json.loads(line) for line in (tmp_path / "new" / RECORD).read_text().splitlines()]
    assert lines == [{"run": probing.run, "step": step, "ess/average": step / 8} for step in (2, 4)]
    (tmp_path / "file").write_text("mine")
    Probing(Probe(TEXTS)).keep(tmp_path / "file", 1, {})
    assert "cannot be written" in news(caplog)[-1]
    assert (tmp_path / "file").read_text() == "mine"
