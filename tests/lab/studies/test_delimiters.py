"""Models that forget at delimiters, and some that do not, are told apart; how deep they forget goes with recall."""

import dataclasses

import numpy as np
import pytest

from statesize.lab.studies.delimiters import RECALL_CLAIM, Delimiters, add_recall
from statesize.lab.studies.engine.charts import draw
from statesize.lab.studies.engine.table import StudyTable
from statesize.lab.studies.engine.verdicts import Findings
from statesize.lab.studies.texts.dips import METRICS, ModelDips
from statesize.lab.studies.texts.documents import CONDITIONS, OBSERVED

STUDY = Delimiters()


def rows_of(depths, kind="gla", control=0.1):
    """Rows of models with these depths at delimiters and one depth in all controls, each known to 0.02."""
    for number, observed in enumerate(depths):
        for condition in CONDITIONS:
            depth = observed if condition == OBSERVED else control
            for metric in METRICS:
                told = {"model": f"{kind} {number}", "condition": condition, "metric": metric, "kind": kind}
                told |= {"offset": 0, "events": 60, "depth": depth, "low": depth - 0.02, "high": depth + 0.02}
                yield told


def concluded(*rows):
    return STUDY.conclude([row for some in rows for row in some], STUDY.claim)


DEEP, FLAT = (0.78, 0.79, 0.8, 0.81, 0.82), (0.08, 0.09, 0.1, 0.11, 0.12)


def test_the_verdict_is_over_models_of_a_mixer():
    found = concluded(rows_of(DEEP))
    assert found.holds is True
    assert found.figures["claim_beyond_controls_gla"] == pytest.approx(0.7)
    assert found.figures["gla 0_beyond_controls"] == 1
    assert found.figures["gla 0_tolerance_interval"] == pytest.approx([0.76, 0.8])
    assert found.figures["control_gla 0_replaced_interval"] == pytest.approx([0.08, 0.12])
    assert concluded(rows_of(DEEP), rows_of(FLAT, "la")).holds is True
    assert concluded(rows_of([depth - 1 for depth in DEEP])).holds is False
    assert concluded(rows_of(FLAT)).holds is None
    few = concluded(rows_of(DEEP[:1]))
    assert (few.holds, few.reason) == (None, "1 of the 5 units that the claim needs (unit: trained model of one mixer)")


def test_a_rise_is_no_dip_however_low_the_controls_are():
    deep, flat, rise = (
        ModelDips("", list(rows_of([depth], control=control)))
        for depth, control in ((0.8, 0.1), (0.1, 0.1), (-1.2, -1.9))
    )
    assert [model.beyond_controls for model in (deep, flat, rise)] == [True, False, False]


def test_a_record_for_each_depth_of_the_claim():
    table = StudyTable(list(rows_of(DEEP[:2])))
    records, (drawn, *_) = STUDY.records(table), draw(STUDY, table).to_dict()["vconcat"]
    depths = [row["depth"] for row in records if "depth" in row]
    assert len(drawn["concat"]) == 5
    assert depths == [depth if condition == OBSERVED else 0.1 for depth in DEEP[:2] for condition in CONDITIONS]


@pytest.mark.parametrize(
    ("slope", "kinds", "holds"), [(-1, ["gla"], True), (1, ["gla"], False), (-1, ["sa", "la"], None)]
)
def test_recall_goes_with_depth_over_mixers_or_models_of_one(slope, kinds, holds):
    findings = Findings(dataclasses.replace(RECALL_CLAIM, least_units=8))
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
