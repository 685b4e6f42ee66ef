"""What a record says of its targets follows from its rows, and seldom holds where nothing is there."""

import numpy as np
import pytest

from benchmarks.compression.published_caches import GEMMA_TARGETS, TARGETS, verdicts
from statesize.truncation import CachePrices, CutDocument, CutRun
from statesize.truncation.prices import NOTHING, Variant
from tools.figures.on_record import read_json

VARIANTS = tuple(Variant(keep, way) for keep in (0.5, 0.25) for way in ("equal", "curves"))


def priced(measured, variants=VARIANTS):
    """A result of documents: loss, and what each variant loses more."""
    every, documents = (NOTHING, *variants), []
    for number, (loss, extra) in enumerate(measured):
        losses = zip(every, (1.0, *extra), strict=True)
        runs = tuple(CutRun(one.title, one.keep, 1.0, loss + more, 0.0) for one, more in losses)
        documents.append(CutDocument(number, 832, 768, loss, 1.0, 1.0, 1.0, 1.0, runs))
    return CachePrices("m", tuple(documents), 768, 1, every, (0.5,) * len(every), ())


@pytest.mark.parametrize("name", ["published_caches", "published_caches_gemma"])
def test_verdicts_follow_from_the_rows(name):
    document = read_json(name)
    (row,) = document["rows"]
    variants = tuple(Variant(price["keep"], price["budgets"], price["precision"]) for price in row["prices"])
    found = (row["passkeys"]["found"], 0, *(price["found"] for price in row["prices"]))
    measured = [(one["loss"], one["extra"]) for one in row["measured"]]
    result = priced(measured, variants)
    assert verdicts(result, document["targets"], row["passkeys"]["hidden"], found) == document["verdicts"]
    again = [one.excess.value for one in result.rows[1:]]
    assert again == pytest.approx([price["nats"]["mean"] for price in row["prices"]], abs=1e-9)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("targets", "costs"),
    # Half of the tokens costs 0.005, a quarter 0.035: half of what equal budgets lose, or as much as they do.
    [(TARGETS, (0.005, 0.005, 0.07, 0.035)), (GEMMA_TARGETS, (0.035,) * 4)],
)
def test_at_their_limits_targets_seldom_hold(targets, costs):
    generator = np.random.default_rng(0)
    held = dict.fromkeys(targets, 0)
    for _ in range(400):
        extra = np.array(costs) + 0.02 * generator.standard_normal((20, 4))
        documents = [(3.0, one) for one in extra]
        found = 200 - int(generator.binomial(200, 0.05))
        for name, verdict in verdicts(priced(documents), targets, 200, (200, 0, 200, found, 200, found)).items():
            held[name] += verdict is True
    assert 0 < min(held.values()) <= max(held.values()) <= 20
