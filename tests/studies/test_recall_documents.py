"""What the bundled models read if no text is given."""

import torch

from statesize import zoo
from statesize.studies.recall_documents import default_texts, scored_tokens, trained_length
from statesize.tasks import build_task


def test_recall_documents_are_the_held_out_ones():
    task, tokenizer = build_task(zoo.record("recall-gla")["task"]), zoo.load("recall-gla")[1]
    texts = default_texts("recall-gla")
    assert len(texts) == task.held_out_sequences * task.documents
    inputs = next(task.held_out(1))[0][0]
    ids = [token for text in texts[: task.documents] for token in (*tokenizer.encode(text).ids, task.eos)]
    assert inputs.equal(torch.tensor(ids))


def test_others_read_prose():
    assert default_texts("gla") == default_texts("some/model") == zoo.documents()
    assert scored_tokens("gla") is None
    assert scored_tokens("recall-gla") == frozenset(range(12, 25))
    assert (trained_length("gla"), trained_length("recall-sa")) == (256, 116)
