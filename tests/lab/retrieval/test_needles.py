"""Needles: where they lie, what a layer carries of them by the definition, and what is said about that."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from oracles.pretrained import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

import statesize as ss
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.retrieval.layer import LayerNeedles
from statesize.lab.retrieval.needles import haystacks
from statesize.lab.retrieval.result import Needles
from statesize.lab.tasks import MQAR
from statesize.measurement.statistics import Interval

PIECES = [torch.randint(40, (20,), generator=torch.Generator().manual_seed(seed)) for seed in range(9)]


def asked(model, pieces=tuple(PIECES), **options):
    options = {"depths": [3, 8], "context": 14, "future": 6, "on_progress": lambda *told: None} | options
    return ss.lab.needles(model, list(pieces), **options)


def model_of(mixer="gla", **shape):
    config = ModelConfig(mixer, 40, **{"width": 8, "heads": 2, "layers": 2, "key_size": 4, **shape})
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


def llama():
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def test_needles_lie_where_they_should_and_nothing_else_tells_of_them():
    made = haystacks(PIECES, 14, [3, 8], 0)
    for found in made:
        for piece, needle, plain, answer in zip(PIECES, found.needle, found.plain, found.answers, strict=True):
            key, value = needle[14:16].tolist()
            first = 14 - found.depth
            assert value == answer
            assert needle[first : first + 2].tolist() == [key, value]
            assert not {key, value} & set(piece.tolist())
            assert plain[14:16].tolist() == [key, value]
            kept = [at for at in range(20) if at not in (14, 15)]
            assert torch.equal(plain[kept], piece[kept])
            assert sorted((needle != plain).nonzero().flatten().tolist()) == [first, first + 1]
    assert torch.equal(made[0].answers, made[1].answers)
    assert not torch.equal(made[0].answers, haystacks(PIECES, 14, [3], 1)[0].answers)


@pytest.mark.parametrize("make", [model_of, lambda: model_of("sa"), lambda: model_of("s6"), llama])
def test_what_a_layer_carries_is_the_definition(make):
    model = make()
    found = asked(model, excerpts=9)
    (_, haystack) = haystacks(PIECES, 14, [3, 8], 0)
    mixers = {mixer.name: mixer for mixer in ss.capture(model, haystack.needle)}
    plain = {mixer.name: mixer.operator.dense().double() for mixer in ss.capture(model, haystack.plain)}
    assert [layer.name for layer in found.layers] == list(mixers)
    for layer in found.layers:
        T = mixers[layer.name].operator.dense().double()
        rest = T.clone()
        rest[..., 6:8] = 0
        for name, matrix in (("entropy", T), ("without", rest)):
            expected = ss.measure(matrix, positions=[14], engine="dense").entropy[..., 0]
            np.testing.assert_allclose(getattr(layer, name)[1], expected.numpy(), rtol=1e-5)
        row, beside = T[:, :, 14, :14].square(), plain[layer.name][:, :, 14, :14].square()
        np.testing.assert_allclose(layer.share[1], (row[..., 6:8].sum(-1) / row.sum(-1)).numpy(), rtol=1e-5)
        np.testing.assert_allclose(layer.plain[1], (beside[..., 6:8].sum(-1) / beside.sum(-1)).numpy(), rtol=1e-5)
        group = mixers[layer.name].group
        if group is None:
            assert layer.joint is None
            assert np.array_equal(layer.carried, layer.entropy.mean(-1))
        else:
            joint = ss.measure(group, positions=[14], engine="dense").entropy[..., 0]
            np.testing.assert_allclose(layer.joint[1], joint.numpy(), rtol=1e-5)


def test_retrieval_is_that_of_the_model():
    model = model_of("sa")
    found = asked(model, depths=[8])
    (haystack,) = haystacks(PIECES, 14, [8], 0)
    with torch.no_grad():
        with_needle, without = (
            model(part[:, :15])[:, 14].log_softmax(-1) for part in (haystack.needle, haystack.plain)
        )
    rows = torch.arange(9)
    gain = with_needle[rows, haystack.answers] - without[rows, haystack.answers]
    np.testing.assert_allclose(found.gain[0], gain.numpy(), rtol=1e-3, atol=1e-5)
    assert found.retrieved[0].tolist() == (with_needle.argmax(-1) == haystack.answers).tolist()
    assert found.guessed[0].tolist() == (without.argmax(-1) == haystack.answers).tolist()


def test_a_model_that_recalls_finds_needles_and_its_heads_are_named():
    model, _ = ss.load("recall-sa")
    sequences, _ = MQAR(pairs=8, length=32, vocabulary_size=model.config.vocabulary_size).sample(
        24, torch.Generator().manual_seed(0)
    )
    found = asked(model, sequences, depths=[4, 12], context=20, future=4, name="recall-sa")
    for depth in (4, 12):
        assert found.accuracy(depth).value > 0.2 > found.guessed.mean() + 0.1
        assert found.gains(depth).low > 1
    most = found.heads(12)[0]
    assert most.lift.low > 0.1
    assert most.lift.value == max(layer.lift[1].mean(0).max() for layer in found.layers)
    assert f"Unit {most.unit} of {most.layer} sees most of them: 12 tokens back" in found.finding


def fixed(entropy, gain):
    """One layer of one head at one depth."""
    entropy = np.array(entropy, np.float64)[None, :, None]
    zeros = np.zeros_like(entropy)
    layer = LayerNeedles("one", "gla", entropy, entropy - 1, zeros + 0.5, None, zeros + 0.25)
    gain = np.array([gain], np.float64)
    right = gain > 2
    facts = {"tokens_sha256": "", "asked": {}, "versions": {}}
    return Needles("small", (4,), 8, 4, right, right & False, gain, (layer,), {}, facts)


def test_figures_of_known_numbers():
    found = fixed([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7])
    assert found.relation("one", 4).value == pytest.approx(1)
    assert fixed([6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 7]).relation("one", 4).value == pytest.approx(-1)
    assert np.isnan(fixed([1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 7]).relation("one", 4).value)
    assert found.accuracy(4).value == pytest.approx(4 / 6)
    assert found.gains(4).value == pytest.approx(22 / 6)
    (head,) = found.heads(4)
    assert (head.entropy, head.share, head.lift.value) == (3.5, 0.5, 0.25)
    assert head.lost == Interval(1.0, 1.0, 1.0)
    assert found.finding == (
        "Of needles small finds 67% 4 tokens back (answer 39.1 × as probable). Unit 0 of one sees most of them: 4 "
        "tokens back the needle has 50% of the question’s row, 25 points more than plain text there."
    )
    unclear = dataclasses.replace(found.layers[0], plain=found.layers[0].share)
    assert "No head clearly sees more" in dataclasses.replace(found, layers=(unclear,)).finding


def test_page_and_figures(tmp_path):
    found = asked(model_of())
    page = found.to_html(tmp_path / "needles.html").read_text(encoding="utf-8")
    assert "which heads carry it?" in page
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert "3 tokens back" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [1]}, "depths must be different numbers of tokens from 2 to 14"),
        ({"depths": [15]}, "depths must be different numbers"),
        ({"depths": []}, "depths must be different numbers"),
        ({"context": 30}, r"inputs must have two pieces of 36 tokens, got 0"),
        ({"excerpts": 1}, "excerpts must be"),
        ({"future": 1}, "future must be"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ss.errors.InputError, match=message):
        asked(model_of(), **options)


def test_texts_of_the_same_tokens_have_no_room_for_a_needle():
    with pytest.raises(ss.errors.InputError, match="tokens that are in some excerpts and not in others"):
        asked(model_of(), [torch.arange(20)] * 3)
    with pytest.raises(ss.errors.InputError, match=r"^depth must be one of 3, 8"):
        asked(model_of()).accuracy(5)


def test_a_bundled_name_is_enough():
    found = ss.lab.needles("la", depths=[4], context=12, future=4, excerpts=2, on_progress=lambda *told: None)
    assert (found.model, found.excerpts) == ("la", 2)
    assert len(found.layers) == zoo.load("la")[0].config.layers


def test_a_haystack_begins_as_the_tokenizer_begins_a_text():
    seen = []
    model = model_of()
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    asked(model, [piece.clamp(min=1) for piece in PIECES], tokenizer=tiny_tokenizer(bos=True), depths=[13])
    assert all(bool((tokens[:, 0] == 0).all()) and bool((tokens[:, 1:] != 0).all()) for tokens in seen)
    with pytest.raises(ss.errors.InputError, match="numbers of tokens from 2 to 13, within the context, got"):
        asked(model_of(), tokenizer=tiny_tokenizer(bos=True), depths=[14])
