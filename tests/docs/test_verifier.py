"""The shell verifier of ftai(5) is tests/vectors/verify.sh, is short, and agrees with ftai-log about journals whole and damaged."""

import os
import re
import shutil
import subprocess

import pages
import pytest
import serenamaster.text
from running import Place
from serenamaster.record import encode
from surface import ROOT

SCRIPT = os.path.join(ROOT, "tests", "vectors", "verify.sh")
PAGE = os.path.join(ROOT, "man", "ftai.5")
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "vectors", "chain.ftai")
ESCAPES = str.maketrans({"\\": "\\e", "'": "\\(aq", "-": "\\-", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})
RECORDS = 1000

needs_mandoc = pytest.mark.skipif(not shutil.which("mandoc"), reason="MANDOC IS MISSING: the verifier is not taken out of the page")


def script() -> str:
    with open(SCRIPT) as file:
        return file.read()


def as_mdoc(text: str) -> str:
    lines = [re.sub(r"^([.'])", r"\\&\1", line.translate(ESCAPES)) for line in text.splitlines()]
    return "\n".join(['.\\" verify.sh begin', ".Bd -literal", *lines, ".Ed", '.\\" verify.sh end'])


@needs_mandoc
def test_page_shows_the_script(tmp_path):
    """FTAI_ACCEPT=1 writes the script into the page."""
    block = re.compile(r'^\.\\" verify\.sh begin$.*?^\.\\" verify\.sh end$', re.S | re.M)
    if os.environ.get("FTAI_ACCEPT"):
        with open(PAGE) as page:
            changed = block.sub(lambda _: as_mdoc(script()), page.read())
        with open(PAGE, "w") as page:
            page.write(changed)
    assert any(shown == script().rstrip("\n") for shown in pages.displays("ftai.5", "JOURNAL")), "FTAI_ACCEPT=1 pytest tests/docs/test_verifier.py"


def test_is_short():
    assert len(script().splitlines()) <= 25
    assert not re.search(r"python|perl|jq|ftai-", script().replace("ftai-journal/1", ""))
    # mawk 1.3.4 may crash where a loop over an array takes something out of it.
    assert not re.search(r"for \(\w+ in .*\bdelete\b", script())


@pytest.fixture(scope="module")
def verify(tmp_path_factory):
    """Runs the script as the page shows it (as the file has it, where mandoc is missing) over segments."""
    shown = next((text for text in pages.displays("ftai.5", "JOURNAL") if "verify.sh 000001.ftai" in text), None) if shutil.which("mandoc") else None
    path = tmp_path_factory.mktemp("verifier") / "verify.sh"
    path.write_text((shown or script()) + "\n")

    def run(*segments):
        return subprocess.run(["sh", path, *segments], capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """A journal of 1,000 records that ftai-log wrote, values of all kinds in it."""
    place = Place(tmp_path_factory.mktemp("journal"), ftai_home=True)
    bodies = ["@note a", 'quotes " backslash \\ newline\n@end\n  @chain\n    seq: 7', "\u00fc \u2028 // [ {", "", "- 007"]
    with open(os.path.join(place.work, "records.ndjson"), "wb") as out:
        for n in range(RECORDS):
            nested = [{"@tag": "note", "body": "@end"}]
            out.write(encode({"@tag": "note", "n": n, "body": bodies[n % len(bodies)], "list": ["a", 1, True, [0.5]], "@blocks": nested}))
    ran = place.run("ftai-log --sink records.ndjson")
    assert ran.returncode == 0, ran.stderr
    place.segment = os.path.join(place.home, "ftai", "state", "journal", "current.ftai")
    return place


def test_agrees_on_a_whole_journal(verify, journal):
    with open(journal.segment, "rb") as segment:
        records, _ = serenamaster.text.read(segment.read())
    assert sum(any(block.get("@tag") == "chain" for block in rec.get("@blocks", ())) for rec in records) == RECORDS
    ran = verify(journal.segment)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    assert journal.run("ftai-log --verify").returncode == 0


AWKS = {"mawk": "mawk", "gawk": "gawk", "bwk": "original-awk", "busybox": "busybox awk"}


@pytest.fixture(scope="module")
def purged(tmp_path_factory):
    """The segments of a journal in which records were purged again and again, and others were written in between."""
    place = Place(tmp_path_factory.mktemp("purged"), ftai_home=True)
    for word in ("amber", "beryl", "coral"):
        with open(os.path.join(place.work, "records.ndjson"), "wb") as out:
            for n in range(300):
                out.write(encode({"@tag": "note", "body": f"{word} {n}" if n % 3 else "stays"}))
        ran = place.run(f"ftai-log --sink records.ndjson && ftai-archive purge --pattern {word} --because test")
        assert ran.returncode == 0, ran.stderr
    folder = os.path.join(place.home, "ftai", "state", "journal")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".ftai")]


