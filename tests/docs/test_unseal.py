"""The script of ftai-seal(5) is tests/vectors/unseal.py, is short, needs age and Tink alone, and opens what we seal."""

import os
import re
import shutil
import subprocess
import sys

import pages
import pytest
from serenamaster import sealed, secret, specs
from surface import ROOT
from test_verifier import ESCAPES, needs_mandoc

SCRIPT = os.path.join(ROOT, "tests", "vectors", "unseal.py")
PAGE = os.path.join(ROOT, "man", "ftai-seal.5")
DATA = os.urandom(1_500_000) + b"words " * 100_000


def script() -> str:
    with open(SCRIPT) as file:
        return file.read()


@needs_mandoc
def test_page_shows_the_script():
    """FTAI_ACCEPT=1 writes the script into the page."""
    block = re.compile(r'^\.\\" unseal\.py begin$.*?^\.\\" unseal\.py end$', re.S | re.M)
    if os.environ.get("FTAI_ACCEPT"):
        lines = [re.sub(r"^([.'])", r"\\&\1", line.translate(ESCAPES)) for line in script().splitlines()]
        with open(PAGE) as page:
            changed = block.sub(lambda _: "\n".join(['.\\" unseal.py begin', ".Bd -literal", *lines, ".Ed", '.\\" unseal.py end']), page.read())
        with open(PAGE, "w") as page:
            page.write(changed)
    assert any(shown == script().rstrip("\n") for shown in pages.displays("ftai-seal.5", "OPENING")), "FTAI_ACCEPT=1 pytest tests/docs/test_unseal.py"


def test_is_short_and_needs_age_and_tink_alone():
    assert len(script().splitlines()) <= 40
    named = set(re.findall(r"^(?:import|from) (\w+)", script(), re.M))
    assert named - sys.stdlib_module_names == {"tink"}
    assert re.findall(r'\["(\w+)"', script()) == ["age"]
    assert script().count("subprocess.") == 2


@pytest.fixture
def unseal(tmp_path):
    """Runs the script as the page shows it, and zstd behind it: (status of the script, the plain bytes). Our library is out of its reach."""
    shown = next((text for text in pages.displays("ftai-seal.5", "OPENING") if text.startswith("#!")), None) if shutil.which("mandoc") else None
    path = tmp_path / "unseal.py"
    path.write_text((shown or script()) + "\n")
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FTAI_HOME")} | {"HOME": str(tmp_path)}

    def run(*args):
        ran = subprocess.run([sys.executable, "-P", path, *args], capture_output=True, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, check=False)
        unpacked = subprocess.run(["zstd", "-dcq"], input=ran.stdout, capture_output=True, check=False) if ran.stdout else ran
        return ran.returncode, unpacked.stdout, ran.stdout

    return run


@pytest.fixture
def file(tmp_path, monkeypatch):
    """file(recipients) -> path of the sealed DATA."""
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FTAI_SEAL", "aes256")
    specs.forget()
    (tmp_path / "plain").write_bytes(DATA)

    def make(recipients=""):
        monkeypatch.setenv("FTAI_RECIPIENTS", recipients)
        with open(tmp_path / "plain", "rb") as plain:
            return tmp_path / sealed.write(plain.fileno(), str(tmp_path / "x"), {"journal": "j", "segment": 1})["file"]

    yield make
    secret._phrases.clear()


def identity(tmp_path):
    return tmp_path / "home" / "state" / "keys" / "identity"


def test_opens_what_was_sealed_for_the_owner(unseal, file, tmp_path):
    status, plain, packed = unseal(file(), identity(tmp_path))
    assert (status, plain == DATA) == (0, True)
    assert re.match(rb'P\*M\x18.\0\0\0\{"journal":"j","segment":1,"bytes":2100000\}\x28', packed, re.S)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_opens_what_was_sealed_for_an_ssh_key(unseal, file, tmp_path, kind):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True)
    assert unseal(file((tmp_path / "key.pub").read_text().strip()), tmp_path / "key")[:2] == (0, DATA)


def test_opens_what_was_sealed_with_a_passphrase(unseal, file, tmp_path, monkeypatch):
    """age asks the terminal, which the words for it are written to."""
    import pty

    secret._phrases[:] = ["river stone"]
    path, out = file("passphrase"), tmp_path / "out"
    pid, fd = pty.fork()
    if pid == 0:
        os.execv("/bin/sh", ["sh", "-c", '"$@" >"$0"', str(out), sys.executable, "-P", SCRIPT, str(path)])
    seen = b""
    try:
        while b"passphrase" not in seen:
            seen += os.read(fd, 4096)
        os.write(fd, b"river stone\n")
        while os.read(fd, 4096):
            pass
    except OSError:
        pass
    os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0, seen
    assert subprocess.run(["zstd", "-dcq", out], capture_output=True, check=True).stdout == DATA


def test_opens_nothing_that_was_changed_and_writes_nothing_of_it(unseal, file, tmp_path):
    path = file()
    whole = path.read_bytes()
    start = 18 + int.from_bytes(whole[16:18], "big")
    for at in (0, 15, 17, 30, start - 1, start, start + 5, start + 100, 1_200_000, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        status, _, packed = unseal(path, identity(tmp_path))
        assert (status != 0, packed) == (True, b""), f"byte {at}"
    for size in (0, 17, start, start + 40, 1_200_000, len(whole) - 1):
        path.write_bytes(whole[:size])
        status, _, packed = unseal(path, identity(tmp_path))
        assert (status != 0, packed) == (True, b""), f"{size} bytes"
    path.write_bytes(whole)
    subprocess.run(["age-keygen", "-o", tmp_path / "other"], capture_output=True, check=True)
    assert unseal(path, tmp_path / "other")[0] != 0
    assert unseal(path, identity(tmp_path))[:2] == (0, DATA)
