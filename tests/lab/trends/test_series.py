"""A series finds what profiles of its checkpoints find; what is wrong is named while the rest is measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import statesize as ss
from statesize.codes import Code, Note
from statesize.errors import FileError, InputError, StatesizeError
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint
from statesize.lab.tasks.text import train_tokenizer
from statesize.lab.trends.checkpoints import Checkpoint, find_checkpoints, read_log
from statesize.lab.trends.points import MEASURED, Point, alike
from statesize.models.load import load_model
from statesize.parallel.ray import RayCluster

IDS = [list(range(first, first + 24)) for first in (2, 12, 30, 40)] + [[7, 9] * 12]
SHAPE = {"vocabulary_size": 64, "width": 8, "heads": 2, "layers": 1, "key_size": 4}


def write(folder, seed, mixer="gla", **shape):
    model = LanguageModel(ModelConfig(mixer=mixer, **(SHAPE | shape)), torch.Generator().manual_seed(seed))
    save_checkpoint(model, folder)
    return model


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A training's folder with three checkpoints, its best weights and a log."""
    folder = tmp_path_factory.mktemp("training")
    for step in (0, 100, 1000):
        write(folder / f"step-{step}", seed=step)
    write(folder / "best", seed=5)
    steps = range(0, 1001, 50)
    rows = [{"step": step, "loss": 4 - step / 500, "held_out": {"accuracy": step / 2000}} for step in steps]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 12', encoding="utf-8")
    return folder


