"""What has no T is refused with its cause, and the model is left as it was."""

import math
import re

import pytest
import torch
from torch import nn

import statesize as ss
from statesize.codes import Code, joined
from statesize.errors import InputError, ModelError
from statesize.results.summary import keeps_everything

TOKENS = torch.arange(24)[None]


class Layer(nn.Module):
    """A layer by its formula."""

    def __init__(self, mixed):
        super().__init__()
        self.enter, self.leave, self.mixed = nn.Linear(8, 8), nn.Linear(8, 8), mixed

    def forward(self, hidden):
        return self.leave(self.mixed(self.enter(hidden)))


def model_of(mixed):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(30, 8), Layer(mixed))


# What enters the layer's mixing at a late position of the text as it is.
SEEN = model_of(None)[1].enter(model_of(None)[0](TOKENS))[0, 18].sum().detach()


@pytest.mark.parametrize(
    ("mixed", "reason"),
    [
        (
            lambda entering: entering.flip(1).cumsum(1).flip(1),
            r"Mixer 1 must be causal, but its position 0 of 24 depends on positions from 1 on",
        ),
        (
            lambda entering: entering.cumsum(1) + 1e-8 * entering.flip(1).cumsum(1).flip(1),
            r"Mixer 1 must be causal, but its position 0 of 24 depends on positions from 1 on",
        ),
        (
            lambda entering: nn.functional.dropout(entering.cumsum(1)),
            r"gives another last hidden state when it runs the same inputs once more",
        ),
        (
            lambda entering: entering.cumsum(1)[:, 1:],
            r"Mixer 1 mixes positions and must return one output for each of the 24, got shape \(1, 23, 8\)",
        ),
        (
            lambda entering: entering.cumsum(1)[:, int(entering[0, 18].sum() != SEEN) :],
            r"Mixer 1 mixes positions and must return one output for each of the 24, got shape \(1, 23, 8\)",
        ),
        (lambda entering: entering.cumsum(1).log(), "Mixer 1 must return finite numbers, got NaN or infinity"),
    ],
    ids=["not causal", "hardly causal", "random", "fewer positions", "other shapes", "not finite"],
)
def test_a_layer_without_a_t_is_refused_with_its_cause(mixed, reason):
    model = model_of(mixed)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ModelError, match=reason):
        list(ss.capture(model, TOKENS))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_keeps_what_cannot_be_put_back_is_refused():
    calls = []

    def counting(entering):
        calls.append(None)
        return entering.cumsum(1) * len(calls)

    message = r"gives another last hidden state when it runs the same inputs once more"
    with pytest.raises(ModelError, match=message):
        list(ss.capture(model_of(counting), TOKENS))


def test_numbers_that_a_layer_keeps_are_put_back():
    class Keeping(Layer):
        """Multiplies by the number of its calls, and adds the last state of the call before."""

        def __init__(self):
            super().__init__(None)
            self.calls, self.last = 0, None

        def forward(self, hidden):
            self.calls, self.new = self.calls + 1, 3.0
            mixed = self.enter(hidden).cumsum(1) * self.calls + (0 if self.last is None else self.last)
            self.last = mixed[:, -1:]
            return mixed

    model = nn.Sequential(nn.Embedding(30, 8), Keeping())
    (captured,) = ss.capture(model, TOKENS)
    torch.testing.assert_close(captured.operator.dense()[0, 0], torch.ones(24, 24).tril().double())
    assert (model[1].calls, model[1].last, hasattr(model[1], "new")) == (0, None, False)


def test_what_a_layer_counts_in_place_is_put_back():
    class Counting(Layer):
        def __init__(self):
            super().__init__(lambda entering: entering.cumsum(1))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, hidden):
            self.calls.add_(1)
            return super().forward(hidden)

    model = nn.Sequential(nn.Embedding(30, 8), Counting())
    (captured,) = ss.capture(model, TOKENS)
    assert captured.units == 1
    assert model[1].calls == 0


