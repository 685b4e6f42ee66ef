"""Perplexity on repeated bigrams, and what it says of models."""

import numpy as np
import pytest
import torch
from torch import nn

from statesize.errors import InputError
from statesize.lab.studies.engine.run import write_page
from statesize.lab.studies.engine.table import StudyTable
from statesize.lab.studies.recall import Recall, RecallScore, perplexities, recall_score, slices
from statesize.lab.studies.texts.documents import DocumentCorpus

STUDY = Recall()


def brute_force(tokens, delimiter):
    found = np.zeros((len(tokens), 4), bool)
    for t in range(1, len(tokens)):
        if delimiter in tokens[t - 1 : t + 1]:
            continue
        pairs = [(s, tokens[s - 1 : s + 1]) for s in range(1, t) if delimiter not in tokens[s - 1 : s + 1]]
        document = [s for s, pair in pairs if pair == tokens[t - 1 : t + 1] and delimiter not in tokens[s:t]]
        anywhere = [s for s, pair in pairs if pair == tokens[t - 1 : t + 1]]
        found[t] = [bool(document), False, bool(anywhere) and not document, not document]
        if document:
            found[document[0], 1] = True
    return found


def test_slices_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    for size in (3, 5, 9):
        for _ in range(30):
            ids = torch.randint(size, (60,), generator=generator)
            assert (slices(ids, 0) == brute_force(ids.tolist(), 0)).all()


class Copying(nn.Module):
    """Gives the token that followed the last occurrence of the present one a high chance."""

    def __init__(self, size, gain):
        super().__init__()
        self.size, self.gain = size, gain
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, ids in enumerate(input_ids.tolist()):
            for t, token in enumerate(ids):
                last = [s for s in range(t) if ids[s] == token]
                if last:
                    logits[row, t, ids[last[-1] + 1]] = self.gain
        return logits


@pytest.fixture(scope="module")
def corpus():
    generator = torch.Generator().manual_seed(0)
    # Each document goes round a cycle of its own, so that a bigram that stands in it already comes again.
    documents = [torch.randperm(19, generator=generator)[:5].add(1).repeat(3) for _ in range(20)]
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


def test_one_who_copies_is_better_on_repeated_bigrams_only(corpus):
    score = recall_score(Copying(20, 4.0), corpus, 32)
    uniform = recall_score(Copying(20, 0.0), corpus, 32)
    assert [uniform.perplexity(name) for name in ("recalled", "first", "other")] == pytest.approx([20] * 3)
    assert score.perplexity("recalled") < 2
    assert score.perplexity("first") > 20
    assert score.counts.sum(0)[0] > 100


def test_the_score_is_the_mean_of_the_losses(corpus):
    score = recall_score(Copying(20, 4.0), corpus, 32)
    ids = torch.cat([torch.cat([document, torch.tensor([0])]) for document in corpus.documents])[:320].view(10, 32)
    losses = nn.functional.cross_entropy(Copying(20, 4.0)(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    member = np.stack([slices(row, 0)[1:, 0] for row in ids])
    assert score.mean_nats("recalled")[0] == pytest.approx(float(losses.detach().numpy()[member].mean()), rel=1e-5)


def test_scored_tokens_only(corpus):
    whole, even = (recall_score(Copying(20, 4.0), corpus, 32, scored) for scored in (None, frozenset(range(0, 20, 2))))
    odd = recall_score(Copying(20, 4.0), corpus, 32, frozenset(range(1, 20, 2)))
    assert 0 < even.counts.sum() < whole.counts.sum()
    assert (even.counts + odd.counts == whole.counts).all()
    assert even.nats + odd.nats == pytest.approx(whole.nats)


def test_the_beginning_token_is_read_and_not_scored(corpus):
    begun = DocumentCorpus(corpus.documents, 0, 21, frozenset({0, 21}))
    score = recall_score(Copying(22, 0.0), begun, 32)
    assert score.perplexity("other") == pytest.approx(22)
    assert score.counts.sum() == pytest.approx(recall_score(Copying(22, 0.0), corpus, 32).counts.sum(), abs=30)


def test_a_text_that_is_too_short(corpus):
    with pytest.raises(InputError, match=r"two sequences of 32 tokens, got 32 tokens"):
        recall_score(Copying(20, 0.0), corpus.shortened(2), 32)


DEPTHS = (0.1, 0.2, 0.35, 0.4, 0.5, 0.65, 0.8, 0.9)


def score(nats):
    counts = np.full((6, 4), 10.0)
    noise = np.linspace(0.9, 1.1, 6)[:, None]
    return RecallScore(counts * noise * np.array([nats, 3.0, 2.5, 3.5]), counts)


def made(name, nats, depth, kind="gla"):
    return {"model": name, "kind": kind, "depth": depth, "ess": 2 + depth, "depth_layers.0": depth} | perplexities(
        score(nats)
    )


def recall(rows):
    return STUDY.conclude(rows, "", STUDY.claim)


def test_the_claim_holds_where_deeper_dips_go_with_lower_perplexity(tmp_path):
    models = [made(f"m{k}", 2 - depth, depth) for k, depth in enumerate(DEPTHS)]
    found = recall(models)
    assert found.holds is True
    assert found.figures["depth_recall"] == pytest.approx(1)
    assert found.figures["pearson_depth_recalled_nats"] == pytest.approx(-1)
    assert found.figures["pearson_depth_layers.0_recalled_nats"] == pytest.approx(-1)
    assert found.figures["m0_recall_perplexity"] == pytest.approx(np.exp(1.9))
    low, high = found.figures["m0_recall_perplexity_interval"]
    assert low < np.exp(1.9) < high
    other = [made(f"m{k}", 2 + depth, depth) for k, depth in enumerate(DEPTHS)]
    assert recall(other).holds is False
    write_page(found, STUDY.draw(StudyTable(models, "")), models, tmp_path)
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert found.verdict in page


def test_seeds_of_four_mixers_are_four_units():
    kinds = [("sa", "la", "wla", "gla")[k % 4] for k in range(8)]
    models = [made(f"m{k}", 2 - depth, depth, kind) for k, (depth, kind) in enumerate(zip(DEPTHS, kinds, strict=True))]
    found = recall(models)
    assert (found.holds, found.figures["claim_depth_recall_units"]) == (None, 4)
    assert found.reason.startswith("4 of the 8 units that the claim needs")


def test_few_models_cannot_tell():
    models = [made("a", 1.0, 0.5), made("b", 2.0, 0.1)]
    found = recall(models)
    assert found.holds is None
    assert models[0]["recall_perplexity"] == pytest.approx(np.e)
    assert found.figures["a_other_perplexity"] == pytest.approx(np.exp(3.5))


@pytest.mark.parametrize("sequences", [6, 3])
def test_a_slice_that_is_empty_in_some_or_all_draws_has_no_interval(sequences):
    whole = score(1.0)
    counts = whole.counts.copy()
    counts[:sequences, 0] = 0
    few = RecallScore(np.minimum(whole.nats, counts), counts)
    assert np.isnan(few.interval("recalled")).all()
    assert np.isfinite(few.interval("other")).all()
