"""The ESS of networks against their Jacobians, written out."""

import gc

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from statesize.errors import InputError, ModelError
from statesize.lab import zoo
from statesize.measurement.settings import Settings
from statesize.networks.jacobian import SpanJacobian
from statesize.networks.network import NetworkProgress, network_ess
from statesize.spectra.spectrum import effective_rank


class Language(nn.Module):
    """Embedding, a recurrence, and logits; the recurrence may return a tuple, as those of torch do."""

    def __init__(self, mixer: nn.Module, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding, self.mixer, self.logits = nn.Embedding(vocabulary, width), mixer, nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor) -> Tensor:
        mixed = self.mixer(self.embedding(input_ids))
        return self.logits(mixed[0] if isinstance(mixed, tuple) else mixed)


def language(kind: str, width: int = 6, vocabulary: int = 12, seed: int = 0) -> Language:
    """A small model with a GRU or an LSTM and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixers = {
            "gru": lambda: nn.GRU(width, width, batch_first=True),
            "lstm": lambda: nn.LSTM(width, width, batch_first=True),
        }
        return Language(mixers[kind](), vocabulary, width)


def ids(length: int, vocabulary: int = 12, seed: int = 0) -> Tensor:
    """Random ids, (1, L)."""
    return torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(seed))


def transformer(layers: int = 2, seed: int = 0, width: int = 16) -> GPT2LMHeadModel:
    """A small GPT-2 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=12, n_positions=32, n_embd=width, n_layer=layers, n_head=2, initializer_range=0.3
        )
        return GPT2LMHeadModel(config).eval()


def jacobian(model: nn.Module, ids: Tensor, i: int) -> Tensor:
    """Derivatives of what the model's last module takes from i on, by the embeddings before i, in float64."""
    model = model.double().eval()
    if isinstance(model, GPT2LMHeadModel):
        embedding, last = model.transformer.wte, model.transformer.ln_f
    else:
        embedding, last = model.embedding, model.logits
    embedded = embedding(ids).detach()
    seen: list[Tensor] = []

    def future(past: Tensor) -> Tensor:
        whole = torch.cat([past, embedded[:, i:]], 1)
        hooks = [
            embedding.register_forward_hook(lambda *_: whole),
            last.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
        ]
        model(ids)
        for hook in hooks:
            hook.remove()
        return seen.pop()[:, i:]

    matrix = torch.autograd.functional.jacobian(future, embedded[:, :i])
    width = embedded.shape[2]
    return matrix.reshape((ids.shape[1] - i) * width, i * width)


