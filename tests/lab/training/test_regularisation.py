"""The penalty on decays: against its definition, in the loop, and refusals."""

import copy
import dataclasses

import pytest
import torch

import statesize as ss
from statesize.errors import ModelError
from statesize.lab.mixers import LanguageModel
from statesize.lab.training import TrainingConfig, identity_distance, identity_penalty, mixer_calls, train

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


def penalty_of(model):
    with mixer_calls(model) as calls:
        model(TOKENS)
    return identity_penalty(calls, torch.Generator().manual_seed(0))


@pytest.fixture
def everything(monkeypatch):
    """Samples of all there is."""
    for name in ("_SEQUENCES", "_UNITS"):
        monkeypatch.setattr(f"statesize.lab.training.regularisation.{name}", 99)


@pytest.mark.parametrize("pattern", ["gla,wla", "gla,la", "gla-s6,sa", "deltanet,gated-deltanet"])
def test_the_identity_penalty_is_the_mean_over_layers_that_have_a_state(pattern, make_model, everything):
    model = make_model(pattern, layers=2)
    found = penalty_of(model)
    operators = [captured.operator for captured in ss.capture(model, TOKENS)]
    distances = [identity_distance(operator) for operator in operators if isinstance(operator, ss.Recurrence)]
    torch.testing.assert_close(found, torch.stack(distances).mean().float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_decays_near_one_keep_their_distance_in_low_precision(dtype, make_model):
    model = make_model("gla")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "decay.bias" in name:
                value.fill_(12)
    exact, found = (penalty_of(one) for one in (copy.deepcopy(model).double(), model.to(dtype)))
    torch.testing.assert_close(found.double(), exact.double(), rtol=0.05, atol=0)
    assert exact > 0


def test_models_without_a_state_of_fixed_size_are_refused(make_model):
    with pytest.raises(ModelError, match="model must have a mixer that is a recurrence"):
        penalty_of(make_model("sa"))


def last(model, echo, **changes):
    return list(train(model, echo, dataclasses.replace(CONFIG, **changes)))[-1]


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
    penalty = 0.7 * identity_penalty(calls, generator)
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
        last(model, echo, identity_weight=1.0)
