"""Planted secrets through every stage: none stands afterwards in a file, on stderr, in a traceback, or was seen by a child's command line or environment.

Standard output is left out: a filter passes on what it read, as it was read.
"""

import base64
import json
import os
import random
import re
import shutil
import string
import subprocess
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = sorted(path.name for path in (ROOT / "bin").glob("ftai-*"))
LETTERS = string.ascii_letters + string.digits
CANARY = "pomegranate"  # no secret: where it is not found, nothing was looked at


def some(count: int) -> str:
    return "".join(random.choices(LETTERS, k=count))


def variants(secret: str) -> set[bytes]:
    """A secret as it may stand in a file: plain, in a URL, in JSON, and what its base64 has in common wherever it begins."""
    made = {secret, urllib.parse.quote(secret, safe=""), json.dumps(secret)[1:-1]}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + secret.encode()).decode()
        made.add(encoded[4 if shift else 0 : -4])
    return {text.encode() for text in made}


class Home:
    """A scratch home with a key that ftai-keys holds, and secrets of known kinds."""

    def __init__(self, folder: Path):
        self.folder, self.given = folder, folder.parent / "given"
        for name in ("", "tmp", "work"):
            (folder / name).mkdir(mode=0o700)
        self.given.mkdir()
        self.held = f"{some(12)}/{some(12)}+{some(12)}"
        self.fallback = some(40)  # a key in our environment, as the vendor's own tools have it there
        kinds = [f"ghp_{some(36)}", f"sk-ant-api03-{some(93)}AA", f"AKIA{''.join(random.choices(string.ascii_uppercase + '234567', k=16))}"]
        self.secrets = [self.held, *kinds]
        bindir = f"{ROOT}/bin:{ROOT}/.venv/bin"
        kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
        self.environment = kept | {"PATH": f"{bindir}:{os.environ['PATH']}", "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "TZ": "UTC"}
        self.environment |= {"LC_ALL": "C.UTF-8", "FTAI_HOME": str(folder / "ftai"), "OPENAI_API_KEY": self.fallback}
        self.errors = b""
        made = self.run(["ftai-keys", "set", "demo"], self.held.encode() + b"\n")
        assert made.returncode == 0, made.stderr

    def run(self, argv: list[str], given: bytes = b"", trace: Path | None = None) -> subprocess.CompletedProcess:
        watch = ["strace", "-f", "-v", "-s", "1000000", "-e", "trace=execve", "-o", str(trace)] if trace else []
        ran = subprocess.run([*watch, *argv], input=given, capture_output=True, env=self.environment, cwd=self.folder / "work", timeout=120, check=False)
        self.errors += ran.stderr
        return ran

    def leaks(self, secrets, more: dict[str, bytes]) -> list[str]:
        """Where any of the secrets stands: the files of the home, and what else was collected."""
        texts = dict(more)
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                texts[str(path.relative_to(self.folder))] = path.read_bytes()
        sought = [(secret[:8], form) for secret in secrets for form in variants(secret)]
        return sorted({f"{name}: {head}…" for name, data in texts.items() for head, form in sought if form in data})

    def records(self) -> bytes:
        """Line form: good records of several kinds that hold the secrets, then lines that are wrong in several ways and hold them too."""
        lines = []
        for tag, name in (("command", "body"), ("memory", "body"), ("error", "message"), ("audit", "subject"), ("note", "odd")):
            lines += [json.dumps({"@tag": tag, name: f"{CANARY} {secret} and on"}) for secret in self.secrets]
        secret = self.secrets[1]
        lines.append(json.dumps({"@tag": "command", "body": "x", "@blocks": [{"@tag": "data", "@text": f"key: {secret}"}]}))
        lines.append(json.dumps({"@tag": "data", "list": ["a", [self.held]], secret: 1}))
        lines.append(json.dumps({"@tag": "command", "body": "https://x.test/?key=" + urllib.parse.quote(self.held, safe="")}))
        lines.append(json.dumps({"@tag": "command", "body": base64.b64encode(f"user:{self.held}".encode()).decode()}))
        lines += [json.dumps({"@tag": "memory", "body": f"one {self.held[:15]}"}), json.dumps({"@tag": "memory", "body": f"{self.held[15:]} two"})]
        for secret in self.secrets:
            lines += [f'{{"@tag": "memory", "body": "{secret}', f"{secret} is no record", f'{{"@tag": null, "body": "{secret}"}}']
        return "\n".join(lines).encode() + b"\n"

    def document(self) -> bytes:
        blocks = "".join(f"@memory\n  body: {CANARY} {secret}\n@end\n\n{secret} free text\n\n@broken {secret}\n" for secret in self.secrets)
        return b"@ftai v2.0\n@document\n  title: x\n@end\n\n" + blocks.encode()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("leaks") / "home")


