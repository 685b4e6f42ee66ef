"""Text for terminals and pages."""

from statesize.io.text import counted, meant


def test_one_has_a_noun_in_the_singular():
    assert [counted(count, "row") for count in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_a_name_that_is_almost_spelt_is_meant_whatever_its_capitals():
    names = ["sa", "gla", "Softmax"]
    for given, wanted in {"gal": "gla", "GLA": "gla", "osftmax": "Softmax", "nofile": None, "": None}.items():
        assert meant(given, names, "None.") == (f"Did you mean {wanted}?" if wanted else "None.")
    assert meant("nofile", ["flex", "my-file", "no-file"], "None.") == "Did you mean no-file?"
