"""What published models show: runs that go on from a layer, and how often the verdicts find what is not there."""

import json

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

import statesize as ss
from benchmarks.published import delimiters, heads, models, recurrent_delimiters
from benchmarks.published.attention import Noting, entropies, singular_values
from statesize.lab import length, zoo
from statesize.lab.studies.verdicts import LEVEL
from statesize.models.load import LoadedModel
from tools.figures.on_record import read_json


def llama(**shape):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=24, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4,
        **shape,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def noting():
    return Noting(llama(vocab_size=40, num_hidden_layers=3, max_position_embeddings=64).double())


IDS = torch.randint(40, (2, 20), generator=torch.Generator().manual_seed(1))
CUT, COUNT = 9, 8


def test_the_maps_are_those_of_the_model(noting):
    layers = noting.layers(IDS, compare=True)
    assert noting.difference < 1e-12
    with torch.no_grad():
        noting.model.config._attn_implementation = "eager"
        expected = noting.model(IDS, output_attentions=True).attentions
    for layer, weights in zip(layers, expected, strict=True):
        # Theirs takes the softmax in float32.
        torch.testing.assert_close(layer.weights, weights, rtol=1e-5, atol=1e-6)


def test_windows_are_those_of_the_model_and_rows_the_last_of_its_maps():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=40, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=1, sliding_window=5, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    noting = Noting(Gemma3ForCausalLM(config).double().eval())
    whole = noting.layers(IDS, compare=True)
    assert noting.difference < 1e-12
    assert [int((layer.weights[0, 0, -1] > 0).sum()) for layer in whole] == [5, 20]
    for layer, last in zip(whole, noting.layers(IDS, rows=3), strict=True):
        assert torch.equal(layer.weights[:, :, -3:], last.weights)


