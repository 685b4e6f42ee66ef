"""Parts are kept as they come, read back bit for bit, and measured again where they are damaged or do not fit."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from statesize.lab.studies.delimiters import dips as delimiters_dips
from statesize.lab.studies.delimiters.corpus import DocumentCorpus
from statesize.lab.studies.delimiters.dips import measure_dips, plan_dips
from statesize.lab.studies.delimiters.measuring import METRICS, respond
from statesize.lab.studies.delimiters.parts import SEQUENCES, joined, part_name, parts_key, response_parts
from statesize.lab.studies.delimiters.sequences import OBSERVED, Windows, aligned_sequences

WINDOWS = Windows(4, 4, margin=2)


@pytest.fixture(scope="module")
def model():
    config = GPT2Config(vocab_size=30, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def corpus():
    documents = torch.randint(1, 30, (SEQUENCES + 12, 14), generator=torch.Generator().manual_seed(0))
    return DocumentCorpus(tuple(documents), 0, None, frozenset({0}))


def test_parts_join_to_the_whole_and_come_back_from_files_bit_for_bit(model, corpus, tmp_path):
    aligned = aligned_sequences(corpus, WINDOWS)[0]
    pieces = aligned.parts(SEQUENCES)
    sizes = [(part.start, len(part.ids)) for part in pieces]
    assert sizes == [(0, SEQUENCES), (SEQUENCES, len(aligned.ids) - SEQUENCES)]
    back = []
    for part in pieces:
        stored = response_parts(tmp_path, "one", WINDOWS)
        stored.write(part_name(part, "key", "one"), respond(model, part, WINDOWS, 3))
        back.append(stored.read(part_name(part, "key", "one")))
    back = joined(back)
    whole = respond(model, aligned, WINDOWS, 3)
    for field in dataclasses.fields(whole):
        if field.name != "values":
            assert np.array_equal(getattr(back, field.name), getattr(whole, field.name))
    assert [np.array_equal(back.values[metric], whole.values[metric]) for metric in METRICS] == [True] * len(METRICS)
    table = pd.read_parquet(tmp_path)
    assert sorted(table["sequence"].unique()) == list(range(len(aligned.ids)))
    row = table[(table["sequence"] == 33) & (table["layer"] == whole.layers[3]) & (table["head"] == whole.units[3])]
    assert row["norm"].to_numpy() == pytest.approx(whole.values["norm"][33, 3])


def test_a_run_goes_on_from_its_parts_and_measures_damaged_ones_again(model, corpus, tmp_path, monkeypatch):
    folder, calls = tmp_path / "parts", []

    def counted(model, aligned, *rest):
        calls.append(aligned.condition)
        return respond(model, aligned, *rest)

    monkeypatch.setattr(delimiters_dips, "respond", counted)
    told = []

    def run(**changed):
        options = {"channels": 3, "conditions": (OBSERVED, "removed"), "folder": folder, **changed}
        return measure_dips("one", model, corpus, WINDOWS, on_progress=lambda *said: told.append(said), **options)

    first = run()
    assert calls == [OBSERVED, OBSERVED, "removed", "removed"]
    assert told[-1][1] == told[-1][2] > SEQUENCES
    assert run().dips == first.dips
    assert len(calls) == 4
    damaged = sorted(folder.glob("removed-*.parquet"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert run().dips == first.dips
    assert calls[4:] == ["removed"]
    assert run(channels=1).dips != first.dips
    assert len(calls) == 9
    assert run(folder=None).curve == first.curve


def test_parts_of_other_weights_are_not_taken(model, corpus):
    part, other = aligned_sequences(corpus, WINDOWS)[0].parts(SEQUENCES)[0], GPT2LMHeadModel(model.config).eval()
    key = parts_key(model, WINDOWS, 3)
    assert len({key, parts_key(other, WINDOWS, 3), parts_key(model, WINDOWS, 4)}) == 3
    assert len({part_name(part, key, "one"), part_name(part, key, "two"), part_name(part, key[::-1], "one")}) == 3


def test_a_plan_counts_what_is_measured_and_what_is_kept(model, corpus, tmp_path):
    conditions = (OBSERVED, "removed")
    plan = plan_dips("one", model, corpus, WINDOWS, channels=3, conditions=conditions)
    measure_dips("one", model, corpus, WINDOWS, channels=3, conditions=conditions, folder=tmp_path)
    assert (plan.documents, plan.tokens, plan.past) == (len(corpus.documents), 30, 4)
    assert plan.sequences == sum(len(one.ids) for one in aligned_sequences(corpus, WINDOWS, 0, conditions))
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    # A small file has more of its own beside the numbers.
    assert kept / 2 < plan.results < 8 * kept
    assert plan.seconds > 0
