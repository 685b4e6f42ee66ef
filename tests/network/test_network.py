"""The ESS of networks against their Jacobians, written out."""

import pytest
import torch
from network.nonlinear import Language, language
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from statesize import zoo
from statesize.errors import InputError, ModelError
from statesize.network.network import Progress, network_ess
from statesize.spectra.effective_rank import effective_rank


def ids(length: int, vocabulary: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(seed))


def jacobian(model: Language, tokens: Tensor, i: int) -> Tensor:
    """Of what the logits layer takes from i on, by the embeddings before i, in float64."""
    model = model.double().eval()
    embedded = model.embedding(tokens).detach()

    def future(past: Tensor) -> Tensor:
        mixed = model.mixer(torch.cat([past, embedded[:, i:]], 1))
        return (mixed[0] if isinstance(mixed, tuple) else mixed)[:, i:]

    matrix = torch.autograd.functional.jacobian(future, embedded[:, :i])
    rows = tokens.shape[1] - i
    return matrix.reshape(rows * embedded.shape[2], i * embedded.shape[2])


@pytest.mark.parametrize("method", ["dense", "lanczos"])
@pytest.mark.parametrize("kind", ["gru", "lstm", "slstm"])
def test_recurrences_without_an_operator(kind: str, method: str) -> None:
    model, tokens = language(kind), ids(14)
    found = network_ess(model, tokens, [4, 9], end="mixer", method=method)
    assert found.positions.tolist() == [4, 9]
    assert found.dimension.tolist() == [24, 30]
    assert (found.method, found.start, found.end, found.converged) == (method, "embedding", "mixer", True)
    for place, i in enumerate((4, 9)):
        sigma = torch.linalg.svdvals(jacobian(model, tokens, i))
        low, high = found.interval[place].tolist()
        assert low <= float(effective_rank(sigma)) <= high
        assert high - low <= 2 * 0.03 * float(found.entropy[place])
        torch.testing.assert_close(
            found.values[place, :8], sigma[:8], rtol=0, atol=float(found.value_bounds[place, :8].max())
        )
    if method == "dense":
        torch.testing.assert_close(found.norm[1], torch.linalg.matrix_norm(jacobian(model, tokens, 9)))


class Doubled(torch.autograd.Function):
    """2 x with a backward of its own, and no forward mode."""

    @staticmethod
    def forward(ctx, inputs: Tensor) -> Tensor:
        return 2 * inputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Summed(nn.Module):
    """A sum over the past, doubled."""

    def forward(self, inputs: Tensor) -> Tensor:
        return Doubled.apply(inputs.cumsum(1).tanh())


def test_double_backward_where_forward_mode_is_missing() -> None:
    model, tokens = Language(Summed(), 12, 5), ids(9)
    dense, lanczos = (network_ess(model, tokens, [4], end="mixer", method=method) for method in ("dense", "lanczos"))
    assert lanczos.derivatives == "double backward"
    exact = float(effective_rank(torch.linalg.svdvals(jacobian(model, tokens, 4))))
    assert abs(dense.entropy.item() - exact) < 1e-6
    assert lanczos.interval[0, 0] <= exact <= lanczos.interval[0, 1]


def transformer(layers: int = 2, seed: int = 0) -> GPT2LMHeadModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(vocab_size=12, n_positions=32, n_embd=16, n_layer=layers, n_head=2, initializer_range=0.3)
        return GPT2LMHeadModel(config).eval()


def test_a_transformer_is_read_from_its_embeddings_to_its_last_norm() -> None:
    model, tokens = transformer(), ids(12)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    dense, lanczos = (network_ess(model, tokens, 3, method=method) for method in ("dense", "lanczos"))
    assert (dense.start, dense.end) == ("transformer.wte", "transformer.ln_f")
    assert dense.derivatives == "forward mode"
    assert dense.run_difference < 1e-5
    assert ((lanczos.interval[:, 0] <= dense.entropy) & (dense.entropy <= lanczos.interval[:, 1])).all()
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


