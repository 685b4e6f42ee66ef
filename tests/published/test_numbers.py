"""The numbers of published models against their own eager attention maps and numpy."""

import numpy as np
import pytest
import torch
from published.packages import PROSE, assert_numbers, eager_maps, gemma_file

import statesize as ss

LAYERS = (0, 14, 29)
POSITIONS = (1, 26, 53, 80, 95)


@pytest.fixture(scope="module")
def profile(smollm2, ids):
    return ss.profile(smollm2[0], ids, positions=POSITIONS, layers=list(LAYERS))


def test_each_head_and_cache(smollm2, ids, profile):
    maps = eager_maps(smollm2[0], ids)
    assert profile.mixers == tuple(f"model.layers.{layer}.self_attn" for layer in LAYERS)
    for layer, name in zip(LAYERS, profile.mixers, strict=True):
        heads, caches = profile.mixer(name).sel(position=list(POSITIONS)), profile.group(name)
        assert (heads.sizes["head"], caches.sizes["group"]) == (9, 3)
        assert_numbers(heads, lambda head, i, own=maps[layer]: own[head, i:, :i])
        # Three query heads read one key-value head.
        assert_numbers(
            caches.sel(position=list(POSITIONS)),
            lambda group, i, own=maps[layer]: np.concatenate(list(own[3 * group : 3 * group + 3, i:, :i])),
        )


def test_bytes_and_sizes_are_those_of_its_cache(smollm2, ids, profile):
    with torch.no_grad():
        cache = smollm2[0](ids, use_cache=True).past_key_values
    for layer, name in zip(LAYERS, profile.mixers, strict=True):
        held = cache.layers[layer]
        assert profile.mixer(name)["state_bytes"].values[0] == held.keys.nbytes + held.values.nbytes
    assert profile.summary_rows()[0]["run_difference"] == 0


def test_all_layers_are_measured(smollm2, ids):
    captured = ss.capture(smollm2[0], ids)
    assert len(captured.mixers) == 30
    assert not captured.skipped
    assert {(mixer.kind, mixer.units, mixer.multiplicity) for mixer in captured.mixers} == {("attention", 9, 64)}


@pytest.mark.slow
def test_gemma(tmp_path):
    """Four heads on one cache, with windows in five layers of six."""
    model, tokenizer = ss.load(str(gemma_file(tmp_path)))
    ids = tokenizer(PROSE, return_tensors="pt").input_ids[:, :64]
    maps = eager_maps(model, ids)
    settings = ss.Settings([0, 5, 11, 17], positions=(1, 20, 40, 63))
    found = ss.profile(model, ids, settings=settings)
    for layer, name in zip((0, 5, 11, 17), found.mixers, strict=True):
        at = {"position": [1, 20, 40, 63]}
        assert_numbers(found.mixer(name).sel(at), lambda head, i, own=maps[layer]: own[head, i:, :i])
        assert_numbers(
            found.group(name).sel(at), lambda group, i, own=maps[layer]: np.concatenate(list(own[:, i:, :i]))
        )
