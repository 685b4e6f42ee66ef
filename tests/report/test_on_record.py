"""Models on record: what a command writes, what the page and the package take of it, and where a profile stands."""

import json
from types import SimpleNamespace

import pytest

import statesize as ss
from statesize.cli import main
from statesize.errors import FileError
from statesize.report.on_record import carries, measured_models, standing, table_row, what_suffices
from statesize.report.words import headline
from tools.figures.measured_models import measured_models as shown
from tools.figures.measured_models import packed, records

LENGTHS = (16, 24)
NORMAL = "What is normal for a state of fixed size?"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A record of two lengths as the command line writes it."""
    path = tmp_path_factory.mktemp("models") / "gla.json"
    for length in LENGTHS:
        assert main(["profile", "gla", "--max-tokens", str(length), "--record", str(path), "--quiet"]) == 0
    return path


def test_a_model_that_somebody_adds_stands_on_the_page_and_in_the_package(recorded, tmp_path):
    said = {"package": "of a test", "licence": "MIT", "check": "none needed"}
    added = json.loads(recorded.read_text("utf-8")) | said | {"name": "added"}
    (tmp_path / "added.json").write_text(json.dumps(added), "utf-8")
    known = records(tmp_path)
    row = next(line for line in shown(known)["table"].splitlines() if line.startswith("| added |"))
    assert "16 · 24 tokens of prose" in row
    assert "| of a test | MIT | none needed |" in shown(known)["sources"]
    (packaged,) = json.loads(packed(known))["models"]
    assert [length["length"] for length in packaged["lengths"]] == list(LENGTHS)
    profile = ss.profile("gla", [[5, 6, 7, 8] * 6])
    ess = packaged["lengths"][1]["ess"]
    expected = f"{NORMAL} ESS on record, past token 12 of 24 tokens of prose: added {ess:.1f} of 12."
    assert standing([profile], models=[packaged]) == [expected]


def named(name, weights, *lengths, data="tokens of prose", inputs="", texts=None):
    """A model on record: ESS at the middle of texts of some lengths, without sinks, and with untrained weights."""
    rows = [
        {"length": length, "ess": ess, "ess_without_sinks": without, "of": 8.0, "untrained": untrained}
        | {"inputs": inputs, "texts": texts}
        for length, ess, without, untrained in lengths
    ]
    shared = {"carries": "a fixed state", "kind": ""}
    return shared | {"name": name, "data": data, "weights": weights * 8, "lengths": rows}


def test_a_model_is_told_at_the_nearest_length_and_its_own_untrained_figure_alone():
    figures = {16: (2.0, 3.0), 64: (4.0, 5.0)}
    lengths = [(length, ess, ess, untrained) for length, (ess, untrained) in figures.items()]
    models = [named("this", "0a", *lengths), named("that", "0b", *lengths)]
    models.append(named("bytewise", "0d", (20, 1.0, 1.0, 1.0), data="bytes of prose"))
    # 32 is as far from 16 as from 64 by their ratio: the longer of both is told.
    for length, nearest, ess, untrained in ((16, 16, 2, 3), (20, 16, 2, 3), (32, 64, 4, 5), (40, 64, 4, 5)):
        near = "ESS on record" if length == nearest else "Nearest ESS on record"
        place = f"past token {nearest // 2} of {nearest} tokens of prose"
        told = (
            f"past byte 10 of 20 bytes of prose: bytewise 1.0 of 8; {place}: that {ess:.1f} of 8, this {ess:.1f} of 8."
        )
        profile = ss.profile("gla", [list(range(5, 5 + length))])
        # Cuts that are a quarter or more apart do not compare.
        other = f" Here the cut is token {length // 2} of {length}: do not compare."
        assert standing([profile], "0a" * 32, models) == [
            f"{NORMAL} {near}, {place}: this {ess:.1f} of 8, that {ess:.1f} of 8.{other if length != 16 else ''}",
            f"With untrained weights the ESS on record is {untrained:.1f}.",
        ]
        for weights in ("0c" * 32, ""):
            expected = f"{NORMAL} Nearest ESS on record, {told}{other}"
            assert standing([profile], weights, models) == [expected]


@pytest.fixture(scope="module")
def of_eight():
    return ss.profile("gla", [list(range(5, 13))])


@pytest.mark.parametrize(
    ("without", "untrained", "told"), [(7.8, 27.3, "7.8 of 8"), (17.9, None, "7.8 of 8 and 17.9 without sinks")]
)
def test_sinks_and_untrained_weights_of_a_model_on_record_are_told_where_they_are_known(
    of_eight, without, untrained, told
):
    models = [named("this", "0a", (8, 7.8, without, untrained))]
    expected = [f"{NORMAL} ESS on record, past token 4 of 8 tokens of prose: this {told}."]
    expected += [f"With untrained weights the ESS on record is {untrained}."] if untrained else []
    assert standing([of_eight], "0a" * 32, models) == expected


def test_a_text_stands_beside_single_texts_of_its_own_model(of_eight):
    texts = {"ess": [0.1, 8.0, 24], "ess_without_sinks": [5.0, 8.0, 7]}
    models = [named("this", "0a", (8, 2.0, 5.0, None), texts=texts)]
    told = "this 2.0 of 8 (0.1 to 8.0 in 24 single texts) and 5.0 without sinks (5.0 to 8.0 in 7 single texts)."
    assert told in standing([of_eight], "0a" * 32, models)[0]
    assert "single texts" not in standing([of_eight], "0b" * 32, models)[0]


def test_what_is_on_record_itself_is_not_what_is_normal(of_eight):
    own = named("this", "0a", (8, 2.0, 2.0, 3.0), inputs=of_eight.attributes["tokens_sha256"][:16])
    assert standing([of_eight], "0a" * 32, [own]) == []
    others = [
        named("that", "0b", (8, 4.0, 4.0, 3.0)),
        named("bytewise", "0d", (8, 1.0, 1.0, 1.0), data="bytes of prose"),
    ]
    (told,) = standing([of_eight], "0a" * 32, [own, *others])
    expected = f"{NORMAL} ESS on record, past token 4 of 8 tokens of prose: that 4.0 of 8."
    assert told == expected
    # Other weights over the same text are as normal as any.
    assert "this 2.0 of 8" in standing([of_eight], "0c" * 32, [own])[0]


@pytest.mark.parametrize("part", [{"past": 2}, {"future": 2}, {"layers": (0,)}])
def test_a_part_of_what_a_model_carries_is_not_set_against_whole_ones(part):
    found = ss.profile("gla", [list(range(5, 13))], settings=ss.Settings(**part))
    assert standing([found], models=[named("that", "0b", (8, 4.0, 4.0, 3.0))]) == []


def test_a_page_says_once_what_is_normal_for_each_kind_of_memory(of_eight):
    assert len(standing([of_eight, of_eight], models=[named("that", "0b", (8, 4.0, 4.0, 3.0))])) == 1


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ({"kind": "bundled"}, "statesize truncate gla"),
        ({"kind": "folder"}, "statesize truncate MODEL --jsonl TEXTS.jsonl"),
        ({"kind": "folder", "test": "statesize truncate here --text b.txt"}, "statesize truncate here --text b.txt"),
    ],
)
def test_the_command_that_tests_what_suffices_is_told_in_full(source, command):
    _, (told,) = what_suffices([SimpleNamespace(model="gla", attributes={"source": source})])
    own = " (TEXTS.jsonl: at least 5 texts of yours, one in each row)" if "TEXTS" in command else ""
    assert told == f"Whether so many numbers suffice, this tests{own}: {command}"


def test_training_raises_ess_of_some_models_on_record_and_lowers_that_of_others():
    rows = [row for model in measured_models() for row in model["lengths"] if row["untrained"]]
    factors = [row["ess_without_sinks"] / row["untrained"] for row in rows]
    assert min(factors) < 1 / 1.5
    assert max(factors) > 1.5


def test_a_text_that_is_far_shorter_than_those_on_record_is_not_compared():
    told = standing([ss.profile("gla", [list(range(5, 25))])])
    assert told == ["20 tokens are too few to compare with models on record, of 64 and more."]


def test_a_record_holds_the_headline_of_its_profile(recorded):
    row = json.loads(recorded.read_text("utf-8"))["lengths"][1]
    text = ss.lab.zoo.documents()[0]
    ids = ss.lab.zoo.load("gla")[1].encode(text).ids[:24]
    profile = ss.profile("gla", [ids])
    assert f"carries {row['ess']:.1f} numbers per channel past token 12 of 24" in headline([profile])
    assert row["spread"] == sorted(row["spread"])
    assert row["of"] == 12


def test_records_have_the_digest_of_the_weights(recorded, tmp_path):
    assert main(["profile", "gla", "--max-tokens", "16", "--output", str(tmp_path / "profile"), "--quiet"]) == 0
    weights = ss.Profile.load(tmp_path / "profile").attributes["weights_sha256"]
    assert json.loads(recorded.read_text("utf-8"))["weights"] == weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["la"], "record must be a new file, or one of the same weights and data"),
        (["gla", "--positions", "3"], "record must be of texts of one length, measured at their middle"),
    ],
)
def test_what_no_record_can_be_of_is_refused(recorded, capsys, arguments, message):
    before = recorded.read_text("utf-8")
    assert main(["profile", *arguments, "--max-tokens", "16", "--record", str(recorded), "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert recorded.read_text("utf-8") == before


def test_a_record_without_its_licence_is_no_part_of_the_page(recorded):
    with pytest.raises(ValueError, match="must say its package, licence, check"):
        records(recorded.parent)


def test_a_file_that_is_no_record_is_no_part_of_the_page(tmp_path):
    (tmp_path / "other.json").write_text('{"schema": 0}')
    with pytest.raises(FileError, match=r"other\.json, which is none of schema 1"):
        records(tmp_path)


def test_a_profile_prints_where_it_stands_and_its_page_names_models_that_carry_the_same(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main(["profile", "gla", "--max-tokens", "32", "--quiet", "--html", str(page)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "on record, " in line]
    known = measured_models()
    assert len({one["carries"] for one in known}) == 4
    assert "<li>With untrained weights" in page.read_text("utf-8")
    for one in known:
        assert (one["name"] in line) == (one["carries"] == "a fixed state" and one["data"] == "tokens of prose")
    assert line.startswith(f"{NORMAL} Nearest ESS on record, past token 32 of 64 tokens of prose: bundled gated ")
    assert "untrained" not in line


def test_the_package_has_a_small_table_of_all_records():
    known = records()
    packaged = json.loads(packed(known))["models"]
    assert measured_models() == packaged
    without = [one | {"lengths": [row | {"texts": None} for row in one["lengths"]]} for one in packaged]
    assert without == [table_row(one) for one in known]
    # Where single texts are on record, the mean of those of the record lies among them.
    texts = {(one["name"], row["length"]): row for one in packaged for row in one["lengths"] if row["texts"]}
    assert {name for name, length in texts if length == 512} >= {"SmolLM2-135M", "Gemma 3 270M", "RWKV-7 834K"}
    assert texts["SmolLM2-135M", 256]["texts"]["ess_without_sinks"][2] == 24
    for row in texts.values():
        for name, (low, high, count) in row["texts"].items():
            assert count >= 5
            assert low < row[name] < high
    assert len(packed(known).encode()) < 50_000
    assert len(known) >= 8
    assert all(len(one["weights"]) == 64 and one["made"]["commit"] for one in known)


def test_what_is_carried_tells_states_from_caches_and_layers():
    ids = [[5, 6, 7, 8] * 6]
    assert carries(ss.profile("gla", ids)) == "a fixed state"
    assert carries(ss.profile("sa", ids)) == "tokens kept"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("notes", "Expecting value"),
        ("[1]", "which is none of schema 1"),
        ('{"schema": 7}', "which is none of schema 1"),
    ],
)
def test_a_file_of_something_else_is_refused_before_anything_is_measured(content, said, tmp_path, capsys):
    path = tmp_path / "other.txt"
    path.write_text(content)
    assert main(["profile", "gla", "--max-tokens", "16", "--record", str(path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    error = " ".join(printed.err.split())
    assert "record must be a new file or a record, got" in error
    assert said in error
    assert path.read_text() == content
