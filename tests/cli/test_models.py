"""`statesize models`: the table and the JSON."""

import json

from statesize.adapters.sources import swept
from statesize.cli import main


def test_the_table_has_a_row_for_each_measured_family(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    measured = swept().of("measured")
    assert [line.partition("  ")[0] for line in lines[3 : 3 + len(measured)]] == [family.name for family in measured]
    row = next(line for line in lines if line.startswith("gemma2 "))
    assert "sliding attention, attention" in row
    assert "min(i, window - 1), i" in row
    assert row.rstrip().endswith(" all")
    assert any(f"Checked with transformers {', '.join(swept().versions)}; " in line for line in lines)
    assert any(line.startswith("not measured: reformer: ") and "buckets" in line for line in lines)
    assert "operator(hidden)" in lines[-2] + lines[-1]
    assert any(line.startswith("mamba_ssm ") and "mamba, mamba2" in line for line in lines)
    assert any(line.startswith("momentum delta rule ") and "2 key dimension" in line for line in lines)


def test_json_has_the_same(capsys):
    assert main(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    rows = {row["family"]: row for row in document["families"]}
    assert list(rows) == [family.name for family in swept().of("measured")]
    assert rows["mamba2"]["mixers"] == [{"kind": "mamba2", "state_size": "state size n"}]
    assert rows["llama"]["impulses"] < 1e-5
    assert set(rows["llama"]["versions"].values()) == {"measured"}
    kernels = {row["kind"]: row["state_size"] for row in document["flash-linear-attention"]["mixers"]}
    assert (kernels["comba"], kernels["gated slots"], kernels["momentum delta rule"]) == (
        "key dimension",
        "slots",
        "2 key dimension",
    )
    assert document["xlstm"] == {"mixers": [{"kind": "mlstm", "state_size": "key dimension"}]}
    assert {row["family"]: row["status"] for row in document["others"]}["reformer"] == "refused"


def test_a_name_leaves_the_families_and_layers_that_have_it(capsys):
    assert main(["models", "deltanet", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in listing["flash-linear-attention"]["mixers"]} >= {"gated delta rule", "delta rule"}
    assert all("delta" in f"{family['family']} {family['mixers']}".lower() for family in listing["families"])
    assert main(["models", "llama"]) == 0
    assert "llama" in capsys.readouterr().out
    assert main(["models", "nothing-such"]) == 2
    assert "name must be part of a family's or layer's name, got 'nothing-such'." in capsys.readouterr().err