@pytest.mark.parametrize("name", AWKS)
def test_runs_with_each_awk(purged, tmp_path, name):
    command, *words = AWKS[name].split()
    own = shutil.which(command)
    if not own:
        pytest.skip(f"{command} IS MISSING: the verifier is not tried with it")
    (tmp_path / "awk").write_text(f'#!/bin/sh\nexec {" ".join([own, *words])} "$@"\n')
    (tmp_path / "awk").chmod(0o700)

    def run(*segments):
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(["sh", SCRIPT, *segments], env=env, capture_output=True, text=True, timeout=300, check=False)

    ran = run(*purged)
    assert (ran.returncode, ran.stderr) == (0, "")
    copies = [tmp_path / os.path.basename(path) for path in purged]
    for path, copy in zip(purged, copies, strict=True):
        with open(path) as file:
            copy.write_text(re.sub(r'(  purged: \[.*")([0-9]+ [0-9a-f]{64}"\])', r"\g<1>0\2", file.read()))
    ran = run(*copies)
    assert ran.returncode == 1 and "has no audit record" in ran.stderr, ran.stderr


def damages(text: str):
    """(name, damaged text) of a segment: each in the 500th record or behind it."""
    at = [found.start() for found in re.finditer(r"^@note\n", text, re.M)]
    record, after = text[at[499] : at[500]], text[at[500] : at[501]]
    yield "byte", text.replace(record, record.replace('body: "', 'body: "x', 1))
    yield "dropped", text.replace(record, "")
    yield "doubled", text.replace(record, record + record)
    yield "swapped", text.replace(record + after, after + record)
    yield "salt", text.replace(record, re.sub(r'salt: "(.)', lambda found: f'salt: "{"1" if found[1] == "0" else "0"}', record))
    yield "hash", text.replace(record, re.sub(r'hash: "(.)', lambda found: f'hash: "{"1" if found[1] == "0" else "0"}', record))
    yield "field", text.replace(record, record.replace("  @chain\n", "  more: 1\n  @chain\n"))
    yield "line", text.replace(record, "\n" + record)
    yield "cut", text[: at[-1] + 40]
    yield "head", re.sub(r"  prev: \"(.)", lambda found: f'  prev: "{"1" if found[1] == "0" else "0"}', text, count=1)
    yield "id", re.sub(r"  journal: \"(.)", lambda found: f'  journal: "{"1" if found[1] == "0" else "0"}', text, count=1)


NAMES = ["byte", "dropped", "doubled", "swapped", "salt", "hash", "field", "line", "cut", "head", "id"]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_on_a_damaged_journal(verify, journal, tmp_path, name):
    with open(journal.segment) as segment:
        text = segment.read()
    damaged = dict(damages(text))[name]
    assert damaged != text, "the damage did not happen"
    copy = tmp_path / "state" / "journal"
    os.makedirs(copy, mode=0o700)
    os.chmod(tmp_path / "state", 0o700)
    (copy / "current.ftai").write_text(damaged)
    assert verify(copy / "current.ftai").returncode != 0
    ran = journal.run(f"FTAI_HOME={tmp_path} ftai-log --verify")
    # A record that is cut in the middle is a torn tail, which the next writer cuts off: --verify may call it no more than that.
    assert ran.returncode == 1 or name == "cut", f"{ran.returncode}\n{ran.stdout[-500:]}{ran.stderr[-500:]}"


def test_vectors(verify):
    folder = os.path.dirname(SCRIPT)
    segments = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith("chain") and name.endswith(".ftai")]
    for segment in segments:
        assert verify(segment).returncode == 0, segment


@pytest.mark.skipif(not os.path.exists(SHARED), reason="SHARED VECTORS ARE ABSENT: the published chain is not verified")
def test_published_vector(verify, tmp_path):
    assert verify(SHARED).returncode == 0
    with open(SHARED) as file:
        text = file.read()
    (tmp_path / "wrong.ftai").write_text(text.replace("send the invoice tomorrow", "send the invoice today"))
    assert verify(tmp_path / "wrong.ftai").returncode != 0
