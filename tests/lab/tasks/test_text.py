"""Text to train on: parts, tokenizer, streams, and the task over them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statesize.errors import FileError
from statesize.lab.tasks import Corpus, TextTask, encode, read_text, train_tokenizer
from statesize.lab.tasks.text import split

DOCUMENTS = (
    "The state of a recurrence is what it keeps of the past.",
    "The effective state of a model is what it uses of the past: naïve, é, 状態.",
    "A special <eos> inside a text is text.",
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, vocabulary_size=300)


def test_a_document_is_on_one_side_whatever_else_there_is():
    documents = [f"document number {index % 500}" for index in range(1000)]
    whole, half = split(documents), split(documents[:500:2])
    assert 20 < len(whole.held_out) < 90
    assert sorted(whole.train + whole.held_out) == sorted(documents)
    assert not set(whole.train) & set(whole.held_out)
    assert set(half.held_out) == set(whole.held_out) & set(documents[:500:2])
    assert list(whole.train) == [document for document in documents if document in set(whole.train)]


@given(st.integers(2, 12), st.integers(0, 40))
def test_two_documents_or_more_leave_no_part_empty_and_one_is_trained_on(count, start):
    documents = [f"document {index}" for index in range(start, start + count)]
    parts = split(documents)
    assert parts.train
    assert parts.held_out
    assert split(documents[:1] * 2) == Corpus(train=(documents[0],) * 2, held_out=())


def test_files_without_texts_are_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    for name in ("latin.txt", "nowhere.txt", "chat.jsonl"):
        with pytest.raises(FileError):
            read_text(tmp_path / name)


@given(st.text())
def test_the_tokenizer_gives_every_text_back(tokenizer, text):
    tokens = encode([text], tokenizer)
    assert tokens[-1] == 0
    assert tokenizer.decode(tokens[:-1].tolist(), skip_special_tokens=False) == text


def test_every_document_ends_with_one_eos_and_the_tokenizer_is_left_as_it_was(tokenizer):
    tokens = encode(DOCUMENTS, tokenizer)
    assert tokens.dtype == torch.int64
    assert (tokens == 0).sum() == len(DOCUMENTS)
    assert torch.equal(tokens, torch.cat([encode([document], tokenizer) for document in DOCUMENTS]))
    assert tokenizer.encode("<eos>").ids == [0]


def task_of(train=50, held_out=23, length=8, held_out_bytes=40):
    return TextTask(torch.arange(train), torch.arange(100, 100 + held_out), length, held_out_bytes, 200)


def test_a_batch_is_windows_of_the_train_stream_shifted_by_one():
    inputs, targets = task_of().sample(64, torch.Generator().manual_seed(0))
    assert inputs.shape == targets.shape == (64, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
    assert torch.equal(targets, inputs + 1)


@given(st.integers(2, 23), st.integers(1, 5))
def test_every_held_out_token_is_scored_once(held_out, batch_size):
    task = task_of(held_out=held_out)
    batches = list(task.held_out(batch_size))
    assert all(inputs.shape == targets.shape == (len(inputs), 8) for inputs, targets in batches)
    assert [len(inputs) for inputs, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    inputs, targets = (torch.cat(part).flatten() for part in zip(*batches, strict=True))
    scored = targets != -100
    assert torch.equal(targets[scored], task.held_out_tokens)
    assert torch.equal(inputs[scored], task.held_out_tokens.roll(1))
    assert not scored[held_out:].any()
    assert (inputs >= 0).all()


def test_bits_per_byte_count_a_byte_for_each_eos(tokenizer):
    task = TextTask.from_corpus(Corpus(DOCUMENTS, DOCUMENTS[:2]), tokenizer, length=8)
    assert task.held_out_bytes == sum(len(document.encode()) for document in DOCUMENTS[:2]) + 2
    assert task.vocabulary_size == 300
    # A model that spends one bit per token spends tokens / bytes bits per byte.
    bits = len(task.held_out_tokens) / task.held_out_bytes
    assert task.report(math.log(2), 0.25) == {"loss": math.log(2), "accuracy": 0.25, "bits_per_byte": bits}
