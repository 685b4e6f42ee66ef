"""Logits of some positions, without making those of the others."""

import torch
from oracles.attention_models import attention_model, token_ids
from torch import nn

from statesize.adapters.models.model_state import logits_of


@torch.no_grad()
def test_logits_of_the_last_positions_are_made_alone():
    model, ids, made = attention_model("llama"), token_ids(), []
    expected = logits_of(model, ids)
    model.lm_head.register_forward_hook(lambda _, args, output: made.append(tuple(output.shape)))
    torch.testing.assert_close(logits_of(model, ids, last=3), expected[:, -3:])
    assert made == [(2, 3, 64)]


@torch.no_grad()
def test_a_model_that_makes_all_logits_gives_the_last():
    model, ids = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 5)), token_ids()
    assert logits_of(model, ids).shape == (2, 21, 5)
    assert torch.equal(logits_of(model, ids, last=1), model(ids)[:, -1:])
