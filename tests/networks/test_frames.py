"""The whole network over frames: its Jacobian is that from the frames before a cut to the outputs from it on."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import statesize as ss

LENGTH, CUT = 12, 5


class Convolutions(nn.Module):
    """Frames (B, W, L)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(3, 3, 4) for _ in range(2))

    def forward(self, sound):
        for layer in self.layers:
            sound = layer(functional.pad(sound, (3, 0))).tanh()
        return sound


class Loop(nn.Module):
    """Frames (L, B, W), as torch's loops take them by default."""

    def __init__(self):
        super().__init__()
        self.loop = nn.GRU(3, 4)

    def forward(self, frames):
        return self.loop(frames)[0]


@pytest.mark.parametrize(("kind", "order"), [(Convolutions, (0, 2, 1)), (Loop, (1, 0, 2))])
@pytest.mark.parametrize("named", [False, True])
def test_the_jacobian_is_that_of_the_frames(kind, order, named):
    torch.manual_seed(0)
    model, frames = kind(), torch.randn(1, LENGTH, 3)
    inputs = frames.permute(order)
    name = "sound" if kind is Convolutions else "frames"
    found = ss.network_ess(model, {name: inputs} if named else inputs, positions=[CUT], method="dense")
    assert found.start == (name if named else "inputs")
    model = model.double()
    # Both orders are their own inverses.
    outputs = torch.autograd.functional.jacobian(lambda x: model(x.permute(order)).permute(order), frames.double())
    block = outputs[0, CUT:, :, 0, :CUT].flatten(0, 1).flatten(1)
    values = torch.linalg.svdvals(block)
    share = values[values > 1e-14] / values.sum()
    assert np.isclose(found.entropy.item(), torch.exp(-(share * share.log()).sum()).item(), rtol=1e-6)
    assert found.norm.item() == pytest.approx(block.norm().item(), rel=1e-6)


def test_embeddings_are_frames_too():
    from oracles.attention_models import attention_model, token_ids

    model, ids = attention_model("llama"), token_ids(1, LENGTH)
    with torch.no_grad():
        embeddings = model.get_input_embeddings()(ids)
    by_ids = ss.network_ess(model, ids, positions=[CUT], method="dense")
    by_frames = ss.network_ess(model, {"inputs_embeds": embeddings}, positions=[CUT], method="dense")
    assert by_frames.start == "inputs_embeds"
    assert np.isclose(by_frames.entropy.item(), by_ids.entropy.item(), rtol=1e-6)


def test_a_decoder_shares_its_embedding_with_an_encoder_of_as_many_tokens():
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    model, ids = BartForConditionalGeneration(config).eval(), torch.arange(3, 3 + LENGTH)[None]
    shared = model.model.decoder.embed_tokens
    model.model.encoder.embed_tokens = shared
    end = "model.decoder.layers.0.final_layer_norm"
    inputs = {"input_ids": ids.flip(1), "decoder_input_ids": ids}
    found = ss.network_ess(model, inputs, positions=[CUT], end=end, method="dense")
    with torch.no_grad():
        read = {"encoder_outputs": model.get_encoder()(ids.flip(1)), "decoder_input_ids": ids}
    expected = ss.network_ess(model, read, positions=[CUT], end=end, method="dense")
    assert np.isclose(found.entropy.item(), expected.entropy.item(), rtol=1e-6)
    assert found.norm.item() == pytest.approx(expected.norm.item(), rel=1e-6)
