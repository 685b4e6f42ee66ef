"""Dips of models against singular values; depths, intervals and recall where they are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from statesize.errors import InputError
from statesize.lab.studies.texts.dips import (
    METRICS,
    ModelDips,
    Response,
    measure_dips,
    modulation,
    perplexity,
    repeated,
    respond,
)
from statesize.lab.studies.texts.documents import OBSERVED, DocumentCorpus, Windows, aligned_sequences
from statesize.operators import Recurrence

WINDOWS = Windows(5, 5, margin=2)


class Mixer(nn.Module):
    """A recurrence over fixed random vectors of tokens whose decay is `kept` at token 0."""

    multiplicity, kind = 1, "la"

    def __init__(self, kept):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.kept, self.weight = kept, nn.Parameter(torch.zeros(1))
        self.register_buffer("vectors", torch.randn(2, 40, 2, 4, generator=generator, dtype=torch.float64))

    def operator(self, hidden):
        ids = hidden[..., 0].long()
        key, query = (table[ids].transpose(1, 2) for table in self.vectors)
        decay = torch.where(ids == 0, self.kept, 0.98).double()[:, None, :, None]
        return Recurrence(decay, key, query)

    def forward(self, hidden):
        return hidden


class Model(nn.Module):
    def __init__(self, kept=1.0):
        super().__init__()
        self.mixer = Mixer(kept)

    def forward(self, input_ids):
        return self.mixer(input_ids[..., None].double())


def corpus_of(documents):
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


@pytest.fixture(scope="module")
def corpus():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 25, (40,), generator=generator).tolist()
    return corpus_of(torch.randint(1, 40, (length,), generator=generator) for length in lengths)


def test_values_are_those_of_the_definition(corpus):
    aligned, model = aligned_sequences(corpus, WINDOWS)[0], Model(0.3)
    response = respond(model, aligned, WINDOWS)
    matrix = model.mixer.operator(aligned.ids[..., None]).dense()
    references = [WINDOWS.offsets.index(offset) for offset in WINDOWS.references]
    cuts = [aligned.cut + offset for offset in WINDOWS.offsets]
    for event, head in ((0, 0), (0, 1), (11, 0), (11, 1)):
        spectra = torch.stack([torch.linalg.svdvals(matrix[event, head, i : i + 5, i - 5 : i]) for i in cuts])
        share, scale = spectra / spectra.sum(-1, keepdim=True), spectra[references, 0].mean()
        expected = {
            "entropy": torch.exp(-torch.special.xlogy(share, share).sum(-1)),
            "relative": (spectra > 1e-2 * spectra[:, :1]).sum(-1),
            "tolerance": (spectra > 0.3 * scale).sum(-1),
            **{f"tolerance_{factor:g}": (spectra > factor * scale).sum(-1) for factor in (0.01, 0.1, 0.6)},
            "norm": spectra.norm(dim=-1),
        }
        for metric in METRICS:
            assert response.values[metric][event, head] == pytest.approx(expected[metric].numpy(), rel=1e-4)


def test_the_one_that_forgets_dips_beyond_all_controls_and_the_other_does_not(corpus):
    resets, keeps = (ModelDips("", list(measure_dips(Model(kept), corpus, WINDOWS))) for kept in (1e-3, 0.98))
    assert (resets.beyond_controls, keeps.beyond_controls) == (True, False)
    assert min(resets.dip(*place).value for place in ((OBSERVED,), ("misplaced",), (OBSERVED, "norm"))) > 0.5
    assert abs(keeps.dip(OBSERVED).value) < 0.15


def response_of(at, events=200, noise=0.0, seed=0):
    """Heads of two layers, 10 away from the delimiter and `at` of that at it."""
    at = np.array(at, np.float64)
    values = np.full((events, len(at), 5), 10.0)
    values[:, :, 2] *= at
    values += noise * np.random.default_rng(seed).normal(size=values.shape)
    same = {metric: values.astype(np.float32) for metric in METRICS}
    references = np.array([True, True, False, False, True])
    return Response("delimiter", (-4, -3, 0, 2, 3), references, ("first", "first", "second"), "gla", same)


def test_a_depth_is_the_mean_of_heads_and_of_layers():
    whole = list(modulation(response_of([0.5, 0.7, 1.2]), "entropy"))
    assert (whole[0]["kind"], whole[0]["events"], whole[0]["reference"]) == ("gla", 200, pytest.approx(10))
    assert [dip["offset"] for dip in whole] == [-4, -3, 0, 2, 3]
    # The layers' are .4 and -.2.
    assert [dip["depth"] for dip in whole] == pytest.approx([0, 0, 0.1, 0, 0])
    # Heads that carry nothing are left out.
    one = response_of([0.5, 0.7, 0.5])
    one.values["tolerance"][:, 1] = 0
    assert list(modulation(one, "tolerance"))[2]["depth"] == pytest.approx(0.5)


def test_intervals_hold_the_depth_as_often_as_they_say():
    inside = 0
    for seed in range(100):
        dip = list(modulation(response_of([0.6, 0.8, 0.7], events=60, noise=2.0, seed=seed), "norm", seed))[2]
        inside += dip["low"] <= 0.3 <= dip["high"]
        assert dip["low"] < dip["depth"] < dip["high"]
    assert 88 <= inside <= 100


def test_repeated_bigrams_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    for size in (3, 5, 9):
        tokens = torch.randint(size, (60,), generator=generator).tolist()
        expected = np.zeros(60, bool)
        for t in (t for t in range(1, 60) if 0 not in tokens[t - 1 : t + 1]):
            same = [s for s in range(1, t) if tokens[s - 1 : s + 1] == tokens[t - 1 : t + 1] and 0 not in tokens[s:t]]
            expected[t] = bool(same)
        assert (repeated(torch.tensor(tokens), 0) == expected).all()


class Copying(nn.Module):
    """Gives the token that followed the last occurrence of the present one a high chance."""

    def __init__(self, gain, size=20):
        super().__init__()
        self.gain, self.size, self.weight = gain, size, nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, ids in enumerate(input_ids.tolist()):
            for t, token in enumerate(ids):
                for s in [s for s in range(t) if ids[s] == token][-1:]:
                    logits[row, t, ids[s + 1]] = self.gain
        return logits


def test_the_perplexity_is_that_of_the_mean_loss_over_what_is_scored():
    generator = torch.Generator().manual_seed(0)
    # Documents that go round a cycle each, so that their bigrams come again.
    cycles = corpus_of(torch.randperm(19, generator=generator)[:5].add(1).repeat(3) for _ in range(20))
    assert perplexity(Copying(0.0), cycles, 32, None) == pytest.approx(20)
    ids = torch.cat([torch.cat([document, torch.tensor([0])]) for document in cycles.documents])[:320].view(10, 32)
    losses = nn.functional.cross_entropy(Copying(4.0)(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    member, even = np.stack([repeated(row, 0)[1:] for row in ids]), (ids % 2 == 0).numpy()[:, 1:]
    for scored, of in ((None, member), (frozenset(range(0, 20, 2)), member & even)):
        expected = np.exp(losses.detach().numpy()[of].mean())
        assert perplexity(Copying(4.0), cycles, 32, scored) == pytest.approx(expected, rel=1e-5)
    begun = dataclasses.replace(cycles, beginning=20)
    assert perplexity(Copying(4.0, 21), begun, 32, None) < 3
    assert np.isnan(perplexity(Copying(4.0), cycles, 32, frozenset()))


def gpt2(positions=64):
    sizes = {"n_positions": positions, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, **sizes)).eval()


def test_models_of_transformers_are_measured_and_their_logits_scored():
    documents = torch.randint(1, 30, (12, 14), generator=torch.Generator().manual_seed(0))
    corpus, windows = corpus_of(documents), Windows(4, 4, margin=2)
    response = respond(gpt2(), aligned_sequences(corpus, windows)[0], windows)
    assert len(response.layers) == 4
    assert all(np.isfinite([dip["depth"], dip["low"], dip["high"]]).all() for dip in modulation(response, "norm"))
    assert 1 < perplexity(gpt2(), corpus, 32, None) < 300


def test_what_cannot_be_measured_is_one_clear_line(corpus):
    broken = Model()
    broken.mixer.vectors[0, 7] = float("nan")
    with pytest.raises(InputError):
        list(measure_dips(broken, corpus, WINDOWS))
    with pytest.raises(InputError):
        list(measure_dips(gpt2(positions=8), corpus_of(torch.arange(1, 25).expand(12, 24)), WINDOWS))