@pytest.mark.parametrize("first", range(3))
def test_a_run_from_a_layer_is_the_run_of_the_whole_model_with_one_head_changed(noting, first):
    layers = noting.layers(IDS[:1])
    lost = torch.randn(4, COUNT, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = noting.rest(layers, first, CUT, COUNT, lost)
    for head in range(4):

        def change(_, args, head=head):
            mixed = args[0].clone()
            mixed[0, CUT : CUT + COUNT, 6 * head : 6 * (head + 1)] -= lost[head]
            return (mixed,)

        hook = noting.model.model.layers[first].self_attn.o_proj.register_forward_pre_hook(change)
        with torch.no_grad():
            logits = noting.model(IDS[:1]).logits[0, CUT : CUT + COUNT]
        hook.remove()
        torch.testing.assert_close(found[head], logits.float().log_softmax(-1), rtol=1e-5, atol=1e-5)


def model_row(generator, name, layers, each, effect=0.0):
    """Heads whose ESS, norm and divergence have parts that a layer shares; the divergence follows ESS by `effect`."""

    def numbers():
        return 3 * np.repeat(generator.standard_normal(layers), each) + generator.standard_normal(layers * each)

    measures = {measure: numbers() for measure in heads.MEASURES} | {"layer": np.repeat(np.arange(layers), each)}
    divergence = numbers() + effect * measures["ess"]
    costs = [
        {what: divergence + generator.standard_normal(layers * each) / 2 for what in ("kl", "loss")} for _ in range(2)
    ]
    return {"file": f"{name}-x", "measured": [measures, *costs]}


def head_rows(generator, effect=0.0):
    return [model_row(generator, "SmolLM2", 30, 9, effect), model_row(generator, "gemma", 18, 4, effect)]


def test_heads_that_matter_by_ess_are_found():
    assert heads.conclusion(head_rows(np.random.default_rng(0), effect=3.0))["holds"] is True


@pytest.mark.slow
def test_layers_that_differ_in_both_are_no_effect():
    generator = np.random.default_rng(1)
    rows = [model_row(generator, "gemma", 18, 4) for _ in range(40)]
    found = [heads.evidence_of(row)["ess"].p_above(0) <= LEVEL for row in rows]
    # One in 40 by chance, and many more with heads as units.
    assert sum(found) <= 3


def fall_row(generator, name, own, rest, pairs=30):
    """Falls with a part of the delimiter's own column and a part beside it, and noise of a pair."""
    falls = {}
    for condition in delimiters.CONDITIONS:
        delimited, fall = condition not in delimiters.BARE, {"share": np.full(pairs, 0.1)}
        for variant, (without_delimiter, _) in delimiters.WITHOUT.items():
            for metric in delimiters.METRICS:
                kept = own * (not without_delimiter) if metric == "entropy" else 0
                fall[f"{metric}/{variant}"] = delimited * (kept + rest) + 0.1 * generator.standard_normal(pairs)
        falls[condition] = fall
    return {"file": f"{name}-x", "falls": falls}


def verdicts_of(generator, own, rest):
    rows = [fall_row(generator, name, own, rest) for name in ("SmolLM2", "gemma")]
    return [claim["holds"] for claim in delimiters.conclusion(rows)["claims"]]


def test_the_own_part_of_a_fall_and_what_is_beyond_it_are_told_apart():
    assert verdicts_of(np.random.default_rng(0), own=0.8, rest=0.0)[0] is True
    assert verdicts_of(np.random.default_rng(0), own=0.0, rest=0.6) == [False, True]


def test_at_the_limits_the_looks_at_delimiters_seldom_hold():
    generator = np.random.default_rng(1)
    found = [delimiters.evidence_of(fall_row(generator, "SmolLM2", own=0.6, rest=0.2)) for _ in range(80)]
    for look, limit in (
        ("own above 3/4", 0.0),
        ("beyond removed entropy/first", 0.8),
        ("beyond removed norm/both", 0.2),
    ):
        assert sum(one[f"documents {look}"].p_above(limit) <= LEVEL for one in found) <= 6


def test_pairs_share_no_document_and_all_sequences_of_a_pair_are_as_long():
    pairs = [([10 * number + k for k in range(70)], [-10 * number - k for k in range(40)]) for number in range(1, 5)]
    batch, lengths = delimiters.sequences(pairs, 1, {"documents": [1], "turn": [2], "several": [1, 3]}, 0)
    assert batch.shape == (1 + len(delimiters.CONDITIONS), 1 + 2 * delimiters.HALF)
    assert lengths[1:4] == [1, 1, 2]
    assert batch[3, delimiters.HALF - 1 : delimiters.HALF + 1].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("study", "name"),
    [(heads, "published_heads"), (delimiters, "published_delimiters")],
)
def test_the_verdicts_on_record_follow_from_its_rows(study, name):
    record = read_json(name)
    found = json.loads(json.dumps(study.conclusion(record["rows"])))
    assert found == {key: record[key] for key in found}


def test_what_is_measured_of_a_head_is_what_its_map_says(noting, monkeypatch):
    monkeypatch.setattr(models, "CUT", CUT)
    layer = noting.layers(IDS[:1])[1]
    found = models.of_layer(layer)
    for head, weights in enumerate(layer.weights[0].numpy()):
        rows = weights[CUT:]
        sink = rows.mean(0).argmax()
        sinkless = rows[:, :CUT] * (np.arange(CUT) != sink)
        values, without = (np.linalg.svd(one, compute_uv=False) for one in (rows[:, :CUT], sinkless))
        shares = [one / one.sum() for one in (values, without)]
        ess, ess_without = (np.exp(-(one[one > 0] * np.log(one[one > 0])).sum()) for one in shares)
        expected = {
            **{"ess": ess, "ess_without_sink": ess_without, "norm": np.linalg.norm(values)},
            **{"sink_share": rows.mean(0).max(), "sink_is_first": float(sink == 0)},
            **{f"relative_{tau:g}": (values > tau * values[0]).sum() for tau in (0.1, 0.01)},
        }
        for name, value in expected.items():
            assert float(found[name][head]) == pytest.approx(value, rel=1e-5), name


