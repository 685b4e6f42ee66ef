"""The language model: shapes, steps, seeds, bad tokens."""

from functools import partial

import pytest
import torch
from oracles.draws import language_model

from statesize.errors import InputError

model_of = partial(language_model, vocabulary_size=11, width=16, heads=2, layers=2, key_size=4)


def tokens(length):
    return torch.randint(0, 11, (2, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize(("length", "positions"), [(1, 37), (37, 37), (37, 0)])
def test_steps_equal_the_whole_sequence(length, positions):
    """With embeddings of positions and without; each mixer's own steps stand in its contract."""
    model = model_of("gla,sa", positions=positions, tied=not positions).double().eval()
    input_ids, outputs, caches = tokens(length), [], model.initial_caches(2)
    for token in input_ids.T:
        output, caches = model.step(token, caches)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), model(input_ids), rtol=1e-10, atol=1e-10)
    if length == positions:
        with pytest.raises(InputError):
            model.step(token, caches)


def test_an_output_layer_of_its_own_is_drawn_after_all_else():
    tied, own = model_of(), model_of(tied=False)
    weights = own.state_dict()
    assert weights.pop("output.weight").shape == (11, 16)
    assert weights.keys() == tied.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in tied.state_dict().items())
    own.output.weight.data.copy_(own.embedding.weight)
    assert torch.equal(own(tokens(9)), tied(tokens(9)))


def test_with_positions_order_is_seen_without_convolution_or_decay():
    """Softmax attention sees a set of tokens but for the causal mask; the last output tells."""
    input_ids, swapped = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    for positions in (0, 3):
        model = model_of("sa", convolution_size=1, layers=1, positions=positions).eval()
        same = torch.allclose(model(input_ids)[:, -1], model(swapped)[:, -1], atol=1e-5)
        assert same == (positions == 0)


def test_dropout_draws_from_its_generator_only_in_training():
    model, input_ids = model_of(dropout=0.5).train(), tokens(9)
    before, outputs = torch.get_rng_state(), []
    for _ in range(2):
        model.set_dropout_generator(torch.Generator().manual_seed(5))
        outputs += [model(input_ids), model(input_ids)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])
    model.eval()
    assert torch.equal(model(input_ids), model(input_ids))
