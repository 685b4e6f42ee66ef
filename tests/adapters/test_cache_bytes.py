"""State bytes of transformers families are those of the cache that the model itself makes."""

import pytest
import torch
from oracles.tiny_families import SHORT, tiny, token_ids
from torch import Tensor

from statesize.adapters import capture

QUICK = ("mamba2", "qwen3_next", "falcon_h1", "lfm2", "gemma3n_text")
# What the cache holds beside that of the operators, or where it is not made or not a cache of transformers.
OTHERWISE = {
    "deepseek_v32": "keys of its indexer",
    "glm_moe_dsa": "keys of its indexer",
    "minimax_m3_vl_text": "keys of its indexer",
    "deepseek_v4": "compressed entries of layers that have no operator",
    "qwen4_exp_text": "more than the operators of its layers read",
    "zaya": "more than the operators of its layers read",
    "llama4_text": "a chunk only, where the operators are told as attention to all tokens",
    "minimax": "lightning attention is not in its layers",
    "recurrent_gemma": "its modules keep it",
    "rwkv": "the tokens that its mixers are shifted by",
    "xlstm": "it fails with a cache",
    "blt": "its configuration has no number of layers",
}


def held(part: object) -> int:
    """Bytes of the real tensors of a cache; counters are whole numbers."""
    if isinstance(part, Tensor):
        return part.nbytes if part.is_floating_point() else 0
    parts = part if isinstance(part, list | tuple) else part.values() if isinstance(part, dict) else ()
    return sum(held(each) for each in parts)


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHORT if name not in OTHERWISE],
)
def test_state_bytes_are_those_of_the_model_s_cache(family):
    model, ids = tiny(family), token_ids(1)
    with torch.no_grad():
        output = model(input_ids=ids, use_cache=True)
    cache = output.cache_params if "cache_params" in output else output.past_key_values
    mixers = capture(model, ids, short_convolutions=True).mixers
    everything = sum(held(vars(layer)) for layer in cache.layers)
    assert sum(mixer.state_bytes for mixer in mixers) == everything > 0
    # A mixer's own bytes hold those of the convolutions inside it.
    assert sum(item.state_bytes for item in capture(model, ids)) == everything
