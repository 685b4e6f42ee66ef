"""Both studies on models of transformers, and on one whose operators are made of its weights."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.studies.texts.dips import measure_dips, modulation, perplexity, respond
from statesize.lab.studies.texts.documents import DocumentCorpus, Windows, aligned_sequences

WINDOWS = Windows(4, 4, margin=2)


@pytest.fixture(scope="module")
def corpus():
    documents = torch.randint(1, 30, (12, 14), generator=torch.Generator().manual_seed(0))
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


def gpt2(positions=64):
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=30, n_positions=positions, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    ).eval()


def mamba():
    config = MambaConfig(vocab_size=30, hidden_size=8, state_size=4, num_hidden_layers=1, intermediate_size=16)
    return MambaForCausalLM(config).eval()


def step_attention():
    return LanguageModel(ModelConfig("wla", 30, width=16, heads=2, layers=1, key_size=4)).eval()


@pytest.mark.parametrize(("build", "units"), [(gpt2, 4), (mamba, 16), (step_attention, 2)])
def test_their_mixers_are_measured_and_their_logits_scored(corpus, build, units):
    model = build()
    response = respond(model, aligned_sequences(corpus, WINDOWS)[0], WINDOWS)
    assert len(response.layers) == units
    assert all(np.isfinite([dip["depth"], dip["low"], dip["high"]]).all() for dip in modulation(response, "norm"))
    assert 1 < perplexity(model, corpus, 32, None) < 300
    assert not model.training


def test_sequences_that_are_too_long_for_a_model_are_one_clear_line(corpus):
    with pytest.raises(InputError, match=r"refused a text of 30 tokens"):
        list(measure_dips(gpt2(positions=8), corpus, WINDOWS))
