"""Trends hold what profiles of their points hold; what is wrong at a point is named while the rest is measured."""

from functools import partial

import numpy as np
import pytest
import torch
import vl_convert
from oracles.draws import language_model
from oracles.exact import effective_rank
from oracles.pretrained import tiny_tokenizer
from scipy import stats
from torch import nn

import statesize as ss
from statesize.codes import Code
from statesize.errors import FileError, InputError
from statesize.lab.mixers import save_checkpoint
from statesize.lab.trends.length import known_trained_length
from statesize.lab.trends.series import find_checkpoints

IDS = [list(range(first, first + 24)) for first in (2, 12, 30, 40)] + [[7, 9] * 12]
TEXT = torch.randint(2, 64, (150,), generator=torch.Generator().manual_seed(3))
STEPS = (0, 100, 1000)
LAYER = "layers.0.mixer"


model = partial(language_model, vocabulary_size=64, width=8, heads=2, layers=1, key_size=4)


@pytest.fixture
def run(tmp_path):
    """A training's folder with three checkpoints and its best weights."""
    for step in STEPS:
        save_checkpoint(model(seed=step), tmp_path / "run" / f"step-{step}")
    save_checkpoint(model(seed=5), tmp_path / "run" / "best")
    return tmp_path / "run"


def lengths(given, *contexts, future=6, text=TEXT, **options):
    return ss.lab.length(given, text, lengths=contexts or (4, 8, 16), settings=ss.Settings(future=future), **options)


def test_a_series_holds_the_means_of_profiles_and_paired_changes(run):
    found = ss.lab.series(run, IDS)
    assert found.rows.columns.tolist() == [
        *("point", "place", "layer", "kind", "piece", "text"),
        *("entropy", "relative_count", "norm", "ceiling"),
    ]
    expected = []
    for step in STEPS:
        node = ss.profile(model(seed=step), IDS).mixer(0)
        means = node[["entropy", "ceiling", "norm"]].sel(position=node["position"] > 0).mean(["head", "position"])
        expected.append(means.to_array().values.T)
    told = np.stack([found.values(LAYER, metric) for metric in ("entropy", "ceiling", "norm")], -1)
    assert told == pytest.approx(np.array(expected), rel=1e-5)
    # The only layer is the average.
    assert found.values() == pytest.approx(found.values(LAYER))
    change, interval = found.analysis[LAYER], stats.ttest_rel(told[2, :, 0], told[0, :, 0]).confidence_interval(0.95)
    assert change.value == pytest.approx(told[2, :, 0].mean() - told[0, :, 0].mean())
    assert (change.low, change.high) == pytest.approx(tuple(interval))
    assert found.to_dict()["steps"] == [{"name": f"step-{step}", "step": step} for step in STEPS]
    assert found.left_out == {}


@pytest.mark.parametrize("mixer", ["sa", "gla"])
def test_each_length_is_the_block_of_the_same_future_after_more_past(mixer):
    found = lengths(model(mixer), excerpts=8)
    # 150 tokens hold six pieces of 16 + 6.
    assert found.values(LAYER).shape == (3, 6)
    for row, context in enumerate((4, 8, 16)):
        for piece in range(6):
            ids = TEXT[22 * piece + 16 - context : 22 * piece + 22]
            (captured,) = ss.capture(model(mixer), ids[None])
            blocks = captured.operator.to(dtype=torch.float64).dense()[0, :, context : context + 6, :context]
            assert found.values(LAYER)[row, piece] == pytest.approx(
                effective_rank(np.linalg.svd(blocks, compute_uv=False)).mean(), rel=1e-4
            )
    assert found.values(LAYER, "ceiling")[:, 0].tolist() == ([4, 6, 6] if mixer == "sa" else [4, 4, 4])


def test_no_exponent_is_fitted_across_the_trained_length():
    texts = list(TEXT.view(5, 30))
    inside, across = (lengths(model("sa"), 2, 4, 8, 16, text=texts, trained_length=n) for n in (8, None))
    values = inside.values()[:3]
    slope = np.polyfit(np.log([2, 4, 8]), np.log(values), 1)[0].mean()
    assert inside.analysis["average"].fitted.value == pytest.approx(slope)
    assert across.analysis["average"].fitted.value != pytest.approx(slope)
    assert f"after 2 tokens to {values[-1].mean():.1f} after 8;" in inside.headline
    assert lengths(model("sa"), 4, 8, 16, text=texts, trained_length=2).analysis["average"].shape == "too few lengths"


def test_the_trained_length_is_what_the_model_or_its_training_says(tmp_path):
    assert known_trained_length(model(positions=22), None) == 22
    assert known_trained_length(model(), "gla") == 512
    save_checkpoint(model(), tmp_path / "model")
    for record, known in (('{"data": {"length": 12}}', 12), ("{}", None)):
        (tmp_path / "model" / "training.json").write_text(record, encoding="utf-8")
        assert known_trained_length(model(), str(tmp_path / "model")) == known
    assert ss.lab.length("gla", TEXT, lengths=[4, 60], excerpts=1).facts["future"] == 60


