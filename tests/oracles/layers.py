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


def mix_sequentially(query, key, value, log_decay):
    """y_t = q_tᵀ S_t with S_t = diag(a_t) S_{t−1} + k_t v_tᵀ, one position after another: the definition."""
    state = key.new_zeros(*key.shape[:-2], key.shape[-1], value.shape[-1])
    decay = None if log_decay is None else log_decay.expand(key.shape).exp()
    outputs = []
    for t in range(key.shape[-2]):
        if decay is not None:
            state = decay[..., t, :, None] * state
        state = state + key[..., t, :, None] * value[..., t, None, :]
        outputs.append((query[..., t, None, :] @ state).squeeze(-2))
    return torch.stack(outputs, dim=-2)
