"""The shell script of ftai(5) that checks a proof is tests/vectors/check-proof.sh, and agrees with ftai-log about proofs true and forged."""

import os
import re
import shutil
import subprocess

import pages
import pytest
from running import Place
from surface import ROOT
from test_verifier import AWKS, ESCAPES

SCRIPT = os.path.join(ROOT, "tests", "vectors", "check-proof.sh")
PAGE = os.path.join(ROOT, "man", "ftai.5")
SHELLS = {"sh": "sh", "bash": "bash", "busybox": "busybox sh"}


def script() -> str:
    with open(SCRIPT) as file:
        return file.read()


def as_mdoc(text: str) -> str:
    lines = [re.sub(r"^([.'])", r"\\&\1", line.translate(ESCAPES).replace("\u2014", "\\(em")) for line in text.splitlines()]
    return "\n".join(['.\\" check-proof.sh begin', ".Bd -literal", *lines, ".Ed", '.\\" check-proof.sh end'])


def shown() -> str | None:
    return next((text for text in pages.displays("ftai.5", "JOURNAL") if "check-proof.sh PROOF" in text), None)


@pytest.mark.skipif(not shutil.which("mandoc"), reason="MANDOC IS MISSING: the script is not taken out of the page")
def test_page_shows_the_script():
    """FTAI_ACCEPT=1 writes the script into the page."""
    block = re.compile(r'^\.\\" check-proof\.sh begin$.*?^\.\\" check-proof\.sh end$', re.S | re.M)
    if os.environ.get("FTAI_ACCEPT"):
        with open(PAGE) as page:
            changed = block.sub(lambda _: as_mdoc(script()), page.read())
        with open(PAGE, "w") as page:
            page.write(changed)
    assert shown() == script().rstrip("\n"), "FTAI_ACCEPT=1 pytest tests/docs/test_check_proof.py"


def test_is_short():
    assert len(script().splitlines()) <= 45
    assert not re.search(r"python|perl|jq|xxd|ftai-(?!journal/)", script().replace("ftai-log --prove", ""))


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """(place, proofs of all records of a segment, the public key): 11 records, so that paths are of different lengths."""
    place = Place(tmp_path_factory.mktemp("proofs"), ftai_home=True)
    ran = place.run(
        """
        ftai-keys init >/dev/null
        for n in 1 2 3 4 5 6 7 8 9; do
            jq -nc --arg n $n '{"@tag": "note", body: "number \\($n)\\n@end\\n  @chain \\u00fc \\u2028 \\"", list: ["a", 1]}'
        done | ftai-log --sink
        ftai-rotate --now >/dev/null
        ftai-log --checkpoint >/dev/null
        for id in $(ftai-recall --after 0 | jq -r 'select(."@tag" == "note") | .id'); do ftai-log --prove $id >proof.$id; done
        """
    )
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    made = sorted(name for name in os.listdir(place.work) if name.startswith("proof."))
    assert len(made) == 9
    with open(os.path.join(place.home, "ftai", "state", "keys", "signing.pub")) as file:
        return place, [os.path.join(place.work, name) for name in made], file.read().strip()


def check(path, vkey, shell="sh", env=None):
    text = shown() if shutil.which("mandoc") else script()
    own = os.path.join(os.path.dirname(path), "check-proof.sh")
    with open(own, "w") as file:
        file.write(f"{text}\n")
    return subprocess.run([*shell.split(), own, path, vkey], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_proofs_are_true(proofs, shell):
    place, made, vkey = proofs
    if not shutil.which(SHELLS[shell].split()[0]):
        pytest.skip(f"{shell} IS MISSING: the script is not tried with it")
    for path in made:
        ran = check(path, vkey, SHELLS[shell])
        assert (ran.returncode, ran.stderr) == (0, "")
        assert re.fullmatch(rf"{path}: seq \d+ of ftai-journal/[0-9a-f-]{{36}}, signed by serenamaster\+[0-9a-f]{{8}}\n", ran.stdout)
    assert place.run(f"ftai-log --check-proof {made[0]}").returncode == 0


@pytest.mark.parametrize("name", AWKS)
def test_runs_with_each_awk(proofs, tmp_path, name):
    _, made, vkey = proofs
    command, *words = AWKS[name].split()
    if not (own := shutil.which(command)):
        pytest.skip(f"{command} IS MISSING: the script is not tried with it")
    (tmp_path / "awk").write_text(f'#!/bin/sh\nexec {" ".join([own, *words])} "$@"\n')
    (tmp_path / "awk").chmod(0o700)
    ran = check(made[0], vkey, env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (ran.returncode, ran.stderr) == (0, "")


OTHER = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FORGED = {
    "record": ("number", "numbex"),
    "salt": (r'salt: "(.)', lambda found: f'salt: "{"1" if found[1] == "0" else "0"}'),
    "hash": (r'hash: "(.)', lambda found: f'hash: "{"1" if found[1] == "0" else "0"}'),
    "seq": (r"    seq: (\d+)", lambda found: f"    seq: {int(found[1]) + 1}"),
    "before": (r"before (.)", lambda found: f"before {'1' if found[1] == '0' else '0'}"),
    "index": (r"index (\d+)", lambda found: f"index {int(found[1]) + 1}"),
    "index 0x": (r"index (\d+)", r"index 0x\1"),
    "size": (r"size (\d+)", lambda found: f"size {int(found[1]) + 1}"),
    "segment": ("segment 1\n", "segment 2\n"),
    "path": (r"path (.)", lambda found: f"path {'1' if found[1] == '0' else '0'}"),
    "path less": (r"path .*\n", ""),
    "path more": (r"(path .*\n)", r"\1\1"),
    "root": (r"(segment 1 .* )(.)", lambda found: f"{found[1]}{'1' if found[2] == '0' else '0'}"),
    "note": (r"closed 1", "closed 2"),
    "key": (r"(\u2014 serenamaster) (.)", r"\1 \2\2"),
    "name": ("\u2014 serenamaster", "\u2014 serenamastex"),
    "signature": (r"(\u2014 .*)(....)=\n", lambda found: f"{found[1]}{'AAAA' if found[2] != 'AAAA' else 'BBBA'}=\n"),
    "two signatures": (r"(\u2014 .*\n)", r"\1\1"),
    "more in the chain": ("  @chain\n", "  @chain\n    more: 1\n"),
    "behind": (r"\Z", "\n@note\n@end\n"),
    "no record": (r"\n@note(.|\n)*", "\n"),
    "nothing": (r"(.|\n)*", ""),
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_proofs_are_refused(proofs, tmp_path, how):
    place, made, vkey = proofs
    with open(made[4]) as file:
        words = file.read()
    changed = re.sub(*FORGED[how], words, count=1)
    assert changed != words, "nothing was forged"
    path = tmp_path / "forged"
    path.write_text(changed)
    ran = check(str(path), vkey)
    assert ran.returncode != 0 and not ran.stdout, ran.stdout
    ran = place.run(f"ftai-log --check-proof {path}")
    assert ran.returncode == 65, ran.stderr


def test_another_key_refuses(proofs):
    _, made, vkey = proofs
    assert check(made[0], OTHER).returncode != 0
    # The same name and id with another key, which is all that a forger can choose.
    assert check(made[0], "+".join((*vkey.split("+")[:2], OTHER.split("+")[2]))).returncode != 0
    assert check(made[0], "").returncode != 0