def test_the_layer_is_left_as_it_was():
    model = model_of(lambda entering: entering.cumsum(1)).train()
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    fastpath, random = torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()
    list(ss.capture(model, TOKENS))
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert all(
        module.training and not module._forward_hooks and not module._forward_pre_hooks for module in model.modules()
    )
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda entering: entering.cummax(1)[0],
        lambda entering: nn.functional.conv1d(nn.functional.pad(entering.mT, (2, 0)), torch.ones(8, 8, 3)).mT,
        lambda entering: entering.cumsum(1) if entering.sum() > 1e9 else entering.cummax(1)[0],
    ],
    ids=["nonlinear", "channels mixed", "nonlinear here"],
)
def test_a_layer_without_a_t_of_single_channels_is_measured_by_its_derivative(mixed):
    (captured,) = ss.capture(model_of(mixed), TOKENS)
    assert (captured.kind, captured.units) == ("derivative", 1)
    assert joined(captured.notes).startswith("No T was found. If there is one, mix")


def test_attention_within_blocks_is_measured_by_its_derivative():
    def blocks(entering):
        cut = entering.view(len(entering), -1, 8, 8).flatten(0, 1)[:, None]
        return nn.functional.scaled_dot_product_attention(cut, cut, cut, is_causal=True).reshape(entering.shape)

    (captured,) = ss.capture(model_of(blocks), TOKENS)
    assert captured.kind == "derivative"


@pytest.mark.parametrize("block", [2, 3, 4, 5, 6, 8, 10, 12])
def test_blocks_that_end_in_the_middle_mix_positions(block):
    def mixed(entering):
        return torch.cat([part.cummax(1)[0] for part in entering.split(block, 1)], 1)

    (captured,) = ss.capture(model_of(mixed), TOKENS)
    assert captured.kind == "derivative"


def _summed(entering):
    return entering.cumsum(1)


def test_state_size_and_kind_of_the_class_are_taken():
    class Averaging(Layer):
        kind, state_size = "running sum", 1

    model = nn.Sequential(nn.Embedding(30, 8), Averaging(_summed))
    (captured,) = ss.capture(model, TOKENS)
    assert (captured.kind, captured.multiplicity, captured.state_bytes, captured.notes) == ("running sum", 8, 8 * 4, ())
    assert captured.operator.state_size().tolist() == [0] + [1] * 23


def test_a_state_size_that_is_too_large_is_told_and_makes_no_cache_of_a_short_text():
    class Averaging(Layer):
        kind, state_size = "running sum", 4096

    model = nn.Sequential(nn.Embedding(30, 8), Averaging(_summed))
    (captured,) = ss.capture(model, TOKENS)
    kept = "T here keeps 1 of the 4096 numbers that its `state_size` names."
    assert joined(captured.notes) == f"Its `state_size` seems too large: {kept}"
    assert captured.operator.state_size().tolist() == [4096] * 24
    profile = ss.profile(model, TOKENS, on_progress=lambda _: None)
    assert not keeps_everything(profile.mixer("1"))
    assert "oversized" in str(profile)


def test_a_text_that_is_too_short_to_tell_a_state_size_says_so_and_a_state_size_is_an_integer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 8), Attended())
    model[1].state_size = 64
    (captured,) = ss.capture(model, torch.arange(24)[None])
    assert re.fullmatch(
        r"T here keeps \d+ of the 64 numbers that its `state_size` names\. This text is too short to tell "
        r"whether it can hold more\.",
        joined(captured.notes),
    )
    assert "too large" not in str(ss.profile(model, torch.arange(24)[None]))
    for wrong in ("8", 8.0, True, 0):
        model[1].state_size = wrong
        with pytest.raises(
            InputError,
            match=r"^state_size of 1 must be a whole number of at least 1, math\.inf if it keeps every token, or be "
            rf"left out, got {wrong!r}\.",
        ):
            list(ss.capture(model, torch.arange(24)[None]))


