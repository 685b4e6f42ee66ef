"""The language model: shapes, steps, seeds, bad tokens."""

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig


def model_of(name="gla", seed=0, **changes):
    config = ModelConfig(
        **{"mixer": name, "vocabulary_size": 11, "width": 16, "heads": 2, "layers": 2, "key_size": 4, **changes}
    )
    return LanguageModel(config, torch.Generator().manual_seed(seed))


def tokens(length, batch=2):
    return torch.randint(0, 11, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize(("length", "positions"), [(1, 37), (37, 37), (37, 0)])
def test_steps_equal_the_whole_sequence(length, positions):
    """With embeddings of positions and without; each mixer's own steps stand in its contract."""
    model = model_of("gla,sa", positions=positions, tied=not positions).double().eval()
    input_ids, outputs, caches = tokens(length), [], model.initial_caches(2)
    for token in input_ids.T:
        output, caches = model.step(token, caches)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), model(input_ids), rtol=1e-10, atol=1e-10)


def test_an_output_layer_of_its_own_is_drawn_after_all_else():
    tied, own = model_of(), model_of(tied=False)
    weights = own.state_dict()
    output = weights.pop("output.weight")
    assert output.shape == (11, 16)
    assert weights.keys() == tied.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in tied.state_dict().items())
    with torch.no_grad():
        own.output.weight.copy_(own.embedding.weight)
    assert torch.equal(own(tokens(9)), tied(tokens(9)))


def test_with_positions_order_is_seen_without_convolution_or_decay():
    """Softmax attention sees a set of tokens but for the causal mask; the last output tells."""
    input_ids, swapped = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 1, 3]])
    for positions in (0, 3):
        model = model_of("sa", convolution_size=1, layers=1, positions=positions).eval()
        same = torch.allclose(model(input_ids)[:, -1], model(swapped)[:, -1], atol=1e-5)
        assert same == (positions == 0)


def test_sequences_longer_than_the_positional_embedding_are_refused():
    model = model_of(positions=3).eval()
    with pytest.raises(
        InputError, match="input_ids must be at most 3 tokens, the positional embedding of the model, got at least 4"
    ):
        model(tokens(4))
    caches = model.initial_caches(2)
    for t in range(3):
        _, caches = model.step(tokens(4)[:, t], caches)
    with pytest.raises(InputError, match="got at least 4"):
        model.step(tokens(4)[:, 3], caches)


def test_dropout_draws_from_its_generator_only_in_training():
    model, input_ids = model_of(dropout=0.5), tokens(9)
    model.set_dropout_generator(torch.Generator().manual_seed(5))
    before, first = torch.get_rng_state(), model.train()(input_ids)
    model.set_dropout_generator(torch.Generator().manual_seed(5))
    assert torch.equal(model(input_ids), first)
    assert not torch.equal(model(input_ids), first)
    assert torch.equal(torch.get_rng_state(), before)
    model.eval()
    assert torch.equal(model(input_ids), model(input_ids))


@pytest.mark.parametrize(
    ("input_ids", "said"),
    [
        (torch.zeros(5, dtype=torch.long), r"must have shape \(S, L\).*, got \(5,\)"),
        (torch.zeros(1, 0, dtype=torch.long), r"not be empty, got \(1, 0\)"),
        (torch.zeros(1, 5), r"dtype torch\.float32"),
        (torch.tensor([[3, 11]]), r"vocabulary, 0 to 10, got 3 to 11"),
        (torch.tensor([[-1, 2]]), r"got -1 to 2"),
        ([[1, 2]], r"input_ids must be a tensor of token numbers, got list"),
    ],
)
def test_bad_tokens_are_refused_and_quoted(input_ids, said):
    with pytest.raises(InputError, match=said):
        model_of()(input_ids)
