"""Documents as windows."""

import pytest
import torch

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.tasks.task import IGNORED
from statesize.reduction.windows import three_parts, windows

DOCUMENTS = [f"document {number} says {number * number} and no more" for number in range(30)]


def test_every_token_is_a_target_of_its_document_once():
    tokenizer = zoo.tokenizer()
    found = windows(DOCUMENTS, tokenizer, 16)
    end = tokenizer.token_to_id("<eos>")
    for number, document in enumerate(DOCUMENTS):
        own = found.targets[(found.document == number) & (found.targets != IGNORED)].tolist()
        assert own == [*tokenizer.encode(document).ids, end]
    assert found.sizes.tolist() == [len(document) + 1 for document in DOCUMENTS]
    flat = found.inputs.flatten(), found.targets.flatten()
    assert flat[0][0] == end
    assert torch.equal(flat[0][1:20], flat[1][:19])


def test_parts_are_disjoint_and_repeats_are_dropped():
    tokenizer = zoo.tokenizer()
    parts = three_parts([*DOCUMENTS, *DOCUMENTS], tokenizer, 16)
    assert [len(part.sizes) for part in parts] == [12, 6, 12]
    texts = [tokenizer.decode(part.targets[part.targets != IGNORED].tolist()) for part in parts]
    assert [sum(document in text for text in texts) for document in DOCUMENTS] == [1] * 30


def test_reading_ends_with_the_document_that_has_enough():
    assert len(windows(DOCUMENTS, zoo.tokenizer(), 16, most_tokens=20).sizes) == 2


def test_too_few_documents_are_refused():
    with pytest.raises(InputError, match="text must hold at least 3 different documents, got 1"):
        three_parts(["one"] * 5, zoo.tokenizer(), 16)
