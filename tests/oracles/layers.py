"""One layer in float64 and what it reads, for tests against formulas."""

import torch

from statesize.lab.mixers import LanguageModel, ModelConfig

LENGTH, WIDTH, HEADS, KEYS = 40, 12, 2, 5


def layer_and_input(name, **changes):
    """The mixer of a model with random weights, biases and norms too, and (2, LENGTH, WIDTH) hidden states."""
    shape = {"vocabulary_size": 8, "width": WIDTH, "heads": HEADS, "layers": 1, "key_size": KEYS}
    model = LanguageModel(ModelConfig(name, **shape, **changes), torch.Generator().manual_seed(1)).double()
    generator = torch.Generator().manual_seed(2)
    mixer = model.blocks[0].mixer
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return mixer, torch.randn(2, LENGTH, WIDTH, generator=generator, dtype=torch.float64)


def convolved(inputs, convolution):
    """Causal depthwise convolution, one tap after another, and silu."""
    outputs = torch.zeros_like(inputs)
    for lag in range(convolution.size):
        outputs[:, lag:] += inputs[:, : inputs.shape[1] - lag] * convolution.weight[:, -1 - lag]
    return outputs * outputs.sigmoid()


def normed(vectors, weight):
    """RMS norm of the last dimension."""
    return vectors / (vectors.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def gate(mixer, hidden):
    """The silu gate of the output."""
    logits = hidden @ mixer.gate_projection.weight.mT
    return logits * logits.sigmoid()


def by_head(part):
    """(S, L, H n) as (S, L, H, n)."""
    return part.unflatten(-1, (HEADS, -1))
