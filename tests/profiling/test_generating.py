"""Greedy text by a cache is what the full pass says, one token after another."""

import pytest
import torch
from oracles.pretrained import tiny_llama

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.profiling.watching import disagreements, generate

PROMPT = [5, 9, 12, 7]


MODELS = {"gla": lambda: zoo.load("gla")[0], "sa": lambda: zoo.load("sa")[0], "llama": tiny_llama}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_the_likeliest_of_the_full_pass(name):
    model, expected = MODELS[name](), list(PROMPT)
    for _ in range(6):
        with torch.no_grad():
            output = model(torch.tensor([expected]))
        expected.append(int(getattr(output, "logits", output)[0, -1].argmax()))
    found = generate(model, PROMPT, 6)
    assert found == expected[4:]
    assert disagreements(model, PROMPT, found) == 0
    other = [found[0], (found[1] + 1) % 30, *found[2:]]
    assert disagreements(model, PROMPT, other) >= 1


def test_what_cannot_generate_is_refused():
    with pytest.raises(InputError, match="at least one token"):
        generate(zoo.load("gla")[0], [], 3)
    with pytest.raises(InputError, match="got Linear"):
        generate(torch.nn.Linear(2, 2), PROMPT, 3)
