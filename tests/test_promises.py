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
    assert f"{document['killed_before_tests_were_added']} before tests were written" in page
    assert killed >= 0.85 * made


def test_hostile_calls(page):
    document = kept("fuzz.json")
    right, refused = (sum(document[kind].values()) for kind in ("answered", "refused"))
    said = f"{document['calls']:,} calls of seed {document['seed']} on one thread, {right:,} right answers, {refused:,}"
    assert f"{said} refusals that name the argument, {len(document['findings'])} findings" in page
    assert document["calls"] >= 20_000
    assert not document["findings"]


def test_agreement(page):
    document = kept("agreement.json")
    pairs, digits, slicot = (document[name] for name in ("engine_pairs", "mpmath", "slicot"))
    where = f"{pairs['operators']} operators of {pairs['families']} families"
    assert f"{pairs['pairs']:,} pairs of engines on {where} and {pairs['lengths'][0]} to {pairs['lengths'][1]}" in page
    for part in (pairs, digits):
        share = f"{part['largest_values']:.2g} of the bound for singular values and {part['largest_entropy']:.2g}"
        assert f"{part['compared']:,} answers, {part['outside']} outside" in page
        assert f"{share} for entropies" in page
    assert f"{slicot['systems']} systems, {slicot['compared']:,} answers, {slicot['outside']} outside" in page
    assert f"{slicot['largest_difference']:.1g} of σ_1" in page
    assert not any(part["outside"] for part in (pairs, digits, slicot))
