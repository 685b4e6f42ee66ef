"""The table on stdout, at every width."""

import os
import pty
from contextlib import suppress

import pytest
import torch
from oracles.attention_models import attention_model

from statesize.cli.shared.summary import comparison_page, layer_rows, summary
from statesize.cli.shared.table import print_page
from statesize.io.text import byte_count
from statesize.lab.mixers import LanguageModel, ModelConfig
from statesize.measurement.settings import SINK
from statesize.profiling import Profile, profile
from statesize.report.comparison import compare
from statesize.report.words import headline
from statesize.results.fields import BOTH_SHARES
from statesize.results.summary import middle_bytes, middle_ceiling


@pytest.fixture(scope="module")
def profiles():
    ids = torch.arange(8)[None] % 8
    shape = {"vocabulary_size": 8, "width": 8, "heads": 2, "layers": 1, "key_size": 2}
    return [
        profile(LanguageModel(ModelConfig(mixer=name, **shape), torch.Generator().manual_seed(0)), ids, name=name)
        for name in ("sa", "la", "wla", "gla")
    ]


TITLES = ["softmax attention", "linear attention", "weighted linear attention", "gated linear attention"]


def paragraphs(text):
    """What stands below a table."""
    return text.split("\n\n")[-1].splitlines()


@pytest.fixture(scope="module")
def both():
    """A profile of a cache and a state."""
    shape = ModelConfig(mixer="sa,la", vocabulary_size=8, width=8, heads=2, layers=2, key_size=2)
    return profile(LanguageModel(shape, torch.Generator().manual_seed(0)), torch.arange(8)[None] % 8, name="both")


def test_piped(both, profiles, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "5")
    print_page(summary(both))
    out = capsys.readouterr().out
    assert out.splitlines()[0] == headline([both])
    assert "\x1b" not in out
    row, _ = both.summary_rows()
    cells = next(line for line in out.splitlines() if line.startswith("layers.0.mixer")).split()
    used = f"{row['middle_entropy'] / 4:.0%}"
    # Shares of caches and of states stand in columns of their own, without bars that set them against each other.
    assert next(line for line in out.splitlines() if line.startswith("layer ")).split()[-2:] == ["state", "ceiling"]
    assert "█" not in out
    assert cells[1:] == [f"{row['middle_entropy']:.1f}", "4.0", used]
    print_page(summary(profiles[0]))
    out = capsys.readouterr().out
    assert "█" in out
    cells = next(line for line in out.splitlines() if line.startswith("layers.0.mixer")).split()
    assert f"carries {cells[1]} numbers per channel past token 4 of 8" in headline(profiles[:1])


def test_below_one_table_stand_at_most_five_paragraphs_the_first_of_which_explains_its_columns(both, capsys):
    print_page(summary(both))
    below = paragraphs(capsys.readouterr().out)
    assert len(below) <= 5
    assert below[0].startswith("ESS: numbers per channel")
    assert "Measuring changed nothing in the model: its last hidden state is the same." in below


def test_the_metric_that_is_asked_for(profiles, capsys):
    print_page(summary(profiles[0], "relative_count"))
    out = capsys.readouterr().out
    cells = next(line for line in out.splitlines() if line.startswith("layers.0.mixer")).split()
    assert f"carries {cells[1]} numbers per channel" in headline(profiles[:1], "relative_count")
    assert "σ > 0.01 σ₁" in out


@pytest.mark.parametrize(("some", "told"), [(slice(2), True), (slice(1, 3), False), (slice(1), False)])
def test_a_comparison_warns_of_shares_of_two_kinds_where_both_stand(profiles, some, told):
    page = comparison_page(profiles[some], compare(profiles[some]))
    assert (BOTH_SHARES in page.tables[0].caption) == told


@pytest.mark.parametrize(("some", "drawn"), [(slice(2), False), (slice(1, 3), True)])
def test_bars_of_all_columns_are_drawn_of_all_rows_or_of_none(profiles, some, drawn, capsys):
    print_page(comparison_page(profiles[some], compare(profiles[some]), wide=True))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(tuple(TITLES[some]))]
    assert len(rows) == 2
    assert [("█" in row or "░" in row) for row in rows] == [drawn, drawn]


def test_a_comparison_shows_the_numbers_of_its_sentences(profiles, capsys):
    some = profiles[:2]
    print_page(comparison_page(some, compare(some)))
    out = capsys.readouterr().out
    stored = []
    for title, one in zip(TITLES, some, strict=False):
        (row,), node = one.summary_rows(), one.mixer(0)
        stored.append(middle_bytes(node, one.tokens["length"].values))
        ess, held = row["middle_entropy"], middle_ceiling(node)
        cells = next(line for line in out.splitlines() if line.startswith(f"{title}  ")).removeprefix(title).split()
        # The first keeps every token, the second has a state.
        shares = ["-", f"{ess / held:.0%}"][:: 1 if one is some[0] else -1]
        assert cells == [f"{ess:.1f}", f"{held:.0f}", *shares, *byte_count(stored[-1]).split()]
        # The finding has it, and no sentence says it again.
        assert [line for line in out.splitlines() if f"carries {ess:.1f} " in line] == out.splitlines()[:1]
    assert stored[0] != some[0].summary_rows()[0]["state_bytes"]
    assert "average ESS" not in out
    print_page(comparison_page(some, compare(some), wide=True))
    assert "average ESS" in capsys.readouterr().out


