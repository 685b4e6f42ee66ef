"""Readings of a stream are those of a profile of the whole text."""

import numpy as np
import pytest
import torch
from oracles.pretrained import tiny_llama

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.profiling import profile, watching
from statesize.profiling.watching import Watch

TOKENS = torch.randint(4, 30, (40,), generator=torch.Generator().manual_seed(0)).tolist()
MODELS = {"gla": lambda: zoo.load("gla")[0], "sa": lambda: zoo.load("sa")[0], "llama": tiny_llama}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("gla", [40]), ("gla", [7, 2, 30, 1]), ("sa", [7, 2, 30, 1]), ("llama", [7, 2, 30, 1]), ("llama", [1] * 40)],
    ids=str,
)
def test_readings_are_those_of_a_profile(name, sizes):
    model, future, watched = MODELS[name](), 5, []
    watch = Watch(model, future=future, context=64)
    for size in sizes:
        before = sum(sizes[: len(watched)])
        watched.append(list(watch.read(TOKENS[before : before + size])))
    # Each cut as soon as its future is there.
    assert [len(found) for found in watched] == [
        max(0, read - future) - max(0, read - size - future) for read, size in zip(np.cumsum(sizes), sizes, strict=True)
    ]
    readings = [reading for found in watched for reading in found]
    assert [reading.position for reading in readings] == list(range(1, 36))
    assert [reading.token for reading in readings] == TOKENS[1:36]
    whole = profile(model, [TOKENS], future=future)
    for index, name in enumerate(whole.mixers):
        node, layers = whole.mixer(name), [reading.layers[index] for reading in readings]
        assert {(layer.name, layer.kind) for layer in layers} == {(name, node.attrs["kind"])}
        entropy = node["entropy"].values[0].mean(0)
        assert [layer.entropy for layer in layers] == pytest.approx(entropy, rel=1e-3)
        assert [layer.norm for layer in layers] == pytest.approx(node["norm"].values[0].mean(0), rel=1e-4)
        assert [layer.ceiling for layer in layers] == node["ceiling"].values[0].tolist()
        counts = node["relative_count"].values[0, ..., 0].mean(0)
        assert [layer.count for layer in layers] == pytest.approx(counts)


def test_a_new_cut_alone_is_measured(monkeypatch):
    asked, measure = [], watching.measure_captured

    def measured(item, units, settings, **given):
        asked.append(list(settings.positions))
        return measure(item, units, settings, **given)

    monkeypatch.setattr(watching, "measure_captured", measured)
    watch = Watch(tiny_llama(), future=3, context=64)
    for first in range(0, 20, 4):
        list(watch.read(TOKENS[first : first + 4]))
    assert asked[::2] == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13], [14, 15, 16, 17]]


def test_what_is_forgotten():
    model, long = zoo.load("sa")[0], TOKENS * 4
    watch = Watch(model, future=4, context=32)
    readings = list(watch.read(long))
    assert [reading.position for reading in readings] == list(range(1, 157))
    # Nowhere is the past longer than the context, and up to it the model reads from the beginning.
    whole = profile(model, [long[:32]], future=4).mixer("layers.0.mixer")["entropy"].values[0].mean(0)
    assert [reading.layers[0].entropy for reading in readings[:28]] == pytest.approx(whole, rel=1e-3)
    # After 36 tokens the first 20 are forgotten: cut 33 has a past of 13.
    later = profile(model, [long[20:36]], future=4).mixer("layers.0.mixer")
    assert readings[32 - 1].layers[0].entropy == pytest.approx(
        float(later["entropy"].values[0, :, 11].mean()), rel=1e-3
    )


def test_some_heads_stand_for_all():
    few = list(Watch(zoo.load("gla")[0], future=4, channels=2).read(TOKENS))
    every = list(Watch(zoo.load("gla")[0], future=4).read(TOKENS))
    differences = [abs(a.layers[0].entropy - b.layers[0].entropy) for a, b in zip(few, every, strict=True)]
    assert 0 < max(differences) < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"future": 0}, "future must be"), ({"channels": 0}, "channels must be"), ({"context": 60}, "context must be")],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        Watch(tiny_llama(), **options)


def test_tokens_that_the_model_lacks():
    with pytest.raises(InputError, match=r"input_ids must be from 0 to 299, .* got 1000000"):
        list(Watch(tiny_llama(), future=2).read([1, 10**6, 2, 3, 4]))
