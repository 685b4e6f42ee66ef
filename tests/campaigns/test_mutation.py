"""Changes of the code: each is one, text for people is left alone, and the file's own tests are asked."""

import ast

from campaigns.mutation import __main__ as mutation

MODULE = '''
"""A docstring."""
def share(value: int = 1) -> float:
    if value < 2 and not any([value]):
        raise ValueError("a message of 3 words")
    return -value / 2.0
'''


def test_every_change_is_made_alone():
    changes = [change.change for change in mutation.mutations(ast.parse(MODULE))]
    expected = "1 to 2; 2 to 3; 2.0 to 4.0; And to Or; Div to Mult; Lt to LtE; any to all; condition to its opposite"
    assert sorted(changes) == [*expected.split("; "), "minus to plus"]
    changed = set()
    for index in range(len(changes)):
        tree = ast.parse(MODULE)
        mutation.mutations(tree)[index].apply()
        changed.add(ast.unparse(tree))
    assert len(changed) == len(changes)
    assert ast.unparse(ast.parse(MODULE)) not in changed


def test_the_numerics_have_mutants_and_tests():
    every = mutation.every_mutant()
    assert [mutant.number for mutant in every] == list(range(len(every)))
    assert {mutant.file.partition("/")[0] for mutant in every} == {"operators", "spectra", "measurement"}
    tree, _ = every[-1].tree()
    compile(tree, every[-1].file, "exec")
    assert any(path.endswith("test_metrics.py") for path in mutation.tests_of("measurement/metrics.py"))


def test_the_interval_holds_the_share():
    low, high = mutation.interval(208, 240)
    assert low < 208 / 240 < high
