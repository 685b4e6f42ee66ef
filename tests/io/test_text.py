"""Text for terminals and pages."""

from statesize.io.text import counted, meant


def test_one_has_a_noun_in_the_singular():
    assert [counted(count, "row") for count in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]


def test_swapped_letters_and_capitals_of_short_names_are_told_however_alike_names_must_be():
    names = {"sa": "sa", "gla": "gla", "Softmax": "sa"}
    for given, wanted in {"gal": "gla", "as": "sa", "GLA": "gla", "softmax": "sa", "osftmax": "sa"}.items():
        assert meant(given, names, "None.", 1.0) == f"Did you mean {wanted}?"
    assert meant("lga", names, "None.", 1.0) == "Did you mean gla?"
    for given in ("alg", "la", "ga", ""):
        assert meant(given, names, "None.", 1.0) == "None."


def test_a_name_that_shares_some_letters_is_not_meant():
    assert meant("nofile", ["flex"], "None.") == "None."
    assert meant("nofile", ["flex", "my-file", "no-file"], "None.") == "Did you mean no-file?"
