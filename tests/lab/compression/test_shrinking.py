"""The smaller model, against the whole one with projected queries."""

import dataclasses

import pytest
import torch

from statesize.errors import FileError
from statesize.lab.compression.proposals import bases_of, cuts_of, measure_gramians
from statesize.lab.compression.shrinking import fine_tuned, rounded_model, smaller_model
from statesize.lab.mixers import LanguageModel, ModelConfig, load_checkpoint, save_checkpoint
from statesize.operators import Recurrence
from statesize.reduction.bases import SelectedBasis

HEADS = ["la", "wla", "gla", "gla-s6"]
DELTA_RULES = ["deltanet", "gated-deltanet"]


def made(name, dtype=torch.float64, **shape):
    config = ModelConfig(name, 16, **{"width": 8, "heads": 2, "layers": 2, "key_size": 4, "decay_bias": -2.0, **shape})
    model = LanguageModel(config, torch.Generator().manual_seed(0)).to(dtype).eval()
    ids = torch.randint(0, 16, (2, 40), generator=torch.Generator().manual_seed(1))
    return model, ids, bases_of(model, measure_gramians(model, [ids]))


def stepped(model, ids):
    """Logits of the step form, and the caches at the end."""
    caches, logits = model.initial_caches(len(ids)), []
    for token in ids.T:
        step, caches = model.step(token, caches)
        logits.append(step)
    return torch.stack(logits, 1), caches


def mask_queries(model, cuts):
    """Reads the states of the whole model through each cut's projection, by other queries of the same state."""
    for layer, own in cuts.items():
        mixer = model.blocks[layer].mixer
        maps = []
        for cut in own:
            r = cut.query_map.shape[1]
            kept = torch.eye(4, dtype=torch.float64)[:, list(cut.channels[:r])] if cut.key_map is None else cut.key_map
            maps.append(cut.query_map @ kept.mT)
        projection, whole = torch.stack(maps).to(mixer.norm_weight.dtype), mixer.recurrence

        def recurrence(hidden, projection=projection, whole=whole):
            query, *others = whole(hidden)
            return query @ projection, *others

        mixer.recurrence = recurrence


def project_keys(model, cuts):
    """Writes and reads the states of the whole model through each cut's projection."""
    for layer, own in cuts.items():
        mixer = model.blocks[layer].mixer
        projection = torch.stack([cut.query_map @ cut.query_map.mT for cut in own])

        def normalised(query, key, projection=projection, whole=mixer._normalised):
            return tuple(part @ projection for part in whole(query, key))

        mixer._normalised = normalised


@pytest.mark.parametrize("sizes", [[2, 2, 2, 2], [1, 3, 4, 2]])
@pytest.mark.parametrize(
    ("name", "project"), [*((name, mask_queries) for name in HEADS), *((name, project_keys) for name in DELTA_RULES)]
)
def test_a_smaller_model_is_the_whole_one_seen_through_projections(name, project, sizes):
    model, ids, bases = made(name)
    cuts = cuts_of(bases, sizes)
    small = smaller_model(model, cuts)
    before = model(ids)
    project(model, cuts)
    assert not torch.allclose(before, small(ids), atol=1e-3)
    torch.testing.assert_close(small(ids), model(ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*HEADS, *DELTA_RULES, "s6"])
def test_nothing_is_lost_where_all_states_are_kept(name):
    model, ids, bases = made(name)
    small = smaller_model(model, cuts_of(bases, [4, 4, 4, 4]))
    torch.testing.assert_close(small(ids), model(ids), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*HEADS, *DELTA_RULES, "s6"])
def test_a_smaller_model_steps_as_it_mixes_and_its_operator_is_its_own(name):
    model, ids, bases = made(name)
    small = smaller_model(model, cuts_of(bases, [2, 2] if name == "s6" else [1, 3, 2, 2]))
    torch.testing.assert_close(stepped(small, ids)[0], small(ids), rtol=1e-9, atol=1e-9)
    mixer, hidden = small.blocks[0].mixer, torch.randn(2, 9, 8, dtype=torch.float64)
    operator = mixer.operator(hidden)
    assert isinstance(operator, Recurrence)
    torch.testing.assert_close(operator.dense() @ mixer.values(hidden), mixer.mixed_values(hidden))


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", [*HEADS, *DELTA_RULES])
def test_no_training_lets_a_head_use_more_than_it_keeps(name, fresh):
    model, ids, bases = made(name)
    small = smaller_model(model, cuts_of(bases, [1, 3, 2, 4]))
    if fresh:
        # Its maps have no columns of zeros.
        small = LanguageModel(small.config, torch.Generator().manual_seed(2)).double()
    small = fine_tuned(small, ids.flatten(), 20, 4)
    with torch.no_grad():
        torch.testing.assert_close(stepped(small, ids)[0], small(ids), rtol=1e-9, atol=1e-9)
        T = small.blocks[1].mixer.operator(torch.randn(1, 16, 8, dtype=torch.float64)).dense()[0]
    assert torch.linalg.matrix_rank(T[:, 8:, :8], rtol=1e-9).tolist() == [2, 4]


