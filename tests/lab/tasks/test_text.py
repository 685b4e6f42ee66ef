import math

import pytest
import torch

from statesize.errors import InputError
from statesize.lab.tasks import Corpus, TextTask, encode, train_tokenizer

DOCUMENTS = (
    "The state of a recurrence is what it keeps of the past.",
    "The effective state of a model is what it uses of the past: naïve, é, 状態.",
    "A special <eos> inside a text is text.",
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, vocabulary_size=300)


@pytest.mark.parametrize("text", [*DOCUMENTS, " leading", "tab\tand\n\nlines\n", "\x00\x7f🜚", "Zażółć"])
def test_tokenizer_gives_every_text_back(tokenizer, text):
    tokens = encode([text], tokenizer)
    assert tokens[-1] == 0
    assert tokenizer.decode(tokens[:-1].tolist(), skip_special_tokens=False) == text


def test_tokenizer_needs_room_for_every_byte():
    assert train_tokenizer(["x"], vocabulary_size=257).get_vocab_size() == 257
    with pytest.raises(InputError, match="vocabulary_size must be at least 257"):
        train_tokenizer(["x"], vocabulary_size=256)


def test_every_document_ends_with_one_eos(tokenizer):
    tokens = encode(DOCUMENTS, tokenizer)
    assert tokens.dtype == torch.int64
    assert (tokens == 0).sum() == len(DOCUMENTS)
    assert torch.equal(tokens, torch.cat([encode([document], tokenizer) for document in DOCUMENTS]))


def test_encode_leaves_the_tokenizer_as_it_was(tokenizer):
    encode(DOCUMENTS, tokenizer)
    assert tokenizer.encode("<eos>").ids == [0]


@pytest.mark.parametrize("documents", [[], [""]])
def test_text_shorter_than_two_tokens_is_refused(tokenizer, documents):
    with pytest.raises(
        InputError, match=rf"documents must have at least 2 tokens, <eos> included, got {len(documents)}"
    ):
        encode(documents, tokenizer)


def test_tokenizer_without_eos_is_refused():
    from tokenizers import Tokenizer, models

    with pytest.raises(InputError, match="tokenizer must have the token <eos>"):
        encode(["text"], Tokenizer(models.BPE()))


def task_of(train=50, held_out=23, length=8, held_out_bytes=40):
    return TextTask(torch.arange(train), torch.arange(100, 100 + held_out), length, held_out_bytes, 200)


def test_sample_is_windows_of_the_train_stream_shifted_by_one():
    inputs, targets = task_of().sample(64, torch.Generator().manual_seed(0))
    assert inputs.shape == targets.shape == (64, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
    assert torch.equal(targets, inputs + 1)


@pytest.mark.parametrize("held_out", [2, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_held_out_scores_every_token_once(held_out, batch_size):
    task = task_of(held_out=held_out)
    batches = list(task.held_out(batch_size))
    assert all(inputs.shape == targets.shape == (len(inputs), 8) for inputs, targets in batches)
    assert [len(inputs) for inputs, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1][0]) <= batch_size
    inputs = torch.cat([batch[0] for batch in batches]).flatten()
    targets = torch.cat([batch[1] for batch in batches]).flatten()
    scored = targets != -100
    assert torch.equal(targets[scored], task.held_out_tokens)
    assert torch.equal(inputs[scored], task.held_out_tokens.roll(1))
    assert not scored[held_out:].any()
    assert (inputs >= 0).all()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, task.held_out(batch_size), strict=True))


def test_bits_per_byte_counts_a_byte_for_each_eos(tokenizer):
    task = TextTask.from_corpus(Corpus(DOCUMENTS, DOCUMENTS[:2]), tokenizer, length=8)
    assert task.held_out_bytes == sum(len(document.encode()) for document in DOCUMENTS[:2]) + 2
    assert task.vocabulary_size == 300
    tokens = len(task.held_out_tokens)
    # A model that spends one bit per token spends tokens / bytes bits per byte.
    report = task.report(math.log(2), 0.25)
    assert report == {"loss": math.log(2), "accuracy": 0.25, "bits_per_byte": tokens / task.held_out_bytes}


def test_corpus_without_held_out_documents_is_refused(tokenizer):
    with pytest.raises(InputError, match="corpus must have a held-out document"):
        TextTask.from_corpus(Corpus(DOCUMENTS, ()), tokenizer, length=8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": 8}, r"train_tokens must be .* at least 9, got shape \(8,\)"),
        ({"held_out": 1}, "held_out_tokens must be .* at least 2"),
        ({"length": 0}, r"length must be .*got 0"),
        ({"held_out_bytes": 0}, r"held_out_bytes must be .*got 0"),
        ({"held_out": 101}, "must have ids in 0 … 199, got 100 to 200"),
    ],
)
def test_bad_streams_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        task_of(**changed)
