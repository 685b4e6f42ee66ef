"""Sequences of all conditions: aligned, of one length, and different in the delimiters only."""

import numpy as np
import pytest
import torch

from statesize.errors import InputError
from statesize.lab.studies.texts.documents import (
    CONDITIONS,
    MISPLACED,
    OBSERVED,
    DocumentCorpus,
    Windows,
    aligned_sequences,
    choose_windows,
)

WINDOWS = Windows(3, 2, margin=2)  # reach 7


def numbered(*lengths):
    """Documents whose tokens tell document and place: 100 k + place."""
    return tuple(torch.arange(length) + 100 * (k + 1) for k, length in enumerate(lengths))


def corpus(*lengths, beginning=None):
    return DocumentCorpus(numbered(*lengths), 0, beginning, frozenset({0, 1}))


def by_name(*lengths, **options):
    return {one.condition: one for one in aligned_sequences(corpus(*lengths, **options), WINDOWS, seed=3)}


def test_offsets():
    assert WINDOWS.reach == 7
    assert WINDOWS.references == (-4, -3, 3, 4)
    assert WINDOWS.offsets == (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    # Columns offset − past … offset − 1 and rows offset … offset + future − 1; the delimiter is −1.
    for offset in WINDOWS.references:
        reached = range(offset - WINDOWS.past, offset + WINDOWS.future)
        assert -1 not in reached
        assert all(place < -1 for place in reached) or all(place >= 0 for place in reached)
        assert min(reached) >= -WINDOWS.reach - 1
        assert max(reached) < WINDOWS.reach


def test_windows_fit_into_half_of_the_documents():
    assert choose_windows(corpus(10, 28, 40)).past == 12
    assert choose_windows(corpus(500, 500)) == Windows(32, 32)
    with pytest.raises(InputError, match="Half of the documents must have 12 tokens, got 10"):
        choose_windows(corpus(8, 11))


def test_all_sequences_have_one_length_and_one_cut():
    found = by_name(20, 9, 10, 6, 15, 16, 9)
    assert tuple(found) == CONDITIONS
    assert {(one.ids.shape[1], one.cut) for one in found.values()} == {(21, 14)}


def test_the_delimiter_is_before_the_cut_between_documents_that_are_long_enough():
    ids = by_name(20, 9, 10, 6, 15, 16, 9)[OBSERVED].ids
    assert (ids[:, 13] == 0).all()
    # The fourth document is too short for what stands before and after it.
    assert ids[:, 14].tolist() == [200, 300, 600, 700]
    assert ids[0].tolist() == [*range(107, 120), 0, *range(200, 207)]


def test_controls_have_no_delimiter_at_the_border():
    found = by_name(20, 9, 10, 6, 15, 16, 9)
    removed = found["removed"].ids
    assert not (removed == 0).any()
    assert removed[0].tolist() == [*range(106, 120), *range(200, 207)]
    replaced = found["replaced"].ids
    assert replaced[:, 14].tolist() == [200, 300, 600, 700]
    assert (replaced[:, 13] >= 100).all()
    assert replaced[0, :13].tolist() == list(range(107, 120))
    shuffled = found["shuffled"].ids
    assert not (shuffled == 0).any()
    assert (shuffled[:, 14] % 100 == 0).all()
    moved = found["moved"].ids
    assert (moved[:, 14] % 100 == 0).all()
    assert (moved[:, 13] != 0).all()
    assert (moved == 0).any()


def test_misplaced_delimiters_stand_inside_documents():
    ids = by_name(20, 9, 10, 6, 15, 16, 9)[MISPLACED].ids
    assert (ids[:, 13] == 0).all()
    assert (ids[:, 12] + 1 == ids[:, 14]).all()
    # In the middle half of the document.
    places, documents = ids[:, 14] % 100, ids[:, 14] // 100 - 1
    lengths = torch.tensor([20, 9, 10, 6, 15, 16, 9])[documents]
    assert ((places >= lengths // 4) & (places <= 3 * lengths // 4)).all()
    assert 3 not in documents


def test_the_beginning_token_comes_first():
    plain, begun = by_name(20, 9, 10, 9), by_name(20, 9, 10, 9, beginning=1)
    for name in CONDITIONS:
        assert (begun[name].ids[:, 0] == 1).all()
        assert begun[name].ids[:, 1:].equal(plain[name].ids)
        assert begun[name].cut == plain[name].cut + 1


def test_documents_that_are_too_short_are_refused():
    with pytest.raises(InputError, match="text must have 2 delimiters between documents of 7 tokens"):
        aligned_sequences(corpus(20, 6, 20, 6, 20), WINDOWS)


def test_replacements_are_neither_special_nor_delimiters():
    documents = tuple(torch.tensor([5, 1, 6, 1, 5, 6, 5, 6, 5]) for _ in range(40))
    found = {
        one.condition: one for one in aligned_sequences(DocumentCorpus(documents, 0, None, frozenset({0, 1})), WINDOWS)
    }
    assert np.isin(found["replaced"].ids[:, 13].numpy(), [5, 6]).all()
