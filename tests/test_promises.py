"""What we promise: the figures on the page are those of the runs that are kept beside it."""

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def page():
    """The page's words, without line ends."""
    return " ".join((DOCS / "promises.md").read_text(encoding="utf-8").split())


def kept(name):
    return json.loads((DOCS / name).read_text(encoding="utf-8"))


def listed(verdicts):
    return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())


def test_determinism(page):
    document = kept("determinism.json")
    found = document["compared"]
    assert f"by layers of {len(document['models'])} models" in page
    assert f"the same threads, {listed(found['same threads'])}; other threads, {listed(found['other threads'])}" in page
    assert f"again, {listed(found['runs of a study, again'])}" in page
    assert f"in processes, {listed(found['runs of a study, in processes'])}." in page
    assert all(set(found[name]) == {"identical"} for name in found if name != "other threads")
    assert "different" not in found["other threads"]


def test_soak(page):
    document = kept("soak.json")
    start, end = document["start"], document["end"]
    assert f"{document['seconds'] // 60} minutes, {document['calls']:,} calls on {document['models']} models" in page
    memory = f"{start['resident'] / MEBIBYTE:.0f} MiB at the start and {end['resident'] / MEBIBYTE:.0f} MiB at the end"
    assert f"{memory}, {document['most_resident'] / MEBIBYTE:.0f} MiB at most" in page
    assert f"threads {start['threads']} and {end['threads']}, file descriptors {start['descriptors']} and" in page
    assert f"left behind: {len(document['left'])}." in page
    rate, error = (number / 1e6 for number in document["resident_per_hour"])
    assert f"memory grew by {rate:.0f} ± {error:.0f} MB an hour" in page
    for name in ("threads", "descriptors", "modules"):
        assert end[name] <= start[name]


def test_largest(page):
    document = kept("largest.json")
    assert f"longest in {document['gigabytes']:.0f} GB" in page
    for row in document["rows"]:
        ratios = ", ".join(f"{one['peak'] / one['model']:.2f} at {one['length']:,}" for one in row["peaks"])
        assert f"| `{row['engine']}` | {row['operator']} | {row['length']:,} | {ratios} |" in page


def test_mutation(page):
    document = kept("mutation.json")
    killed, made, (low, high) = document["killed"], document["made"], document["interval"]
    assert f"random sample of {made} of {document['every']:,} changes, {killed} were noticed" in page
    assert f"{killed / made:.1%}, with an interval of 95 % from {low:.1%} to {high:.1%}" in page
    survivors = [row for row in document["mutants"] if row["outcome"] == "survived"]
    assert made - killed == len(survivors)
    assert all(row.get("reason") for row in survivors)
    before = document["before"]
    assert f"it was {before['killed']} of {before['made']}." in page
    assert killed >= 0.85 * made


def test_coverage(page):
    document = kept("coverage.json")
    branches, statements = (
        f"{document[covered]:,} of {document[every]:,}"
        for covered, every in (("covered_branches", "num_branches"), ("covered_lines", "num_statements"))
    )
    share = document["covered_branches"] / document["num_branches"]
    assert f"{branches} branches ({share:.1%}) and {statements} statements" in page
    assert share >= 0.95


def test_fuzz(page):
    document = kept("fuzz.json")
    answered, refused = (sum(document[name].values()) for name in ("answered", "refused"))
    assert f"{document['calls']:,} calls of seed {document['seed']} on one thread, {answered:,} right answers" in page
    assert f"{refused:,} refusals that name the argument, {len(document['findings'])} findings" in page
    assert not document["findings"]


def test_agreement(page):
    document = kept("agreement.json")
    pairs, exact, slicot = (document[name] for name in ("engine_pairs", "mpmath", "slicot"))
    assert f"{pairs['pairs']:,} pairs of engines on {pairs['operators']} operators" in page
    assert f"{pairs['compared']:,} answers, {pairs['outside']} outside of the bounds" in page
    assert f"{pairs['largest_values']:.2f} of the bound for singular values and {pairs['largest_entropy']:.2f}" in page
    assert f"mpmath: {exact['operators']} operators, {exact['compared']:,} answers, {exact['outside']} outside" in page
    assert f"{exact['largest_values']:.2f} of the bound for singular values and {exact['largest_entropy']:.2f}" in page
    assert f"SLICOT: {slicot['systems']} systems, {slicot['compared']:,} answers, {slicot['outside']} outside" in page
