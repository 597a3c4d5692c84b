"""proofs.py: the signing key, signed notes, the text of checkpoints, and trees."""

import os
import re
import stat
import subprocess
import sys
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import proofs
from serenamaster.errors import CONFIG, DATAERR, NOPERM, Failure

LIB = os.path.dirname(os.path.dirname(proofs.__file__))

# Of c2sp.org/signed-note, and of golang.org/x/mod/sumdb/note.
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
FOO_NOTE = (
    "This is an example message.\n\n"
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = f"{PETER_TEXT}\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"

# Of the reference of Certificate Transparency: the leaves, the hashes of all whole subtrees, the roots of 0 to 8 leaves.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
NODES = [
    [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
        "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
    ],
    [
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    ],
    [
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (index, size): where in NODES its audit path stands.
PATHS = {
    (0, 1): [],
    (0, 8): [(0, 1), (1, 1), (2, 1)],
    (5, 8): [(0, 4), (1, 3), (2, 0)],
    (2, 3): [(1, 0)],
    (1, 5): [(0, 0), (1, 1), (0, 4)],
    (4, 5): [(2, 0)],
    (6, 7): [(1, 2), (2, 0)],
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "state" / "keys"


def fails(call, *args, **more):
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value


# ---- trees ----


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_the_reference(size):
    tree = proofs.Tree()
    for leaf in LEAVES[:size]:
        tree.add(leaf)
    assert tree.root() == ROOTS[size]
    assert tree.root() == ROOTS[size], "asking changes nothing"


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_the_paths_of_the_reference(index, size):
    expected = [NODES[level][n] for level, n in PATHS[index, size]]
    assert proofs.path(LEAVES[:size], index) == expected
    assert proofs.climb(LEAVES[index], index, size, expected) == ROOTS[size]


def top(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash, word for word as RFC 6962, 2.1 defines it."""
    if len(leaves) < 2:
        return sha256(b"\0" + leaves[0]).digest() if leaves else sha256(b"").digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\1" + top(leaves[:half]) + top(leaves[half:])).digest()


HASHES = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), min_size=1, max_size=70)


@given(HASHES, st.data())
def test_each_leaf_climbs_to_the_root_and_nothing_else_does(hashes, data):
    tree = proofs.Tree()
    for own in hashes:
        tree.add(own)
    root, size = top([bytes.fromhex(own) for own in hashes]).hex(), len(hashes)
    index = data.draw(st.integers(0, size - 1))
    path = proofs.path(hashes, index)
    assert tree.root() == root == proofs.climb(hashes[index], index, size, path)
    other = data.draw(st.binary(min_size=32, max_size=32).map(bytes.hex).filter(lambda own: own != hashes[index]))
    assert proofs.climb(other, index, size, path) != root
    if path:
        n = data.draw(st.integers(0, len(path) - 1))
        assert proofs.climb(hashes[index], index, size, [*path[:n], other, *path[n + 1 :]]) != root or path[n] == other
        assert fails(proofs.climb, hashes[index], index, size, path[:-1]).code == DATAERR
    assert fails(proofs.climb, hashes[index], index, size, [*path, other]).code == DATAERR
    assert fails(proofs.climb, hashes[index], index + 2 * size, size, path).code == DATAERR
    wrong = data.draw(st.integers(0, size - 1))
    try:
        assert (proofs.climb(hashes[index], wrong, size, path) == root) <= (hashes[wrong] == hashes[index])
    except Failure as bad:
        assert bad.code == DATAERR


@pytest.mark.parametrize("size", [1023, 1024, 1025, 2048, 3000, 4096, 5121])
def test_the_root_of_many(size):
    hashes = [sha256(b"%d" % n).hexdigest() for n in range(size)]
    tree = proofs.Tree()
    for own in hashes:
        tree.add(own)
    root = top([bytes.fromhex(own) for own in hashes]).hex()
    assert (tree.root(), tree.size) == (root, size)
    for index in (0, 1, size // 2, size - 2, size - 1):
        assert proofs.climb(hashes[index], index, size, proofs.path(hashes, index)) == root
    tree.add(hashes[0])
    assert tree.root() == top([bytes.fromhex(own) for own in [*hashes, hashes[0]]]).hex(), "asking changes nothing"


# ---- signed notes ----


def test_the_notes_of_others():
    assert proofs.opened(FOO_NOTE, [FOO]) == "This is an example message.\n"
    assert proofs.signer(PETER_NOTE, [FOO, PETER]) == (PETER_TEXT, PETER)


def test_a_note_is_signed_as_the_reference_does(place, monkeypatch):
    monkeypatch.setattr(proofs, "NAME", "PeterNeumann")
    place.mkdir(parents=True, mode=0o700)
    (place / "signing.key").write_bytes(b64encode(PETER_SEED) + b"\n")
    (place / "signing.key").chmod(0o600)
    assert proofs.make_key() == PETER
    assert proofs.sign(PETER_TEXT) == PETER_NOTE
    assert (place / "signing.key").read_bytes() == b64encode(PETER_SEED) + b"\n"


SIGNATURE = FOO_NOTE.split("\n\n")[1]
DASH = "\u2014"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        FOO_NOTE[:-1],
        FOO_NOTE + "\n",
        FOO_NOTE + "\n\n",
        FOO_NOTE + SIGNATURE,
        FOO_NOTE + PETER_NOTE.split("\n\n")[1],
        FOO_NOTE.split("\n\n")[0] + "\n\n" + PETER_NOTE.split("\n\n")[1] + SIGNATURE,
        FOO_NOTE.replace("\n", "\r\n"),
        FOO_NOTE.replace("message", "mes\0sage"),
        FOO_NOTE.replace("message", "mes\tsage"),
        FOO_NOTE.replace("message", "mes\x1b[2Jsage"),
        FOO_NOTE.replace("message", "mes\ud800sage"),
        FOO_NOTE.replace("message", "massage"),
        FOO_NOTE.replace("\n\n", "\n"),
        FOO_NOTE.replace("\n\n", "\n\n\n"),
        FOO_NOTE.replace(DASH, "-"),
        FOO_NOTE.replace(f"{DASH} ", DASH),
        FOO_NOTE.replace(f"{DASH} ", f"{DASH}  "),
        FOO_NOTE.replace("foo Uw", "foo  Uw"),
        FOO_NOTE.replace("foo Uw", "bar Uw"),
        FOO_NOTE.replace("foo Uw", "foo+ Uw"),
        FOO_NOTE.replace("foo Uw", "foo\u00a0x Uw"),
        FOO_NOTE.replace("aQM=", "aQM"),
        FOO_NOTE.replace("aQM=", "aQN="),  # the same bytes, otherwise written
        FOO_NOTE.replace("aQM=", "aQM=="),
        FOO_NOTE.replace("aQM=", "aQM=AAAA"),
        FOO_NOTE.replace("aQM=", "aQMA"),
        FOO_NOTE.replace("aQM=", "a-M="),
        FOO_NOTE.replace("aQM=", "aQM= "),
        FOO_NOTE.replace("Uw2Q", "Uw2R"),
        FOO_NOTE.replace(" Uw2QOkn8", " Uw2QOkn9"),
        PETER_NOTE,
    ],
)
def test_what_is_no_such_note_is_refused(note):
    assert fails(proofs.opened, note, [FOO]).code == DATAERR


@given(st.integers(0, len(FOO_NOTE) - 1), st.characters(exclude_categories=()))
def test_no_character_of_a_note_can_be_another(at, other):
    note = FOO_NOTE[:at] + other + FOO_NOTE[at + 1 :]
    if note != FOO_NOTE:
        assert fails(proofs.opened, note, [FOO]).code == DATAERR


@pytest.mark.parametrize(
    "vkey",
    ["", "x", "a+b", FOO + "A", FOO.replace("530d", "530e"), FOO.replace("530d", "530D"), FOO.replace("foo", "fo o"), FOO.replace("+Ae", "+Ag"), FOO[16:]],
)
def test_what_is_no_public_key_is_refused(vkey):
    assert fails(proofs.opened, FOO_NOTE, [vkey]).code == CONFIG


# ---- the text of a checkpoint ----

JOURNAL = "01890a5d-ac96-774b-bcce-b302099a8057"
ZERO, ONE = "00" * 32, "1f" * 32
GOOD = proofs.text(JOURNAL, 30, ONE, proofs.lines(4, [(3, 11, 20, ZERO), (4, 21, 20, ONE)], [(1, 1, 5, ZERO, ONE)]))


def test_the_text_of_a_checkpoint_is_as_the_page_says():
    written = (
        f"ftai-journal/{JOURNAL}\n30\n{b64encode(bytes.fromhex(ONE)).decode()}\nclosed 4\n"
        f"segment 3 11 20 {ZERO}\nsegment 4 21 20 {ONE}\nremoved 1 1 5 {ZERO} {ONE}\n"
    )
    assert written == GOOD
    assert proofs.parsed(GOOD) == (JOURNAL, 30, ONE, 4, [(3, 11, 20, ZERO), (4, 21, 20, ONE)], [(1, 1, 5, ZERO, ONE)])
    assert proofs.parsed(proofs.text(JOURNAL, 0, ZERO, proofs.lines(0))) == (JOURNAL, 0, ZERO, 0, [], [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ftai-journal/", "other/"),
        (JOURNAL, "x"),
        ("\n30\n", "\n030\n"),
        ("\n30\n", "\n-30\n"),
        ("\n30\n", "\n3_0\n"),
        ("\n30\n", "\n\u0663\u0660\n"),
        ("\n30\n", f"\n{10**18}\n"),
        ("\n30\n", "\n19\n"),
        ("Hx8", "Hx9"),
        ("Hx8fHx8f", ""),
        ("closed 4", "closed 3"),
        ("closed 4", "closed  4"),
        ("closed 4\n", ""),
        ("segment 3 11 20", "segment 4 11 20"),
        ("segment 3 11 20", "segment 3 22 20"),
        ("segment 3 11 20", "segment 3 0 20"),
        ("segment 3 11 20", "segment 0 11 20"),
        ("segment 3 11 20", "segment 3 11"),
        ("segment 3 11 20", "segment 3 11 20 20"),
        ("segment 3", "sigment 3"),
        (ZERO, ZERO[2:]),
        (ONE, ONE.upper()),
        (f"{ZERO} {ONE}\n", f"{ZERO} {ONE}"),
        (f"{ZERO} {ONE}\n", f"{ZERO} {ONE}\n\n"),
        (f"{ZERO} {ONE}\n", f"{ZERO} {ONE}\nmore\n"),
    ],
)
def test_what_is_no_text_of_a_checkpoint_is_refused(old, new):
    assert old in GOOD
    assert fails(proofs.parsed, GOOD.replace(old, new)).code == DATAERR


@given(st.text())
def test_parsed_fails_as_it_says(words):
    assert fails(proofs.parsed, words).code == DATAERR


# ---- the key ----


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_for_its_owner_alone(place):
    assert not proofs.has_key()
    assert fails(proofs.sign, "x\n").code == CONFIG
    assert fails(proofs.opened, FOO_NOTE).hint == "ftai-keys init"
    assert not place.exists(), "asking makes nothing"
    assert proofs.own() is None
    own = proofs.make_key()
    assert proofs.has_key()
    assert proofs.own() == own
    assert re.fullmatch(r"serenamaster\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}", own)
    assert (mode(place), mode(place / "signing.key"), mode(place / "signing.pub")) == (0o700, 0o600, 0o600)
    seed = (place / "signing.key").read_bytes()
    assert proofs.make_key() == own
    assert (place / "signing.key").read_bytes() == seed
    assert (place / "signing.pub").read_text() == f"{own}\n"
    assert proofs.opened(proofs.sign(GOOD)) == GOOD
    assert proofs.opened(proofs.sign(GOOD), [own]) == GOOD
    assert fails(proofs.opened, proofs.sign(GOOD), [FOO]).code == DATAERR
    assert fails(proofs.sign, "no newline").code == DATAERR


def test_a_missing_public_key_is_made_again(place):
    own = proofs.make_key()
    (place / "signing.pub").unlink()
    assert proofs.own() is None
    assert fails(proofs.sign, GOOD).code == CONFIG
    assert proofs.make_key() == own
    assert proofs.opened(proofs.sign(GOOD)) == GOOD


def test_after_a_new_key_notes_of_the_old_one_count(place):
    old = proofs.make_key()
    note = proofs.sign(GOOD)
    (place / "signing.key").unlink()
    assert proofs.opened(note) == GOOD
    new = proofs.make_key()
    assert (place / "signing.pub").read_text() == f"{new}\n{old}\n"
    assert proofs.signer(note) == (GOOD, old)
    assert proofs.signer(proofs.sign(GOOD)) == (GOOD, new)


@pytest.mark.parametrize("words", ["", "\n", "AAAA\n", b64encode(bytes(31)).decode(), b64encode(bytes(32)).decode() + "\n\n", "\xff" * 44])
def test_a_damaged_key_is_told_and_kept(place, words):
    own = proofs.make_key()
    (place / "signing.key").write_text(words, "latin-1")
    for call in (proofs.make_key, lambda: proofs.sign(GOOD)):
        bad = fails(call)
        assert bad.code == DATAERR
        assert "ftai-keys init" in bad.hint
    assert (place / "signing.key").read_text("latin-1") == words
    assert (place / "signing.pub").read_text() == f"{own}\n"


@pytest.mark.parametrize("words", ["x\n", FOO, f"{FOO}\n\n"])
def test_a_damaged_public_key_is_told(place, words):
    proofs.make_key()
    (place / "signing.pub").write_text(words)
    for call in (proofs.make_key, lambda: proofs.sign(GOOD), lambda: proofs.opened(FOO_NOTE)):
        assert fails(call).code == CONFIG


@pytest.mark.parametrize("name", ["signing.key", "signing.pub", "signing.lock", ""])
def test_links_are_refused(place, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    if name:
        place.mkdir(parents=True, mode=0o700)
        (place / name).symlink_to(elsewhere)
    else:
        elsewhere.mkdir()
        place.parent.mkdir(parents=True, mode=0o700)
        place.symlink_to(elsewhere)
    assert fails(proofs.make_key).code in (NOPERM, 73)
    assert not elsewhere.is_file()
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


@pytest.mark.parametrize(("name", "bits"), [("signing.key", 0o640), ("signing.key", 0o602), ("signing.pub", 0o622), ("", 0o770)])
def test_what_is_open_to_others_is_refused(place, name, bits):
    proofs.make_key()
    note = proofs.sign(GOOD)
    (place / name).chmod(bits)
    assert fails(proofs.sign, GOOD).code == NOPERM
    assert fails(proofs.make_key).code == NOPERM
    if name != "signing.key":
        assert fails(proofs.opened, note).code == NOPERM


def test_what_is_no_file_keeps_nobody_waiting(place):
    place.mkdir(parents=True, mode=0o700)
    os.mkfifo(place / "signing.key", 0o600)
    assert fails(proofs.make_key).code == NOPERM


MAKE = f"import sys; sys.path.insert(0, {LIB!r}); from serenamaster import proofs; print(proofs.make_key())"


def test_many_at_once_make_one_key(place):
    runs = [subprocess.Popen([sys.executable, "-c", MAKE], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert said == {proofs.make_key()}
    assert [run.returncode for run in runs] == [0] * 8
    assert (place / "signing.pub").read_text() == said.pop() + "\n"


@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("after", range(4))
def test_killed_at_any_step_it_ends_what_it_began(place, call, after):
    """Killed before the (after + 1)th call; the next one makes the same key, or a whole new one where none was there, and leaves nothing else."""
    script = MAKE.replace("print", f"""
import os, signal
real, count = os.{call}, [0]
def last(*args):
    if count[0] == {after}: os.kill(os.getpid(), signal.SIGKILL)
    count[0] += 1
    return real(*args)
os.{call} = last
print""")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, -9)
    assert done.returncode == -9 or after >= 2, "the fault did not fire"
    left = (place / "signing.key").read_text() if (place / "signing.key").exists() else ""
    own = proofs.make_key()
    assert not left or (place / "signing.key").read_text() == left
    assert (place / "signing.pub").read_text() == f"{own}\n"
    assert sorted(path.name for path in place.iterdir()) == ["signing.key", "signing.lock", "signing.pub"]