class Attended(nn.Module):
    """Linear attention, whose state holds 8 numbers for each channel."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Linear(8, 24)

    def forward(self, hidden):
        query, key, value = self.parts(hidden).chunk(3, -1)
        return (query @ key.mT).tril() @ value


def test_a_fixed_state_is_told_where_the_class_says_nothing_and_a_cache_is_unknown():
    (fixed,) = ss.capture(model_of(_summed), TOKENS)
    assert (fixed.state_bytes, joined(fixed.notes)) == (
        8 * 4,
        "It holds 1 number per channel: at half of the text and at all of it, T keeps no more.",
    )
    assert fixed.operator.state_size().tolist() == [0] + [1] * 23
    far = torch.rand(24, 24, generator=torch.Generator().manual_seed(0)).tril()
    capture = ss.capture(model_of(lambda entering: far[: entering.shape[1]].to(entering) @ entering), TOKENS)
    assert [(mixer.state_size, mixer.state_bytes) for mixer in capture.mixers] == [(None, None)]
    assert joined(next(capture).notes) == (
        "How many numbers it can store is unknown: set its `state_size` to at least the rank of T, or to math.inf if "
        "it keeps every token; 24 tokens show the size of a fixed state only up to 5 numbers, and no text that of a "
        "state that fades."
    )


class Sigmoids(Attended):
    """Attention by sigmoids, which keeps every token."""

    def forward(self, hidden):
        query, key, value = self.parts(hidden).chunk(3, -1)
        return torch.sigmoid(query @ key.mT).tril() @ value


@pytest.mark.parametrize("tokens", [1, 2, 3])
@pytest.mark.parametrize(("layer", "states"), [(Attended, 8), (Sigmoids, None)])
def test_a_text_of_few_different_tokens_does_not_say_what_a_layer_can_hold(layer, states, tokens):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(40, 8), layer())
    (item,) = ss.capture(model, torch.randint(tokens, (1, 48), generator=torch.Generator().manual_seed(0)))
    assert item.state_size == states
    assert item.state_bytes == (None if states is None else 8 * states * 4)
    model[1].state_size = 8
    (item,) = ss.capture(model, torch.randint(tokens, (1, 48), generator=torch.Generator().manual_seed(0)))
    assert "too large" not in joined(item.notes)


@pytest.mark.parametrize("attends", [False, True])
def test_a_class_may_say_that_it_keeps_every_token(attends):
    far = torch.rand(24, 24, generator=torch.Generator().manual_seed(0)).tril()

    def mixed(entering):
        # Attention that gives some keys no weight is asked whether it drops them.
        return attended(entering) if attends else far[: entering.shape[1]].to(entering) @ entering

    model = model_of(mixed)
    model[1].state_size = math.inf
    (captured,) = ss.capture(model, TOKENS)
    assert (captured.state_size, joined(captured.notes)) == (None, "")
    # The keys of this attention are its values, which are stored once.
    assert captured.state_bytes == 24 * 8 * 4
    assert captured.operator.state_size().tolist() == list(range(24))
    model[1].state_size = -math.inf
    with pytest.raises(InputError, match=r"at least 1, math\.inf if it keeps every token, or be left out, got -inf"):
        ss.capture(model, TOKENS)


def attended(entering):
    scores = entering @ entering.mT
    scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    least = scores.topk(3, -1).values[..., -1:]
    return scores.masked_fill(scores < least, -math.inf).softmax(-1) @ entering


@pytest.mark.parametrize(
    "beside",
    [lambda entering: entering.cummax(1)[0], lambda entering: 1e-11 * entering.cumsum(1).square()],
    ids=["maximum", "square"],
)
def test_what_is_mixed_beside_and_not_linear_is_told_however_small_it_is(beside):
    (found,) = ss.capture(model_of(lambda entering: entering.cumsum(1) + beside(entering)), TOKENS)
    torch.testing.assert_close(found.operator.dense()[0, 0], torch.ones(24, 24, dtype=torch.float64).tril())
    assert [note.detail for note in found.notes if note.code is Code.PART] == [
        "T is without a mixing of 24 positions beside it."
    ]


def test_two_layers_in_one_module_are_measured_as_their_sum():
    class Both(nn.Module):
        """A decaying sum and a convolution of the same values, added."""

        def __init__(self):
            super().__init__()
            self.value, self.convolution = nn.Linear(8, 8), nn.Conv1d(8, 8, 3, groups=8, padding=2, bias=False)

        def forward(self, hidden):
            value = self.value(hidden)
            state, outputs = torch.zeros_like(value[:, 0]), []
            for step in range(hidden.shape[1]):
                state = 0.9 * state + value[:, step]
                outputs.append(state)
            return torch.stack(outputs, 1) + self.convolution(value.mT)[..., : hidden.shape[1]].mT

    model = nn.Sequential(nn.Embedding(30, 8), Both())
    (captured,) = ss.capture(model, TOKENS)
    lag = (torch.arange(24)[:, None] - torch.arange(24)).clamp_min(0)
    taps = torch.cat([model[1].convolution.weight[:, 0].flip(-1), torch.zeros(8, 21)], -1)
    expected = (0.9**lag + taps[:, lag]).tril()
    torch.testing.assert_close(captured.operator.dense()[0], expected.double(), rtol=0, atol=1e-6)


class Gated(nn.Module):
    """A moving average of key times value, in which either could be what T acts on."""

    def __init__(self):
        super().__init__()
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden):
        return (self.key(hidden) * self.value(hidden)).cumsum(1)


def test_the_part_that_is_named_is_what_t_acts_on():
    model = nn.Sequential(nn.Embedding(30, 8), Gated())
    (by_product,) = ss.capture(model, TOKENS)
    (by_pattern,) = ss.capture(model, TOKENS, mixes={"1*": "value"})
    settings = ss.Settings(mixes={"1": "value"})
    assert ss.profile(model, TOKENS, settings=settings).mixer("1").sizes["channel"] == 8
    model[1].mixes = "value"
    (by_value,) = ss.capture(model, TOKENS)
    # Both factors write into the sum, and of two streams as wide the one that is computed first counts as values.
    assert (by_product.units, by_value.units, by_pattern.units) == (8, 8, 8)
    value = model[1].value(model[0](TOKENS)).detach().mT
    of_key = torch.ones(24, 24).tril() * value[:, :, None]
    torch.testing.assert_close(by_product.operator.dense(), of_key.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(by_value.operator.dense(), by_pattern.operator.dense(), rtol=0, atol=0)
    key = model[1].key(model[0](TOKENS)).detach().mT
    expected = torch.ones(24, 24).tril() * key[:, :, None]
    torch.testing.assert_close(by_value.operator.dense(), expected.double(), rtol=0, atol=1e-6)


def test_a_named_part_must_be_there_and_be_mixed_linearly():
    model = nn.Sequential(nn.Embedding(30, 8), Gated())
    model[1].mixes = "values"
    with pytest.raises(ModelError, match=r"`mixes` must name one of the parts of Gated, got 'values'. .* key, value."):
        list(ss.capture(model, TOKENS))
    with pytest.raises(
        InputError, match=r"mixes must name modules of the model, got '2'. It has Sequential, 0, 1, 1\.k"
    ):
        list(ss.capture(model, TOKENS, mixes={"2": "value"}))
    with pytest.raises(InputError, match="mixes must be names of modules with the name of a part each, got "):
        ss.profile(model, TOKENS, settings=ss.Settings(mixes={"1": 3}))
    with pytest.raises(InputError, match="mixes must be names of modules with the name of a part each, got '1'"):
        ss.profile(model, TOKENS, settings=ss.Settings(mixes="1"))
    model = model_of(lambda entering: entering.cummax(1)[0])
    model[1].mixes = "enter"
    with pytest.raises(ModelError, match="must be linear, channel by channel, in the output of enter, as `mixes`"):
        list(ss.capture(model, TOKENS))


@pytest.mark.few(1)
@pytest.mark.parametrize("where", ["before", "behind"])
def test_mixing_around_a_layer_that_is_measured_by_itself_is_told_or_measured(where):
    class Around(nn.Module):
        """Attention of torch, and the token before it added to what enters or leaves it."""

        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, hidden):
            hidden = self.shifted(hidden) if where == "before" else hidden
            mask = torch.ones(24, 24, dtype=torch.bool).triu(1)
            hidden = self.attention(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]
            return self.shifted(hidden) if where == "behind" else hidden

        def shifted(self, hidden):
            return hidden + nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]

    capture = ss.capture(nn.Sequential(nn.Embedding(30, 8), Around()), TOKENS)
    captured = {item.name: item for item in capture}
    if where == "before":
        assert captured.keys() == {"1.attention"}
        assert "1 mixes positions before what is measured in it (MultiheadAttention)" in str(capture.skipped["1"])
    else:
        assert captured.keys() == {"1", "1.attention"}
        assert joined(captured["1"].notes).endswith("Its values are mixed before by 1.attention: see its row.")
        torch.testing.assert_close(
            captured["1"].operator.dense()[0, 0], (torch.eye(24) + torch.eye(24).roll(1, 0).tril()).double()
        )


@pytest.mark.parametrize(
    "mixed",
    [
        lambda entering: nn.functional.pad(entering, (0, 0, 15, 0))[:, :-15],
        lambda entering: entering + entering[:, :1],
    ],
    ids=["far back", "the first token"],
)
def test_mixing_from_few_positions_is_seen(mixed):
    (captured,) = ss.capture(model_of(mixed), TOKENS)
    assert float(ss.measure(captured.operator).entropy.max()) >= 1


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize(
    "passed_on",
    [
        lambda delayed, entering: delayed,
        lambda delayed, entering: delayed * entering.sigmoid(),
        lambda delayed, entering: delayed * entering[..., :1].sigmoid() + entering,
    ],
    ids=["as it is", "gates", "one gate and its own token"],
)
def test_what_is_delayed_is_mixed_and_no_gate_is_in_its_t(delay, passed_on):
    def mixed(entering):
        return passed_on(nn.functional.pad(entering, (0, 0, delay, -delay)), entering)

    (captured,) = ss.capture(model_of(mixed), TOKENS)
    assert (captured.units, captured.multiplicity) == (1, 8)
    expected = torch.eye(24, dtype=torch.float64).roll(delay, 0).tril()
    torch.testing.assert_close(captured.operator.dense()[0, 0], expected, rtol=0, atol=1e-12)


TAPS = torch.linspace(0.2, 0.9, 8), torch.linspace(1, -1, 8)


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize(
    ("mixed", "taps"),
    [
        (lambda own, delayed, late: own + delayed, (1.0, 1.0)),
        (lambda own, delayed, late: TAPS[1] * delayed + TAPS[0] * own, TAPS),
        (lambda own, delayed, late: TAPS[0] * own + late(TAPS[1] * own), TAPS),
        # T ends at the first tensor behind which no positions are mixed; fixed factors behind that count to it.
        (lambda own, delayed, late: own + TAPS[1] * (delayed - own), (-TAPS[1], TAPS[1])),
        (lambda own, delayed, late: 0.5 * (own + delayed) + 0.1 * own, (0.5, 0.5)),
    ],
    ids=["sum", "taps", "taps before", "lerp", "sum of sums"],
)
def test_what_is_delayed_and_added_to_each_token_with_fixed_weights_is_one_t(delay, mixed, taps):
    def late(entering):
        return nn.functional.pad(entering, (0, 0, delay, -delay))

    (captured,) = ss.capture(model_of(lambda entering: mixed(entering, late(entering), late)), TOKENS)
    own, later = (torch.as_tensor(tap, dtype=torch.float64).expand(8)[:, None, None] for tap in taps)
    identity = torch.eye(24, dtype=torch.float64)
    found = captured.operator.dense()[0].expand(8, -1, -1)
    torch.testing.assert_close(found, own * identity + later * identity.roll(delay, 0).tril(), rtol=0, atol=1e-6)


class HardGate(nn.Module):
    """Adds what is delayed where a number of each token is large."""

    def __init__(self, seed):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(8, generator=torch.Generator().manual_seed(seed)))

    def forward(self, entering):
        opened = (entering @ self.weights > -0.5).to(entering)[..., None]
        return entering + opened * nn.functional.pad(entering, (0, 0, 3, -3))


@pytest.mark.parametrize("seed", range(6))
def test_a_choice_is_taken_as_the_model_took_it(seed):
    model = model_of(HardGate(seed))
    (captured,) = ss.capture(model, TOKENS)
    entering = model[1].enter(model[0](TOKENS))[0].detach()
    opened = (entering @ model[1].mixed.weights > -0.5).double()[:, None]
    expected = torch.eye(24, dtype=torch.float64) + opened * torch.eye(24, dtype=torch.float64).roll(3, 0).tril()
    torch.testing.assert_close(captured.operator.dense()[0, 0], expected, rtol=0, atol=1e-12)


def test_each_token_beside_the_one_before_it_is_no_mixing_of_its_own():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.join = nn.Linear(16, 8)

        def forward(self, entering):
            return self.join(torch.cat([nn.functional.pad(entering, (0, 0, 1, -1)), entering], -1))

    join = Beside()
    (captured,) = ss.capture(model_of(join), TOKENS)
    assert (captured.units, captured.multiplicity) == (1, 8)
    expected = torch.eye(24, dtype=torch.float64).roll(1, 0).tril()
    torch.testing.assert_close(captured.operator.dense()[0, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("second", "size"), [(3e-7, 2), (3e-10, None), (3e-14, 1)])
def test_a_second_number_counts_where_a_gap_tells_it_from_rounding(second, size):
    signs = torch.tensor([1.0, -1.0] * 12)[:, None]

    def mixed(entering):
        return entering.cumsum(1) + second * signs * (signs * entering).cumsum(1)

    (found,) = ss.capture(model_of(mixed).double(), TOKENS)
    assert found.state_size == size