def test_shorter_contexts_begin_as_the_tokenizer_begins_a_text(tmp_path):
    options = {"tokenizer": tiny_tokenizer(bos=True), "excerpts": 2, "output": tmp_path}
    lengths(model(), 4, 8, text=torch.arange(1, 60), future=4, **options)
    for context in (4, 8):
        kept = ss.Profile.load(tmp_path / str(context)).tokens["token_ids"].values
        assert kept.shape == (2, context + 4)
        assert kept[:, 0].tolist() == [0, 0]
        # Contexts end where the longest does.
        assert kept[:, -1].tolist() == [11, 33]


@pytest.mark.parametrize("kind", ["series", "length"])
def test_points_are_profiles_that_the_same_call_takes_up(kind, run, tmp_path):
    measured, options = [], {"output": tmp_path / "kept"}

    def again():
        told = options | {"on_progress": measured.append}
        return ss.lab.series(run, IDS[:1], **told) if kind == "series" else lengths(model(), **told)

    first, names = again(), {"series": [f"step-{step}" for step in STEPS], "length": ["4", "8", "16"]}[kind]
    assert [ss.Profile.load(tmp_path / "kept" / name).mixers for name in names] == [(LAYER,)] * 3
    measured.clear()
    assert again().rows.equals(first.rows)
    assert measured == []


def test_a_point_that_cannot_be_measured_is_named(run):
    (run / "step-100" / "model.safetensors").write_bytes(b"nothing")
    save_checkpoint(model(vocabulary_size=40), run / "step-400")
    found = ss.lab.series(run, IDS[3:4])
    assert found.rows["point"].unique().tolist() == ["step-0", "step-1000"]
    assert found.left_out.keys() == {"step-100", "step-400", "intervals"}
    assert found.left_out["intervals"].code is Code.FEW_TEXTS
    assert any(line.startswith("step-100: ") and "model.safetensors" in line for line in found.legend)
    assert lengths(model(positions=20)).left_out["16"].code is Code.NOT_MEASURED
    for step in (0, 1000):
        (run / f"step-{step}" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileError, match="step-0"):
        ss.lab.series([run / "step-0", run / "step-1000"], IDS)


class Averaging(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.value = nn.Linear(8, width)

    def forward(self, hidden):
        return self.value(hidden).cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]


class Attention(nn.Module):
    """Softmax attention, which sees the future in texts of some lengths."""

    def __init__(self, *ahead):
        super().__init__()
        self.project, self.ahead = nn.Linear(8, 24), ahead

    def forward(self, hidden):
        query, key, value = (part[:, None] for part in self.project(hidden).chunk(3, -1))
        causal = hidden.shape[1] not in self.ahead
        return hidden + nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)[:, 0]


def test_the_average_weights_layers_by_channels_and_leaves_out_those_that_a_point_lacks():
    def found(*layers):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return lengths(nn.Sequential(nn.Embedding(64, 8), *(layer() for layer in layers)), 8, 24, future=8)

    by_channels = found(lambda: Averaging(8), lambda: Averaging(16))
    first, second = (by_channels.values(layer) for layer in ("1", "2"))
    assert by_channels.values() == pytest.approx((8 * first + 16 * second) / 24)
    whole, some = found(*[Attention] * 3), found(Attention, lambda: Attention(32), Attention)
    assert (whole.layers, some.layers) == (["average", "1", "2", "3"], ["average", "1", "3"])
    assert some.left_out["2"].code is Code.LOOKS_AHEAD
    assert some.values("1") == pytest.approx(whole.values("1"))
    assert some.values() == pytest.approx((some.values("1") + some.values("3")) / 2)
    with pytest.raises(InputError):
        found(lambda: Attention(16), lambda: Attention(32))


def test_checkpoints_are_found_with_their_steps(tmp_path):
    for step in (1000, 500, 20):
        save_checkpoint(model(), tmp_path / f"checkpoint-{step}")
    found = find_checkpoints(tmp_path)
    assert [(one.name, one.step) for one in found] == [(f"checkpoint-{step}", step) for step in (20, 500, 1000)]
    named = find_checkpoints("owner/model", ["stage1-step30-tokens5B", "main"])
    assert [(one.model, one.name, one.step) for one in named] == [
        ("owner/model", "main", None),
        ("owner/model", "stage1-step30-tokens5B", 30),
    ]


def test_the_page_draws_each_layer_below_the_ceiling_and_the_table_has_it(run, tmp_path):
    series, length = ss.lab.series(run, IDS), lengths(model(layers=2))
    for found, axis, last in ((series, "Step", "change"), (length, "Length", "exponent")):
        assert len(found.headline.split()) <= 30
        assert found.headline in found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
        svg = vl_convert.vegalite_to_svg(found.chart().to_dict())
        assert f">{axis}<" in svg
        assert svg.count("<path") > len(found.rows["point"].unique()) * len(found.layers)
        table = found.table()
        assert [row[0] for row in table.rows] == found.layers
        assert (table.headings[-2:], table.rows[0][-1]) == (["ceiling", last], str(found.analysis["average"]))
        assert [row[2:5] for row in table.rows] == [
            [*found.values(layer).mean(1)[[0, -1]], found.values(layer, "ceiling")[-1].mean()] for layer in found.layers
        ]
