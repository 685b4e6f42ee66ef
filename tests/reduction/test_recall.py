"""The probe of recall, on models that are known to recall, and on those that do not."""

import torch

from benchmarks.recall_models import TASK
from statesize.lab import zoo
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.lab.tasks.task import IGNORED
from statesize.reduction.compress import compress
from statesize.reduction.windows import TokenWindows, inserted_pairs, probe, repeated_bigrams, windows


def of_tokens(*rows, documents=None):
    tokens = torch.tensor(rows)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    document = torch.zeros_like(inputs) if documents is None else torch.tensor(documents)
    count = int(document.max()) + 1
    return TokenWindows(inputs, targets, document, torch.ones(count, dtype=torch.float64), torch.arange(count))


def recall_documents(count):
    """Documents of the task that the recall models were trained on, as their words."""
    inputs, _ = TASK.sample(count, torch.Generator().manual_seed(5))
    rows = inputs.view(-1, TASK.document_length)
    return [" ".join(TASK.words[token] for token in row[:-1]) for row in rows.tolist()]


def test_repeated_bigrams_follow_what_came_last():
    found = repeated_bigrams(of_tokens([1, 2, 1, 2, 1, 3, 1, 2, 1, 2]))
    # 1 2 is repeated at once, broken by 1 3, and repeated after it is back.
    assert found[0].tolist() == [-100, -100, 2, 1, -100, -100, -100, 1, 2]


def test_repeated_bigrams_are_of_one_document():
    found = repeated_bigrams(of_tokens([1, 2, 1, 2, 1, 2], documents=[[0, 0, 1, 1, 1]]))
    assert found[0].tolist() == [-100, -100, -100, -100, 2]


def test_inserted_pairs_come_twice_and_are_asked_once():
    whole = of_tokens(*torch.randint(0, 50, (3, 129), generator=torch.Generator().manual_seed(0)).tolist())
    inputs, targets = inserted_pairs(whole, 0)
    asked = (targets != IGNORED).nonzero().tolist()
    assert len(asked) > 12
    for row, place in asked:
        key, value = inputs[row, place].item(), targets[row, place].item()
        pairs = list(zip(inputs[row, :-1].tolist(), inputs[row, 1:].tolist(), strict=True))
        assert pairs[:place].count((key, value)) >= 1
        assert pairs[place] == (key, value)


def test_a_cut_that_breaks_recall_is_seen_and_a_model_without_any_tells_nothing():
    model, tokenizer = zoo.load("recall-la")
    documents = recall_documents(60)
    found = compress(model, documents, "25%", length=TASK.length, tokenizer=tokenizer)
    assert found.recall["repeated_bigrams"].seen
    assert found.recall["repeated_bigrams"].lost.low > 0.02
    assert found.safe is False
    blank = LanguageModel(ModelConfig("la", 27, width=8, heads=2, layers=1), torch.Generator().manual_seed(0)).eval()
    held = windows(documents[:40], tokenizer, TASK.length)
    assert not any(recall.seen for recall in probe(blank, blank, held).values())


def test_a_model_loses_nothing_to_itself():
    model, tokenizer = zoo.load("recall-la")
    held = windows(recall_documents(10), tokenizer, TASK.length)
    assert {recall.lost.value for recall in probe(model, model, held).values()} == {0.0}
