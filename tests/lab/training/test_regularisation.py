"""The regularisers: against their definitions, in both directions, in the loop, and as if absent without a weight."""

import copy
import dataclasses

import pytest
import torch

import statesize as ss
from statesize.errors import InputError, ModelError
from statesize.lab.mixers import LanguageModel
from statesize.lab.training import (
    Regularisation,
    TrainingConfig,
    identity_distance,
    mixer_calls,
    train,
    utilisation_distance,
)

TOKENS = torch.randint(7, (3, 24), generator=torch.Generator().manual_seed(1))
CONFIG = TrainingConfig(steps=12, batch_size=4, rate=1e-2, evaluate_every=4, checkpoint_every=5, seed=3)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recurrence(form):
    key, query, gate = random(2, 6, 3), random(2, 6, 3, seed=1), random(2, 6, 3, seed=2).sigmoid()
    if form == "delta rule":
        return ss.Recurrence.delta_rule(key, gate[..., 0], query, gate)
    A = {"scalar": gate[..., :1], "diagonal": gate, "full": random(2, 6, 3, 3, seed=3)}[form]
    return ss.Recurrence(A, key, query)


@pytest.mark.parametrize("form", ["scalar", "diagonal", "full", "delta rule"])
def test_identity_distance_is_the_mean_frobenius_norm(form):
    found = recurrence(form)
    A = found.A if found.A.ndim == 4 else torch.diag_embed(found.A.expand(2, 6, 3))
    norms = [torch.linalg.matrix_norm(A[s, t] - torch.eye(3, dtype=A.dtype)) for s in range(2) for t in range(6)]
    torch.testing.assert_close(identity_distance(found), torch.stack(norms).mean())


def test_utilisation_distance_is_that_of_measure():
    found = recurrence("diagonal")
    measured = ss.measure(found, positions=[1, 3, 5], engine="dense")
    shares = measured.entropy / torch.tensor([1.0, 3.0, 1.0])
    expected = (shares - 0.6).square().mean()
    torch.testing.assert_close(utilisation_distance(found, 0.6, [1, 3, 5]), expected, rtol=1e-6, atol=0)
    with pytest.raises(InputError, match=r"target must be .*got 1\.5"):
        utilisation_distance(found, 1.5, [1])


