"""A model is left exactly as it was: by success, by an error inside its forward, and by Ctrl-C."""

import copy
import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers.masking_utils
import transformers.modeling_utils
from oracles.attention_models import token_ids
from oracles.tiny_families import tiny

import statesize as ss
from statesize import capture
from statesize.adapters.models.model_state import named_parts
from statesize.adapters.replaced import source_files


def state(model):
    """Everything that observation might change, by identity where identity is meant."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    registries = (
        transformers.modeling_utils.AttentionInterface._global_mapping,
        transformers.masking_utils.AttentionMaskInterface._global_mapping,
    )
    return {
        "tensors": [(name, id(tensor), tensor.data_ptr(), tensor.dtype) for name, tensor in tensors],
        "modes": [module.training for module in model.modules()],
        "hooks": [
            (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._forward_hooks_with_kwargs))
            for module in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "configuration": copy.deepcopy(vars(model.config)),
        "functions": [
            {name: id(value) for name, value in vars(file).items()} for file in source_files(named_parts(model))
        ],
        "registries": [dict(registry) for registry in registries],
        "random": torch.get_rng_state().tolist(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "modes of torch": torch.overrides._get_current_function_mode_stack(),
    }


MODELS = ["llama", "gpt_oss", "gptj", "mamba2", "qwen3_next", "recurrent_gemma", "lfm2"]


@pytest.mark.few(5)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", MODELS)
def test_after_success_and_between_the_steps(family, dtype):
    model = tiny(family).to(dtype).train()
    next(model.children()).eval()
    before, weights = state(model), copy.deepcopy(model.state_dict())
    for _ in capture(model, token_ids(1)):
        assert state(model) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


class Remembering(torch.nn.Module):
    """A layer that prepares itself in its first forward, draws numbers, and notes in containers what it has seen."""

    def __init__(self):
        super().__init__()
        self.values, self.ready, self.stage, self.table = torch.nn.Linear(4, 4), False, "new", None
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(1))
        self.rows = torch.zeros(0)
        self.losses, self.seen, self.kinds = [], {"means": [torch.zeros(1)], "calls": 0}, {"none"}
        self.last = deque([0], maxlen=3)
        self.state, self.number = (torch.zeros(1), [0]), np.float64(1.0)
        self.cache = SimpleNamespace()

    def forward(self, hidden):
        if not self.ready:
            self.scale.copy_(self.values.weight.std())
            self.ready, self.stage, self.table = True, "ready", torch.ones(4)
        random.random(), np.random.random(), torch.rand(1)  # noqa: S311, NPY002
        self.losses.append(hidden.mean())
        self.seen["means"][0].add_(1)
        self.seen["means"].append(hidden.mean())
        self.seen["calls"] += 1
        self.kinds.add("called")
        self.last.append(1)
        self.state[0].data.add_(1)
        self.state[1].append(1)
        self.state, self.number, self.cache = (torch.ones(2), [1]), 2.0, None
        self.steps.data += 1
        self.rows.resize_(len(self.rows) + 1)
        self.register_buffer("made", torch.ones(1), persistent=False)
        return (self.values(hidden) * self.table * self.scale).cumsum(1)

    def noted(self):
        own = {name: value for name, value in vars(self).items() if name != "_modules"}
        of_numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return repr((own, random.getstate(), of_numpy, torch.get_rng_state().tolist()))


def test_what_a_forward_notes_and_draws_is_as_before():
    layer, hidden = Remembering(), torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0))
    before, held = layer.noted(), (layer.losses, layer.seen["means"])
    first = ss.profile(layer, hidden)
    assert layer.noted() == before
    assert held[0] is layer.losses
    assert held[1] is layer.seen["means"]
    with torch.no_grad():
        layer(hidden)
    after = layer.noted()
    again = ss.profile(layer, hidden)
    assert layer.noted() == after != before
    assert str(first) == str(again)


@pytest.mark.parametrize("training", [False, True])
def test_weights_that_a_model_divides_once_are_divided_once(training):
    """RWKV divides weights of later layers in its first forward in eval mode, and multiplies them in training."""

    def fresh():
        torch.manual_seed(0)
        sizes = {"vocab_size": 64, "hidden_size": 16, "attention_hidden_size": 16, "context_length": 32}
        return transformers.RwkvForCausalLM(transformers.RwkvConfig(**sizes, num_hidden_layers=5, rescale_every=2))

    ids = torch.arange(3, 19)[None]
    model, warm = fresh().train(training), fresh().eval()
    with torch.no_grad():
        expected = warm(ids).logits
    first, second = (ss.profile(model, ids).summary() for _ in range(2))
    assert model.training == training
    assert first.equals(second)
    assert first.equals(ss.profile(warm, ids).summary())
    with torch.no_grad():
        assert torch.equal(fresh().train(training)(ids).logits, model(ids).logits)
        assert torch.equal(model.eval()(ids).logits, expected)
