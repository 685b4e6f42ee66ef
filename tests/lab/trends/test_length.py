"""ESS against the length of the context: the definition at each length, exponents, and what is beyond the training."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.attention_models import attention_model
from oracles.pretrained import tiny_tokenizer
from scipy import stats
from torch import nn

import statesize as ss
from statesize.errors import InputError
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.trends.growth import Growth
from statesize.lab.trends.length import LengthWork, known_trained_length
from statesize.lab.trends.points import MEASURED, MixerPoint, Point
from statesize.measurement.settings import Settings
from statesize.report.table import cell_text

SHAPE = {"vocabulary_size": 64, "width": 8, "heads": 2, "layers": 1, "key_size": 4}
TEXT = torch.randint(2, 64, (150,), generator=torch.Generator().manual_seed(3))


def model(mixer="sa", **shape):
    return LanguageModel(ModelConfig(mixer=mixer, **(SHAPE | shape)), torch.Generator().manual_seed(0)).eval()


def measured(given, future=6, settings=None, **options):
    settings = replace(settings or Settings(), future=future)
    options = {"lengths": [4, 8, 16], "settings": settings, **options}
    return ss.lab.length(given, TEXT, **options, on_progress=lambda *_: None)


@functools.cache
def plain():
    """What tests that change no option look at."""
    return measured(model())


def entropy(matrix):
    values = torch.linalg.svdvals(matrix)
    shares = values / values.sum()
    return float((-(shares * shares.clamp_min(1e-300).log()).sum()).exp())


@pytest.mark.parametrize("mixer", [pytest.param("sa", marks=pytest.mark.slow), "gla"])
def test_each_length_is_the_block_of_the_same_future_after_more_past(mixer):
    found, one = measured(model(mixer), excerpts=8), model(mixer)
    # 150 tokens hold six pieces of 16 + 6.
    assert found.texts == 6
    for place, context in enumerate((4, 8, 16)):
        for row in range(6):
            ids = TEXT[22 * row + 16 - context : 22 * row + 22]
            (captured,) = ss.capture(one, ids[None])
            heads = captured.operator.to(dtype=torch.float64).dense()[0]
            expected = [entropy(head[context : context + 6, :context]) for head in heads]
            told = [found.values("layers.0.mixer", unit=f"head {head}")[place, row] for head in range(2)]
            assert told == pytest.approx(expected, rel=1e-4)
            assert found.values("layers.0.mixer")[place, row] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.slow
def test_points_hold_no_sinks_and_look_for_none(monkeypatch):
    numbers = plain().values("layers.0.mixer")
    asked = []
    monkeypatch.setattr("statesize.profiling.work.sinks", lambda operator, cut: asked.append(cut))
    np.testing.assert_array_equal(measured(model()).values("layers.0.mixer"), numbers)
    assert not asked
    ss.profile(model(), TEXT[:16], on_progress=lambda _: None)
    assert asked


def growth(values, lengths=(16, 32, 64, 128), trained=None, ceiling=10**6, total=1, sources=None):
    """What a mixer with one head has, (lengths, excerpts)."""
    points = []
    for row in values:
        numbers = {metric: [float(value) for value in row] for metric in MEASURED}
        units = {metric: [[value] for value in listed] for metric, listed in numbers.items()}
        mixer = MixerPoint("mixer", "attention", 99, ceiling, 1, total, ("head 0",), (ceiling,), units, numbers)
        points.append(Point((mixer,), {}, 0.0, 0.0))
    facts = {"tokens_sha256": "", "asked": {}, "versions": {}}
    return Growth(
        model="one", names=tuple(map(str, lengths)), places=lengths, future=64, trained_length=trained,
        points=tuple(points), skipped={}, facts=facts, sources=sources or tuple(range(np.shape(values)[1])),
    )  # fmt: skip


JITTER = np.array([0.98, 0.99, 1.0, 1.01, 1.02])
LENGTHS = np.array([16.0, 32, 64, 128])


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("curve", "shape"),
    [
        (LENGTHS**0.5, "power law"),
        (LENGTHS**-0.2, "power law"),
        # What still grows over the last two lengths is not said to saturate.
        (LENGTHS / (LENGTHS + 40), "slows down"),
        (1 - np.exp(-LENGTHS / 40), "slows down"),
        (np.minimum(LENGTHS, 40), "saturates"),
        # Means of `sa` and `gla` on record.
        ([13.8, 20.9, 31.3, 43.6, 57.7], "power law"),
        ([10.9, 11.9, 12.2, 12.2, 12.2], "saturates"),
    ],
)
def test_an_exponent_is_told_where_a_power_law_fits_better_than_saturation(curve, shape):
    found = growth(np.array(curve)[:, None] * JITTER, (16, 32, 64, 128, 256)[: len(curve)])
    assert found.exponent().shape == shape
    table = found.page().tables[0]
    cell = table.rows[0][table.headings.index("exponent")]
    assert (cell == shape) == (shape != "power law")
    assert (found.exponent().course == "levels off") == (shape == "saturates") or shape == "power law"
    assert ("about as n^" in found.finding) == (shape == "power law")
    assert ("a curve that saturates fits better" in found.finding) == (shape == "slows down")
    assert ("A curve that saturates fits better" in found.finding) == (shape == "saturates")
    assert found.to_dict()["exponents"][0]["shape"] == shape


def test_an_exponent_takes_three_lengths_and_five_texts():
    needs = "An exponent takes 3 lengths and 5 texts or more, got "
    two = growth(np.array([16.0, 32])[:, None] ** 0.5 * JITTER, lengths=(16, 32))
    assert (two.exponent().shape, np.isnan(two.exponent().whole.value)) == ("not clear", True)
    assert f"{needs}2 lengths and 5 texts." in two.finding
    # What the last two lengths tell needs no third.
    assert two.exponent().course == "grows"
    assert "Of 1 measured heads or channels, over the last two lengths: 1 growing." in two.finding
    curve = LENGTHS[:, None] ** 0.5 * JITTER
    for sources, read in (((0,) * 5, "5 pieces of one text"), ((0, 0, 1, 2, 3), "5 pieces of 4 texts")):
        found = growth(curve, sources=sources)
        assert f"{needs}4 lengths and {read}." in found.finding
        assert "n^" not in found.finding
        assert not {"exponent", "last two lengths"} & set(found.page().tables[0].headings)
    assert needs not in growth(curve).finding


def test_each_number_stands_beside_its_ceiling():
    found = growth(np.array([8.0, 12, 14])[:, None] * np.ones(5), lengths=(16, 32, 64), ceiling=16.0)
    table = found.page().tables[0]
    assert table.headings[-3:] == [f"ESS of ceiling\nafter {one}" for one in (16, 32, 64)]
    assert [cell_text(cell) for cell in table.rows[0][-3:]] == ["8 of 16", "12 of 16", "14 of 16"]
    assert "from 8.0 of at most 16 after 16 tokens to 14.0 of at most 16 after 64 tokens" in found.finding
    assert table.caption.startswith("The ceiling is the most that ")


def test_the_ceilings_are_those_of_states_contexts_and_futures():
    assert plain().to_dict()["layers"][1]["ceiling"] == [4, 6, 6]
    assert measured(model("gla"), future=8).to_dict()["layers"][1]["ceiling"] == [4, 4, 4]
    llama = attention_model("llama", num_hidden_layers=1)
    found = ss.lab.length(
        llama, TEXT % 40, lengths=[4, 8], excerpts=1, settings=Settings(future=3), on_progress=lambda *_: None
    )
    by_name = {one["name"].partition(", ")[2]: one["ceiling"] for one in found.to_dict()["layers"][1:]}
    heads, groups = (mixer.total for mixer in found.points[0].mixers)
    # What several heads read together is behind the cut once for each of them.
    assert by_name == {"": [3, 3], "joint": [min(n, 3 * heads // groups) for n in (4, 8)]}


@pytest.mark.slow
def test_it_is_told_which_heads_and_how_much_after_the_cut_were_measured():
    shape = {"heads": 4, "width": 16, "layers": 2}
    some = measured(model(**shape), settings=Settings(channels=1), lengths=[4, 8])
    assert some.finding.endswith(
        "\nRead: 5 pieces of one text, with 6 tokens behind the cut in each. Measured: 2 of 8 heads or channels."
    )
    assert [row[1] for row in some.page().tables[0].rows] == ["2 of 8", "1 of 4", "1 of 4"]
    assert measured(model(), lengths=[4, 8]).finding.endswith("Measured: all heads or channels.")
    assert {row[1] for row in plain().page().tables[1].rows} == {"all", "head 0", "head 1"}


@pytest.mark.slow
def test_a_headline_on_chosen_layers_does_not_speak_of_the_whole_model():
    found = measured(model(layers=3), settings=Settings(layers=[1, "layers.2.mixer"]), lengths=[4, 8])
    named = "layers.1.mixer, layers.2.mixer"
    assert found.finding.startswith(f"Entropy-ESS of {named} in LanguageModel goes from ")
    assert found.finding.endswith(f"Measured: all heads or channels of {named}.")


def test_layers_that_are_not_there_are_refused_once():
    told = []
    with pytest.raises(InputError, match=r"layers must be the model's mixers .*, got 9. Its mixers are ") as raised:
        ss.lab.length(
            model(), TEXT, lengths=[4, 8, 16], settings=Settings(layers=9, future=6),
            on_progress=lambda *what: told.append(what),
        )  # fmt: skip
    assert str(raised.value).count("got 9") == 1
    assert told == []


def test_a_future_that_the_texts_have_no_room_for_is_told():
    assert measured(model(), lengths=[4, 80], future=None).notes == (
        "Only 70 tokens behind the cut, not 80: the longest text has room for no more.",
    )
    assert measured(model(), future=None).notes == ()


def test_exponents_are_the_slopes_of_each_excerpt():
    lengths, generator = np.array([16, 32, 64, 128]), np.random.default_rng(0)
    values = 3 * lengths[:, None] ** 0.5 * np.exp(0.02 * generator.standard_normal((4, 5)))
    slopes = [np.polyfit(np.log(lengths), np.log(values[:, row]), 1)[0] for row in range(5)]
    whole = growth(values).exponent().whole
    assert whole.value == pytest.approx(np.mean(slopes))
    low, high = stats.t.interval(0.95, 4, np.mean(slopes), stats.sem(slopes))
    assert (whole.low, whole.high) == pytest.approx((low, high))


def test_a_curve_that_flattens_levels_off_though_it_grew():
    lengths, jitter = np.array([16.0, 32, 64, 128]), np.array([0.98, 0.99, 1.0, 1.01, 1.02])
    flat = growth(np.minimum(lengths, 64)[:, None] * jitter).exponent()
    assert flat.course == "levels off"
    assert flat.whole.low > 0.5
    assert growth(lengths[:, None] ** 0.4 * jitter).exponent().course == "grows"
    steps = growth(np.array([[1.0] * 5, [2.0] * 5, [4.0] * 5, [4.0, 8.0, 4.0, 8.0, 6.0]])).exponent()
    assert steps.course == "not clear"


def test_few_excerpts_have_no_interval_and_then_no_course():
    found = growth(np.array([16.0, 32, 64])[:, None] ** 0.4 * np.array([0.99, 1, 1.01, 1.02]), lengths=(16, 32, 64))
    one = found.exponent()
    assert one.whole.value == pytest.approx(0.4)
    assert np.isnan([one.whole.low, one.whole.high]).all()
    assert (one.course, one.shape) == ("not clear", "not clear")
    table = found.page().tables[0]
    assert "clear" not in str(table.rows)
    assert not any(word in table.caption for word in ("clear", "exponent", "by Student"))


def test_only_exponents_that_are_there_have_columns_and_are_explained():
    def shown(*lengths, trained=None):
        table = growth(np.sqrt(lengths)[:, None] * JITTER, lengths, trained).page().tables[0]
        return [one for one in ("exponent", "last two lengths") if one in table.headings], table.caption

    headings, caption = shown(4, 8, trained=4)
    assert headings == []
    assert "exponent" not in caption
    headings, caption = shown(4, 8, 16, trained=8)
    assert headings == ["last two lengths"]
    assert "n^" not in caption
    headings, caption = shown(4, 8, 16)
    assert headings == ["exponent", "last two lengths"]
    assert "n^" in caption


@pytest.mark.slow
def test_by_default_the_future_is_as_long_as_the_longest_context_that_is_fitted_or_of_256_tokens():
    short = measured(model(), future=None)
    assert short.future == 16
    assert measured(model(positions=400), lengths=[4, 8, 100], future=None, trained_length=10).future == 8
    # 150 tokens have no room for 100 behind 100.
    found = measured(model(), lengths=[4, 80], future=None)
    assert found.future == 70
    text = (torch.arange(600) * 7 % 50)[None]
    assert ss.lab.length(model(), text, lengths=[4, 300], excerpts=1, on_progress=lambda *_: None).future == 256
    assert "with 70 tokens behind the cut in each" in found.finding


def test_what_heads_carry_together_is_no_head():
    llama = attention_model("llama", num_hidden_layers=1)
    found = ss.lab.length(llama, list((TEXT % 40).view(5, 30)), lengths=[4, 8], on_progress=lambda *_: None)
    heads = [one for one in found.exponents if one.unit]
    alone = [one for one in heads if "joint" not in one.layer]
    assert 0 < len(alone) < len(heads)
    assert f" Of {len(alone)} measured heads or channels, over the last two lengths: " in found.finding


@pytest.mark.parametrize(("share", "shape"), [(0.9, "near its ceiling"), (0.5, "power law")])
def test_no_exponent_is_told_of_what_comes_near_its_ceiling(share, shape):
    found = growth(share * np.sqrt(LENGTHS)[:, None] * np.ones(5), ceiling=float(np.sqrt(128)))
    assert {one.shape for one in found.exponents} == {shape}
    assert (", near the most that is possible." in found.finding) == (share > 0.8)


def test_no_exponent_is_fitted_across_the_trained_length():
    values = np.array([16.0, 32, 64, 7])[:, None] * np.array([0.99, 1.01])
    found = growth(values, trained=64)
    assert found.trained == (16, 32, 64)
    assert found.exponent().whole.value == pytest.approx(1)
    assert "after 64" in found.finding
    assert "beyond the 8 tokens" in growth(values, trained=8).finding
    assert np.isnan(growth(values, trained=8).exponent().whole.value)


@pytest.mark.parametrize("trained", [None, 8, 2048])
def test_one_length_alone_does_not_grow(trained):
    found = growth(np.full((1, 5), 2.5), lengths=(16,), trained=trained, ceiling=16)
    assert found.finding.startswith(
        "Entropy-ESS of one is 2.5 of at most 16 after 16 tokens, the only length that was measured.\nRead: 5 texts, "
    )


def test_the_trained_length_is_what_the_model_tells():
    assert measured("gla", lengths=[4, 8], excerpts=1).trained_length == 512
    assert measured(model(positions=22)).trained_length == 22
    assert plain().trained_length is None
    # As XLNet says that there is no longest context.
    without = nn.Module()
    without.config = SimpleNamespace(max_position_embeddings=-1)
    assert known_trained_length(without, None) is None


def test_the_trained_length_of_a_folder_is_what_was_written_beside_its_weights(tmp_path):
    # Neither the name of the folder nor a record that says nothing is one.
    folder = tmp_path / "gla"
    save_checkpoint(model("la"), folder)
    records = (None, '{"data": {"length": 12}}', '{"data": {"length": -1}}', '{"data": 3}')
    for record, trained in zip(records, (None, 12, None, None), strict=True):
        if record is not None:
            (folder / "training.json").write_text(record, encoding="utf-8")
        found = measured(str(folder), tokenizer=ss.lab.zoo.tokenizer(), lengths=[4, 8], excerpts=1)
        assert found.trained_length == trained


def test_lengths_that_do_not_fit_are_named_and_the_others_measured():
    found = measured(model(positions=20), lengths=[4, 8, 16, 900])
    assert found.places == (4, 8)
    assert str(found.skipped["900"]) == "The longest text has room for 144 tokens."
    assert "\nNot measured: 900: The longest text has room for 144 tokens.\n" in repr(found)
    assert "at most 20 tokens, the positional embedding" in str(found.skipped["16"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [8]}, "at least two different numbers"),
        ({"lengths": [8, 2.5]}, "at least two different numbers"),
        ({"lengths": [8, 200]}, "the longest has 150 tokens, got 8, 200. Give a text of 2"),
        ({"future": 0}, "future must be"),
        ({"settings": Settings(positions=3)}, "positions must be left out for length, where it does not act, got 3"),
        ({"excerpts": 0}, "excerpts must be"),
        ({"trained_length": -1}, "trained_length must be a whole number of at least 1, got -1"),
        ({"trained_length": 0}, "trained_length must be a whole number of at least 1, got 0"),
        ({"trained_length": "x"}, "trained_length must be a whole number of at least 1, got 'x'"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        measured(model(), **options)


def test_finished_lengths_are_kept(tmp_path):
    told = []
    options = {"lengths": [4, 8], "settings": Settings(future=6), "output": tmp_path / "points"}
    options["on_progress"] = lambda done, total, what, left: told.append(what)
    first, again = (ss.lab.length(model(), TEXT, **options) for _ in range(2))
    assert told == ["4, 1 of 2", "8, 2 of 2", "4 kept, 1 of 2", "8 kept, 2 of 2"]
    assert (again.values() == first.values()).all()


def test_the_page_draws_what_lies_beyond_apart(tmp_path):
    found = measured(model(), trained_length=8)
    page = found.to_html(tmp_path / "length.html").read_text(encoding="utf-8")
    assert all(line in page for line in found.finding.splitlines())
    assert "trained on sequences of 8 tokens; longer contexts are orange" in page
    assert set(found.to_dataframe()["length"]) == {4, 8, 16}


def test_what_is_not_known_is_a_dash():
    assert f"{growth(np.array([[1.0], [2.0]]), lengths=(16, 32), trained=8).exponent().last:+.2f}" == "–"
    assert f"{growth(np.array([[1.0], [2.0]]), lengths=(16, 32)).exponent().last:+.2f}" == "+1.00"


def test_contexts_begin_as_the_tokenizer_begins_a_text():
    whole = LengthWork(model(), (torch.tensor([0, *range(10, 20)]),), 3, Settings(), begun=True)
    assert [ids.tolist() for ids in whole.inputs(8)] == [[0, *range(10, 20)]]
    assert [ids.tolist() for ids in whole.inputs(4)] == [[0, *range(14, 20)]]
    seen, read = [], model()
    read.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].tolist()))
    ss.lab.length(
        *(read, torch.arange(1, 60)), tokenizer=tiny_tokenizer(bos=True), lengths=[4, 8], excerpts=2,
        settings=Settings(future=4), on_progress=lambda *_: None,
    )  # fmt: skip
    # Runs over other futures are seen too.
    texts = [others for first, *others in seen if first == 0 and others == list(range(others[0], others[-1] + 1))]
    # A piece takes eleven of 59 tokens, and the first and third are read; shorter contexts end where the longest does.
    assert {(len(text), text[-1]) for text in texts} == {(length, end) for length in (7, 11) for end in (11, 33)}
    assert {first for first, *_ in seen} == {0}


class Ahead(nn.Module):
    """Softmax attention that attends to all positions of texts longer than `longest`."""

    def __init__(self, longest):
        super().__init__()
        self.longest = longest

    def forward(self, hidden):
        split = hidden.unflatten(-1, (2, 4)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(
            split, split, split, is_causal=len(hidden[0]) <= self.longest
        )
        return hidden + mixed.transpose(1, 2).flatten(2)


def test_a_layer_that_is_refused_at_some_lengths_is_left_out_and_the_others_keep_their_numbers():
    class Model(nn.Module):
        def __init__(self, *longest):
            super().__init__()
            self.embedding, self.layers = nn.Embedding(64, 8), nn.ModuleList(map(Ahead, longest))

        def forward(self, input_ids):
            hidden = self.embedding(input_ids)
            for layer in self.layers:
                hidden = layer(hidden)
            return hidden

    def of(*longest):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return measured(Model(*longest), lengths=[8, 24], future=8)

    found, whole = of(900, 24, 900), of(900, 900, 900)
    assert found.places == (8, 24)
    assert found.layers == ("layers.0", "layers.2")
    assert found.finding.endswith("Measured: all heads or channels of 2 of 3 layers.")
    assert "\nNot measured: layers.1 at 24: " in repr(found)
    assert whole.finding.endswith("Measured: all heads or channels.")
    (name,) = found.skipped
    assert name == "layers.1 at 24"
    assert "Mixer layers.1 must be causal" in str(found.skipped[name])
    assert whole.layers == ("layers.0", "layers.1", "layers.2")
    assert found.means("layers.2")[:1] == pytest.approx(whole.means("layers.2")[:1])


def test_what_heads_carry_together_goes_with_their_layer():
    llama = attention_model("llama", num_hidden_layers=3)

    def look_ahead(module, args, kwargs):
        length = kwargs["hidden_states"].shape[1]
        return (args, kwargs | {"attention_mask": torch.zeros(1, 1, length, length)}) if length == 10 else None

    llama.model.layers[1].self_attn.register_forward_pre_hook(look_ahead, with_kwargs=True)
    settings = Settings(future=6)
    found = ss.lab.length(llama, TEXT % 40, lengths=[4, 8, 16], settings=settings, on_progress=lambda *_: None)
    assert found.places == (4, 8, 16)
    names = [f"model.layers.{layer}.self_attn" for layer in (0, 2)]
    assert found.layers == (names[0], f"{names[0]}, joint", names[1], f"{names[1]}, joint")
    assert list(found.skipped) == ["model.layers.1.self_attn at 4"]


class Averaging(nn.Module):
    """The mean of all tokens so far, with a T, before a recurrent layer, which has none."""

    def __init__(self):
        super().__init__()
        self.value = nn.Linear(6, 6)

    def forward(self, hidden):
        return self.value(hidden).cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


def test_the_average_is_that_of_a_comparison_without_layers_that_have_no_t():
    class Hybrid(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.average = nn.Embedding(64, 6), Averaging()
            self.recurrent = nn.GRU(6, 6, batch_first=True)

        def forward(self, tokens):
            return self.recurrent(self.average(self.embedding(tokens)))[0]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        hybrid = Hybrid()
    found = measured(hybrid, lengths=[4, 8], excerpts=1, future=8)
    assert found.means("recurrent").min() > 2 > found.means("average").max()
    profile = ss.profile(hybrid, TEXT[:16], settings=Settings(positions=[8], future=8))
    compared = ss.compare([profile]).models[0]["average_entropy"]
    assert found.means()[-1] == pytest.approx(compared)
    assert found.means().tolist() == pytest.approx(found.means("average").tolist())
    note = "Left out of the average, as it has no T and is measured by its derivative: recurrent."
    assert found.notes == (note,)
    assert note in repr(found)