def test_wide_tables_have_all_columns(profiles, capsys):
    print_page(summary(profiles[1], wide=True))
    out = capsys.readouterr().out
    for heading in ("total ESS", "average share", "bytes", "norm"):
        assert heading in out


def test_a_large_model_shows_layers_with_most_and_least(profiles, capsys):
    tree = profiles[3].to_xarray()
    names = [f"layers.{index}.mixer" for index in range(24)]
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    nodes = {}
    for index, name in enumerate(names):
        nodes[f"/{name}"] = node.copy(deep=True)
        nodes[f"/{name}"]["entropy"][:] *= (1 + index * 7 % 24) / 24
    root = tree.to_dataset(inherit=False)
    root.attrs["mixers"] = names
    large = Profile(type(tree).from_dict({"/": root, **nodes}))
    ess = {row.layer: row.order for row in layer_rows(large, "entropy")}
    print_page(summary(large))
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("layer "))
    shown = [line.split()[0] for line in lines[start + 1 : start + 18]]
    ordered = sorted(ess, key=ess.__getitem__, reverse=True)
    assert shown == [*ordered[:8], "…", *ordered[-8:]]
    assert lines[start - 2] == "The 8 layers with most ESS, and the 8 with least:"
    assert any(line.startswith("--wide shows all 24 layers. N is layers.N.mixer.") for line in lines)
    print_page(summary(large, wide=True))
    assert set(names) <= set(capsys.readouterr().out.split())


def test_shared_caches_are_left_to_wide(capsys):
    measured = profile(attention_model("llama", num_hidden_layers=24), torch.arange(8)[None])
    about = "Joint ESS of heads that share a cache"
    print_page(summary(measured))
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if about in line]
    assert any("N is model.layers.N.self_attn." in line for line in lines)
    print_page(summary(measured, wide=True))
    out = capsys.readouterr().out
    assert f"{about}, a channel of the cache" in out
    assert out.partition(about)[2].count(".self_attn") == 24


def test_layers_are_sorted_without_sinks_where_there_are_any(capsys):
    tree = profile(attention_model("llama", num_hidden_layers=24), torch.arange(8)[None]).to_xarray()
    root, names = tree.to_dataset(inherit=False), tree.attrs["mixers"]
    nodes = {f"/{name}": tree[name].to_dataset(inherit=False) for name in names}
    for index, node in enumerate(nodes.values()):
        values = {
            "sink_share": 0.5,
            "sink_position": 0,
            "entropy": 24 - (index - 8) % 24,
            "sinkless_entropy": 30 + index,
        }
        for name, value in values.items():
            node[name] = node[name].copy(data=torch.full(node[name].shape, float(value)).numpy())
    measured = Profile(type(tree).from_dict({"/": root, **nodes}))
    print_page(summary(measured))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith("layer "))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["23", "22", "21"]
    assert lines[start - 2] == "The 8 layers with most ESS without sinks, and the 8 with least:"
    # Bars draw the column that rows are sorted by.
    shares = [int(line.split()[4].rstrip("%")) for line in lines[start + 1 : start + 9]]
    assert shares == [round(100 * (30 + layer) / 4) for layer in range(23, 15, -1)]


def test_ess_without_sinks_has_a_column_and_a_sentence(capsys):
    model = LanguageModel(
        ModelConfig(mixer="sa", vocabulary_size=8, width=8, heads=1, layers=1, key_size=2, convolution_size=1),
        torch.Generator().manual_seed(0),
    )
    measured = profile(model, torch.tensor([[7] + [1] * 39]))
    tree = measured.to_xarray()
    node = tree["layers.0.mixer"].to_dataset(inherit=False)
    for name, value in {"sink_share": 0.5, "sink_position": 0, "entropy": 2, "sinkless_entropy": 8}.items():
        node[name] = node[name].copy(data=torch.full(node[name].shape, float(value)).numpy())
    root = tree.to_dataset(inherit=False)
    print_page(summary(Profile(type(tree).from_dict({"/": root, "/layers.0.mixer": node}))))
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.startswith("layers.0.mixer")).split()[1:3] == ["2.0", "8.0"]
    assert f"Attention sinks: in 1 of 1 layer one token, mostly token 0 ('7'), {SINK}: 50% on average" in out
    assert "its mean over these layers is 2.0, and 8.0 without sinks" in out


@pytest.mark.parametrize("columns", [12, 59, 80, 300])
def test_terminal(profiles, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        print_page(summary(profiles[1]))
    # A terminal hands over what it holds at the time, which may be a part.
    pieces: list[bytes] = []
    with suppress(OSError):  # Linux says so that the other end is closed.
        while piece := os.read(leader, 1 << 16):
            pieces.append(piece)
    os.close(leader)
    out = b"".join(pieces).decode()
    if columns >= 59:
        assert "No room in" not in out
        assert max(len(line.rstrip()) for line in out.splitlines()) <= columns
    assert "layers.0.mixer" in out.replace("\r\n", "") or columns < 59
    assert ("█" in out) == (columns >= 80)


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1e6, "1.0 MB"), (2.5e12, "2.5 TB"), (3e16, "30000.0 TB")])
def test_bytes_for_people(count, text):
    assert byte_count(count) == text
