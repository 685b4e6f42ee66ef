"""`statesize.compress`: a small model of a small text."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import statesize as ss
from statesize.lab import zoo
from statesize.lab.compression.proposals import Ranking, sizes_by_cost
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.statistics import Interval
from statesize.reduction.compress import _worth
from statesize.reduction.windows import Recall, score, three_parts

DOCUMENTS = [f"document {number} says {number * number} and no more of {number}" for number in range(60)]


def model_of(mixer="gla", **shape):
    config = ModelConfig(mixer, 4096, **{"width": 8, "heads": 2, "layers": 2, "key_size": 4, **shape})
    return LanguageModel(config, torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def halved():
    """A model with half of its state, and what that costs."""
    return ss.compress(model_of(), DOCUMENTS, tokenizer=zoo.tokenizer())


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "mixer", ["la", "gla", "s6", "gla,sa", *(pytest.param(one, marks=pytest.mark.slow) for one in ("wla", "gla-s6"))]
)
def test_half_the_state_is_left_and_the_model_is_not_changed(mixer):
    model = model_of(mixer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = ss.compress(model, DOCUMENTS, tokenizer=zoo.tokenizer())
    assert found.state_bytes[1] * 2 == found.state_bytes[0]
    assert found.documents == 24
    assert found.difference.value == pytest.approx(found.after.value - found.before.value)
    assert found.difference.low < found.difference.value < found.difference.high
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.few(2)
@pytest.mark.parametrize("side", ["queries", "keys"])
@pytest.mark.parametrize("mixer", ["la", "gated-deltanet", "gla", "s6"])
def test_a_model_with_a_head_that_is_not_read_or_writes_nothing_is_cut(mixer, side):
    model = model_of(mixer)
    if mixer == "s6":
        rows = slice(0, 4) if side == "keys" else slice(4, 8)
        model.blocks[1].mixer.state_projection.weight.data[rows] = 0
    else:
        first = 12 if side == "keys" else 4  # of the second head, after queries of two heads
        for part in ("projection", "convolution"):
            getattr(model.blocks[1].mixer, part).weight.data[first : first + 4] = 0
    found = ss.compress(model, DOCUMENTS, "50%", tokenizer=zoo.tokenizer())
    assert all(bool(weight.isfinite().all()) for weight in found.model.parameters())
    assert found.difference.value == pytest.approx(0, abs=0.05)
    costs = Ranking.of(model, three_parts(DOCUMENTS, zoo.tokenizer(), 64)[0]).costs
    if mixer != "s6":
        # Sizes are not the larger for a head that carries nothing.
        assert {sizes_by_cost(own, 8)[3] for own in costs.values()} == {1}


def test_scores_that_are_not_finite_are_refused():
    model = model_of()
    model.norm.weight.data[0] = math.nan
    with pytest.raises(ss.errors.ModelError, match=r"^model must have finite scores .* before the cut. Check its weig"):
        ss.compress(model, DOCUMENTS, tokenizer=zoo.tokenizer())


def test_a_tokenizer_of_another_model_is_refused():
    config = ModelConfig("gla", 64, width=8, heads=2, layers=1, key_size=4)
    with pytest.raises(ss.errors.InputError, match="tokenizer must be that of the model, which has 64 tokens, got one"):
        ss.compress(LanguageModel(config, torch.Generator()), DOCUMENTS, tokenizer=zoo.tokenizer())


@pytest.mark.slow
def test_it_is_repeatable():
    one, other = (ss.compress(model_of("la"), DOCUMENTS, tokenizer=zoo.tokenizer()).to_dict() for _ in range(2))
    assert one == other


def test_rounding_is_beside_the_cut():
    found = ss.compress(model_of(), DOCUMENTS, 0.5, int8=True, tokenizer=zoo.tokenizer())
    whole = ss.compress(model_of(), DOCUMENTS, "100%", int8=True, tokenizer=zoo.tokenizer())
    assert found.model.config.state_bits == 8
    assert found.method.endswith("int8")
    # A byte for each of the 4 value channels and two for the scale, in the place of four each.
    assert found.state_bytes == (2 * 2 * 4 * 16, 2 * 2 * 2 * 6)
    assert whole.state_bytes[1] == whole.int8_bytes == 2 * 2 * 4 * 6
    assert whole.difference.value == pytest.approx(whole.int8_difference.value, abs=1e-3)


def test_fine_tuning_has_its_control(halved):
    healed = ss.compress(model_of(), DOCUMENTS, fine_tune=8, length=32, tokenizer=zoo.tokenizer())
    assert "8 steps of fine-tuning" in healed.method
    assert healed.before.value < halved.before.value
    assert healed.after.value < halved.after.value


def test_what_is_saved_is_what_was_measured(tmp_path):
    found = ss.compress(model_of(), DOCUMENTS, int8=True, tokenizer=zoo.tokenizer())
    found.save(tmp_path / "small")
    read, tokenizer = ss.load(str(tmp_path / "small"))
    assert tokenizer.to_str() == zoo.tokenizer().to_str()
    ids = torch.arange(20)[None]
    assert torch.equal(read(ids), found.model(ids))
    assert json.loads((tmp_path / "small" / "compression.json").read_text()) == found.to_dict()
    with pytest.raises(
        ss.errors.FileError, match=r"output must be a new or empty folder, got .*small, which is in use"
    ):
        found.save(tmp_path / "small")


@pytest.mark.parametrize("state", ["0%", "101%", 0, 5, "half", "", -1, float("nan"), True, None])
def test_sizes_beyond_the_state_are_refused(state):
    with pytest.raises(ss.errors.InputError, match=r"^state must be"):
        ss.compress(model_of(), DOCUMENTS, state, tokenizer=zoo.tokenizer())


@pytest.mark.few(3)
@pytest.mark.parametrize(("state", "kept"), [("75%", 12), (2, 8), ("3", 12), (0.5, 8), (1, 4), ("100%", 16), ("1%", 0)])
def test_a_state_is_a_share_or_a_size(state, kept):
    if kept in (0, 16):
        with pytest.raises(ss.errors.InputError, match=r"^state must be"):
            ss.compress(model_of(), DOCUMENTS, state, tokenizer=zoo.tokenizer())
    else:
        found = ss.compress(model_of(), DOCUMENTS, state, tokenizer=zoo.tokenizer())
        assert sum(map(sum, found.sizes)) == kept


def test_a_model_without_its_tokenizer_is_refused():
    with pytest.raises(ss.errors.InputError, match="tokenizer must be that of the model, got None"):
        ss.compress(model_of(), DOCUMENTS)


def test_models_without_a_state_to_cut_are_refused(halved):
    with pytest.raises(ss.errors.ModelError, match="gla-s6, s6, deltanet, gated-deltanet, got sa"):
        ss.compress(model_of("sa"), DOCUMENTS, tokenizer=zoo.tokenizer())
    with pytest.raises(ss.errors.ModelError, match="must be one that statesize trains"):
        ss.compress(torch.nn.Linear(2, 2), DOCUMENTS, tokenizer=zoo.tokenizer())
    with pytest.raises(ss.errors.ModelError, match="got one that was cut before"):
        ss.compress(halved.model, DOCUMENTS, tokenizer=zoo.tokenizer())


def test_too_little_text_for_gramians_of_full_rank_is_refused():
    with pytest.raises(ss.errors.InputError, match=r"text must have about 1,280 tokens, 512 of them .* got"):
        ss.compress(model_of(key_size=32), DOCUMENTS[:20], tokenizer=zoo.tokenizer())
    few = ss.compress(model_of(), DOCUMENTS[:40], tokenizer=zoo.tokenizer())
    assert (few.documents, few.safe) == (16, None)


@pytest.mark.parametrize("mixer", ["la", "gla", "gated-deltanet"])
def test_windows_hold_a_state_at_least(mixer):
    model = model_of(mixer)
    for length in (2, 8, 9, 15):
        with pytest.raises(ss.errors.InputError, match=rf"^length must be a whole number of at least 16, got {length}"):
            ss.compress(model, DOCUMENTS, length=length, tokenizer=zoo.tokenizer())
    found = ss.compress(model, DOCUMENTS, length=16, tokenizer=zoo.tokenizer())
    assert math.isfinite(found.difference.value)
    short = model_of(f"{mixer},sa", positions=15)
    with pytest.raises(ss.errors.ModelError, match="model must read at least 16 tokens, got one of 15 positions"):
        ss.compress(short, DOCUMENTS, tokenizer=zoo.tokenizer())


def test_safe_needs_all_upper_ends_small_and_something_to_recall(halved):
    has, lacks = Interval(0.5, 0.4, 0.6), Interval(0.01, 0.0, 0.02)
    kept, lost = Recall(has, has, Interval(0, -0.01, 0.01), 9), Recall(has, has, Interval(0, -0.01, 0.03), 9)
    none = Recall(lacks, lacks, Interval(0, -0.1, 0.1), 9)
    small, large = Interval(0.005, 0.0, 0.01), Interval(0.005, 0.0, 0.011)

    def safe(difference=small, documents=20, worth=has, **recall):
        return replace(halved, difference=difference, texts=documents, worth=worth, recall=recall).safe

    assert safe(one=kept, other=none) is True
    assert safe(large, one=kept) is False
    assert safe(one=kept, other=lost) is False
    assert safe(one=none) is None
    assert safe(documents=19, one=kept) is None
    assert safe(worth=Interval(0.2, -0.1, 0.5), one=kept) is None
    assert safe(worth=Interval(math.nan), one=kept) is None


@pytest.mark.parametrize("length", [32, 19])
def test_far_text_is_worth_what_the_last_quarters_of_windows_lose_without_the_first(length):
    model = model_of()
    found = ss.compress(model, DOCUMENTS, length=length, tokenizer=zoo.tokenizer())
    *_, held = three_parts(DOCUMENTS, zoo.tokenizer(), length)
    start, first = length // 4, length // 4 + length // 2
    lost = size = 0.0
    for inputs, targets, documents in zip(held.inputs, held.targets, held.document, strict=True):
        with torch.no_grad():
            whole, alone = model(inputs[None])[0, first:], model(inputs[None, start:])[0, first - start :]
        later = targets[first:]
        for one, sign in ((alone, 1), (whole, -1)):
            lost += sign * float(functional.cross_entropy(one, later, ignore_index=-100, reduction="sum"))
        for number in range(len(held.sizes)):
            scored = (documents[first:] == number) & (later != -100)
            every = ((held.document == number) & (held.targets != -100)).sum()
            size += float(held.sizes[number] * scored.sum() / every)
    assert found.worth.value == pytest.approx(lost / math.log(2) / size, abs=1e-6)


@pytest.mark.parametrize("length", [16, 17, 18, 19, 32])
def test_text_that_is_near_is_worth_nothing_far_back(length):
    model = model_of("sliding", layers=1, window=-(-length // 2), convolution_size=1)
    *_, held = three_parts(DOCUMENTS, zoo.tokenizer(), length)
    # A large head makes much of what is read.
    model.norm.weight.data *= 50
    whole = score(model, held.inputs, held.targets)
    assert _worth(model, whole, held).value == pytest.approx(0, abs=1e-5)


def test_far_text_of_less_than_a_window_cannot_be_told(tmp_path):
    found = ss.compress(model_of(), DOCUMENTS, length=700, tokenizer=zoo.tokenizer())
    why = "the held-out texts together are shorter than three quarters of a window"
    assert f"What text half a window back and farther is worth cannot be told: {why}. " in found.finding()
    assert dict(found.facts)["worth of far text"] == f"not known: {why}"
    assert found.safe is None
    assert found.to_dict()["worth"] is found.to_dict()["worth_interval"] is None
    found.save(tmp_path / "small")
    assert "NaN" not in (tmp_path / "small" / "compression.json").read_text()
    has = Interval(0.5, 0.4, 0.6)
    recalled = replace(found, recall={"one": Recall(has, has, Interval(0, -0.01, 0.01), 9)})
    assert recalled.verdict == f"Too little to tell whether it is safe: {why}, so what far text is worth cannot be told"