@pytest.mark.few(3)
@pytest.mark.parametrize("method", ["dense", "lanczos"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
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
    """2 x with a backward that has no backward itself, and a forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor) -> Tensor:
        return 2 * inputs

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return 2 * gradient

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        return 2 * tangent


class Summed(nn.Module):
    """A sum over the past, doubled."""

    def forward(self, inputs: Tensor) -> Tensor:
        return Doubled.apply(inputs.cumsum(1).tanh())


def test_forward_mode_where_double_backward_is_missing() -> None:
    model, tokens = Language(Summed(), 12, 5), ids(9)
    dense, lanczos = (network_ess(model, tokens, [4], end="mixer", method=method) for method in ("dense", "lanczos"))
    assert lanczos.derivatives == "forward mode"
    exact = float(effective_rank(torch.linalg.svdvals(jacobian(model, tokens, 4))))
    assert abs(dense.entropy.item() - exact) < 1e-6
    assert lanczos.interval[0, 0] <= exact <= lanczos.interval[0, 1]


def test_a_transformer_is_read_from_its_embeddings_to_its_last_norm() -> None:
    model, tokens = transformer(), ids(12)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    dense, lanczos = (network_ess(model, tokens, 3, method=method) for method in ("dense", "lanczos"))
    assert dense.positions.tolist() == [2, 6, 10]
    assert (dense.start, dense.end) == ("transformer.wte", "transformer.ln_f")
    assert dense.derivatives == "double backward"
    assert dense.run_difference < 1e-5
    assert ((lanczos.interval[:, 0] <= dense.entropy) & (dense.entropy <= lanczos.interval[:, 1])).all()
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    exact = [float(effective_rank(torch.linalg.svdvals(jacobian(model, tokens, i)))) for i in dense.positions.tolist()]
    assert dense.entropy.tolist() == pytest.approx(exact, rel=1e-6)


def test_experts_whose_fused_products_take_no_double_precision() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads, num_local_experts=2, num_experts_per_tok=1)).eval()
    found = network_ess(model, ids(8), 3, method="dense")
    assert found.run_difference < 1e-5
    assert bool((found.entropy > 1).all())


def test_memory_that_does_not_suffice_is_said() -> None:
    model, tokens = transformer(), ids(12)
    found = network_ess(model, tokens, [6], method="lanczos", settings=Settings(memory=8 * 96 * 20))
    assert not found.converged
    # What it is not sure of is no finding.
    low, high = found.interval[0].tolist()
    assert f"carries {low:,.0f} to {high:,.0f} numbers past" in found.finding()
    known = int(found.value_bounds[0].isfinite().sum())
    assert bool(found.values[0, known:].isnan().all())
    assert found.products.item() <= 20
    exact = network_ess(model, tokens, [6], method="dense").entropy.item()
    assert found.interval[0, 0] <= exact <= found.interval[0, 1]
    with pytest.raises(InputError):
        network_ess(model, tokens, [6], method="dense", settings=Settings(memory=1000))


class Steep(nn.Module):
    """A sum over the past that makes rounding thousands of times as large."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (3e3 * inputs.cumsum(1)).sin()


def test_rounding_that_a_model_makes_larger_is_no_difference() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Language(Steep(), 12, 6)
    assert network_ess(model, ids(8), [4], end="mixer", method="dense").run_difference > 1e-4


class Unlike(nn.Module):
    """Another sum in single precision."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(1) * (1.001 if inputs.dtype is torch.float32 else 1)


def test_another_function_in_double_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="mixer in float64"):
        network_ess(Language(Unlike(), 12, 6), ids(8), [4], end="mixer")


def test_progress_is_told_and_cuts_hold_one_graph_at_a_time() -> None:
    seen: list[NetworkProgress] = []
    alive: list[int] = []

    def tell(progress: NetworkProgress) -> None:
        seen.append(progress)
        if progress.products == 0:
            alive.append(sum(type(one) is SpanJacobian for one in gc.get_objects()))

    found = network_ess(transformer(), ids(12), [3, 6, 9], method="lanczos", on_progress=tell)
    assert [step.position for step in seen if step.products == 0] == [3, 6, 9]
    assert alive == [1, 1, 1]
    before, later = seen[0], next(step for step in seen if step.low > 1)
    assert (before.low, before.high) == (1, found.dimension[0])
    assert before.low < later.low < later.high < before.high


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
        (Cut(), {}, ModelError, "The span from embedding to mixer must have derivatives"),
        (Each(), {}, ModelError, "span from embedding to mixer must depend on"),
        (Each(), {"start": "nowhere"}, InputError, "start must be the name of a module that runs, got 'nowhere'"),
        (Each(), {"method": "fast"}, InputError, "method must be one of auto, lanczos, dense, got 'fast'"),
        (Each(), {"accuracy": 0}, InputError, "accuracy must be a number above 0"),
        (Each(), {"settings": Settings(layers=0)}, InputError, "layers must be left out for network_ess, .* got 0"),
        (Each(), {"input_ids": ids(8).repeat(2, 1)}, InputError, "input_ids must hold one sequence, got 2"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(mixer: nn.Module, options, error, message: str) -> None:
    with pytest.raises(error, match=message):
        network_ess(Language(mixer, 12, 6), **{"input_ids": ids(8), "positions": [4], "end": "mixer", **options})


def test_a_model_by_its_name_reads_a_text() -> None:
    text = "Return the list of names that are bound here."
    model, tokenizer = zoo.load("gla")
    expected = network_ess(model, torch.tensor([tokenizer.encode(text).ids]), positions=[2])
    assert network_ess("gla", text, positions=[2]).to_dict() == expected.to_dict()
