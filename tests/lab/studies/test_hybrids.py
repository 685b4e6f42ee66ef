"""What is known early of a placement is tested at equal numbers of attention layers."""

import itertools

import numpy as np
from small_studies import judging, run_rows

from statesize.lab.studies.engine.charts import draw
from statesize.lab.studies.engine.table import METRIC, StudyTable
from statesize.lab.studies.engine.training import layer_column
from statesize.lab.studies.hybrids import Hybrids, early_row, layers_of

STUDY = Hybrids()
hybrids = judging(STUDY, least_units=4)


PATTERNS = itertools.product(("gla", "sa"), repeat=4)
PLACEMENTS = ["gla", *(",".join(layers) for layers in PATTERNS if 0 < layers.count("sa") <= 2)]


def table(ess, accuracy, seeds=3, **training):
    """Rows with the early ESS and the final accuracy that functions of layers and seed say."""
    rows = []
    for mixer, seed in itertools.product(PLACEMENTS, range(seeds)):
        layers = (mixer.split(",") * 4)[:4]
        settings = {"model": {"mixer": mixer, "layers": 4}, "training": {"seed": seed, **training}}
        ends = {}
        for step in (0, 40, 80, 600):
            of_layers = [ess(layers, seed) if step == 80 else 1.0 for _ in layers]
            columns = {METRIC: sum(of_layers) / 4, "entropy": 2.0}
            columns |= {layer_column(METRIC, layer): value for layer, value in enumerate(of_layers)}
            ends[step] = columns | {"accuracy": accuracy(layers, seed) if step == 600 else 0.05}
        rows += run_rows(settings, ends, key_size=8, state_size=8.0)
    return rows


def place(layers):
    """Attention is the better the earlier it stands; a second one adds nothing."""
    return 1 - 0.2 * layers.index("sa") if "sa" in layers else 0.1


def test_early_ess_that_tells_and_a_number_of_layers_that_does_not():
    rows = table(lambda layers, seed: place(layers) + 0.001 * seed, lambda layers, seed: place(layers) / 2)
    found = hybrids(rows)
    assert found.holds is True
    assert found.figures["early_attention_spearman_inside_interval"][0] > 0.5


def test_what_the_place_tells_is_told_apart_from_what_ess_tells():
    generator, drawn = np.random.default_rng(0), {}

    def ess(layers, seed):
        """An effect of the placement, and a little of the run."""
        own = drawn.setdefault((*layers, seed), generator.random())
        return place(layers) + 0.01 * own

    by_place = hybrids(table(ess, lambda layers, seed: place(layers) + 0.01 * seed, 9)).figures
    assert by_place["early_attention_spearman_inside"] > 0.8
    low, high = by_place["early_attention_beyond_first_place_interval"]
    assert low < 0 < high
    by_ess = hybrids(table(ess, ess)).figures
    assert by_ess["early_attention_beyond_first_place"] > 0.9


def test_patterns_are_written_out_and_runs_that_diverged_left_out():
    rows = table(lambda layers, seed: 1.0, lambda layers, seed: place(layers))
    rows[3]["status"] = "diverged"
    runs = StudyTable(rows).runs
    assert len(runs) == 3 * len(PLACEMENTS) - 1
    assert layers_of(runs[0]) == ["gla"] * 4
    assert {early_row(run)["step"] for run in runs} == {80}
    (drawn,) = draw(STUDY, StudyTable(rows)).to_dict()["vconcat"]
    assert len(drawn["concat"]) == 3
    gone = hybrids(rows[:4])
    assert (gone.figures["diverged"], gone.holds) == (1, None)
    assert hybrids([]).holds is None
