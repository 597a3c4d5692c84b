"""What a document or a thread must hold beyond its syntax."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import record, rules, specs, text, views
from serenamaster.errors import Failure, Finding

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
HEAD = '@ftai v2.0\n\n@document\n  title: "x"\n@end\n\n'
ID = "019ab9c4-7d1e-7a31-9c1b-{:012x}".format


def found(data, *, strict=True, text_form=True, step=0):
    """The findings about a document, fed in pieces of `step` bytes."""
    data = data.encode() if isinstance(data, str) else data
    checker = rules.Checker(strict=strict, text=text_form)
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return [finding for piece in pieces for finding in checker.feed(piece)] + checker.close()


def named(*args, **settings):
    return [finding.rule for finding in found(*args, **settings)]


def lines(*records):
    return b"".join(map(record.encode, records))


# The vocabulary


def test_the_spec_files_use_tags_of_the_vocabulary():
    assert {tag for tags in specs.TAGS.values() for tag in tags} <= rules.OWN | rules.CORE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("@note\n  a: 1\n@end\n", []),
        ('@route\n  target: "ask"\n@end\n', []),
        ("@banana\n  a: 1\n@end\n", ["unknown-tag"]),
        ("@note\n  @banana\n    a: 1\n  @end\n@end\n", ["unknown-tag"]),
        ("@x_banana\n  a: 1\n@end\n", []),
        ('@schema\n  optional_tags: ["@banana"]\n@end\n@banana\n  a: 1\n@end\n', []),
        ("@banana\n  a: 1\n@end\n@schema\n  optional_tags:\n    - banana\n@end\n", []),
        ('@schema\n  required_tags: ["@banana"]\n@end\n', ["required-tag"]),
        ('@schema\n  required_tags: ["@banana"]\n@end\n@banana\n  a: 1\n@end\n', []),
        ('@"banana"\n  a: 1\n@end\n', ["quoted-tag"]),
        ("@sysinfo\n  a: 1\n@end\n", ["reserved"]),
    ],
)
def test_tags_of_a_document(body, expected):
    assert named(HEAD + body) == expected


def test_an_unknown_tag_is_named_once_with_its_first_place():
    (finding,) = found(HEAD + "@note\n  @banana\n  @end\n  @banana\n  @end\n@end\n")
    assert (finding.line, finding.column, finding.level) == (8, 3, "error")
    assert "@banana" in finding.message and "2 times" in finding.message


def test_the_lenient_reading_has_no_complaint_about_tags():
    assert named("@ftai v2.0\n@banana\n  a: 1\n@end\n", strict=False) == []


def test_a_document_without_document():
    assert named("@ftai v2.0\n@note\n  a: 1\n@end\n") == ["no-document"]
    assert named(lines({"@tag": "note"}), text_form=False) == []


def test_more_tags_than_are_kept_in_mind(monkeypatch):
    monkeypatch.setattr(rules, "NAMES", 5)
    body = "".join(f"@tag{n}\n  a: 1\n@end\n" for n in range(20))
    checked = found(HEAD + body)
    assert {finding.rule for finding in checked} == {"unknown-tag"}
    assert len(checked) == 3  # ftai and document are two of the five


# Verdict turned over


def test_intent_fail_turns_the_verdict_over():
    bad, good = "@intent fail\n" + HEAD + "@banana\n@end\n", "@intent fail\n" + HEAD
    assert [(finding.level, finding.rule) for finding in found(bad)] == [("note", "unknown-tag")]
    assert [(finding.level, finding.rule) for finding in found(good)] == [("error", "intent-fail")]


# Line form


def test_lines_are_counted_and_bad_ones_named():
    data = b'{"@tag":"note"}\n\n{"@tag":"note","a":null}\nnonsense\n{"@tag":"note"}'
    checked = found(data, text_form=False)
    assert [(finding.line, finding.rule, finding.refused) for finding in checked] == [(3, "not-a-record", True), (4, "not-a-record", True)]


def test_a_line_over_the_limit_is_dropped_as_it_comes():
    reader = rules.Lines(limit=100)
    items = []
    for _ in range(1000):
        items += reader.feed(b"x" * 50)
        assert sum(map(len, reader.parts)) <= 100
    items += reader.feed(b'\n{"@tag":"note"}\n')
    assert (items[0].rule, items[0].line, items[1]) == ("too-long", 1, (2, {"@tag": "note"}))


@given(st.lists(st.sampled_from([b'{"@tag":"note","a":1}', b"", b"x", b'{"@tag":"banana"}', b'{"a":1}'])), st.integers(1, 9))
def test_lines_are_the_same_however_they_arrive(parts, step):
    data = b"\n".join(parts)
    assert found(data, text_form=False, step=step) == found(data, text_form=False)


# Threads


def rec(tag, own, parent=None, thread=1, **more):
    made = {"@tag": tag, "id": ID(own), "ts": "2026-11-22T13:25:00.000Z", "thread": ID(thread)}
    return made | ({"parent": ID(parent)} if parent else {}) | more


def threads(*records):
    return [(finding.line, finding.level, finding.rule) for finding in found(lines(*records), text_form=False)]


COMMAND, ROUTE = rec("command", 1, body="x"), rec("route", 2, 1, target="ask")
RESULT = rec("result", 3, 2, status="done")


def test_a_thread_that_is_whole():
    assert threads(COMMAND, ROUTE, rec("attempt", 4, 2, target="ask", n=1), RESULT) == []
    assert threads(COMMAND, COMMAND, ROUTE, RESULT, RESULT) == []


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([COMMAND, ROUTE], [(2, "warning", "route-open")]),
        ([COMMAND, ROUTE, RESULT, rec("result", 5, 2, status="failed")], [(4, "error", "second-result")]),
        ([ROUTE, RESULT], [(1, "warning", "parent-missing")]),
        ([ROUTE, COMMAND, RESULT], [(2, "warning", "parent-late")]),
        ([COMMAND, ROUTE, rec("result", 3, 2, thread=9, status="done")], [(3, "error", "thread-mismatch")]),
        ([COMMAND, COMMAND | {"body": "y"}], [(2, "error", "id-conflict")]),
        ([COMMAND, rec("result", 3, 1, status="done")], [(2, "warning", "parent-tag")]),
        ([COMMAND, ROUTE, rec("error", 4, 2, **{"class": "network"}, message="x", recovery="queue")], []),
        (
            [COMMAND, ROUTE, rec("attempt", 4, 2, target="ask"), rec("error", 5, 4, **{"class": "network"}, message="x", recovery="queue")],
            [],
        ),
    ],
)
def test_records_among_one_another(records, expected):
    assert threads(*records) == expected


def test_a_record_and_its_journaled_copy_are_the_same():
    assert threads(COMMAND, COMMAND | {"@blocks": [{"@tag": "chain", "seq": 1}]}) == []


def test_records_without_an_id_of_ours_are_left_alone():
    assert threads({"@tag": "task", "id": "T-1", "parent": "T-0", "status": "whatever"}, {"@tag": "task", "id": "T-1"}) == []


def test_what_is_kept_in_mind_is_bounded():
    threads = rules.Threads(window=10)
    for n in range(100):
        threads.feed(rec("route", 1000 + n, 5000 + n, target="ask"), n)
    assert max(map(len, (threads.known, threads.missing, threads.routes, threads.ended))) <= 10
    assert [finding.rule for finding in threads.close()] == ["route-open"] * 10  # nothing is said about parents that may have been there


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"ts": "yesterday"}, "field-time"),
        ({"parent": "none"}, "field-id"),
        ({"status": "finished"}, "field-word"),
        ({"status": 5}, "field-word"),
        ({"ms": "2"}, "field-type"),
        ({"ms": True}, "field-type"),
    ],
)
def test_fields_of_our_records(more, rule):
    assert [(finding.level, finding.rule) for finding in rules.fields(RESULT | more, 1)] == [("warning", rule)]


def test_fields_that_are_missing():
    assert [finding.rule for finding in rules.fields(rec("error", 4), 1)] == ["field-missing"] * 2


# Rewriting


def rewritten(data: str) -> str:
    out: list[bytes] = []
    rules.canonical([data.encode()], out.append)
    return b"".join(out).decode()


def test_canonical_text_holds_the_same_records():
    ragged = "\ufeff@ftai v2.0\r\n@document\r\n title: x\r\n@end\r\n@section A\r\ntext\r\n@note {\r\n b:int 1\r\n}\r\n"
    made = rewritten(ragged)
    assert found(made) == []
    assert rules.digest([ragged.encode()]) == rules.digest([made.encode()])
    assert rewritten(made) == made


@pytest.mark.parametrize(
    "lossy", ["// why\n" + HEAD, HEAD + "@note // why\n@end\n", HEAD + "@note\n  @note // why\n  @end\n@end\n", HEAD + "@note\n  a: \x00\n@end\n"]
)
def test_canonical_text_is_refused_where_something_would_be_lost(lossy):
    with pytest.raises(Failure):
        rewritten(lossy)


def test_the_digest_tells_records_apart():
    assert rules.digest([(HEAD + "@note\n  a: 1\n@end\n").encode()]) != rules.digest([(HEAD + '@note\n  a: "1"\n@end\n').encode()])


# How findings are written

FINDINGS = [
    ("a b.ftai", Finding(3, 5, "error", "unknown-tag", "unknown \x1b[31m'@b'\nx")),
    ("-", Finding(0, 0, "warning", "w", "100%")),
    ("/x", Finding(1, 1, "note", "w", "n")),
]


def shown(name):
    report = views.FORMATS[name]()
    return b"".join([report.line(*finding) for finding in FINDINGS] + [report.close()]).decode()


def test_findings_as_text():
    assert shown("text") == "a b.ftai:3:5: error: unknown \ufffd[31m'@b' x [unknown-tag]\n-: warning: 100% [w]\n/x:1:1: note: n [w]\n"


def test_findings_as_workflow_commands():
    assert shown("github").splitlines() == [
        "::error file=a b.ftai,line=3,col=5,title=unknown-tag::unknown \ufffd[31m'@b'%0Ax",
        "::warning file=-,title=w::100%25",
        "::notice file=/x,line=1,col=1,title=w::n",
    ]


def test_findings_as_json():
    assert [(item["file"], item["line"], item["rule"]) for item in json.loads(shown("json"))] == [("a b.ftai", 3, "unknown-tag"), ("-", 0, "w"), ("/x", 1, "w")]
    assert json.loads(views.Json().close()) == []


def test_findings_as_sarif():
    log = json.loads(shown("sarif"))
    (run,) = log["runs"]
    assert log["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "serenamaster"
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error") and result["message"]["text"]
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert places[0] == {"artifactLocation": {"uri": "a%20b.ftai"}, "region": {"startLine": 3, "startColumn": 5}}
    assert "region" not in places[1] and places[2]["artifactLocation"]["uri"] == "file:///x"
    assert json.loads(views.Sarif().close())["runs"][0]["results"] == []


# The published documents

# Authors expect these to fail, but nothing that ftai(5) names is wrong with them.
EXCEPTIONS: dict[str, str] = {
    "ftai-spec/tests/vectors/fail/fail_bad_indent.ftai": "a '@@' tag needs no indentation, and a block that is closed by its parent's '@end' is a warning",
}


def verdicts():
    if not CORPUS.is_dir():
        return [pytest.param("", "", marks=pytest.mark.skip(reason="SKIPPED: ../shared/corpus is not here, the published documents are not checked"))]
    rows = [line.split("\t") for line in (CORPUS / "matrix.tsv").read_text().splitlines()[1:]]
    return [(row[0], row[1]) for row in rows]


@pytest.mark.parametrize(("name", "expected"), verdicts())
def test_published_documents_get_the_verdict_that_their_authors_expect(name, expected):
    data = (CORPUS / name).read_bytes()
    lenient = [finding for finding in found(data, strict=False) if finding.level == "error"]
    strict = [finding for finding in found(data) if finding.level == "error"]
    if expected == "pass":
        assert lenient == []
    elif expected == "fail":
        assert bool(strict) != (name in EXCEPTIONS), strict
    assert found(data, step=7) == found(data)


def test_the_stage_gives_the_same_verdict():
    if not CORPUS.is_dir():
        pytest.skip("SKIPPED: ../shared/corpus is not here")
    environment = {"PATH": os.environ["PATH"], "FTAI_HOME": "/nonexistent"}
    for name, expected in itertools.islice((row for row in verdicts() if row[1] != "-"), 0, None, 7):
        ran = subprocess.run(
            [sys.executable, ROOT / "bin" / "ftai-validate", "--strict" if expected == "fail" else "--quiet", CORPUS / name],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (int(expected == "fail" and name not in EXCEPTIONS), b""), name


def test_every_finding_of_the_reader_that_changes_a_value_needs_a_person():
    source = Path(text.__file__).read_text() + Path(rules.__file__).read_text()
    for rule in rules.GUESSES:
        assert f'"{rule}"' in source, rule
