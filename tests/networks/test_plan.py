"""What a plan says against what `network_ess` then does."""

import pytest
from networks.coverage import tokens, transformer

from statesize.networks.network import network_ess
from statesize.networks.plan import network_plan


def test_dense_cuts_take_as_many_products_as_their_dimension() -> None:
    model, ids = transformer(), tokens(12)
    plan, found = network_plan(model, ids, [3, 6]), network_ess(model, ids, [3, 6])
    assert [cut.count for cut in plan.steps] == found.products.tolist() == [48, 96]
    assert [cut.method for cut in plan.steps] == ["dense", "dense"]
    assert [cut.memory for cut in plan.steps] == [8 * 48 * 144, 8 * 96 * 96]
    assert plan.seconds == pytest.approx(sum(cut.seconds for cut in plan.steps))


@pytest.mark.parametrize("accuracy", [0.3, 0.1])
def test_products_of_intervals_are_predicted_within_a_factor_of_three(accuracy: float) -> None:
    model, ids = transformer(), tokens(24)
    options = {"positions": [12], "accuracy": accuracy, "method": "lanczos"}
    planned, found = network_plan(model, ids, **options).steps[0], network_ess(model, ids, **options)
    assert planned.count / 3 <= found.products.item() <= 3 * planned.count
    assert planned.count <= planned.most == 192
    assert planned.seconds > 0