def test_memory_that_does_not_suffice_is_said() -> None:
    model, tokens = transformer(), ids(12)
    found = network_ess(model, tokens, [6], method="lanczos", memory=8 * 96 * 20)
    assert not found.converged
    assert found.products.item() <= 20
    exact = network_ess(model, tokens, [6], method="dense").entropy.item()
    assert found.interval[0, 0] <= exact <= found.interval[0, 1]
    with pytest.raises(InputError, match="memory must be at least 73728 for the Jacobian at 6, got 1000"):
        network_ess(model, tokens, [6], method="dense", memory=1000)


def test_progress_is_told() -> None:
    seen: list[Progress] = []
    network_ess(transformer(), ids(12), [3, 6], method="lanczos", on_progress=seen.append)
    assert [step.position for step in seen if step.products == 0] == [3, 6]
    assert all(step.products <= step.planned for step in seen)


class Cut(nn.Module):
    """Its values pass on, its derivatives do not."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.detach().cumsum(1)


class Each(nn.Module):
    """Mixes nothing."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.tanh()


@pytest.mark.parametrize(
    ("mixer", "options", "error", "message"),
    [
        (Cut(), {}, ModelError, "Module mixer must have derivatives"),
        (Each(), {}, ModelError, "mixer at positions from 4 on must depend on what embedding returns before"),
        (Each(), {"start": "nowhere"}, InputError, "start must be the name of a module that runs, got 'nowhere'"),
        (Each(), {"method": "fast"}, InputError, "method must be auto, lanczos or dense, got 'fast'"),
        (Each(), {"accuracy": 0}, InputError, "accuracy must be a number above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(mixer: nn.Module, options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        network_ess(Language(mixer, 12, 6), ids(8), [4], **{"end": "mixer", **options})


def test_more_than_one_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="input_ids must hold one sequence, got 2"):
        network_ess(language("gru"), ids(8).repeat(2, 1))


def test_a_bundled_model() -> None:
    model, _ = zoo.load("recall-sa")
    tokens = ids(16, model.config.vocabulary_size)
    dense, lanczos = (network_ess(model, tokens, [8], method=method) for method in ("dense", "lanczos"))
    assert lanczos.interval[0, 0] <= dense.entropy[0] <= lanczos.interval[0, 1]
    assert dense.run_difference < 1e-5
    assert set(dense.to_dict()["positions"][0]) >= {"position", "entropy", "interval", "dimension", "norm"}


def small_models(count: int):
    """Models of several kinds, widths and depths, each with tokens and a cut."""
    g = torch.Generator().manual_seed(5)
    for seed in range(count):
        length = int(torch.randint(8, 24, (1,), generator=g))
        i = int(torch.randint(2, length - 1, (1,), generator=g))
        kind = seed % 4
        if kind == 3:
            yield transformer(1 + seed % 3, seed), ids(length, seed=seed), i
        else:
            width = int(torch.randint(3, 12, (1,), generator=g))
            yield language(("gru", "lstm", "slstm")[kind], width, 12, seed), ids(length, seed=seed), i


def covered(count: int) -> tuple[float, float]:
    """How often an interval holds the exact value, and the median of its half width."""
    held, widths = 0, []
    for model, tokens, i in small_models(count):
        exact = network_ess(model, tokens, [i], method="dense").entropy.item()
        found = network_ess(model, tokens, [i], method="lanczos")
        low, high = found.interval[0].tolist()
        held += low <= exact <= high
        widths.append((high - low) / 2 / found.entropy.item())
    return held / count, sorted(widths)[count // 2]


@pytest.mark.parametrize("count", [16, pytest.param(1000, marks=pytest.mark.slow)])
def test_intervals_hold_the_exact_value(count: int) -> None:
    held, width = covered(count)
    assert held >= 0.93
    assert width <= 0.03
