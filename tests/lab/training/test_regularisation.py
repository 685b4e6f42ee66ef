"""The penalty on decays: against its definition, of operators in the graph of a loss, in the loop, and refusals."""

import copy
import dataclasses

import pytest
import torch

import statesize as ss
from statesize.errors import InputError, ModelError
from statesize.lab.training import TrainingConfig, identity_distance, identity_penalty, mixer_calls, train

TOKENS = torch.randint(7, (3, 24), generator=torch.Generator().manual_seed(1))
CONFIG = TrainingConfig(steps=1, batch_size=4, rate=1e-2, seed=3)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("form", ["scalar", "diagonal", "full", "delta rule"])
def test_identity_distance_is_the_mean_frobenius_norm(form):
    key, query, full = torch.randn(3, 2, 6, 3, generator=generator(), dtype=torch.float64)
    gate, A = full.sigmoid(), full[..., None] * key[..., None, :]
    if form == "delta rule":
        found = ss.Recurrence.delta_rule(key, gate[..., 0], query, gate)
    else:
        found = ss.Recurrence({"scalar": gate[..., :1], "diagonal": gate, "full": A}[form], key, query)
    A = found.A if found.A.ndim == 4 else torch.diag_embed(found.A.expand(2, 6, 3))
    norms = [torch.linalg.matrix_norm(A[s, t] - torch.eye(3, dtype=A.dtype)) for s in range(2) for t in range(6)]
    torch.testing.assert_close(identity_distance(found), torch.stack(norms).mean())


def test_calls_give_the_operators_that_capture_gives_while_gradients_flow(make_model):
    model = make_model("gla,la", layers=2).double()
    with mixer_calls(model) as calls:
        with torch.no_grad():
            model(TOKENS)
        assert calls == []
        model(TOKENS)
    model(TOKENS)
    assert [type(call.module).kind for call in calls] == ["gla", "la"]
    for call, captured in zip(calls, ss.capture(model, TOKENS), strict=True):
        again = generator()
        rows, heads = torch.randperm(3, generator=again), torch.randperm(2, generator=again)
        found = call.sampled(3, 2, generator()).dense()
        torch.testing.assert_close(found, captured.operator.dense()[rows][:, heads].double())


def test_a_method_that_gives_no_operator_is_refused_by_name():
    class Wrong(torch.nn.Linear):
        def operator(self, hidden):
            return hidden

    model = Wrong(4, 4)
    with mixer_calls(model) as calls:
        model(torch.zeros(2, 3, 4))
    with pytest.raises(InputError):
        calls[0].sampled(1, 1, generator())


def penalty_of(model):
    with mixer_calls(model) as calls:
        model(TOKENS)
    return identity_penalty(calls, generator())


@pytest.mark.parametrize("pattern", ["gla,wla", "gla,la", "gla-s6,sa", "deltanet,gated-deltanet"])
def test_the_identity_penalty_is_the_mean_over_layers_that_have_a_state(pattern, make_model, monkeypatch):
    for name in ("_SEQUENCES", "_UNITS"):
        monkeypatch.setattr(f"statesize.lab.training.regularisation.{name}", 99)
    model = make_model(pattern, layers=2)
    found = penalty_of(model)
    operators = [captured.operator for captured in ss.capture(model, TOKENS)]
    distances = [identity_distance(operator) for operator in operators if isinstance(operator, ss.Recurrence)]
    torch.testing.assert_close(found, torch.stack(distances).mean().float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_decays_near_one_keep_their_distance_in_low_precision(dtype, make_model):
    model = make_model("gla")
    model.blocks[0].mixer.decay.bias.data.fill_(12)
    exact, found = (penalty_of(one) for one in (copy.deepcopy(model).double(), model.to(dtype)))
    torch.testing.assert_close(found.double(), exact.double(), rtol=0.05, atol=0)
    assert exact > 0


def test_one_step_of_the_loop_is_the_gradient_of_the_sum(echo, make_model):
    """Against autograd through the definition; by the norm of the gradient."""
    config = dataclasses.replace(CONFIG, identity_weight=0.7, clip=1e9)
    parts, whole = make_model().double(), make_model().double()
    (record,) = train(parts, echo, config)
    drawn = torch.Generator().manual_seed(config.seed)
    input_ids, targets = echo.sample(4, drawn)
    with mixer_calls(whole) as calls:
        logits = whole(input_ids)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    penalty = 0.7 * identity_penalty(calls, drawn)
    (loss + penalty).backward()
    norm = torch.stack([parameter.grad.norm() for parameter in whole.parameters()]).norm()
    expected = (loss.item(), penalty.item(), norm.item())
    assert (record.loss, record.penalty, record.gradient_norm) == pytest.approx(expected, rel=1e-6)


def test_what_has_no_finite_distance_is_refused(echo, make_model):
    with pytest.raises(ModelError):
        penalty_of(make_model("sa"))
    model = make_model()
    model.blocks[0].mixer.projection.weight.data.fill_(1e38)
    with pytest.raises(ss.StatesizeError, match=r"regularised|loss is"):
        list(train(model, echo, dataclasses.replace(CONFIG, identity_weight=1.0)))
