"""Properties of the reader and the writer of the text form, over generated documents and records."""

import orjson
from hypothesis import example, given
from hypothesis import strategies as st
from serenamaster import record as record_form
from serenamaster import text
from text_cases import document, documents, hostile, many, own, pieces, record, records, split, write

sizes = st.lists(st.sampled_from([1, 2, 3, 7, 20, 64, 500, 5000]), min_size=1, max_size=4)


@many(300)
@given(record)
def test_record_comes_back(rec):
    """What dump() wrote is read as the same record, and written again as the same text."""
    notes = []
    written = text.dump(rec, notes)
    assert not notes
    (back,), findings = text.read(written.encode())
    assert back == rec
    assert list(back) == list({"@tag": 1} | {k: 1 for k in rec if k not in ("@text", "@blocks")} | dict.fromkeys(rec, 1))
    assert [found.rule for found in findings if found.rule not in ("header", "no-tag")] == []
    assert text.dump(back) == written


@many(150)
@given(records)
def test_document_comes_back(recs):
    canonical = write(recs)
    back, findings = text.read(canonical.encode())
    assert own(back) == own(recs)
    assert {found.rule for found in findings} <= {"no-tag", "reserved"}
    assert write(back) == canonical


@many(60)
@given(records)
def test_tags_that_are_known_to_come_are_declared_at_once(recs):
    used = {}
    for rec in recs:
        text.dump(rec, used=used)
    canonical = write(recs, tags=used)
    assert own(text.read(canonical.encode())[0]) == own(recs)
    assert write(text.read(canonical.encode())[0]) == canonical
    if "schema" not in used:
        assert canonical.count("\n@schema\n") <= 1


@many(400)
@given(documents)
def test_text_to_canonical_is_the_identity(source):
    recs, _ = text.read(source.encode())
    notes = []
    canonical = write(recs, notes)
    back, _ = text.read(canonical.encode())
    assert write(back) == canonical
    if not notes:
        assert own(back) == own(recs)


@many(400)
@given(documents, sizes)
def test_the_short_way_reads_what_the_long_way_reads(source, sizes):
    data = source.encode()
    long_way = repr(pieces(data, [1 << 20], short=False))  # with the order of keys
    assert repr(pieces(data, [1 << 20])) == long_way
    assert repr(pieces(data, sizes)) == long_way


@many(200)
@given(documents, sizes)
def test_lines_are_the_records(source, sizes):
    """What comes in line form at once is what the records would be encoded to."""
    data = source.encode()
    asked = pieces(data, sizes, lines=True)
    made = b"".join([item if type(item) is bytes else record_form.encode(item) for item in asked if type(item) in (bytes, dict)])
    assert made == b"".join([record_form.encode(item) for item in pieces(data, sizes) if type(item) is dict])


@many(120)
@given(st.lists(document, min_size=1, max_size=3), sizes, st.binary(max_size=3), st.sampled_from(["\n", "\r\n", "\r"]))
def test_pieces_do_not_matter(parts, sizes, junk, newline):
    """Broken UTF-8, controls and every kind of line end, in every cut of the input."""
    data = junk.join(part.replace("\n", newline).encode() for part in parts)
    whole = pieces(data, [1 << 20])
    assert pieces(data, sizes) == whole
    assert pieces(data, sizes, short=False) == whole
    recs, findings = split(whole)
    for rec in recs:
        orjson.dumps(rec)
        text.dump(rec)
    assert all(found.line >= 1 and found.column >= 1 for found in findings)


@many(120)
@given(documents, st.booleans(), st.booleans())
def test_strict_reads_the_same_records(source, keep, at):
    plain, _ = text.read(source.encode())
    strict, findings = text.read(source.encode(), strict=True)
    assert strict == plain
    kept, _ = text.read(source.encode(), keep_comments=keep, at=at)
    extra = {"at_line", "@comments", "@hints", "@quoted"}

    def bare(rec):
        return {k: [bare(block) for block in v] if k == "@blocks" else v for k, v in rec.items() if k not in extra}

    # Comments behind the last record need a record to stand in.
    if len(kept) > len(plain) and kept[-1].keys() == {"@tag", "@comments"}:
        kept.pop()
    assert [bare(rec) for rec in kept] == plain


@many(400)
@given(hostile, st.sampled_from(["body", "@head", "@text"]))
@example("x\n@decision\n@end", "body")
@example("x\n@end\n@decision", "@text")
def test_no_value_forges_a_record(value, key):
    recs = [{"@tag": "note", key: value}, {"@text": value}, {"@tag": "task", "items": [value, [value]], "@blocks": [{"@tag": "note", key: value}]}]
    back = own(text.read(write(recs).encode())[0])
    assert len(back) == 3
    assert back[0]["@tag"] == "note" and back[2]["@tag"] == "task"
    assert len(back[2]["@blocks"]) == 1
    if key != "@text":
        assert back[0] == recs[0] and back[2] == recs[2]


@many(300)
@given(st.lists(st.sampled_from(["[", "]", ",", '"a"', "b", "1", " ", "true", '"\\""', "//", "x y"]), max_size=12).map("".join))
def test_a_value_is_a_list_or_stands_as_it_is(raw):
    (rec,), _ = text.read(f"@x\nk: {raw}\n@end\n".encode())
    value = rec.get("k", "")
    if type(value) is list:
        assert orjson.loads(orjson.dumps(value)) == value
    (again,), _ = text.read(text.dump(rec).encode())
    assert again == rec


@many(500)
@given(st.text(alphabet="0123456789+-.eE_x aNtrufls", max_size=12))
def test_a_bare_value_is_typed_only_if_it_comes_back_the_same(raw):
    raw = raw.strip()
    value = text.typed(raw) if raw else raw
    if type(value) is not str:
        assert orjson.dumps(value).decode().replace("e+", "e") == raw
    else:
        assert value == raw