def test_s6_keeps_the_states_that_are_chosen():
    model, ids, bases = made("s6", layers=1)
    cut = bases[0][0].cut(2)
    small = smaller_model(model, {0: [cut]})
    mixer = model.blocks[0].mixer
    selected = mixer._selected

    def masked(inputs):
        steps, B, C = selected(inputs)
        read = torch.zeros_like(C)
        read[..., list(cut.channels[:2])] = C @ cut.query_map
        return steps, B, read

    mixer._selected = masked
    torch.testing.assert_close(small(ids), model(ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*HEADS, *DELTA_RULES, "s6"])
def test_a_smaller_model_is_saved_and_loaded(name, tmp_path):
    model, ids, bases = made(name, torch.float32)
    small = smaller_model(model, cuts_of(bases, [2, 3] if name == "s6" else [1, 3, 2, 2]))
    save_checkpoint(small, tmp_path)
    read = load_checkpoint(tmp_path)
    assert read.config == small.config
    assert torch.equal(read(ids), small(ids))


@pytest.mark.few(2)
@pytest.mark.parametrize("name", HEADS)
def test_rounded_states_are_those_of_a_decoder_that_rounds(name):
    model, ids, bases = made(name)
    small = smaller_model(model, cuts_of(bases, [1, 3, 2, 2]))
    rounded = rounded_model(small)
    logits, caches = stepped(rounded, ids)
    torch.testing.assert_close(logits, rounded(ids), rtol=1e-9, atol=1e-9)
    assert not torch.equal(rounded(ids), small(ids))
    torch.testing.assert_close(rounded(ids), small(ids), rtol=0.1, atol=0.1)
    _, rows, scale = caches[1]
    assert (rows.dtype, rows.shape) == (torch.int8, (2, 4, 4))
    assert (scale.dtype, scale.shape) == (torch.float16, (2, 4, 1))


@pytest.mark.parametrize("name", ["la", "gla", "deltanet"])
def test_caches_have_the_smaller_size(name):
    model, _, bases = made(name, torch.float32)
    small = smaller_model(model, cuts_of(bases, [1, 3, 2, 2]))
    assert [block.mixer.initial_cache(1)[1].nbytes for block in model.blocks] == [2 * 4 * 4 * 4] * 2
    assert [block.mixer.initial_cache(1)[1].nbytes for block in small.blocks] == [4 * 4 * 4] * 2


def test_layers_that_have_no_state_to_cut_stay(tmp_path):
    model, ids, bases = made("gla,sa")
    small = smaller_model(model, cuts_of(bases, [2, 2]))
    assert small.config.state_sizes == ((2, 2), ())
    save_checkpoint(small, tmp_path)
    assert torch.equal(load_checkpoint(tmp_path)(ids), small(ids))


@pytest.mark.parametrize(
    "changes",
    [{"state_sizes": ((2, 2),)}, {"state_sizes": ((2, 5), (2, 2))}, {"state_sizes": ((2,), (2, 2))}, {"state_bits": 4}],
)
def test_sizes_that_cannot_be_are_refused(changes):
    config = ModelConfig("gla", 16, width=8, heads=2, layers=2, key_size=4)
    with pytest.raises(ValueError, match=r"^state_(sizes|bits) must be"):
        dataclasses.replace(config, **changes)


def test_selected_bases_are_of_the_mixers_with_decays_of_their_own():
    assert all(isinstance(basis, SelectedBasis) for basis in made("gla")[2][0])
    assert not any(isinstance(basis, SelectedBasis) for basis in made("la")[2][0])


@pytest.mark.parametrize("changes", [{"state_sizes": 5}, {"state_sizes": [5]}, {"state_sizes": [["2", 2], [2, 2]]}])
def test_damaged_sizes_of_a_file_are_refused(changes):
    values = ModelConfig("gla", 16, width=8, heads=2, layers=2, key_size=4).to_dict()
    with pytest.raises(FileError, match="here: "):
        ModelConfig.from_dict(values | changes, "here")
