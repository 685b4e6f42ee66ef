"""What a profile may be given."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from statesize.errors import InputError
from statesize.texts import bundled
from statesize.texts.inputs import bundled_sequences, sequences, tokens_sha256
from tools.text_bundle import share_of_signs


@pytest.fixture
def tokenizer():
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "one": 1, "two": 2, "three": 3}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


IDS = [5, 6, 7]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (IDS, [IDS]),
        (torch.tensor(IDS), [IDS]),
        (np.array(IDS), [IDS]),
        (np.array([IDS]), [IDS]),
        (list(np.array(IDS)), [IDS]),
        (list(torch.tensor(IDS)), [IDS]),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([IDS, [4, 5]], [IDS, [4, 5]]),
        ([torch.tensor([1, 2]), torch.tensor([[3, 4], [5, 6]])], [[1, 2], [3, 4], [5, 6]]),
        ([np.array([1, 2], dtype=np.int32)], [[1, 2]]),
        ("one two three", [[1, 2, 3]]),
        (["one two", "three one two", IDS], [[1, 2], [3, 1, 2], IDS]),
        # What a tokenizer returns.
        ({"input_ids": torch.tensor([IDS, IDS])}, [IDS, IDS]),
        ({"input_ids": np.array([IDS]), "attention_mask": np.ones((1, 3), int)}, [IDS]),
        ({"input_ids": IDS, "attention_mask": [1, 1, 1]}, [IDS]),
        ({"input_ids": [IDS, [8, 9]], "attention_mask": [[1, 1, 1], [1, 1]]}, [IDS, [8, 9]]),
        ({"input_ids": [IDS, [8, 9]], "token_type_ids": [[0, 0, 0], [0, 0]]}, [IDS, [8, 9]]),
        ([{"input_ids": IDS}, [8, 9], {"input_ids": torch.tensor([8, 9])}], [IDS, [8, 9], [8, 9]]),
        ({"input_ids": torch.tensor([IDS]), "labels": torch.tensor([[-100] * 3]), "pixel_values": None}, [IDS]),
        ({"input_ids": [IDS], "special_tokens_mask": [[1, 0, 1]], "offset_mapping": [[(0, 1)] * 3]}, [IDS]),
    ],
)
def test_accepted(inputs, expected, tokenizer):
    assert [ids.tolist() for ids in sequences(inputs, tokenizer)] == expected


def test_an_iterator_is_read_only_as_far_as_it_is_used():
    def endless():
        while True:
            yield IDS

    assert next(sequences(endless())).tolist() == IDS


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "got none"),
        (3, "got int"),
        ("", "Sequence 0 must have at least 2 tokens, got 0"),
        ([[1, 2], [3]], "Sequence 1 must have at least 2 tokens, got 1"),
        (torch.zeros(2, 3), "float32"),
        (torch.zeros(2, 3, dtype=torch.bool), "bool"),
        (torch.zeros(2, 3, 4, dtype=torch.long), r"\(2, 3, 4\)"),
        (torch.zeros(2, 3, dtype=torch.long, device="meta"), "meta"),
        ([[1, -2]], "-2"),
        ([[[1, 2]]], r"\(1, 2\)"),
        ([[1, "two"]], "list"),
        # What a profile would leave out of what a model takes.
        ([{"a": 1}], "got a in it"),
        ({"attention_mask": [[1]]}, "input_ids"),
        ({"input_ids": [IDS, IDS], "attention_mask": [[1, 1, 1], [1, 1, 0]]}, "attention_mask"),
        ({"input_ids": IDS, "token_type_ids": [0, 0, 1]}, "token_type_ids"),
        ({"input_ids": [IDS], "position_ids": [[0, 1, 0]], "pixel_values": 1}, "pixel_values, position_ids"),
        ({"input_ids": 3}, "got int"),
    ],
)
def test_refused(inputs, message, tokenizer):
    with pytest.raises(InputError, match=message):
        list(sequences(inputs, tokenizer))


def test_text_needs_a_tokenizer():
    with pytest.raises(InputError, match="tokenizer"):
        list(sequences("one two"))


def test_each_default_text_is_the_beginning_of_one_document_and_the_first_is_sentences():
    tokenizer, documents = bundled.tokenizer(), bundled.documents()
    beginnings = bundled_sequences(tokenizer, 4, 256)
    assert [len(ids) for ids in beginnings] == [256] * 4
    for ids, document in zip(beginnings, documents, strict=False):
        assert document.startswith(tokenizer.decode(ids.tolist()))
    assert share_of_signs(documents[0][:1000]) < 0.06


def test_where_sequences_end_is_in_their_digest():
    assert tokens_sha256([torch.tensor([1, 2, 3])]) != tokens_sha256([torch.tensor([1, 2]), torch.tensor([3])])
