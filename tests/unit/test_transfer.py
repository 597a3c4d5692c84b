"""Export and import: what leaves comes in the same elsewhere, and what comes from elsewhere is refused as a whole, or taken as a whole, once."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import strategies
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from serenamaster import archive, canonical, chain, journal, paths, purge, record, seal, secret, specs, state, transfer, verification
from serenamaster.errors import CANTCREAT, DATAERR, IOERR, NOINPUT, NOPERM, USAGE, Failure

ROOT = Path(__file__).parents[2]
STAGE = ROOT / "bin" / "ftai-archive"
SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
FORMS = ("sealed", "ndjson", "ftai")
MIB = 1 << 20
ALL = transfer.Asked(since="0001-01-01T00:00:00.000Z")
# What this writes of its own to the journal.
OWN = ("audit", "report")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    use(tmp_path / "a", monkeypatch)
    yield tmp_path / "a"
    forget()


def forget():
    archive._close() if archive._writer else None
    archive._caught.clear()
    archive._desk.clear()
    archive._reading.clear()
    journal._live.clear()
    seal._identities.clear()
    specs.forget()


def use(folder, monkeypatch):
    """From here on the home is this folder, whose owner has the identity of the first."""
    forget()
    folder.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("FTAI_HOME", str(folder))
    keys = folder.parent / "a" / "state" / "keys"
    monkeypatch.setenv("FTAI_IDENTITY", str(keys / "identity"))
    if (keys / "recipient").exists():
        monkeypatch.setenv("FTAI_RECIPIENTS", (keys / "recipient").read_text().strip())


def put(*records, kinds=("written",)):
    made = [record.stamp(rec) for rec in records]
    outcomes = journal.append(paths.journal(), made, stage="test")
    assert {kind for kind, _, _ in outcomes} <= {*kinds}, outcomes
    return made


def note(body="x", **fields):
    return {"@tag": "note", "body": body, **fields}


def out(to, form="ndjson", asked=ALL, consent=lambda rec: "", **more):
    told = list(transfer.export(asked, form, str(to), stage="test", consent=consent, opened=lambda rec: seal.opened(rec, secret.identity), **more))
    return told[-1]


def take(*files, **more):
    """The last report of an import, and what was said of records that were not taken."""
    failed = []
    return list(transfer.take([str(file) for file in files], stage="test", fail=failed.append, **more))[-1] | {"@said": [bad.message for bad in failed]}


def counts(report):
    return {name: report[name] for name in ("written", "repeats", "conflicts", "refused", "purged", "left") if report[name]}


def code(call, *args, **more):
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value.code


def held(own=False):
    """The records of the journal as they were before they stood in one; without what this program writes of its acts."""
    found = []
    for _, rec in journal.read(paths.journal()):
        rec["@blocks"].pop()
        if not rec["@blocks"]:
            del rec["@blocks"]
        rec.pop("origin", None)
        if (own or rec["@tag"] not in (*OWN, "tombstone", "checkpoint")) and not canonical.is_own(rec):
            found.append(rec)
    return found


def sound():
    summary, troubles = verification.verify(paths.journal())
    assert troubles == []
    return summary


def lines(path):
    return Path(path).read_bytes().splitlines(keepends=True)


def signed(head: dict, body: list[bytes], **more) -> bytes:
    """An export in line form with a right trailer."""
    data = record.encode(head) + b"".join(body)
    said = {"subject": "export", "act": "end", "records": len(body), "sha256": hashlib.sha256(data).hexdigest(), **more}
    return data + record.encode(record.make("report", "x", parent=head) | said)


def begin(own: str | None = None) -> dict:
    return record.make("report", "x", subject="export", act="begin", journal=own or record.new_id())


def chained(seq, **fields):
    rec = record.stamp({"@tag": "note", "body": f"number {seq}", **fields})
    return record.encode(rec | {"@blocks": [*fields.get("@blocks", []), {"@tag": "chain", "seq": seq, "salt": "ab" * 16, "hash": "cd" * 32}]})


def suffix(form):
    return {"sealed": ".zst.sealed", "ndjson": "", "ftai": ""}[form]


# ---- there and back ----


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=6 * SCALE, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(records=st.lists(strategies.record, min_size=1, max_size=6))
def test_what_leaves_comes_in_the_same_elsewhere(form, records, tmp_path_factory):
    place = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        use(place / "a", patch)
        seal.recipient()
        put(*records, kinds=("written", "refused", "skipped"))
        before, own = held(), archive._identity(paths.journal())
        there = [rec for rec in before if archive.instant(rec["ts"])]
        assert out(place / "one", form)["records"] == len(there)
        use(place / "b", patch)
        assert counts(take(f"{place}/one{suffix(form)}")) == ({"written": len(there)} if there else {})
        assert held() == there
        assert [rec["origin"].split()[0] for _, rec in journal.read(paths.journal()) if "origin" in rec and rec["@tag"] not in OWN][:1] in ([own], [])
        assert counts(take(f"{place}/one{suffix(form)}")) == ({"repeats": len(there)} if there else {})
        out(place / "two", form)
        sound()
        use(place / "a", patch)
        report = take(f"{place}/two{suffix(form)}")
        assert (report["repeats"], report["conflicts"], report["refused"], report["left"]) == (len(there), 0, 0, 0)
        assert held() == before
        sound()


@pytest.mark.parametrize("form", FORMS)
def test_a_third_journal_keeps_the_first_as_origin(form, tmp_path, monkeypatch):
    seal.recipient()
    put(*map(note, "abc"))
    first = archive._identity(paths.journal())
    out(tmp_path / "one", form)
    use(tmp_path / "b", monkeypatch)
    take(f"{tmp_path}/one{suffix(form)}")
    out(tmp_path / "two", form, transfer.Asked(tags=("note",)))
    use(tmp_path / "c", monkeypatch)
    assert counts(take(f"{tmp_path}/two{suffix(form)}")) == {"written": 3}
    assert [rec["origin"] for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"] == [f"{first} {seq}" for seq in (1, 2, 3)]
    # The same records from the first journal itself, and by another way without a word of where they come from, are repeats.
    assert counts(take(f"{tmp_path}/one{suffix(form)}")) == {"repeats": 3}
    use(tmp_path / "a", monkeypatch)
    plain = tmp_path / "plain.ndjson"
    plain.write_bytes(b"".join(record.encode(rec) for rec in held()))
    use(tmp_path / "c", monkeypatch)
    assert counts(take(plain)) == {"repeats": 3}


def test_a_record_that_came_without_origin_has_that_of_its_file_for_ever(tmp_path, monkeypatch):
    put(note("one"))
    out(tmp_path / "one")
    plain = tmp_path / "plain"
    plain.write_bytes(b"".join(record.encode(rec) for rec in held()))
    use(tmp_path / "b", monkeypatch)
    assert counts(take(plain)) == {"written": 1}
    assert counts(take(tmp_path / "one")) == {"repeats": 1}
    assert [rec.get("origin") for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"] == [hashlib.sha256(plain.read_bytes()).hexdigest()]


def test_an_origin_of_somebody_elses_meaning_stays(tmp_path, monkeypatch):
    put(note("one", origin="a spring"))
    out(tmp_path / "one")
    use(tmp_path / "b", monkeypatch)
    take(tmp_path / "one")
    assert [rec.get("origin") for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"] == ["a spring"]


def test_no_origin_looks_like_a_secret():
    from serenamaster import redact

    chance = random.Random(5)
    words = [f"{record.new_id()} {chance.randrange(1, 10 ** chance.randrange(1, 13))}" for _ in range(2000)]
    words += [chance.randbytes(32).hex() for _ in range(2000)]
    assert redact.lines(words) == words


def test_what_was_purged_does_not_come_back(tmp_path, monkeypatch):
    kept, gone = put(note("keep"), note("gone"))
    out(tmp_path / "one")
    use(tmp_path / "b", monkeypatch)
    take(tmp_path / "one")
    out(tmp_path / "two")
    use(tmp_path / "a", monkeypatch)
    archive.catch_up(limit=None)
    purge.run(purge.Asked(ids=(gone["id"],)), "asked for", stage="test")
    for name in ("one", "two"):
        report = take(tmp_path / name)
        assert (report["purged"], report["conflicts"], report["refused"]) == (1, 0, 0)
    assert [rec["body"] for rec in held()] == ["keep"]
    assert kept["body"] == "keep"
    sound()


def test_encrypted_texts_leave_open_and_are_encrypted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    put(note("a secret word"))
    stored = next(rec for _, rec in journal.read(paths.journal()))
    assert stored["body"].startswith("[sealed:")
    report = out(tmp_path / "one")
    assert "unopened" not in report
    assert json.loads(lines(tmp_path / "one")[1])["body"] == "a secret word"
    assert counts(take(tmp_path / "one")) == {"repeats": 1}
    use(tmp_path / "b", monkeypatch)
    assert counts(take(tmp_path / "one")) == {"written": 1}
    assert all("secret word" not in str(rec) for rec in held(own=True))
    assert counts(take(tmp_path / "one")) == {"repeats": 1}


def test_what_cannot_be_opened_leaves_as_it_is_and_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", "local")
    put(note("a secret word"), note("withheld", log="fact"), note("key sk-ant-api03-" + "aB3" * 31 + "AA", privacy="cloud"))
    (Path(paths.state()) / "keys" / "identity").unlink()
    warned = []
    told = list(transfer.export(ALL, "ndjson", str(tmp_path / "one"), stage="test", consent=lambda rec: "", opened=lambda rec: rec, warn=warned.append))
    assert (told[-1]["unopened"], told[-1]["withheld"], told[-1]["redacted"]) == (1, 1, 1)
    assert len(warned) == 3
    assert b"secret word" not in (tmp_path / "one").read_bytes()


# ---- what is asked, and agreed to ----


def test_a_selection_is_what_fits_all_that_is_asked(tmp_path):
    one, two = record.new_id(), record.new_id()
    put(note("1", thread=one), {"@tag": "task", "title": "2", "thread": one}, note("3", thread=two), note("4", thread=record.new_id()))

    def bodies(name, **asked):
        name = f"export-{name}"
        out(tmp_path / name, asked=transfer.Asked(**asked))
        found = [rec.get("body", rec.get("title")) for rec in map(json.loads, lines(tmp_path / name)[1:-1])]
        os.unlink(tmp_path / name)
        return found

    assert bodies("a", threads=(one,)) == ["1", "2"]
    assert bodies("b", threads=(two, one)) == ["1", "2", "3"]
    assert bodies("c", threads=(two, one), tags=("note",)) == ["1", "3"]
    assert bodies("d", tags=("@Task", "note"))[:4] == ["1", "2", "3", "4"]
    assert bodies("e", since="2999-01-01T00:00:00.000Z") == []
    assert bodies("f", until="2999-01-01T00:00:00.000Z", tags=("note",)) == ["1", "3", "4"]


@pytest.mark.parametrize("asked", [transfer.Asked(), transfer.Asked(threads=("",)), transfer.Asked(tags=("",), threads=("x",))])
def test_nothing_or_an_empty_text_is_no_selection(asked, tmp_path):
    assert code(out, tmp_path / "x", asked=asked) == USAGE
    assert list(journal.read(paths.journal())) == []


def test_a_sealed_export_needs_a_file():
    assert code(list, transfer.export(ALL, "sealed", None, stage="test", consent=lambda rec: "", opened=lambda rec: rec)) == USAGE


@pytest.mark.parametrize("form", FORMS)
def test_without_consent_nothing_leaves(form, tmp_path):
    put(note("1"), {"@tag": "task", "title": "2"})
    assert code(out, tmp_path / "x", form, consent=lambda rec: "nobody agreed to it") == NOPERM
    # For one of them there is none.
    assert code(out, tmp_path / "x", form, consent=lambda rec: "not for it" if rec and rec["@tag"] == "task" else "") == NOPERM
    assert code(out, tmp_path / "x", form, transfer.Asked(tags=("none",)), consent=lambda rec: "nobody agreed to it") == NOPERM
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert len(list(journal.read(paths.journal()))) == 2


def test_consent_that_is_withdrawn_meanwhile_counts(tmp_path):
    put(*map(note, "abc"))
    asked = []

    def consent(rec):
        asked.append(rec)
        return "it was withdrawn" if len(asked) > 3 else ""

    assert code(out, tmp_path / "x", consent=consent) == NOPERM
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert [rec["outcome"] for rec in held(own=True)[3:]] == ["intended", "failed"]


def test_consent_for_one_thread_is_for_no_other(tmp_path):
    one, two = (put(note(word, thread=record.new_id()))[0] for word in "ab")
    state.agree("export", ["note", one["thread"]])
    ways = {"consent": lambda rec: state.consent("export", rec)}
    assert out(tmp_path / "x", asked=transfer.Asked(threads=(one["thread"],)), **ways)["records"] == 1
    assert code(out, tmp_path / "y", asked=transfer.Asked(threads=(two["thread"],)), **ways) == NOPERM
    assert code(out, tmp_path / "y", asked=transfer.Asked(tags=("note",)), **ways) == NOPERM
    state.agree("export")
    assert out(tmp_path / "y", **ways)["records"] == 4


@pytest.mark.parametrize("form", FORMS)
def test_what_one_left_that_was_killed_is_in_nobodys_way(form, tmp_path):
    put(note())
    (tmp_path / f".x{suffix(form)}.{os.getpid()}.tmp").write_text("half")
    assert out(tmp_path / "x", form)["records"] == 1
    assert sorted(os.listdir(tmp_path)) == ["a", f"x{suffix(form)}"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_there_stays(form, tmp_path):
    put(note())
    place = tmp_path / f"x{suffix(form)}"
    place.write_bytes(b"mine")
    assert code(out, tmp_path / "x", form) == CANTCREAT
    assert code(out, place, form) == CANTCREAT
    os.unlink(place)
    os.symlink(tmp_path / "elsewhere", place)
    assert code(out, place, form) == CANTCREAT
    assert sorted(os.listdir(tmp_path)) == sorted(["a", place.name])


def test_a_folder_that_is_missing_leaves_nothing(tmp_path):
    put(note())
    assert code(out, tmp_path / "none" / "x") == CANTCREAT
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_the_intent_is_in_the_journal_before_the_first_byte(tmp_path):
    put(note())
    steps = transfer.export(ALL, "ndjson", str(tmp_path / "x"), stage="test", consent=lambda rec: "", opened=lambda rec: rec)
    intent = next(steps)
    assert (intent["@tag"], intent["act"], intent["outcome"], intent["records"]) == ("audit", "export", "intended", 1)
    assert held(own=True)[-1]["id"] == intent["id"]
    assert sorted(os.listdir(tmp_path)) == ["a"]
    report = next(steps)
    assert held(own=True)[-1]["id"] == report["id"]
    assert report["sha256"] == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_heads_of_the_journal_and_tombstones_stay(tmp_path):
    rec = put(note("gone"), {"@tag": "x_odd", "body": "declared by a schema of the journal"})[0]
    archive.catch_up(limit=None)
    purge.run(purge.Asked(ids=(rec["id"],)), "asked for", stage="test")
    out(tmp_path / "x", asked=transfer.Asked(tags=("schema", "tombstone", "x_odd")))
    assert [json.loads(line)["@tag"] for line in lines(tmp_path / "x")] == ["report", "x_odd", "report"]


# ---- what is not as it was made ----


@pytest.fixture(params=["ndjson", "ftai"])
def made(request, tmp_path, monkeypatch):
    """An export of a dozen records; the home is an empty one."""
    put(*[note(f"number {n}", list=[1, n], **({"@blocks": [{"@tag": "inner", "a": n}]} if n % 2 else {})) for n in range(12)])
    out(tmp_path / "good", request.param)
    use(tmp_path / "b", monkeypatch)
    return tmp_path / "good"


def refused(path, data: bytes) -> bool:
    path.with_name("bad").write_bytes(data)
    try:
        take(path.with_name("bad"))
    except Failure as bad:
        return bad.code == DATAERR
    return False


def test_every_truncation_is_refused(made):
    data = made.read_bytes()
    for size in range(0, len(data), 1 if SCALE > 1 else 7):
        assert refused(made, data[:size]), size
    assert refused(made, data[:-1])
    assert list(journal.read(paths.journal())) == []
    assert counts(take(made)) == {"written": 12}


def test_every_changed_byte_is_refused(made):
    data, chance = made.read_bytes(), random.Random(3)
    for at in range(0, len(data), 1 if SCALE > 1 else 7):
        other = bytearray(data)
        other[at] ^= 1 << chance.randrange(8)
        # Nothing says which id a header or a trailer should have, or when it was made: there a change is none that matters.
        if refused(made, bytes(other)):
            continue
        assert at < data.index(b"number 0") or at > data.rindex(b"number 11"), at
    assert all(rec["@tag"] in OWN or rec["body"].startswith("number ") for rec in held())


def test_parts_that_are_missing_doubled_or_swapped_are_refused(made):
    data = made.read_bytes()
    parts = data.splitlines(keepends=True) if data[:1] == b"{" else [part + b"\n@end\n" for part in data.split(b"\n@end\n")[:-1]]
    heads = 0 if data[:1] == b"{" else 2
    first, last = heads, len(parts) - 1
    for n in range(first, last + 1):
        assert refused(made, b"".join(parts[:n] + parts[n + 1 :])), n
        assert refused(made, b"".join(parts[: n + 1] + parts[n:])), n
    for n in range(first, last):
        assert refused(made, b"".join([*parts[:n], parts[n + 1], parts[n], *parts[n + 2 :]])), n
    assert refused(made, data + b"\n")
    assert refused(made, data + data)
    assert list(journal.read(paths.journal())) == []


def test_a_trailer_that_says_something_else_is_refused(tmp_path):
    body = [chained(n) for n in range(1, 4)]
    good = begin()
    (tmp_path / "good").write_bytes(signed(good, body))
    assert counts(take(tmp_path / "good")) == {"written": 3}
    before = len(held(own=True))
    for wrong in ({"records": 2}, {"records": "3"}, {"sha256": "0" * 64}, {"parent": record.new_id()}, {"act": "begin"}, {"act": "ended"}):
        assert refused(tmp_path / "good", signed(begin(), body, **wrong)), wrong
    for head in (begin("no id"), begin() | {"id": "x"}, {key: value for key, value in begin().items() if key != "journal"}):
        assert refused(tmp_path / "good", signed(head, body)), head
    assert len(held(own=True)) == before


def test_one_bad_file_of_several_is_enough(made):
    made.with_name("plain").write_bytes(b'{"@tag":"note","body":"fine"}\n')
    made.with_name("bad").write_bytes(b'{"@tag":"note","body":"fine"}\n{"@tag":"note",}\n')
    assert code(take, made.with_name("plain"), made, made.with_name("bad")) == DATAERR
    assert list(journal.read(paths.journal())) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n \n",
        b"hello\n",
        b"\0" * 100,
        b'{"@tag":"note","body":"\xff"}\n',
        b'{"@tag":"note","a":null}\n',
        b'{"@tag":"note","a":1,"a":2}\n',
        b'{"@tag":"note","a":1e999}\n',
        b'{"@tag":"note","a":123456789012345678901}\n',
        b'{"@tag":"end"}\n',
        b'{"a":1}\n',
        b"[]\n",
        b'{"@tag":"note"}{"@tag":"note"}\n',
        b'{"@tag":"note","@blocks":' * 100 + b"\n",
        b'@ftai v2.0\n\n@note\n  body: "\xff"\n@end\n',
        b"@ftai v2.0\n" + b"".join(b" " * n + b"@a\n" for n in range(100)),
        b"\x28\xb5\x2f\xfd" + os.urandom(2000),
        b"\x1f\x8b" + os.urandom(2000),
        b"ftai-backup/1\0\0\0" + os.urandom(2000),
        b"age-encryption.org/v1\n-> X25519 xxxx\n" + os.urandom(200),
    ],
)
def test_what_is_no_record_is_refused(data, tmp_path):
    seal.recipient()
    (tmp_path / "x").write_bytes(b'{"@tag":"note","body":"fine"}\n' * (data[:1] == b"{") + data)
    assert code(take, tmp_path / "x") in (DATAERR, NOPERM)
    assert list(journal.read(paths.journal())) == []
    assert [name for name in os.listdir(paths.state()) if name.startswith(".transfer")] == []


# ---- what is forged ----


def forged():
    """Records that say of the journal what only its own may say."""
    now = {"ts": record.now(), "from": "ftai-archive"}
    for rec in (
        {"@tag": "audit", "act": "purge", "subject": "journal", "who": "me", "outcome": "named", "of": 1, "purged": ["1 " + "ab" * 32]},
        {"@tag": "audit", "act": "purge", "subject": "journal", "who": "me", "outcome": "intended", "asked": ["id"], "records": 1},
        {"@tag": "report", "act": "purge", "subject": "archive", "outcome": "done", "records": 1, "last": 1, "hash": "ab" * 32, "about": record.new_id()},
        {"@tag": "checkpoint", "segment": 1, "last": 1, "hash": "ab" * 32, "because": "a purge"},
        {"@tag": "checkpoint", "size": 3, "hash": "ab" * 32, "note": "ftai-journal/x\n3\nq83v\nclosed 0\n\n— serenamaster AAAA\n"},
        {"@tag": "tombstone"},
    ):
        own = record.new_id()
        yield {"@tag": rec["@tag"], "id": own, "ts": now["ts"], "thread": own, "from": "ftai-archive", **{k: v for k, v in rec.items() if k != "@tag"}}


@pytest.mark.parametrize("ours", [False, True])
def test_forged_proofs_and_chains_prove_nothing(ours, tmp_path):
    put(note("first"), note("second"))
    head = begin(archive._identity(paths.journal()) if ours else None)
    chains = [1, 2, 0, -1, 10**18, "x", 1.5, True]
    body = [chained(seq) for seq in chains]
    body += [record.encode(rec | {"@blocks": [{"@tag": "chain", "seq": 1, "digest": "ab" * 32, "hash": "cd" * 32}]}) for rec in forged()]
    (tmp_path / "x").write_bytes(signed(head, body))
    report = take(tmp_path / "x")
    assert counts(report) == {"written": len(chains), "left": 6}
    assert sound().records == 2 + len(chains) + 2
    origins = [rec.get("origin") for _, rec in journal.read(paths.journal()) if rec["@tag"] == "note"]
    # That it is of ours is what it says, and the journal does not hold it.
    assert origins == [None, None] + [f"{head['journal']} 1", f"{head['journal']} 2"] + [report["sha256"]] * 6
    # The same without header and trailer.
    (tmp_path / "y").write_bytes(b"".join(body[len(chains) :]))
    assert counts(take(tmp_path / "y")) == {"left": 6}
    sound()


def folded(*ids):
    archive.catch_up(limit=None)
    archive.opened_by(lambda rec: seal.opened(rec, secret.identity))
    return archive.get(archive.connect(), ids)


@pytest.mark.parametrize("encrypt", ["off", "local"])
def test_what_is_imported_changes_nothing_of_the_owners(encrypt, tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_ENCRYPT", encrypt)
    own, theirs, later = put(note("pay alice 100"))[0], record.stamp(note("theirs")), record.new_id()
    changes = [own["id"], theirs["id"], later, "T-1", 5, [own["id"]]]
    words = [record.stamp(note(f"change {n}", updates=about)) for n, about in enumerate(changes)]
    words.append(record.stamp(note("both", updates=own["id"], updated="long ago")))
    # That of the owner's is in the file too, in these words and in others, and says where it is from.
    more = [own, {**own, "body": "pay bob 999"}, {**own, "origin": f"{record.new_id()} 7"}]
    (tmp_path / "x").write_bytes(b"".join(map(record.encode, [theirs, *more, *words])))
    report = take(tmp_path / "x")
    assert (counts(report), report["updated"]) == ({"written": 8, "repeats": 2, "conflicts": 1}, 6)
    assert [rec["id"] for rec in held() if "updates" in rec] == [words[1]["id"]]
    shown = folded(own["id"], theirs["id"])
    assert shown[own["id"]]["body"] == "pay alice 100"
    assert shown[theirs["id"]]["body"] == "change 1"
    # Nor does it from another file, which may change what came before.
    again = record.stamp(note("again", updates=theirs["id"], origin=f"{record.new_id()} 3"))
    (tmp_path / "y").write_bytes(b"".join(map(record.encode, [again, record.stamp(note("more", updates=own["id"]))])))
    assert take(tmp_path / "y")["updated"] == 1
    shown = folded(own["id"], theirs["id"])
    assert shown[own["id"]]["body"] == "pay alice 100"
    assert shown[theirs["id"]]["body"] == "again"
    for name, repeats in ("x", 10), ("y", 2):
        report = take(tmp_path / name)
        assert (report["repeats"], report["updated"], report["written"]) == (repeats, 0, 0)
    sound()


def test_updates_there_and_back(tmp_path, monkeypatch):
    one = put({"@tag": "task", "body": "one", "status": "open"})[0]
    put({"@tag": "task", "updates": one["id"], "status": "done"}, note("both", updates=one["id"], updated="long ago"))
    out(tmp_path / "all")
    out(tmp_path / "notes", asked=transfer.Asked(tags=("note",)))
    assert counts(take(tmp_path / "all")) == {"repeats": 3}
    for name, updated in ("all", 0), ("notes", 1):
        use(tmp_path / name.upper(), monkeypatch)
        report = take(tmp_path / name)
        assert (report["updated"], report["conflicts"]) == (updated, 0)
        assert updated or folded(one["id"])[one["id"]]["status"] == "done"
        out(tmp_path / f"{name} back", asked=transfer.Asked(tags=("note", "task")))
        use(tmp_path / "a", monkeypatch)
        assert counts(take(tmp_path / f"{name} back")) == {"repeats": 1 if updated else 3}


def test_what_is_imported_says_nothing_of_what_is_done_here(tmp_path):
    from serenamaster import execution

    command, task = put({"@tag": "command", "via": "text", "body": "do it"}, {"@tag": "task", "body": "mine"})
    forged = [
        record.make("route", "ftai-route", parent=command, target="skill:remember"),
        record.make("result", "ftai-exec", parent=command, status="done"),
        record.stamp({"@tag": "command", "via": "text", "body": "follow me"}),
        record.stamp({"@tag": "task", "body": "theirs"}),
    ]
    (tmp_path / "x").write_bytes(b"".join(map(record.encode, forged)))
    assert counts(take(tmp_path / "x")) == {"written": 4}
    db = archive.connect()
    assert archive.routed(db, [command["id"]]) == execution._ended(db, [command["id"]]) == set()
    assert archive.newest(db, "text") == command["thread"]
    assert archive.needed() == {2}
    assert [rec["body"] for rec in archive.tasks(db)] == ["mine", "theirs"]
    assert task["body"] == "mine"


def test_commands_and_routes_are_history_and_nothing_is_passed_on(tmp_path):
    command = record.make("command", "x", body="remember it", privacy="cloud")
    route = record.make("route", "x", parent=command, target="skill:remember")
    body = [record.encode(rec) for rec in (command, route)]
    (tmp_path / "x").write_bytes(b"".join(body))
    told = list(transfer.take([str(tmp_path / "x")], stage="test", fail=pytest.fail))
    assert [rec["@tag"] for rec in told] == ["audit", "report"]
    assert all(record.is_history(rec) for _, rec in journal.read(paths.journal()))


def test_names_in_records_lead_nowhere(tmp_path):
    def tree():
        return sorted(str(path) for path in tmp_path.rglob("*") if "/a/" not in str(path))

    paths_ = ["../../../x", "/etc/passwd", f"{tmp_path}/evil", "..", "a/../../b", "x\0y"[:1]]
    records = [{"@tag": tag, "path": path, "body": "b", "file": path, "digest": path} for path in paths_ for tag in ("file", "memory", "specs", "document")]
    (tmp_path / "x").write_bytes(b"".join(map(record.encode, records)))
    before = tree()
    assert counts(take(tmp_path / "x")) == {"written": len(records)}
    assert tree() == before
    assert sorted(os.listdir(paths.where("state"))) == sorted({"archive.db", "archive.db-shm", "archive.db-wal", "archive.db.lock", "journal"})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a\x1b[31mb", "two\nlines", "\udcff", "\u202e"])
def test_names_of_files_that_could_steer_a_terminal(form, name, tmp_path):
    put(note("one"))
    assert "\ufffd" in out(tmp_path / name, form)["to"]
    report = take(f"{tmp_path / name}{suffix(form)}")
    assert report["path"] == record.shown(f"{tmp_path / name}{suffix(form)}")
    assert counts(report) == {"repeats": 1}
    sound()


def test_another_content_under_the_same_id_is_a_conflict(tmp_path):
    one, two = put(note("one"), note("two"))
    other = {**one, "body": "changed"}
    (tmp_path / "x").write_bytes(b"".join(map(record.encode, (other, two, note("three", id=one["id"], ts=one["ts"], thread=one["thread"])))))
    report = take(tmp_path / "x")
    assert counts(report) == {"conflicts": 2, "repeats": 1}
    assert len(report["@said"]) == 2
    errors = [rec for rec in held(own=True) if rec["@tag"] == "error"]
    assert [(rec["class"], rec["about"]) for rec in errors] == [("conflict", one["id"])] * 2
    assert [rec["body"] for rec in held() if rec["@tag"] == "note"] == ["one", "two"]


def test_conflicts_within_a_file(tmp_path):
    one = record.stamp(note("one"))
    (tmp_path / "x").write_bytes(b"".join(map(record.encode, (one, one, {**one, "body": "other"}))))
    assert counts(take(tmp_path / "x")) == {"written": 1, "repeats": 1, "conflicts": 1}


# ---- what comes from somewhere else ----


@pytest.mark.parametrize(
    "data",
    [
        b'{"@tag":"note","body":"no id"}\n{"@tag":"note","body":"no id"}\n{"@tag":"task","id":"T-1","title":"a name"}\n{"@text":"words"}\n',
        b'@ftai v2.0\n\n@document\n  title: "mine"\n@end\n\n@schema\n  name: "mine"\n  required_tags: ["@document"]\n@end\n\n'
        b"---\nSome words.\n---\n\n@note\n  id: T-1\n  body: x\n@end\n@note\n  body: x\n@end\n",
        b'{"@tag":"document","title":"x"}\n{"@tag":"ftai","@head":"v9"}\n{"@tag":"include","path":"../x"}\n{"@tag":"intent","@head":"fail"}\n',
        b'{"@tag":"note","id":"0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e","body":"no time and no thread"}\n',
        b'{"@tag":"partial","n":1,"body":"x"}\n{"@tag":"note","body":"x","ref":"old","id":"new"}\n',
    ],
)
def test_foreign_files_twice_add_nothing(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    first = take(tmp_path / "x")
    assert first["written"] + first["left"] == first["records"]
    assert first["sha256"] == hashlib.sha256(data).hexdigest()
    before = held()
    assert "origin" not in str(before)  # it stands beside the texts, not in them
    again = take(tmp_path / "x")
    assert (again["written"], again["repeats"]) == (0, first["written"])
    assert held() == before
    sound()


def test_a_segment_of_a_journal_can_be_imported(tmp_path, monkeypatch):
    put(*map(note, "abc"))
    segment = Path(paths.journal()) / chain.LIVE
    use(tmp_path / "b", monkeypatch)
    report = take(segment)
    assert (report["written"], report["records"]) == (3, 3)
    assert counts(take(segment)) == {"repeats": 3}


# ---- FILEs that are none, and too much ----


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device", "loop"])
def test_what_is_no_regular_file_is_refused(kind, tmp_path):
    place = tmp_path / "x"
    (tmp_path / "real").write_bytes(b'{"@tag":"note"}\n')
    {"link": lambda: os.symlink(tmp_path / "real", place), "fifo": lambda: os.mkfifo(place), "folder": lambda: os.mkdir(place),
     "device": lambda: None, "loop": lambda: os.symlink("x", place)}[kind]()  # fmt: skip
    assert code(take, "/dev/zero" if kind == "device" else place) == DATAERR
    assert list(journal.read(paths.journal())) == []


def test_a_file_that_is_missing(tmp_path):
    assert code(take, tmp_path / "none") == NOINPUT
    assert code(take) == USAGE


def test_more_than_the_limits_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b'{"@tag":"note"}\n' * 11)
    monkeypatch.setenv("FTAI_IMPORT_RECORDS", "10")
    assert code(take, tmp_path / "x") == DATAERR
    (tmp_path / "x").write_bytes(b'{"@tag":"note"}\n' * 6)
    assert code(take, tmp_path / "x", tmp_path / "x") == DATAERR
    monkeypatch.setenv("FTAI_IMPORT_MB", "1")
    (tmp_path / "x").write_bytes(b'{"@tag":"note","body":"' + b"a" * MIB + b'"}\n')
    assert code(take, tmp_path / "x") == DATAERR
    assert list(journal.read(paths.journal())) == []
    (tmp_path / "x").write_bytes(b'{"@tag":"note"}\n' * 5)
    assert take(tmp_path / "x", tmp_path / "x")["repeats"] == 5


# ---- the command: memory, faults, several at once ----


def environment(tmp_path, **more):
    keep = {name: value for name, value in os.environ.items() if not name.startswith("FTAI_")}
    return keep | {"FTAI_HOME": str(tmp_path / "a"), "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", **more}


# A process of its own starts the command: what is measured of a child begins with what its parent had in memory.
MEASURE = """
import os, sys
pid = os.fork()
if not pid:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
_, status, used = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), file=sys.stderr)
"""
HEAD = b"@ftai v2.0\n\n"


def bomb(path, size):
    """A sealed export of so many zeros."""
    from serenamaster import sealed

    with open(path, "wb"):
        os.truncate(path, size)
    fd = os.open(path, os.O_RDONLY)
    said = sealed.write(fd, str(path), {"name": "x"})
    os.close(fd)
    os.unlink(path)
    return path.with_name(said["file"])


HOSTILE = {
    "a record of 17 MiB": lambda: b'{"@tag":"note","body":"' + b"a" * (17 * MIB) + b'"}\n',
    "a record of 17 MiB, text": lambda: HEAD + b'@note\n  body: "' + b"a" * (17 * MIB) + b'"\n@end\n',
    "lists": lambda: b'{"@tag":"note","a":[' + b"[]," * (5 * MIB) + b"1]}\n",
    "lists, text": lambda: HEAD + b"@note\n  a: [" + b"1, " * (5 * MIB) + b"1]\n@end\n",
    "names": lambda: b'{"@tag":"note"' + b"".join(b',"k%d":1' % n for n in range(1_000_000)) + b"}\n",
    "names, text": lambda: HEAD + b"@note\n" + b"".join(b"  k%d: 1\n" % n for n in range(1_000_000)) + b"@end\n",
    "blocks, text": lambda: HEAD + b"@note\n" + b"  @a\n  @end\n" * 1_000_000 + b"@end\n",
    "lines, text": lambda: HEAD + b"@note\n" + b"a\n" * 8_000_000 + b"@end\n",
    "narrative": lambda: HEAD + b"---\n" + b"word\n" * 3_000_000,
    "depth": lambda: b'{"@tag":"note","a":' + b"[" * (5 * MIB) + b"\n",
    "a text that never ends": lambda: b'{"@tag":"note","a":"' + b'\\"' * (5 * MIB) + b"\n",
    "shapes": lambda: b"".join(b'{"@tag":"note"' + b"".join(b',"k%d_%d":1' % (j, i) for i in range(2000)) + b"}\n" for j in range(600)) + b"{bad\n",
}


@pytest.mark.parametrize("what", [*HOSTILE, "zeros", "zeros, sealed", "zeros, sealed, on standard input", "tiny records"])
def test_hostile_files_are_refused_in_little_memory(what, tmp_path):
    place, more, source = tmp_path / "x", {}, None
    if what == "zeros":
        with open(place, "wb"):
            os.truncate(place, 1 << 30)
    elif what == "tiny records":
        # Ten million at ten times the scale, where the limit is the one that is shipped.
        count = 10_000_000 if SCALE > 1 else 200_000
        more = {} if SCALE > 1 else {"FTAI_IMPORT_RECORDS": "100000"}
        with open(place, "wb") as file:
            for _ in range(count // 10_000):
                file.write(b'{"@tag":"a"}\n' * 10_000)
    elif what.startswith("zeros, sealed"):
        seal.recipient()
        more = {"FTAI_IMPORT_MB": "1000" if SCALE > 1 else "100"}
        place = bomb(place, (1 << 30) if SCALE > 1 else (1 << 28))
        assert place.stat().st_size < 40_000
        source = place if what.endswith("input") else None
    else:
        place.write_bytes(HOSTILE[what]())
    before = sorted(tmp_path.rglob("*"))
    with open(source or os.devnull, "rb") as given:
        words = [sys.executable, "-c", MEASURE, STAGE, "import", "-" if source else place]
        ran = subprocess.run(words, env=environment(tmp_path, **more), stdin=given, capture_output=True, text=True, timeout=600, check=False)
    status, used = ran.stderr.splitlines()[-1].split()
    assert (int(status), ran.stdout) == (DATAERR, ""), ran.stderr
    assert int(used) < 64 * MIB
    made = {str(path.relative_to(tmp_path)) for path in set(tmp_path.rglob("*")) - set(before)}
    assert made <= {"a/state", "a/cache", "a/state/keys"} | {name for name in made if name.startswith("a/cache/")}


def many(count):
    return b"".join(record.encode(record.stamp(note(f"number {n} " + "word " * 20))) for n in range(count))


def imported(tmp_path, *words, wrap=(), **more):
    ran = subprocess.run([*wrap, STAGE, "import", *words], env=environment(tmp_path, **more), capture_output=True, text=True, timeout=600, check=False)
    return ran.returncode, [orjson.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def test_a_full_disk_leaves_what_was_journaled_and_says_so(tmp_path):
    count = 6000 * SCALE
    (tmp_path / "x").write_bytes(many(count))
    # A limit of the size of files stands in for the disk: the journal reaches it in the middle.
    status, told, said = imported(tmp_path, tmp_path / "x", wrap=("bash", "-c", f'ulimit -f {1500 * SCALE}; exec "$0" "$@"'))
    assert status in (IOERR, CANTCREAT, 75), said
    assert told[-1]["outcome"] == "incomplete"
    forget()
    there = held()
    assert 0 < told[-1]["written"] == len(there) < count
    sound()
    status, told, _ = imported(tmp_path, tmp_path / "x")
    assert (status, counts(told[-1])) == (0, {"written": count - len(there), "repeats": len(there)})
    forget()
    assert len({rec["id"] for rec in held()}) == len(held()) == count
    sound()


def test_killed_half_way_the_next_import_ends_it(tmp_path):
    count = 6000 * SCALE
    (tmp_path / "x").write_bytes(many(count))
    live = tmp_path / "a" / "state" / "journal" / chain.LIVE
    for _ in range(3):
        size = live.stat().st_size if live.exists() else 0
        child = subprocess.Popen([STAGE, "import", tmp_path / "x"], env=environment(tmp_path), stdout=subprocess.DEVNULL)
        while child.poll() is None and (not live.exists() or live.stat().st_size < size + 300_000):
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert 0 < len(held()) < count
    status, told, _ = imported(tmp_path, tmp_path / "x")
    assert (status, told[-1]["outcome"]) == (0, "done")
    assert told[-1]["written"] + told[-1]["repeats"] == count
    assert len({rec["id"] for rec in held()}) == len(held()) == count
    assert imported(tmp_path, tmp_path / "x")[1][-1]["repeats"] == count
    sound()


def test_several_at_once_double_nothing(tmp_path):
    count = 4000 * SCALE
    (tmp_path / "x").write_bytes(many(count))
    data = lines(tmp_path / "x")
    random.Random(7).shuffle(data)
    (tmp_path / "y").write_bytes(b"".join(data))
    children = [
        subprocess.Popen([STAGE, "import", tmp_path / name], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("x", "y", "x")
    ]
    told = [orjson.loads(child.communicate(timeout=600)[0].splitlines()[-1]) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum(rec["written"] for rec in told) == count
    assert sum(rec["written"] + rec["repeats"] for rec in told) == 3 * count
    assert len({rec["id"] for rec in held()}) == len(held()) == count
    sound()


def test_a_file_that_changes_between_the_two_readings_is_told(tmp_path):
    place = tmp_path / "x"
    place.write_bytes(b'{"@tag":"note","body":"one"}\n' * 2)
    steps = transfer.take([str(place)], stage="test", fail=pytest.fail)
    assert next(steps)["@tag"] == "audit"
    place.write_bytes(b'{"@tag":"note","body":"two"}\n' * 2)
    assert next(steps)["outcome"] == "incomplete"
    assert code(next, steps) == DATAERR
