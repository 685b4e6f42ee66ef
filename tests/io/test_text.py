"""Text for terminals and pages."""

from statesize.io.text import counted


def test_one_has_a_noun_in_the_singular():
    assert [counted(count, "row") for count in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
