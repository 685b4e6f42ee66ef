"""Documents as windows, and ratios over documents with intervals."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.tasks.task import IGNORED
from statesize.reduction.windows import ratio_of, three_parts, windows

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
    assert len(windows(DOCUMENTS, zoo.tokenizer(), 16, most_tokens=16).sizes) == 2


def test_too_few_documents_are_refused():
    with pytest.raises(InputError, match="text must be at least 3 different texts, or hold 3 pieces of words, got 1"):
        three_parts(["one"] * 5, zoo.tokenizer(), 16)


def test_of_equal_sizes_it_is_student_s_interval_of_a_mean():
    values = torch.tensor(np.random.default_rng(0).normal(size=12))
    found = ratio_of(values, torch.ones(12))
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((float(values.mean()), low, high))


def test_intervals_hold_the_ratio_as_often_as_they_say():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        sizes = generator.integers(50, 400, 40)
        amounts = 1.5 * sizes + generator.normal(size=40) * sizes**0.5
        found = ratio_of(torch.tensor(amounts), torch.tensor(sizes))
        held += found.low <= 1.5 <= found.high
    assert 925 <= held <= 975


def test_documents_without_a_size_do_not_count():
    amounts, sizes = torch.arange(7.0), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    found = ratio_of(amounts, sizes)
    assert found == ratio_of(amounts[sizes > 0], torch.ones(5))
    assert found.ends
    assert math.isnan(ratio_of(torch.zeros(2), torch.zeros(2)).value)


def test_documents_of_one_text_have_no_interval():
    text = "\n\n".join(DOCUMENTS)
    *_, held = three_parts([text], zoo.tokenizer(), 16)
    assert set(held.texts.tolist()) == {0}
    values = torch.arange(float(len(held.sizes)))
    assert ratio_of(values, held.sizes, held.texts).ends is None
    # Paragraphs of three texts are no documents of their own.
    *_, held = three_parts([text, "two", "three"], zoo.tokenizer(), 16)
    assert len(held.sizes) == 1
