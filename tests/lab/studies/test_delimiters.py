"""A model that forgets at delimiters, and one that does not, are told apart."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from statesize.errors import InputError
from statesize.lab.studies.delimiters import RECALL_CLAIM, Delimiters, add_recall
from statesize.lab.studies.engine.run import write_page
from statesize.lab.studies.engine.table import StudyTable
from statesize.lab.studies.engine.verdicts import Findings
from statesize.lab.studies.texts.dips import METRICS, ModelDips, measure_dips, perplexity, repeated, respond
from statesize.lab.studies.texts.documents import CONDITIONS, OBSERVED, DocumentCorpus, Windows, aligned_sequences
from statesize.operators import Recurrence

STUDY = Delimiters()

WINDOWS = Windows(5, 5, margin=2)
STATES = 4


class Mixer(nn.Module):
    """A recurrence over fixed random vectors of tokens whose decay is `kept` at token 0."""

    multiplicity = 1

    def __init__(self, kept, kind):
        super().__init__()
        self.kind, self.kept = kind, kept
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("vectors", torch.randn(2, 40, 2, STATES, generator=generator, dtype=torch.float64))

    def operator(self, hidden):
        ids = hidden[..., 0].long()
        key, query = (table[ids].transpose(1, 2) for table in self.vectors)
        decay = torch.where(ids == 0, self.kept, 0.98).double()[:, None, :, None]
        return Recurrence(decay, key, query)

    def forward(self, hidden):
        return hidden


class Model(nn.Module):
    def __init__(self, kept=1.0, kind="la"):
        super().__init__()
        self.mixer = Mixer(kept, kind)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        return self.mixer(input_ids[..., None].double())


@pytest.fixture(scope="module")
def corpus():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 25, (40,), generator=generator).tolist()
    documents = [torch.randint(1, 40, (length,), generator=generator) for length in lengths]
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


@pytest.fixture(scope="module")
def found(corpus):
    models = {"resets": Model(1e-3, "gla"), "keeps": Model(0.98, "la")}
    return [ModelDips(name, tuple(measure_dips(model, corpus, WINDOWS))) for name, model in models.items()]


def rows_of(models):
    return [{"model": model.model, **row} for model in models for row in model.rows]


def delimiters(models):
    return STUDY.conclude(rows_of(models), STUDY.claim)


def test_values_are_those_of_the_definition(corpus):
    aligned = aligned_sequences(corpus, WINDOWS)[0]
    model = Model(0.3)
    response = respond(model, aligned, WINDOWS)
    matrix = model.mixer.operator(aligned.ids[..., None]).dense()
    references = [WINDOWS.offsets.index(offset) for offset in WINDOWS.references]
    for event in (0, 11):
        for head in range(2):
            spectra = []
            for offset in WINDOWS.offsets:
                i = aligned.cut + offset
                spectra.append(torch.linalg.svdvals(matrix[event, head, i : i + 5, i - 5 : i]))
            spectra = torch.stack(spectra)
            share = spectra / spectra.sum(-1, keepdim=True)
            expected = {
                "entropy": torch.exp(-torch.special.xlogy(share, share).sum(-1)),
                "relative": (spectra > 1e-2 * spectra[:, :1]).sum(-1),
                "tolerance": (spectra > 0.3 * spectra[references, 0].mean()).sum(-1),
                **{
                    f"tolerance_{factor:g}": (spectra > factor * spectra[references, 0].mean()).sum(-1)
                    for factor in (0.01, 0.1, 0.6)
                },
                "norm": spectra.norm(dim=-1),
            }
            for metric in METRICS:
                assert response.values[metric][event, head] == pytest.approx(expected[metric].numpy(), rel=1e-4)


def test_the_one_that_forgets_dips_beyond_all_controls_and_the_other_does_not(found):
    resets, keeps = found
    assert resets.beyond_controls
    assert not keeps.beyond_controls
    assert resets.dip(OBSERVED).value > 0.5
    assert resets.dip("misplaced").value > 0.5
    assert abs(keeps.dip(OBSERVED).value) < 0.15
    assert resets.dip(OBSERVED, "norm").value > 0.5


def test_the_conclusion(found, tmp_path):
    both = delimiters(found)
    assert both.holds is None
    assert both.reason == "1 of the 5 units that the claim needs (unit: trained model of one mixer)"
    assert both.figures["resets_beyond_controls"] == 1
    low, high = both.figures["control_resets_replaced_interval"]
    assert low < high < both.figures["resets_tolerance_interval"][0]
    drawn = STUDY.draw(StudyTable(rows_of(found)))
    depths = [row["depth"] for row in STUDY.records(StudyTable(rows_of(found))) if "depth" in row]
    assert depths == pytest.approx(
        [model.dip(condition).value for model in found for condition in CONDITIONS], abs=1e-3
    )
    write_page(both, drawn, rows_of(found), tmp_path, "")
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert both.headline in page
    assert page.count("resets") > 10


def seeds(model, *levels):
    """Models whose depths at delimiters are moved by so much."""
    return [
        ModelDips(
            f"{model.model} {level}",
            tuple(row | {"depth": row["depth"] + level} if row["condition"] == OBSERVED else row for row in model.rows),
        )
        for level in levels
    ]


def test_the_verdict_is_over_models_of_a_mixer(found):
    resets, keeps = (seeds(model, 0.02, 0.01, 0.0, -0.01, -0.02) for model in found)
    assert delimiters(resets).holds is True
    assert delimiters([*resets, *keeps]).holds is True
    assert delimiters(seeds(found[0], -1.02, -1.01, -1.0, -0.99, -0.98)).holds is False
    assert delimiters(keeps).holds is None
    figures = delimiters(resets).figures
    assert figures["claim_beyond_controls_gla"] == pytest.approx(found[0].beyond)


def test_an_operator_that_is_not_finite_is_named(corpus):
    model = Model()
    model.mixer.vectors[0, 7] = float("nan")
    with pytest.raises(InputError, match=r"[Mm]ixer mixer"):
        list(measure_dips(model, corpus, WINDOWS))


def test_a_rise_is_no_dip_however_low_the_controls_are(found):
    low = [row | {name: row[name] - 2 for name in ("low", "high", "depth")} for row in found[0].rows]
    assert not ModelDips("low", low).beyond_controls


def test_repeated_bigrams_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    for size in (3, 5, 9):
        tokens = torch.randint(size, (60,), generator=generator).tolist()
        expected = np.zeros(60, bool)
        for t in (t for t in range(1, 60) if 0 not in tokens[t - 1 : t + 1]):
            same = [s for s in range(1, t) if tokens[s - 1 : s + 1] == tokens[t - 1 : t + 1] and 0 not in tokens[s:t]]
            expected[t] = bool(same)
        assert (repeated(torch.tensor(tokens), 0) == expected).all()


class Copying(nn.Module):
    """Gives the token that followed the last occurrence of the present one a high chance."""

    def __init__(self, gain, size=20):
        super().__init__()
        self.gain, self.size, self.weight = gain, size, nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, ids in enumerate(input_ids.tolist()):
            for t, token in enumerate(ids):
                for s in [s for s in range(t) if ids[s] == token][-1:]:
                    logits[row, t, ids[s + 1]] = self.gain
        return logits


@pytest.fixture(scope="module")
def cycles():
    """Documents that go round a cycle each, so that their bigrams come again."""
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randperm(19, generator=generator)[:5].add(1).repeat(3) for _ in range(20)]
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


def test_the_perplexity_is_that_of_the_mean_loss_over_what_is_scored(cycles):
    assert perplexity(Copying(0.0), cycles, 32, None) == pytest.approx(20)
    ids = torch.cat([torch.cat([document, torch.tensor([0])]) for document in cycles.documents])[:320].view(10, 32)
    losses = nn.functional.cross_entropy(Copying(4.0)(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    member, even = np.stack([repeated(row, 0)[1:] for row in ids]), (ids % 2 == 0).numpy()[:, 1:]
    for scored, of in ((None, member), (frozenset(range(0, 20, 2)), member & even)):
        expected = np.exp(losses.detach().numpy()[of].mean())
        assert perplexity(Copying(4.0), cycles, 32, scored) == pytest.approx(expected, rel=1e-5)
    begun = dataclasses.replace(cycles, beginning=20)
    assert perplexity(Copying(4.0, 21), begun, 32, None) < 3
    assert np.isnan(perplexity(Copying(4.0), cycles, 32, frozenset()))


@pytest.mark.parametrize(
    ("slope", "kinds", "holds"), [(-1, ["gla"], True), (1, ["gla"], False), (-1, ["sa", "la"], None)]
)
def test_recall_goes_with_depth_over_mixers_or_models_of_one(slope, kinds, holds):
    findings = Findings(RECALL_CLAIM)
    rows = [
        {"kind": kinds[k % len(kinds)], "depth": depth, "recall_perplexity": np.exp(2 + slope * depth)}
        for k, depth in enumerate((0.1, 0.2, 0.35, 0.4, 0.5, 0.65, 0.8, 0.9))
    ]
    add_recall(rows, findings)
    found = findings.conclusion("delimiters", ())
    assert found.holds is holds
    assert found.figures["depth_recall"] == pytest.approx(-slope)
    assert found.figures["spearman_depth_recalled_nats"] == pytest.approx(slope)
    assert found.figures["claim_depth_recall_units"] == (8 if len(kinds) == 1 else len(kinds))