@pytest.mark.few(1)
@pytest.mark.parametrize(("target", "start"), [(0.7, -2.0), (0.3, 3.0)])
def test_utilisation_is_drawn_to_its_target_from_both_sides(target, start):
    key, query = random(4, 48, 6), random(4, 48, 6, seed=1)
    gate = torch.full((4, 48, 6), start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([gate], lr=0.1)
    distances = []
    for _ in range(60):
        optimiser.zero_grad()
        distance = utilisation_distance(ss.Recurrence(gate.sigmoid(), key, query), target, [12, 24, 36])
        distance.backward()
        optimiser.step()
        distances.append(distance.item())
    assert distances[0] > 0.02
    assert distances[-1] < distances[0] / 4


def penalty_of(model, regularisation, seed=0):
    with mixer_calls(model) as calls:
        model(TOKENS)
    return regularisation.penalty(calls, torch.Generator().manual_seed(seed))


@pytest.fixture
def everything(monkeypatch):
    """Samples of all there is."""
    for name in ("_SEQUENCES", "_UNITS", "_POSITIONS"):
        monkeypatch.setattr(f"statesize.lab.training.regularisation.{name}", 99)


@pytest.mark.parametrize("pattern", ["gla,wla", "gla,la", "gla-s6,sa", "deltanet,gated-deltanet"])
def test_the_identity_penalty_is_the_mean_over_layers_that_have_a_state(pattern, make_model, everything):
    model = make_model(pattern, layers=2)
    found = penalty_of(model, Regularisation(identity_weight=0.5))
    operators = [captured.operator for captured in ss.capture(model, TOKENS)]
    distances = [identity_distance(operator) for operator in operators if isinstance(operator, ss.Recurrence)]
    torch.testing.assert_close(found, 0.5 * torch.stack(distances).mean().float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_decays_near_one_keep_their_distance_in_low_precision(dtype, make_model):
    model = make_model("gla")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "decay.bias" in name:
                value.fill_(12)
    exact, found = (
        penalty_of(one, Regularisation(identity_weight=1.0)) for one in (copy.deepcopy(model).double(), model.to(dtype))
    )
    torch.testing.assert_close(found.double(), exact.double(), rtol=0.05, atol=0)
    assert exact > 0


def test_the_utilisation_penalty_averages_over_what_is_sampled(make_model):
    model, term = make_model("gla", key_size=4), Regularisation(utilisation_weight=2.0, target_utilisation=0.7)
    (captured,) = ss.capture(model, TOKENS)
    expected = 2 * utilisation_distance(captured.operator, 0.7, list(range(4, 21)))
    drawn = torch.stack([penalty_of(model, term, seed) for seed in range(40)])
    assert drawn.std() > 0
    torch.testing.assert_close(drawn[3], penalty_of(model, term, 3), rtol=0, atol=0)
    # The mean of 40 draws lies within 4 of its standard errors from that over everything.
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / 40**0.5


def test_the_utilisation_penalty_is_that_of_all_cuts_where_the_state_can_be_full(make_model, everything):
    model = make_model("gla", key_size=4)
    (captured,) = ss.capture(model, TOKENS)
    expected = 2 * utilisation_distance(captured.operator, 0.7, list(range(4, 21)))
    found = penalty_of(model, Regularisation(utilisation_weight=2.0, target_utilisation=0.7))
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mixer", ["gla", "wla", "s6", "gla-s6"])
def test_gradients_reach_what_makes_the_decays(mixer, make_model):
    model = make_model(mixer, layers=2)
    penalty_of(model, Regularisation(identity_weight=1.0, utilisation_weight=1.0)).backward()
    decays = [value.grad for name, value in model.named_parameters() if "decay" in name or "log_rate" in name]
    assert decays
    assert all(gradient is not None and bool((gradient != 0).any()) for gradient in decays)


@pytest.mark.parametrize("weight", ["identity_weight", "utilisation_weight"])
def test_models_without_a_state_of_fixed_size_are_refused(weight, make_model):
    with pytest.raises(ModelError, match="model must have a mixer that is a recurrence"):
        penalty_of(make_model("sa"), Regularisation(**{weight: 1.0}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"identity_weight": -1.0}, r"identity_weight must be .*got -1\.0"),
        ({"utilisation_weight": float("nan")}, r"utilisation_weight must be .*got nan"),
        ({"target_utilisation": 1.5}, r"target_utilisation must be .*got 1\.5"),
    ],
)
def test_bad_values_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        Regularisation(**changes)
    with pytest.raises(InputError, match=said):
        TrainingConfig(**changes)


def last(model, echo, **changes):
    return list(train(model, echo, dataclasses.replace(CONFIG, **changes)))[-1]


@pytest.mark.few(1)
@pytest.mark.parametrize("mixer", ["gla", "wla"])
def test_the_loop_opens_the_gates(mixer, echo, make_model):
    """And the loss that it records is that of the task."""
    plain, treated = make_model(mixer, decay_bias=0.0), make_model(mixer, decay_bias=0.0)
    faster = {"steps": 30, "rate": 0.05}
    expected, found = last(plain, echo, **faster), last(treated, echo, **faster, identity_weight=3.0)
    before, after = (penalty_of(model, Regularisation(identity_weight=1.0)).item() for model in (plain, treated))
    assert after < 0.8 * before
    assert found.penalty == pytest.approx(3 * after, rel=0.2)
    assert found.loss == pytest.approx(expected.loss, abs=0.5)


def test_one_step_of_the_loop_is_the_gradient_of_the_sum(echo, make_model):
    """Against autograd through the definition; by the norm of the gradient."""
    config = dataclasses.replace(CONFIG, steps=1, batch_size=4, identity_weight=0.7, clip=1e9)
    parts, whole = make_model().double(), make_model().double()
    (record,) = train(parts, echo, config)
    generator = torch.Generator().manual_seed(config.seed)
    input_ids, targets = echo.sample(4, generator)
    with mixer_calls(whole) as calls:
        logits = whole(input_ids)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    penalty = Regularisation(identity_weight=0.7).penalty(calls, generator)
    (loss + penalty).backward()
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.penalty == pytest.approx(penalty.item(), rel=1e-6)
    norm = torch.stack([parameter.grad.norm() for parameter in whole.parameters()]).norm()
    assert record.gradient_norm == pytest.approx(norm.item(), rel=1e-6)


def test_operators_that_are_not_finite_are_a_divergence(echo, make_model):
    model = make_model()
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        model.blocks[0].mixer.projection.weight.fill_(1e38)
    with pytest.raises(ss.StatesizeError, match=r"regularised|loss is"):
        last(model, echo, utilisation_weight=1.0)
