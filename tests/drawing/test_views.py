"""Charts and figures of measurements and profiles: the numbers that they show, and what they refuse."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import vl_convert

import statesize
from statesize.drawing import measured
from statesize.drawing.curves import MOST_HEADS, evenly_spread, heads_and_mean
from statesize.drawing.figures import SIZE
from statesize.errors import InputError
from statesize.mixers import LanguageModel, ModelConfig
from statesize.results import charts as drawings

OUTPUTS = ("counts", "entropy", "values")


@pytest.fixture(scope="module")
def measurement():
    generator = torch.Generator().manual_seed(0)
    key, query = (torch.randn(2, 3, 12, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    decay = torch.full((2, 3, 12, 1), 0.9, dtype=torch.float64)
    return statesize.measure(statesize.Recurrence(decay, key, query), outputs=OUTPUTS)


@pytest.fixture(scope="module")
def profile():
    shape = ModelConfig(mixer="gla", vocabulary_size=32, width=16, heads=2, layers=2, key_size=4)
    texts = torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(1))
    model = LanguageModel(shape, torch.Generator().manual_seed(0))
    return statesize.profile(model, texts, relative_tolerances=[1e-3, 1e-1, 1e-2], name="gla")


def drawn(found):
    """The last line, which is the mean, as {x: y}."""
    line = found.curves[-1]
    assert line.role == "mean"
    return dict(zip(line.x.tolist(), line.y.tolist(), strict=True))


def test_positions_are_the_mean_over_entries_against_the_ceiling(measurement):
    found = measured.positions(measurement)
    assert list(drawn(found).values()) == pytest.approx(measurement.entropy.mean((0, 1)).tolist())
    assert found.curves[0].y.tolist() == measurement.ceiling.tolist()
    assert [line.role for line in found.curves].count("single heads") == 6


def test_spectrum_and_tolerance_are_of_the_singular_values(measurement):
    mean = drawn(measured.spectrum(measurement, position=5))
    assert mean[1.0] == pytest.approx(measurement.values[..., 4, 0].mean().item())
    assert max(mean) == 4.0
    curve = drawn(measured.tolerance(measurement))
    at = min(curve, key=lambda ratio: abs(ratio - 1e-2))
    ess = statesize.tolerance_ess(measurement.values, at, relative=True).double().mean().item()
    assert curve[at] == pytest.approx(ess)


def test_a_profile_s_curves_are_its_counts(profile):
    mixer = profile.mixer(profile.mixers[1])
    counts = mixer["relative_tolerance"].values
    curve = drawn(drawings.tolerance(profile, 1))
    assert list(curve) == [1e-3, 1e-2, 1e-1]
    assert list(curve.values()) == pytest.approx([counts[:, :, 1:, place].mean() for place in (0, 2, 1)])
    spectrum = drawings.spectrum(profile, 1, position=6).curves[-1]
    assert spectrum.x.tolist() == pytest.approx([counts[0, :, 6, place].mean() for place in (0, 2, 1)])
    assert spectrum.y.tolist() == [1e-3, 1e-2, 1e-1]
    positions = drawn(drawings.positions(profile, -1, 1))
    assert list(positions.values()) == pytest.approx(mixer["entropy"].values[1].mean(0).tolist())
    first = drawn(drawings.positions(profile, 1, 1, "relative_tolerance"))
    assert list(first.values()) == pytest.approx(counts[1, ..., 0].mean(0).tolist(), nan_ok=True)
    shares = [row["utilisation"] for row in profile.summary_rows()]
    assert list(drawn(drawings.layers(profile)).values()) == shares


@pytest.mark.parametrize("name", ["positions", "spectrum", "tolerance", "layers"])
@pytest.mark.parametrize("subject", ["measurement", "profile"])
def test_each_is_a_chart_and_a_figure_at_paper_size(name, subject, request, tmp_path):
    found = request.getfixturevalue(subject)
    if not hasattr(found.plot, name):
        pytest.skip("a measurement has no layers")
    assert vl_convert.vegalite_to_vega(getattr(found.plot, name)().to_dict())["marks"]
    figure = getattr(found.figure, name)()
    assert tuple(figure.get_size_inches()) == SIZE
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_not_there_is_refused(measurement, profile):
    without = statesize.measure(statesize.Dense(torch.eye(4)), outputs=("counts",), relative_tolerances=())
    for wanted, call in {
        "no singular values": without.plot.spectrum,
        "no entropy": without.plot.positions,
        "no relative_tolerance": lambda: without.figure.positions("relative_tolerance"),
        "position 99 was not measured": lambda: measurement.plot.spectrum(99),
        "metric is 'rank'": lambda: measurement.plot.positions("rank"),
        "layer is 7": lambda: profile.plot.tolerance(7),
        "sequence is 5": lambda: profile.figure.positions(0, 5),
        "position 44 was not measured": lambda: profile.plot.spectrum(0, 44),
    }.items():
        with pytest.raises(InputError, match=wanted):
            call()
    shape = ModelConfig(mixer="la", vocabulary_size=8, width=8, heads=1, layers=1)
    bare = statesize.profile(LanguageModel(shape), [[1, 2, 3, 4]], tolerances=())
    for drawn_as in (bare.plot, bare.figure):
        with pytest.raises(InputError, match="the profile has no tolerance; profile with one"):
            drawn_as.positions(metric="tolerance")
    with pytest.raises(InputError, match="1 relative tolerances and a curve needs 3"):
        statesize.profile(LanguageModel(shape), [[1, 2, 3, 4]]).plot.tolerance()


def test_many_heads_are_thinned_but_the_mean_is_of_all():
    heads = np.random.default_rng(0).random((500, 3))
    lines = heads_and_mean("channel", [1, 2, 3], heads)
    assert len(lines) == MOST_HEADS + 1
    assert lines[-1].y.tolist() == pytest.approx(heads.mean(0).tolist())
    assert (evenly_spread(1), evenly_spread(500)[0], evenly_spread(500)[-1]) == ([0], 0, 499)
    assert evenly_spread(40, 2).tolist() == [0, 39]


def test_libraries_that_draw_are_imported_when_something_is_drawn():
    code = (
        "import sys, torch, statesize\n"
        "found = statesize.measure(statesize.Dense(torch.ones(4, 4).tril()))\n"
        "found._repr_html_(), found.plot, found.figure\n"
        "assert not {'altair', 'matplotlib'} & set(sys.modules)\n"
        "found.figure.positions()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_without_matplotlib(measurement, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"matplotlib, which is not installed: pip install 'statesize\[figures\]'"):
        measurement.figure.positions()


def test_notebooks_show_what_there_is():
    operator = statesize.Dense(torch.eye(4))
    counted = statesize.measure(operator, outputs=("counts",))._repr_html_()
    assert "entropy" not in counted
    assert "<td>3, 1 … 3</td>" in counted
    nothing = statesize.measure(operator, positions=[])._repr_html_()
    assert "<td>none</td>" in nothing
    assert "ceiling" not in nothing


def test_notebooks_show_facts_and_escape_text(measurement):
    shown = measurement._repr_html_()
    assert "entropy-ESS, mean" in shown
    assert f"{measurement.entropy.mean():.4g}" in shown
    assert "<td>(2, 3)</td>" in shown
    assert "Recurrence operator" in statesize.Recurrence(*(torch.ones(6, 2) for _ in range(3)))._repr_html_()
    hostile = "<script>alert(1)</script>"
    conclusion = statesize_conclusion(hostile)
    assert "<script>" not in conclusion
    assert "&lt;script&gt;" in conclusion
    assert "[0.1, 0.2]" in conclusion


def statesize_conclusion(text):
    from statesize.studies.page.conclusion import Conclusion

    return Conclusion(text, text, None, {text: (0.1, 0.2), "pearson": 0.5}, (text,), (text,))._repr_html_()