@pytest.fixture
def run(training, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(training, tmp_path / "run")


def silent(*_):
    """No bar."""


def measured(checkpoints, ids=IDS, **options):
    return ss.lab.series(checkpoints, ids, on_progress=silent, **options)


@pytest.fixture(scope="module")
def found(training):
    return measured(training)


def test_values_are_those_of_profiles_and_intervals_are_paired_over_documents(found):
    assert found.names == ("step-0", "step-100", "step-1000")
    assert found.places == (0, 100, 1000)
    rows = []
    for step in (0, 100, 1000):
        model = LanguageModel(ModelConfig(mixer="gla", **SHAPE), torch.Generator().manual_seed(step))
        frame = ss.profile(model, IDS, on_progress=lambda progress: None).to_dataframe()
        frame = frame[(frame["metric"] == "entropy") & (frame["layer"] == "layers.0.mixer") & (frame["position"] > 0)]
        rows.append(frame.groupby("sequence")["ess"].mean().to_numpy())
    assert found.values("layers.0.mixer") == pytest.approx(np.array(rows), rel=1e-5)
    change = found.change("layers.0.mixer").difference
    by_scipy = stats.ttest_rel(rows[2], rows[0])
    assert change.value == pytest.approx(np.mean(rows[2] - rows[0]), rel=1e-5)
    assert (change.low, change.high) == pytest.approx(tuple(by_scipy.confidence_interval(0.95)), rel=1e-4)


@pytest.mark.slow
def test_no_interval_of_fewer_than_five_documents(run):
    found = ss.lab.series(run, IDS[:4], on_progress=silent)
    assert np.isnan(found.change().difference.low)
    assert found.to_dict()["layers"][0]["change"]["interval"] is None
    assert "[" not in found.finding
    assert "There are no intervals, which need at least 5 texts." in found.page().tables[0].caption


def test_the_largest_change_is_corrected_for_those_it_was_chosen_from(found):
    steps = np.diff(found.means())
    largest = found.largest_change()
    before = 0 if abs(steps[0]) > abs(steps[1]) else 1
    assert (largest.before, largest.after) == found.names[before : before + 2]
    values = found.values()
    alone = stats.ttest_rel(values[before + 1], values[before]).confidence_interval(1 - 0.05 / 2)
    assert (largest.difference.low, largest.difference.high) == pytest.approx(tuple(alone), rel=1e-6)
    first, last = found.means()[[0, -1]]
    assert found.finding.startswith(
        f"Entropy-ESS, averaged over cuts, goes from {first:.1f} at step-0 to {last:.1f} at step-1000: "
    )
    assert repr(found).startswith(found.finding)


def test_the_log_beside_the_checkpoints_is_read_as_far_as_it_is_whole(found):
    assert found.log["loss"][-1] == (1000, 2.0)
    assert found.log["held out accuracy"][-1] == (1000, 0.5)


def test_a_log_that_cannot_be_read_is_named_and_the_rest_is_measured(run):
    (run / "log.jsonl").write_text("nothing\n", encoding="utf-8")
    found = measured(run, IDS[:1])
    assert len(found.names) == 3
    assert "log.jsonl must hold JSON objects" in found.notes[0]


def test_the_trainer_state_of_transformers_is_a_log(tmp_path):
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": [{"step": 10, "loss": 2.5}, {"step": 10, "eval_loss": 2.25}]}))
    assert read_log(path) == {"loss": [(10, 2.5)], "eval loss": [(10, 2.25)]}
    path.write_text("[]")
    with pytest.raises(FileError, match="cannot be read"):
        read_log(path)


def test_finished_checkpoints_are_kept_until_they_change(run, tmp_path):
    kept, told = tmp_path / "points", []

    def tell(done, total, what, left):
        told.append(what)

    first = ss.lab.series(run, IDS[:1], output=kept, on_progress=tell)
    assert told == ["step-0, 1 of 3", "step-100, 2 of 3", "step-1000, 3 of 3"]
    # Damage is noticed, and so are other weights.
    damaged = next(kept.glob("step-100-*"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    write(run / "step-1000", seed=77)
    told.clear()
    again = ss.lab.series(run, IDS[:1], output=kept, on_progress=tell)
    assert told == ["step-0 kept, 1 of 3", "step-100, 2 of 3", "step-1000, 3 of 3"]
    assert (again.values()[:2] == first.values()[:2]).all()
    assert (again.values()[2] != first.values()[2]).any()
    # Other positions are another measurement.
    told.clear()
    ss.lab.series(run, IDS[:1], output=kept, settings=ss.Settings(positions=[3]), on_progress=tell)
    assert not any("kept" in what for what in told)


def test_a_checkpoint_that_is_a_file_is_known_by_its_content(run, tmp_path, monkeypatch):
    def load(name, **options):
        return load_model(Path(name).read_text(encoding="utf-8"), **options)

    monkeypatch.setattr(ss.lab.trends.series, "load_model", load)
    files, kept, told = [tmp_path / "a.gguf", tmp_path / "b.gguf"], tmp_path / "points", []
    for file, step in zip(files, ("step-0", "step-100"), strict=True):
        file.write_text(str(run / step), encoding="utf-8")
    first = measured(files, IDS[:1], output=kept)
    files[0].write_text(str(run / "step-100"), encoding="utf-8")
    again = ss.lab.series(files, IDS[:1], output=kept, on_progress=lambda *what: told.append(what[2]))
    assert told == ["a.gguf, 1 of 2", "b.gguf kept, 2 of 2"]
    assert first.values()[0] != again.values()[0]
    assert again.values()[0] == again.values()[1]


def test_a_model_of_the_hub_is_known_by_the_commit_of_main(tmp_path, monkeypatch):
    hub, kept, told = tmp_path / "hub", tmp_path / "points", []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(ss.lab.trends.series, "load_model", lambda name, **options: load_model(seeds[name], **options))

    def publish(name, commit):
        folder = hub / f"models--org--{name}"
        write(folder / "snapshots" / commit, seed=int(commit[0]))
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        return str(folder / "snapshots" / commit)

    seeds = {f"org/{name}": publish(name, commit * 40) for name, commit in (("a", "1"), ("b", "2"))}
    first = measured(list(seeds), IDS[:1], output=kept)
    seeds["org/b"] = publish("b", "3" * 40)
    again = ss.lab.series(list(seeds), IDS[:1], output=kept, on_progress=lambda *what: told.append(what[2]))
    assert told == ["a kept, 1 of 2", "b, 2 of 2"]
    assert first.values()[1] != again.values()[1]


def test_a_checkpoint_that_is_written_while_it_is_measured_is_left_out_and_not_kept(run, tmp_path, monkeypatch):
    kept, measure, weights = tmp_path / "points", Point.measured, []

    def overwritten(model, *rest):
        write(run / "step-100", seed=len(weights))
        weights.append(model)
        return measure(model, *rest)

    monkeypatch.setattr(Point, "measured", overwritten)
    found = measured(run, IDS[:1], output=kept)
    assert found.names == ("step-0", "step-1000")
    assert str(found.skipped["step-100"]) == "Its files changed while it was measured. Measure it again."
    monkeypatch.undo()
    again = measured(run, IDS[:1], output=kept)
    assert again.skipped == {}
    assert (again.values() == measured(run, IDS[:1]).values()).all()


@pytest.mark.slow
def test_another_process_finds_the_same(training, found):
    spread = measured(training, crew=RayCluster(processes=1))
    assert spread.names == found.names
    assert spread.values("layers.0.mixer") == pytest.approx(found.values("layers.0.mixer"), rel=1e-6)


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(FileError, match="new folder or hold the parts"):
        measured(run, output=tmp_path / "mine")


def test_other_shapes_and_damaged_folders_are_named_and_the_rest_is_measured(run):
    write(run / "step-200", seed=1, heads=1)
    shutil.copytree(run / "step-0", run / "step-300")
    (run / "step-300" / "model.safetensors").write_bytes(b"nothing")
    write(run / "step-400", seed=1, vocabulary_size=40)
    found = measured(run, IDS[3:4])
    assert found.names == ("step-0", "step-100", "step-1000")
    assert str(found.skipped["step-200"]) == "Its layers, heads or channels are others than those of step-0."
    assert "model.safetensors" in str(found.skipped["step-300"])
    assert str(found.skipped["step-400"]) == "It has 40 tokens, and the texts hold the id 63."


class Attention(nn.Module):
    """Softmax attention, which sees the future in texts of some lengths."""

    def __init__(self, ahead):
        super().__init__()
        self.project, self.ahead = nn.Linear(8, 24), ahead

    def forward(self, hidden):
        query, key, value = (part[:, None] for part in self.project(hidden).chunk(3, -1))
        causal = hidden.shape[1] not in self.ahead
        return hidden + nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)[:, 0]


def sometimes_ahead(monkeypatch, *each):
    """A series of models with a layer more on either side of one that is not causal in texts of some lengths."""
    models = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for step, ahead in enumerate(each):
            layers = nn.ModuleList(map(Attention, ((), ahead, ())))
            models[f"step-{step}"] = nn.Sequential(nn.Embedding(64, 8), *layers)
        texts = [torch.randint(64, (length,)) for length in (24, 20, 28, 30, 26, 22, 32)]
    monkeypatch.setattr(
        ss.lab.trends.series, "load_model", lambda name, **_: SimpleNamespace(model=models[name], tokenizer=None)
    )
    return measured(list(models), texts)


def test_means_are_over_the_texts_that_all_checkpoints_have(monkeypatch):
    found = sometimes_ahead(monkeypatch, (24,), (20,), ())
    assert found.names == ("step-0", "step-1", "step-2")
    assert found.layers == ("1", "2", "3")
    assert found.skipped == {}
    notes = [note.partition("; ")[0] for note in found.notes]
    assert notes == [f"2 at step-{step}: Measured in 6 of 7 sequences" for step in (0, 1)]
    assert "\n2 notes, in .notes: 2 at step-0: Measured in 6 of 7 sequences; " in repr(found)
    for layer, missing in (("average", 2), ("1", 0), ("2", 2)):
        values = found.values(layer)
        assert np.isnan(values[0, 0]) == np.isnan(values[1, 1]) == (missing == 2)
        assert found.means(layer) == pytest.approx(values[:, missing:].mean(1))
        change, largest = found.change(layer), found.largest_change(layer)
        assert change.difference.value == pytest.approx(change.to_value - change.from_value)
        assert change.from_value == found.means(layer)[0]
        assert abs(largest.difference.value) == pytest.approx(np.abs(np.diff(found.means(layer))).max())
    assert " over 5 of 7 texts. The largest change" in found.finding
    caption = found.page().tables[0].caption
    assert (
        "by Student’s t over 5 texts. Means are over those texts that were measured at all checkpoints: 5–7 of 7."
        in caption
    )


def test_a_layer_without_a_text_that_all_checkpoints_have_is_left_out(monkeypatch):
    found = sometimes_ahead(monkeypatch, (24, 20, 28, 30), (26, 22, 32))
    assert found.layers == ("1", "3")
    assert [*found.skipped] == ["2"]
    assert str(found.skipped["2"]).startswith("It was measured in other texts at other points, so that its numbers")
    assert " over 7 texts." in found.finding
    assert found.about.endswith("Measured: all heads or channels of 2 of 3 layers.")


def test_layers_that_share_no_text_have_no_average(found):
    numbers = {metric: [1.0, np.nan] for metric in MEASURED}
    layers = [replace(found.points[0].mixers[0], name=name, of_layer=numbers) for name in "ab"]
    layers[1] = replace(layers[1], of_layer={metric: values[::-1] for metric, values in numbers.items()})
    point = Point(tuple(layers), {}, 0.0, 0.0)
    apart = replace(found, points=(point,) * 3)
    said = "There is no average over layers: no text was measured in all of them at all checkpoints."
    assert repr(apart).startswith(f"{said}\nnext: ")
    assert apart.means("a").tolist() == apart.means("b").tolist() == [1.0] * 3
    assert apart.to_dict()["layers"][0]["change"]["difference"] is None


def test_texts_that_are_too_short_for_a_position_do_not_count(run):
    found = measured(run, [*IDS, [5, 9, 3] * 3], settings=ss.Settings(positions=[12]))
    assert np.isnan(found.values()[:, -1]).all()
    assert " over 5 of 6 texts. " in found.finding
    assert "measured at all checkpoints: 5 of 6." in found.page().tables[0].caption


def test_a_layer_that_only_a_checkpoint_of_other_layers_lacks_is_kept(found):
    mixers = found.points[0].mixers
    points = {str(step): Point((*mixers, replace(mixers[0], name="other")), {}, 0.0, 0.0) for step in range(2)}
    points["2"] = Point((replace(mixers[0], units=("head 0",)),), {"other": "It is refused."}, 0.0, 0.0)
    left, skipped = alike(points)
    assert [mixer.name for point in left.values() for mixer in point.mixers] == ["layers.0.mixer", "other"] * 2
    assert skipped == {"2": Note(Code.NOT_COMPARABLE, "Its layers, heads or channels are others than those of 0.")}
    swapped, skipped = alike({"0": points["0"], "1": replace(points["1"], mixers=points["1"].mixers[::-1])})
    assert skipped == {}
    assert swapped["1"] == points["0"]


def test_checkpoints_that_overflow_are_named_wherever_they_stand(run):
    for step, others in ((0, ("step-100", "step-1000")), (1000, ("step-100",))):
        model = LanguageModel(ModelConfig(mixer="gla", **SHAPE), torch.Generator().manual_seed(step))
        with torch.no_grad():
            for weight in model.blocks.parameters():
                weight.fill_(1e30)
        save_checkpoint(model, run / f"step-{step}")
        found = measured(run, IDS[:1])
        assert found.names == others
        assert "must be finite" in str(found.skipped[f"step-{step}"])
        assert "\nNot measured: step-0" in repr(found)
    shutil.rmtree(run / "step-100")
    with pytest.raises(InputError, match=r"Nothing could be measured: step-0, step-1000: Mixer .* B must be finite"):
        measured(run, IDS[:1])


def test_positions_behind_all_texts_are_refused_before_a_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match="positions must be at most 23, because the longest sequence has 24 tokens"):
        measured([tmp_path / "a", tmp_path / "b"], settings=ss.Settings(positions=[24]))


def test_other_tokenizers_are_named(run):
    for step in (0, 100, 1000):
        write(run / f"step-{step}", seed=step, vocabulary_size=4096)
    ss.lab.zoo.tokenizer().save(str(run / "tokenizer.json"))
    train_tokenizer(["other words than those"] * 9).save(str(run / "step-100" / "tokenizer.json"))
    found = ss.lab.series(run, "to be or not to be, that is the question", on_progress=silent)
    assert list(found.skipped) == ["step-100"]
    assert "other tokens" in str(found.skipped["step-100"])


def test_where_nothing_can_be_measured_that_is_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(StatesizeError, match=r"Nothing could be measured: a: .*config\.json"):
        measured([tmp_path / "a", tmp_path / "b"])


def test_steps_come_from_names(tmp_path):
    names = ["checkpoint-1000", "checkpoint-500", "checkpoint-20"]
    for name in names:
        write(tmp_path / "out" / name, seed=0)
    folder = tmp_path / "out"
    for given in (folder, f"{folder}/checkpoint-*", [folder / name for name in names]):
        found = find_checkpoints(given)
        assert [(one.name, one.step) for one in found] == [
            ("checkpoint-20", 20),
            ("checkpoint-500", 500),
            ("checkpoint-1000", 1000),
        ]
    assert find_checkpoints("owner/model", ["step1000", "stage1-step30-tokens5B", "main"]) == (
        Checkpoint("step1000", "owner/model", "step1000", 1000),
        Checkpoint("stage1-step30-tokens5B", "owner/model", "stage1-step30-tokens5B", 30),
        Checkpoint("main", "owner/model", "main", None),
    )


@pytest.mark.parametrize(
    ("given", "revisions", "message"),
    [
        (["gla"], (), "at least 2 different ones, got 1"),
        (["nowhere"], (), r"got 1 \(nowhere, which is no folder here\)\. Give"),
        (["gla", "sa"], ("a", "b"), "one id of the Hugging Face hub"),
        (["nowhere/step-*"], (), "which fits none"),
    ],
)
def test_what_is_no_series_is_refused(given, revisions, message):
    with pytest.raises(InputError, match=message):
        find_checkpoints(given, revisions)


def test_a_point_is_kept_exactly():
    model = LanguageModel(ModelConfig(mixer="sa", **SHAPE), torch.Generator().manual_seed(0))
    point = Point.of(ss.profile(model, IDS, on_progress=lambda progress: None))
    assert Point.from_bytes(point.to_bytes()) == point
    with pytest.raises(ValueError, match="no point"):
        Point.from_bytes(b"{}")


def test_the_page_holds_the_finding_the_layers_and_what_was_left_out(run, tmp_path):
    write(run / "step-200", seed=1, heads=1)
    found = measured(run, IDS[:1])
    page = found.to_html(tmp_path / "series.html").read_text(encoding="utf-8")
    assert found.finding in page
    assert "layers.0.mixer" in page
    assert "step-200" in page
    assert "From the log: held out accuracy" in page
