"""How commands print tables."""

from statesize.cli.shared.printing import print_table
from statesize.report.table import PageTable


def test_many_rows_are_not_printed(capsys):
    print_table(PageTable("", ["layer"], [[f"row{at}"] for at in range(50)]))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("row") for line in lines) == 40
    assert lines[-1] == "10 rows more stand on the page and in --json."
