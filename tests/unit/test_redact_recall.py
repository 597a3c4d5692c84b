"""What redaction finds of secrets that were made up for this run, in plain and in other clothes; and what it takes for one by mistake."""

import base64
import glob
import json
import os
import random
import re
import sysconfig
import urllib.parse
from pathlib import Path

import fakes
import pytest
from serenamaster import redact

SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
EACH = 4 * SCALE
ROOT = Path(__file__).parents[2]
CUT = {"cut over two records": None}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    redact._own.clear()


def gone(secret: str, out: str) -> bool:
    """True where no part of it is left that is worth anything."""
    size = max(4, len(secret) * 6 // 10)
    return not any(secret[n : n + size] in out for n in range(len(secret) - size + 1))


def undone(context: str, out: str) -> str:
    """What a reader makes of a text in these clothes."""
    if context in ("url", "form"):
        return urllib.parse.unquote_plus(out)
    if context == "json":
        return json.loads(out)["value"]
    if context == "ansi":
        return re.sub("\x1b\\[[0-9;]*[mK]", "", out)
    if context == "unseen":
        return re.sub("[\u200b\u200c\u200d\u2060\ufeff\u00ad]", "", out)
    if context == "base64":
        runs = re.findall("[A-Za-z0-9+/]+", out.replace("-", "+").replace("_", "/"))
        return "".join(base64.b64decode(run + "=" * (-len(run) % 4)).decode("latin-1") for run in runs if len(run) % 4 != 1)
    return out


def found(rng: random.Random, context: str, clothe, kind: str) -> bool:
    secret, place = fakes.KINDS[kind](rng)
    text = place.replace("{}", secret)
    if clothe:
        line = clothe(rng, text)
        assert gone(secret, undone(context, line)) is False, "the fake is not where it should be"
        out = redact.text(line)
        return "[redacted:" in out and gone(secret, undone(context, out))
    whole = f"please use {text} for this"
    at = whole.index(secret) + rng.randint(1, len(secret) - 1)
    records = [{"@tag": "message", "n": 1, "body": whole[:at]}, {"@tag": "message", "n": 2, "body": whole[at:]}]
    out = "".join(rec["body"] for rec in redact.batch(records))
    return "[redacted:" in out and gone(secret, out)


@pytest.mark.parametrize(
    ("contexts", "least"),
    [(fakes.PLAIN, 0.99), (fakes.CODED | CUT, 0.95), (fakes.BASE64, 0.90)],
    ids=["plain", "coded", "base64"],
)
def test_recall(contexts, least):
    rng = random.Random()
    missed = []
    count = 0
    for context, clothe in contexts.items():
        for kind in fakes.KINDS:
            for _ in range(EACH):
                count += 1
                if not found(rng, context, clothe, kind):
                    missed.append((context, kind))
    assert len(missed) <= count * (1 - least), sorted(set(missed))


def test_there_are_enough_kinds_and_contexts():
    assert len(fakes.KINDS) >= 26
    assert len({**fakes.PLAIN, **fakes.CODED, **fakes.BASE64, **CUT}) >= 13


@pytest.mark.parametrize("kind", fakes.KINDS)
def test_each_kind_is_named_by_its_pattern(kind):
    rng = random.Random()
    secret, place = fakes.KINDS[kind](rng)
    assert [name for name, _, _ in redact.found(place.replace("{}", secret))] == [kind]


def ordinary(count: int) -> list[str]:
    """Lines of code and prose: the standard library's sources in the order of their names, and our own pages."""
    library = sysconfig.get_paths()["stdlib"]
    paths = [path for path in sorted(glob.glob(f"{library}/**/*.py", recursive=True)) if "packages" not in path and "/test" not in path]
    # Addresses are found in there, and rightly.
    paths = [path for path in paths if os.path.basename(path) != "ipaddress.py"]
    lines: list[str] = []
    for path in [*map(str, sorted((ROOT / "man").iterdir())), str(ROOT / "README.md"), str(ROOT / "HACKING.md"), *paths]:
        lines += Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
        if len(lines) > count:
            break
    assert len(lines) >= count
    return lines


def wrong(lines: list[str], out: list[str]) -> list[tuple]:
    return [(old, new) for old, new in zip(lines, out, strict=True) if old != new and set(re.findall(r"\[redacted:([a-z0-9-]+):", new)) != {"email"}]


def test_ordinary_lines_are_left_alone():
    lines = ordinary(20_000 * SCALE)
    out = [line for n in range(0, len(lines), 500) for line in redact.lines(lines[n : n + 500])]
    assert len(wrong(lines, out)) <= len(lines) / 10_000 * 5, wrong(lines, out)


def test_ordinary_lines_are_left_alone_as_records_of_one_batch():
    lines = ordinary(20_000 * SCALE)
    records = [{"@tag": "message", "n": n, "body": line} for n, line in enumerate(lines)]
    out = [rec["body"] for n in range(0, len(lines), 500) for rec in redact.batch(records[n : n + 500])]
    assert len(wrong(lines, out)) <= len(lines) / 10_000 * 5, wrong(lines, out)