def runs(home: Home, stage: str) -> list[tuple[list[str], bytes]]:
    """What each stage is given: arguments, standard input. Secrets reach it as they reach it in life: in what it reads, not in what it is asked."""
    words = f"remember that the {CANARY} has {home.secrets[1]} and {home.held}".encode() + b"\n"
    if stage == "ftai-why":
        told = home.run(["ftai-run", "-"], words)
        assert told.returncode in (0, 1), told.stderr
        found = re.findall(r'"id":"([0-9a-f-]{36})"', home.run(["ftai-recall", "--tag", "command", "-n", "20"]).stdout.decode())
        assert found
        return [([home.held], b""), (["--today", *found], b"")]
    given = home.given / "in.ftai"
    given.write_bytes(home.document())
    return {
        "ftai-archive": [(["stats"], b""), (["rebuild"], b""), (["maintain"], b""), (["purge", "--pattern", "nothing of this", "--because", "test"], b"")],
        "ftai-doctor": [([], b"")],
        "ftai-keys": [(["list"], b""), (["get", "demo"], b""), (["get", "none"], b""), (["set", "demo"], home.held.encode()), (["audit"], b"")]
        + [(["rotate", "demo", home.held], b""), (["set", home.held], b"short"), (["get", "openai"], b"")],
        "ftai-listen": [(["-"], words), (["--file", str(given)], b"")],
        "ftai-recall": [([CANARY], b""), (["--tag", "memory"], b"")],
        "ftai-report": [(["cost"], b""), (["cost", "--by", "rule", "--reprice", "--records"], b"")],
        "ftai-run": [(["-"], words), (["-"], b"search for " + home.held.encode()), (["-"], home.records())],
    }.get(stage, [([], home.records()), ([], home.document())])  # fmt: skip


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing: what children are given can't be seen")
@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_leaks(home, stage):
    seen = b""
    for n, (arguments, given) in enumerate(runs(home, stage)):
        trace = home.given / f"{stage}-{n}.trace"
        ran = home.run([stage, *arguments], given, trace)
        assert ran.returncode not in (70, 127), ran.stderr
        own, *others = trace.read_bytes().splitlines()
        assert b"execve(" in own
        # A stage that starts itself again, with the Python of its clone, is still the same process with the same arguments.
        first = own.split(b" ", 1)[0]
        seen += b"\n".join(line for line in others if line.split(b" ", 1)[0] != first)
    more = {"standard error": home.errors, "children": seen}
    assert home.leaks([*home.secrets, home.fallback], more) == []


def test_the_pipe_leaks_nothing_and_the_scan_would_see_it(home):
    script = "ftai-listen - | ftai-route | ftai-exec | ftai-log | ftai-show -a"
    said = f"remember that the {CANARY} has {home.secrets[1]} and {home.held}\nwhat is {home.held}\n".encode()
    ran = home.run(["bash", "-o", "pipefail", "-c", script], said)
    assert home.leaks(home.secrets, {"standard error": ran.stderr}) == []
    places = home.leaks([CANARY], {})
    assert [name for name in ("ftai/state/journal/current.ftai", "ftai/state/archive.db") if not any(place.startswith(name) for place in places)] == []


def test_a_traceback_keeps_it_to_itself(home):
    """A stage with a bug in it: what the exception says and what the file of the traceback holds."""
    stage = home.folder / "work" / "ftai-odd"
    lines = [
        "#!/usr/bin/env python3", "import sys", f"sys.path.insert(0, {str(ROOT / 'lib')!r})", "from serenamaster import stage, stream",
        "def main(ctx, files=()):", "    for batch in stream.read(files, ctx):", "        for rec, _ in batch:",
        "            ctx.warn(rec['body'])", "            raise KeyError(rec['body'])", "stage.run(main, doc='Breaks.')", "",
    ]  # fmt: skip
    stage.write_text("\n".join(lines))
    stage.chmod(0o700)
    for secret in home.secrets:
        ran = home.run([str(stage)], json.dumps({"@tag": "memory", "body": f"{CANARY} {secret}"}).encode() + b"\n")
        assert ran.returncode == 70
    assert home.leaks(home.secrets, {"standard error": home.errors}) == []
    bugs = list((home.folder / "ftai" / "state" / "bugs").iterdir())
    assert len(bugs) >= len(home.secrets)
    assert all(CANARY in bug.read_text() for bug in bugs if "ftai-odd" in bug.name)
