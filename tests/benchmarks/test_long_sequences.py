"""The benchmark of long sequences runs, and keeps rows of other cases."""

import json

from benchmarks.long_sequences import main


def test_short_ones(tmp_path, capsys):
    output = tmp_path / "long.json"
    for case in ("delta", "gated", "delta"):
        assert main(["--case", case, "--longest", "1024", "--positions", "4", "--output", str(output)]) == 0
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert [row["case"] for row in rows] == ["gated n=128", "delta rule n=128"]
    assert all(row["engine"] == "square_root" and row["converged"] == 4 and row["seconds"] > 0 for row in rows)
    assert "L=1,024" in capsys.readouterr().out