def test_entropies_are_of_singular_values():
    H = torch.rand(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    shares = torch.linalg.svdvals(H) / torch.linalg.svdvals(H).sum(-1, keepdim=True)
    torch.testing.assert_close(entropies(singular_values(H)), (-shares * shares.log()).sum(-1).exp())


@pytest.fixture
def prose(monkeypatch):
    """The bundled documents: for the prose of the benchmarks all of Python's library would be read."""
    for place in ("benchmarks.recorded.held_out", "benchmarks.published.models.held_out"):
        monkeypatch.setattr(place, zoo.documents)
    return zoo.documents()


@pytest.fixture(scope="module")
def small():
    model = llama(vocab_size=4096, num_hidden_layers=2, max_position_embeddings=512)
    return LoadedModel("small", model, zoo.tokenizer(), {})


def test_growth_is_that_of_the_command(small, prose, monkeypatch):
    for name, value in {"LENGTHS": (16, 32), "FUTURE": 8, "EXCERPTS": 2}.items():
        monkeypatch.setattr(models, name, value)
    found = models.growth(small)
    text = "\n\n".join(prose)
    settings = {"lengths": (16, 32), "settings": ss.Settings(future=8), "excerpts": 2, "on_progress": print}
    expected = length(small.model, text, tokenizer=small.tokenizer, **settings)
    np.testing.assert_allclose([row["ess"] for row in found["rows"]], expected.values(), rtol=1e-3)
    assert [len(row["heads"]) for row in found["rows"]] == [8, 8]


def test_all_kinds_of_text_are_as_long_and_none_is_read_twice(prose):
    texts = models.texts_of(zoo.tokenizer())
    assert list(texts) == ["prose", "code", "chat", "random tokens"]
    pieces = [tuple(ids.tolist()) for own in texts.values() for ids in own]
    assert {len(ids) for ids in pieces} == {models.TOKENS}
    assert len(set(pieces)) == len(pieces) == 4 * models.TEXTS
    chat = zoo.tokenizer().decode(texts["chat"][1].tolist())
    assert "User:" in chat
    assert "Assistant:" in chat


def test_random_weights_are_of_the_same_shape_and_the_same_each_time(noting):
    ours, fresh, again = (
        dict(model.named_parameters())
        for model in (noting.model, *(models.random_weights(noting.model) for _ in range(2)))
    )
    assert {name: one.shape for name, one in ours.items()} == {name: one.shape for name, one in fresh.items()}
    assert all(torch.equal(fresh[name], again[name]) for name in fresh)
    assert not any(fresh[name] is ours[name] for name in fresh)


def test_blocks_of_a_recurrence_are_in_units_of_the_references():
    count = 1 + len(recurrent_delimiters.READ)
    batch = torch.randint(1, 4096, (2 * count, 2 * delimiters.HALF), generator=torch.Generator().manual_seed(4))
    model = zoo.load("gla")[0]
    H = recurrent_delimiters.past_blocks(model, batch, None)
    operators = [one.operator.dense() for one in ss.capture(model, batch)]
    expected = torch.cat(operators, 1)[..., delimiters.HALF :, : delimiters.HALF]
    largest = torch.linalg.svdvals(expected[::count])[..., 0].mean(0)
    torch.testing.assert_close(H, expected.double() / largest[:, None, None].double(), rtol=1e-5, atol=1e-6)


def test_falls_are_against_the_reference_with_and_without_the_first_and_the_last_column():
    H = torch.rand(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    falls = delimiters.falls_of(H, [1, 2, 1], ("documents", "removed"))
    assert list(falls) == ["documents", "removed"]
    norms = H[..., 1:-2].norm(dim=(-2, -1)).mean(1)
    assert falls["documents"]["norm/both"] == pytest.approx(float(1 - norms[1] / norms[0]))
    norms = H[..., 1:].norm(dim=(-2, -1)).mean(1)
    assert falls["removed"]["norm/first"] == pytest.approx(float(1 - norms[2] / norms[0]))
