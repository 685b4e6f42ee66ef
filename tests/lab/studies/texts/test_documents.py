"""Sequences of all conditions: aligned, of one length, and different in the delimiters only; and the text of each."""

import numpy as np
import pytest
import torch
from oracles.pretrained import TEMPLATE, tiny_tokenizer
from tokenizers import Tokenizer, models

from statesize.errors import InputError
from statesize.lab import zoo
from statesize.lab.studies.texts.documents import (
    CONDITIONS,
    MISPLACED,
    OBSERVED,
    DocumentCorpus,
    Windows,
    aligned_sequences,
    choose_windows,
    make_corpus,
)
from statesize.texts.rows import Chat

WINDOWS = Windows(3, 2, margin=2)  # reach 7


def corpus(*lengths, beginning=None):
    """Documents whose tokens tell document and place: 100 k + place."""
    documents = tuple(torch.arange(length) + 100 * (k + 1) for k, length in enumerate(lengths))
    return DocumentCorpus(documents, 0, beginning, frozenset({0, 1}))


def by_name(*lengths, **options):
    return {one.condition: one for one in aligned_sequences(corpus(*lengths, **options), WINDOWS, seed=3)}


@pytest.fixture(scope="module")
def found():
    return by_name(20, 9, 10, 6, 15, 16, 9)


def test_offsets():
    assert WINDOWS.reach == 7
    assert WINDOWS.references == (-4, -3, 3, 4)
    assert WINDOWS.offsets == (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    # Columns offset − past … offset − 1 and rows offset … offset + future − 1; the delimiter is −1.
    for offset in WINDOWS.references:
        reached = range(offset - WINDOWS.past, offset + WINDOWS.future)
        assert all(place < -1 for place in reached) or all(place >= 0 for place in reached)
        assert -WINDOWS.reach - 1 <= min(reached) <= max(reached) < WINDOWS.reach


def test_windows_fit_into_half_of_the_documents():
    assert choose_windows(corpus(10, 28, 40)).past == 12
    assert choose_windows(corpus(500, 500)) == Windows(32, 32)
    with pytest.raises(InputError):
        choose_windows(corpus(8, 11))
    with pytest.raises(InputError):
        aligned_sequences(corpus(20, 6, 20, 6, 20), WINDOWS)


def test_the_delimiter_is_before_the_cut_between_documents_that_are_long_enough(found):
    assert tuple(found) == CONDITIONS
    assert {(one.ids.shape[1], one.cut) for one in found.values()} == {(21, 14)}
    ids = found[OBSERVED].ids
    assert (ids[:, 13] == 0).all()
    # The fourth document is too short for what stands before and after it.
    assert ids[:, 14].tolist() == [200, 300, 600, 700]
    assert ids[0].tolist() == [*range(107, 120), 0, *range(200, 207)]


def test_controls_have_no_delimiter_at_the_border(found):
    removed, replaced, shuffled, moved = (found[name].ids for name in ("removed", "replaced", "shuffled", "moved"))
    assert not (removed == 0).any()
    assert removed[0].tolist() == [*range(106, 120), *range(200, 207)]
    assert replaced[:, 14].tolist() == [200, 300, 600, 700]
    assert (replaced[:, 13] >= 100).all()
    assert replaced[0, :13].tolist() == list(range(107, 120))
    assert not (shuffled == 0).any()
    assert (moved == 0).any()
    assert (moved[:, 13] != 0).all()
    assert all((one[:, 14] % 100 == 0).all() for one in (shuffled, moved))


def test_misplaced_delimiters_stand_in_the_middle_half_of_documents(found):
    ids = found[MISPLACED].ids
    assert (ids[:, 13] == 0).all()
    assert (ids[:, 12] + 1 == ids[:, 14]).all()
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


def test_replacements_are_neither_special_nor_delimiters():
    documents = (torch.tensor([5, 1, 6, 1, 5, 6, 5, 6, 5]),) * 40
    sequences = aligned_sequences(DocumentCorpus(documents, 0, None, frozenset({0, 1})), WINDOWS)
    (replaced,) = (one.ids for one in sequences if one.condition == "replaced")
    assert np.isin(replaced[:, 13].numpy(), [5, 6]).all()


def test_letters_of_a_special_token_are_text_and_single_documents_are_refused():
    corpus = make_corpus(["one<eos>two", "three"], zoo.tokenizer(), 9)
    assert (len(corpus.documents), corpus.delimiter) == (2, 0)
    assert len(make_corpus(["one", "two", "three"], zoo.tokenizer(), 2).documents) == 2
    with pytest.raises(InputError):
        make_corpus(["a", "b"], Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")), 9)  # noqa: S106
    with pytest.raises(InputError):
        make_corpus(["one"], zoo.tokenizer(), 9)


def test_chats_go_through_the_template_and_lose_its_beginning():
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATE)
    messages = ({"role": "a", "content": "b"}, {"role": "c", "content": "d"})
    corpus = make_corpus([Chat(messages, "here")], tokenizer, 9)
    # Cut at the end of each turn.
    turns = [tokenizer(text, add_special_tokens=False).input_ids for text in ("a: b", "c: d")]
    assert [document.tolist() for document in corpus.documents] == turns
    assert (corpus.beginning, corpus.delimiter) == (0, 1)
