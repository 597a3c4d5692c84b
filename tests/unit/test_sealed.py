"""sealed.py: files sealed both ways, opened by others and by us, and everything that must not open."""

import hashlib
import io
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from serenamaster import seal, sealed, secret, specs
from serenamaster.errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, Failure

LIB = os.path.dirname(os.path.dirname(sealed.__file__))
SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
ABOUT = {"journal": "019f", "segment": 7, "first": 1, "last": 9, "hash": "ab" * 32, "ts": "2026-11-26T12:00:00.000Z"}
MIB = 1 << 20
METHODS = ("aes256", "age")
FULL = SCALE >= 10
FLIPS = 1000 * SCALE if FULL else 200


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder for sealed files. In the end there are no more descriptors than before, and nothing half-made."""
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    specs.forget()
    secret._phrases.clear()
    folder = tmp_path / "files"
    folder.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    yield folder
    secret._phrases.clear()
    # Fewer are none of ours, which were collected meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= before
    assert [name for name in os.listdir(folder) if name.startswith(".")] == []


@pytest.fixture(params=METHODS)
def method(request, monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", request.param)
    return request.param


def code(call, *args, **more):
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value.code


def made(place, data: bytes, name="x", about=ABOUT, **more) -> Path:
    """A sealed file of these bytes."""
    (place / "plain").write_bytes(data)
    fd = os.open(place / "plain", os.O_RDONLY)
    try:
        said = sealed.write(fd, str(place / name), about, **more)
    finally:
        os.close(fd)
        (place / "plain").unlink()
    return place / said["file"]


def opened(path, **more) -> bytes:
    header, fd = sealed.open_(str(path), **more)
    try:
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        data = os.read(fd, header["bytes"] + 1)
        assert os.fstat(fd).st_nlink == 0
        assert os.fstat(fd).st_size == len(data) == header["bytes"]
        return data
    finally:
        os.close(fd)


def frame(header: bytes = b'{"bytes":3}', mark=0x184D2A50) -> bytes:
    return struct.pack("<II", mark, len(header)) + header


def put(place, data: bytes, name="hostile") -> Path:
    """A file of the method that is set, with these bytes inside, whatever they are."""
    with open(place / name, "wb", buffering=0) as file:
        out, lock = sealed._Out(file.fileno()), sealed._locker(False)[0]
        if os.environ["FTAI_SEAL"] == "age":
            lock(io.BytesIO(data), out)
        else:
            sealed._encrypt(io.BytesIO(data), out, lock)
    return place / name


def refuses(path: Path, codes=(DATAERR,), ways=3) -> bool:
    """True where the file is opened in no way; nothing is left of the tries."""
    before = os.listdir(path.parent)
    for call in (lambda: sealed.open_(str(path)), lambda: sealed.extract(str(path), f"{path}.out"), lambda: sealed.summed(str(path)))[:ways]:
        try:
            call()
            return False
        except Failure as bad:
            assert bad.code in codes, bad.message
    assert os.listdir(path.parent) == before
    return True


# ---- both ways ----


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, MIB - 56, MIB, 3 * MIB + 5])
def test_what_was_sealed_opens_again(place, method, size):
    data = random.Random(size).randbytes(size // 2) + b"words " * (size // 12) + b"x" * (size - size // 2 - size // 12 * 6)
    path = made(place, data)
    assert path.name == f"x{sealed.SUFFIX[method]}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert opened(path) == data
    assert sealed.summed(str(path)) == (size, hashlib.sha256(data).hexdigest())
    said = sealed.extract(str(path), str(place / "out"))
    assert said == ABOUT | {"bytes": size} and list(said) == [*ABOUT, "bytes"]
    assert (place / "out").read_bytes() == data
    assert (place / "out").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(place)) == ["out", path.name]


@pytest.mark.parametrize("processors", [1, 5, None])
def test_it_is_packed_by_as_many_threads_as_there_are(place, method, monkeypatch, processors):
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    data = random.Random(1).randbytes(2 * MIB) + b"words " * (7 * MIB // 6)
    assert opened(made(place, data)) == data


def test_what_write_says_is_so(place, method):
    sha256 = hashlib.sha256

    data = random.Random(1).randbytes(700_000)
    (place / "plain").write_bytes(data)
    heard: list[int] = []
    with open(place / "plain", "rb") as file:
        file.seek(10)
        said = sealed.write(file.fileno(), str(place / "x"), ABOUT, end=600_000, told=heard.append)
        assert file.tell() == 10
    whole = (place / said["file"]).read_bytes()
    assert said == {
        "file": f"x{sealed.SUFFIX[method]}", "method": method,
        "bytes": 600_000, "sha256": sha256(data[:600_000]).hexdigest(),
        "sealed_bytes": len(whole), "sealed_sha256": sha256(whole).hexdigest(),
    }  # fmt: skip
    assert heard == sorted(heard) and heard[-1] == 600_000 and len(heard) > 1
    assert opened(place / said["file"]) == data[:600_000]


def test_the_layout_is_what_the_page_says(place, monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", "aes256")
    keysets = []
    for _ in range(2):
        whole = made(place, b"some words").read_bytes()
        assert whole[:16] == b"ftai-backup/1\0\0\0"
        size = int.from_bytes(whole[16:18], "big")
        assert whole[18 : 18 + size].startswith(b"age-encryption.org/v1\n-> ")
        keysets.append(seal.unlock(whole[18 : 18 + size], secret.identity()))
        assert b'"type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"' in keysets[-1]
        assert whole[18 + size] == 40  # the length of Tink's header
    assert keysets[0] != keysets[1]


def test_nothing_of_the_words_is_left_in_the_file(place, method):
    path = made(place, b"a secret sentence", about={"name": "hidden-name"})
    assert not re.search(b"secret|sentence|hidden-name", path.read_bytes())


def test_opening_can_be_done_in_another_folder(place, method, tmp_path):
    path = made(place, b"words")
    (tmp_path / "elsewhere").mkdir()
    assert opened(path, folder=str(tmp_path / "elsewhere")) == b"words"
    assert os.listdir(tmp_path / "elsewhere") == []


def test_extract_replaces_a_link_and_does_not_follow_it(place, method):
    path = made(place, b"words")
    (place / "precious").write_text("old")
    (place / "out").symlink_to("precious")
    sealed.extract(str(path), str(place / "out"))
    assert (place / "precious").read_text() == "old"
    assert (place / "out").read_text() == "words" and not (place / "out").is_symlink()


def test_a_source_that_becomes_shorter_is_no_sealed_file(place, method):
    (place / "plain").write_bytes(b"x" * 1000)
    with open(place / "plain", "rb") as file:
        assert code(sealed.write, file.fileno(), str(place / "x"), ABOUT, end=1001) == IOERR
    assert os.listdir(place) == ["plain"]


# ---- recipients and identities ----


@pytest.fixture
def pair(tmp_path):
    """pair(name) -> (recipient, path of the identity): "age", "ed25519" or "rsa"."""

    def make(kind, *args):
        path = tmp_path / f"id-{kind}-{len(os.listdir(tmp_path))}"
        if kind == "age":
            subprocess.run(["age-keygen", "-o", path], capture_output=True, check=True)
            return str(seal._identity(path.read_text()).to_public()), path
        size = ["-b", "2048"] if kind == "rsa" else []
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", args[0] if args else "", "-C", "me@here", "-f", path], check=True)
        return path.with_name(f"{path.name}.pub").read_text().strip(), path

    return make


@pytest.mark.parametrize("kind", ["age", "ed25519", "rsa"])
def test_it_opens_for_each_recipient_and_for_nobody_else(place, method, pair, monkeypatch, kind):
    public, path = pair(kind)
    also, other = pair("age")
    monkeypatch.setenv("FTAI_RECIPIENTS", f"{also}, {public}")
    file = made(place, b"words")
    for identity in (path, other):
        monkeypatch.setenv("FTAI_IDENTITY", str(identity))
        assert opened(file) == b"words"
        ran = age("-d", "-i", identity, file)
        if method == "age":
            assert zstandard.ZstdDecompressor().decompressobj().decompress(ran[len(frame(b"")) + ran[4] :]) == b"words"
    third = pair(kind)[1]
    monkeypatch.setenv("FTAI_IDENTITY", str(third))
    assert refuses(file, (NOPERM,))
    # One file may hold several, of any kind.
    third.write_text(f"# several\n{other.read_text()}\n{third.read_text()}\n{pair('ed25519')[1].read_text()}")
    assert opened(file) == b"words"
    monkeypatch.setenv("FTAI_IDENTITY", "")
    assert refuses(file, (NOPERM,))


def age(*args) -> bytes:
    ran = subprocess.run(["age", *args], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return ran.stdout


def test_an_identity_of_others_or_none_is_refused(place, method, pair, monkeypatch, tmp_path):
    file = made(place, b"words")
    own = Path(seal.folder(), "identity")
    monkeypatch.setenv("FTAI_IDENTITY", str(own))
    assert opened(file) == b"words"
    own.chmod(0o640)
    assert refuses(file, (NOPERM,))
    own.chmod(0o600)
    own.write_text("no identity\n")
    assert refuses(file, (CONFIG,))
    own.write_text("# nothing\n")
    assert refuses(file, (CONFIG,))
    own.write_text("\udcff", errors="surrogateescape")
    assert refuses(file, (CONFIG,))
    own.unlink()
    assert refuses(file, (NOPERM,))
    (tmp_path / "link").symlink_to(pair("age")[1])
    monkeypatch.setenv("FTAI_IDENTITY", str(tmp_path / "link"))
    assert refuses(file, (NOPERM,))
    monkeypatch.setenv("FTAI_IDENTITY", str(pair("ed25519", "a passphrase")[1]))
    assert refuses(file, (CONFIG,))
    monkeypatch.setenv("FTAI_IDENTITY", "")
    assert refuses(file, (NOPERM,))


@pytest.mark.parametrize("named", ["age1nobody", "ssh-ed25519 AAAA", "ssh-dss AAAA", "somebody", "passphrase, age1x", "passphrase,passphrase"])
def test_what_is_no_recipient_seals_nothing(place, method, monkeypatch, named):
    monkeypatch.setenv("FTAI_RECIPIENTS", named)
    assert code(made, place, b"words") == CONFIG
    assert os.listdir(place) == []


@pytest.mark.parametrize("kind", ["age", "ed25519", "rsa"])
def test_too_many_recipients_are_refused_and_as_many_as_are_taken_open(place, method, pair, monkeypatch, kind):
    public, identity = pair(kind)
    most = (sealed.FRONT - 1024) // (len(public) + 64)
    monkeypatch.setenv("FTAI_IDENTITY", str(identity))
    monkeypatch.setenv("FTAI_RECIPIENTS", ",".join([public] * (most + 1)))
    assert code(made, place, b"words") == CONFIG
    assert os.listdir(place) == []
    monkeypatch.setenv("FTAI_RECIPIENTS", ",".join([public] * most))
    assert opened(made(place, b"words")) == b"words"


def phrase(monkeypatch, words: str) -> None:
    """Gives a passphrase as a script does."""
    secret._phrases.clear()
    read, write = os.pipe()
    os.write(write, words.encode())
    os.close(write)
    monkeypatch.setenv("FTAI_PASSPHRASE_FD", str(read))
    secret.phrase()
    os.close(read)


@pytest.mark.parametrize("method", METHODS if FULL else METHODS[:1])
def test_a_passphrase_opens_it_and_no_other_does(place, method, monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", method)
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    assert code(made, place, b"words") == NOPERM
    phrase(monkeypatch, "river stone")
    file = made(place, b"words")
    assert b"-> scrypt " in file.read_bytes()[:60]
    assert opened(file) == b"words"
    phrase(monkeypatch, "river")
    assert refuses(file, (NOPERM,), 1)
    secret._phrases.clear()
    monkeypatch.delenv("FTAI_PASSPHRASE_FD")
    assert refuses(file, (NOPERM,))


def test_what_a_passphrase_would_cost_is_looked_at_first(place, monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", "age")
    phrase(monkeypatch, "river stone")
    for work in (b"21", b"30", b"99", b"999"):
        (place / "x").write_bytes(sealed.AGE + b"-> scrypt bBVkz1jCkJDPbFKKHCNaZA " + work + b"\n" + b"A" * 43 + b"\n--- " + b"A" * 43 + b"\n" + b"x" * 100)
        assert refuses(place / "x")


def test_a_plain_age_file_for_a_passphrase_is_no_big_one(place, monkeypatch):
    monkeypatch.setenv("FTAI_SEAL", "age")
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    phrase(monkeypatch, "river stone")
    monkeypatch.setattr(sealed, "WHOLE", 300_000)
    assert code(made, place, random.Random(1).randbytes(400_000)) == DATAERR
    assert os.listdir(place) == []
    file = made(place, random.Random(1).randbytes(200_000))
    monkeypatch.setattr(sealed, "WHOLE", 100_000)
    assert refuses(file)


def test_a_project_that_is_not_trusted_changes_nothing(place, tmp_path, pair, monkeypatch):
    public, identity = pair("age")
    project = tmp_path / "project"
    (project / ".ftai").mkdir(parents=True)
    spec = project / ".ftai" / "serenamaster.config.ftai"
    values = {"seal": "age", "recipients": public, "identity": str(identity)}
    entry = '@setting\n  name: "{}"\n  value: "{}"\n  summary: "x"\n@end\n'
    short = '@setting\n  name: "{}"\n  value: "{}"\n@end\n'
    monkeypatch.chdir(project)
    for form in (entry, short, '@setting\n  name: "{}"\n  off: true\n@end\n'):
        spec.write_text("@ftai v2.0\n\n" + "\n".join(form.format(*pair_) for pair_ in values.items()))
        specs.forget()
        assert [specs.setting(name) for name in values] == ["aes256", "", ""]
        assert len(specs.load("config")["notes"]) == 3
    file = made(place, b"words")
    assert file.name == "x.zst.sealed"
    assert opened(file) == b"words"
    spec.write_text("@ftai v2.0\n\n" + "\n".join(entry.format(*pair_) for pair_ in values.items()))
    specs.forget()
    specs.trust(str(project))
    specs.forget()
    assert made(place, b"words").name == "x.zst.age", "the project can't be told from a trusted one"
    monkeypatch.chdir(tmp_path)
    specs.forget()


# ---- with the program age ----


def terminal(words: str, *args) -> bytes:
    """What a program writes that asks a terminal for a passphrase."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(args[0], args)
    try:
        seen = b""
        given = 0
        while True:
            try:
                seen += os.read(fd, 4096)
            except OSError:
                break
            if seen.count(b"passphrase") > given and seen.rstrip().endswith(b":"):
                given = seen.count(b"passphrase")
                os.write(fd, f"{words}\n".encode())
    finally:
        os.close(fd)
        status = os.waitpid(pid, 0)[1]
    assert status == 0, seen
    return seen


def inside(place, data: bytes) -> Path:
    """What is encrypted, as the program zstd packs it, behind a header that printf wrote."""
    (place / "plain").write_bytes(data)
    script = """printf 'P*M\\030\\022\\0\\0\\0{"bytes": %7d}' "$(stat -c %s plain)" && zstd -q -3 -c plain"""
    (place / "inside").write_bytes(subprocess.run(["sh", "-c", script], cwd=place, capture_output=True, check=True).stdout)
    return place / "inside"


@pytest.mark.parametrize("kind", ["age", "ed25519", "rsa", "passphrase"])
def test_the_program_age_opens_ours_and_we_open_its(place, pair, monkeypatch, kind):
    monkeypatch.setenv("FTAI_SEAL", "age")
    data = b"words " * 20_000 + random.Random(3).randbytes(300_000)
    public, identity = pair(kind) if kind != "passphrase" else (kind, "")
    monkeypatch.setenv("FTAI_RECIPIENTS", public)
    monkeypatch.setenv("FTAI_IDENTITY", str(identity))
    if kind == "passphrase":
        phrase(monkeypatch, "river stone")
        terminal("river stone", "age", "-d", "-o", str(place / "got"), str(made(place, data)))
        packed = (place / "got").read_bytes()
    else:
        packed = age("-d", "-i", identity, made(place, data))
    assert subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout == data
    source = inside(place, data)
    if kind == "passphrase":
        terminal("river stone", "age", "-p", "-o", str(place / "its"), str(source))
    else:
        subprocess.run(["age", "-r", public, "-o", place / "its", source], check=True)
    assert opened(place / "its") == data


def test_an_armored_age_file_is_none_of_ours(place, pair, monkeypatch):
    public, identity = pair("age")
    monkeypatch.setenv("FTAI_IDENTITY", str(identity))
    subprocess.run(["age", "-a", "-r", public, "-o", place / "its", inside(place, b"words")], check=True)
    assert refuses(place / "its")


# ---- what must not open ----


def flipped(data: bytes, bit: int) -> bytes:
    made = bytearray(data)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def test_every_flipped_bit_is_refused(place, method):
    path = made(place, b"some words", about={"n": 1})
    whole = path.read_bytes()
    # Every seventh bit: one of each byte, in the end of each place.
    for bit in range(0, len(whole) * 8, 1 if FULL else 7):
        path.write_bytes(flipped(whole, bit))
        # A recipient's line that was changed is one of somebody else.
        assert refuses(path, (DATAERR, NOPERM), 1 + (bit % 32 == 0)), f"bit {bit % 8} of byte {bit // 8}"
    path.write_bytes(whole)
    assert opened(path) == b"some words"


def test_every_truncation_is_refused_and_all_that_is_added(place, method):
    path = made(place, b"some words", about={"n": 1})
    whole = path.read_bytes()
    for size in range(0, len(whole), 1 if FULL else 3):
        path.write_bytes(whole[:size])
        assert refuses(path, (DATAERR, NOPERM)), f"{size} bytes"
    for more in (b"\0", b"x", b"\n", whole, whole[-40:], bytes(65536), frame(b"")):
        path.write_bytes(whole + more)
        assert refuses(path), more[:40]


def test_random_flips_of_a_big_file_are_refused(place, method):
    chance = random.Random(4)
    path = made(place, chance.randbytes(2_000_000))
    size = path.stat().st_size
    count = 0
    with open(path, "r+b", buffering=0) as file:
        for _ in range(FLIPS):
            at, bit = chance.randrange(size), 1 << chance.randrange(8)
            was = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([was ^ bit]), at)
            try:
                os.close(sealed.open_(str(path))[1])
            except Failure as bad:
                count += bad.code in (DATAERR, NOPERM)
            os.pwrite(file.fileno(), bytes([was]), at)
    assert count == FLIPS
    assert os.listdir(place) == [path.name]
    assert len(opened(path)) == 2_000_000


def parts(whole: bytes) -> tuple[bytes, list[bytes]]:
    """(what stands before, the segments of Tink or the chunks of age)."""
    if whole.startswith(sealed.MAGIC):
        start, size = 18 + int.from_bytes(whole[16:18], "big"), MIB
        # The first segment is shorter, by Tink's header, which stays where it is.
        cuts = [start + 40, *range(start + size, len(whole), size), len(whole)]
    else:
        start = whole.index(b"\n", whole.index(b"\n--- ") + 1) + 1 + 16
        cuts = [*range(start, len(whole), 65536 + 16), len(whole)]
    return whole[: cuts[0]], [whole[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]


def test_segments_that_were_moved_are_refused(place, method):
    data = random.Random(5).randbytes(5 * MIB + 100)
    path = made(place, data)
    front, pieces = parts(path.read_bytes())
    assert len(pieces) > 5
    path.write_bytes(front + b"".join(pieces))
    assert opened(path) == data
    a, b, c, d, *rest = pieces
    last = pieces[-1]
    for hostile in (
        [a, c, b, d, *rest], [b, a, c, d, *rest], [a, b, d, c, *rest], [a, b, b, c, d, *rest], [a, a, b, c, d, *rest], [a, b, b, d, *rest],
        [a, c, d, *rest], [b, c, d, *rest], [*pieces, last], pieces[:-1], [*pieces[:-2], last], [last], [a, last], [], pieces[::-1], [*pieces, *pieces],
        [*pieces[:-2], last, pieces[-2]],
    ):  # fmt: skip
        path.write_bytes(front + b"".join(hostile))
        assert refuses(path)
    # As long as it was: the first and the second one of Tink differ in length.
    path.write_bytes(front + a + c + b + d + b"".join(rest))
    assert path.stat().st_size == len(front + b"".join(pieces))


def test_parts_of_another_file_are_refused(place, method):
    data = random.Random(6).randbytes(3 * MIB)
    path, other = made(place, data), made(place, data, "y", about={**ABOUT, "segment": 8})
    (front, pieces), (front2, pieces2) = parts(path.read_bytes()), parts(other.read_bytes())
    swaps = [
        front + b"".join(pieces2),
        front2 + b"".join(pieces),
        *(front + b"".join([*pieces[:n], pieces2[n], *pieces[n + 1 :]]) for n in range(0, len(pieces), 1 if FULL else len(pieces) // 3)),
    ]
    if method == "aes256":
        one, two = front[:-40], front2[:-40]
        assert seal.unlock(one[18:], secret.identity()) != seal.unlock(two[18:], secret.identity())
        keyset = seal.unlock(one[18:], secret.identity())
        again = seal.lock(keyset, [seal.recipient()])
        armored = subprocess.run(["age", "-a", "-r", seal.recipient()], input=keyset, capture_output=True, check=True).stdout
        # Its own keyset too, in another age file: that is not what the associated data were made of.
        for word in (again, armored, two[18:]):
            swaps.append(sealed.MAGIC + len(word).to_bytes(2, "big") + word + front[-40:] + b"".join(pieces))
        swaps.append(one + front2[-40:] + b"".join(pieces))
    for hostile in swaps:
        path.write_bytes(hostile)
        assert refuses(path)


def zstd(data: bytes, level=3, **more) -> bytes:
    return zstandard.ZstdCompressor(level=level, **more).compress(data)


def test_what_stands_inside_is_taken_word_for_word(place, method):
    good = zstd(b"abc")
    assert opened(put(place, frame() + good)) == b"abc"
    assert opened(put(place, frame() + zstd(b"abc", write_checksum=True))) == b"abc"
    assert opened(put(place, frame() + zstd(b"abc", write_content_size=False))) == b"abc"
    assert opened(put(place, frame(b'{"bytes":3, "more": [1]}') + good)) == b"abc"
    broken = bytearray(zstd(b"abc", write_checksum=True))
    broken[-1] ^= 1
    for hostile in (
        b"", b"abc", good, frame(), frame() + b"abc", frame() + good[:-1], frame() + good + b"\0", frame() + good + good, frame() + frame() + good,
        frame() + good + frame(), frame() + good + zstd(b""), frame() + zstd(b"") + good, frame(mark=0x184D2A51) + good, frame(mark=0xFD2FB528) + good,
        frame(b'{"bytes":2}') + good, frame(b'{"bytes":4}') + good, frame(b'{"bytes":0}') + good, frame(b'{"bytes":-1}') + good,
        frame(b'{"bytes":3.0}') + good, frame(b'{"bytes":"3"}') + good, frame(b'{"bytes":true}') + zstd(b"a"), frame(b"{}") + good, frame(b"3") + good,
        frame(b"[]") + good, frame(b"") + good, frame(b'{"bytes":3') + good, frame(b'{"bytes":3}\xff') + good, frame(b"[" * 60_000) + good,
        frame(b'{"bytes":3,"x":"' + b"x" * 70_000 + b'"}') + good, frame() + b"\x28\xb5\x2f\xfd\x21\x07\x03\x19\0\0abc",
        frame() + bytes(broken), frame() + good[:4] + bytes([good[4] | 8]) + good[5:], frame() + b"\x28\xb5\x2f\xfd\x20\x03\x06\0\0abc",
        frame() + b"\x28\xb5\x2f\xfd\x20\x03\x1f\0\0abc", frame() + b"\x28\xb5\x2f\xfd\x20\x04\x19\0\0abc",
        frame(b'{"bytes":200000}') + zstd(bytes(200_000))[:-1],
        b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + good, b"\x50\x2a\x4d\x18",
    ):  # fmt: skip
        assert refuses(put(place, hostile)), hostile[:60]


def with_keyset(place, kind) -> tuple[str, Path]:
    """(the keyset, a file that is as it should be but for the kind of it)."""

    import tink
    from tink import json_proto_keyset_format, secret_key_access, streaming_aead

    streaming_aead.register()
    handle = tink.new_keyset_handle(kind)
    keyset = json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    locked = seal.lock(keyset.encode(), [seal.recipient()])
    front = sealed.MAGIC + len(locked).to_bytes(2, "big") + locked
    out = io.BytesIO()
    out.close = lambda: None  # type: ignore[method-assign]
    with handle.primitive(streaming_aead.StreamingAead).new_encrypting_stream(out, hashlib.sha256(front).digest()) as into:
        into.write(frame() + zstd(b"abc"))
    (place / "x").write_bytes(front + out.getvalue())
    return keyset, place / "x"


@pytest.mark.filterwarnings("ignore:.*key_template function is deprecated")
def test_a_keyset_of_another_kind_is_refused(place, monkeypatch):
    """Who knows the recipient can make a file of any keyset: none that asks for much memory, or that is weaker, may be used."""
    from tink import streaming_aead

    kinds = streaming_aead.streaming_aead_key_templates
    good, path = with_keyset(place, kinds.AES256_GCM_HKDF_1MB)
    assert opened(path) == b"abc"
    other = kinds.create_aes_gcm_hkdf_streaming_key_template
    for kind in (
        kinds.AES128_GCM_HKDF_1MB, kinds.AES256_GCM_HKDF_4KB, kinds.AES256_CTR_HMAC_SHA256_1MB, other(32, 3, 16, MIB), other(64, 3, 32, MIB),
        other(32, 4, 32, MIB), other(32, 3, 32, MIB + 1), other(32, 3, 32, 32 * MIB),
    ):  # fmt: skip
        assert refuses(with_keyset(place, kind)[1])
    came, memory = child(with_keyset(place, other(32, 3, 32, 512 * MIB))[1])
    assert came == "refused 65"
    assert memory < 64_000, f"{memory} KiB"
    texts = [re.sub(r'"value": ?"[^"]*"', f'"value":"{value}"', good) for value in ("", "!", "AAAA", "CAES", "////")]
    texts += ["", "x", "{}", good[:-1], good * 2, '{"key":[]}', '{"key":[3]}', '{"key":{"keyData":{}}}', "[" * 50_000]
    texts += ['{"key":[{"keyData":{"value":3,"typeUrl":"x"}}]}', good.replace("ENABLED", "DISABLED"), good.replace('"key":', '"keys":')]
    texts += [re.sub(r'"primaryKeyId": ?[0-9]+', '"primaryKeyId":1', good)]
    assert len(set(texts)) == 18 and good not in texts
    for text in texts:
        locked = seal.lock(text.encode(), [seal.recipient()])
        path.write_bytes(sealed.MAGIC + len(locked).to_bytes(2, "big") + locked + b"\x28" + bytes(500))
        assert refuses(path), text[:60]


def test_what_is_no_file_of_ours_is_refused(place, method, tmp_path):
    path = made(place, b"words")
    assert code(sealed.open_, str(place / "none")) == NOINPUT
    assert code(sealed.open_, str(place / "none" / "x")) == NOINPUT
    assert code(sealed.open_, str(place)) == DATAERR
    (place / "link").symlink_to(path.name)
    assert refuses(place / "link", (NOPERM,))
    (place / "dangling").symlink_to("none")
    assert refuses(place / "dangling", (NOPERM,))
    os.mkfifo(place / "fifo")
    assert refuses(place / "fifo")
    (place / "words").write_text("just words")
    (place / "empty").touch()
    assert refuses(place / "words") and refuses(place / "empty")


# ---- bombs ----


def zeros(size: int) -> bytes:
    """So many zero bytes in one frame of zstd."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(level=3, write_content_size=False).stream_writer(out, closefd=False) as packer:
        for _ in range(size // MIB):
            packer.write(bytes(MIB))
    return out.getvalue()


def blocks(size: int) -> bytes:
    """The same, by hand: blocks of one byte 131,072 times, and a window of 2 MiB."""
    count = size // 131072
    return b"\x28\xb5\x2f\xfd\0\x58" + b"".join((131072 << 3 | 2 | (n == count - 1)).to_bytes(3, "little") + b"\0" for n in range(count))


CHILD = """
import os, resource, sys
from serenamaster import sealed
from serenamaster.errors import Failure
try:
    header, fd = sealed.open_(sys.argv[1], most=int(sys.argv[2]) or None)
    said = f"{os.fstat(fd).st_size}"
except Failure as bad:
    said = f"refused {bad.code}"
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd")))
"""


def child(path, most=0) -> tuple[str, int]:
    """(what came of opening it, how many KiB of memory it took)."""
    env = os.environ | {"PYTHONPATH": LIB}
    # A child begins with what this process had: a shell in between has little.
    args = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", CHILD, path, str(most)]
    ran = subprocess.run(args, capture_output=True, text=True, env=env, check=True)
    said, memory, _ = ran.stdout.rsplit(" ", 2)
    return said, int(memory)


@pytest.mark.parametrize("bomb", [zeros, blocks])
def test_a_bomb_is_refused_within_64_mb(place, method, bomb):
    seal.recipient()
    size = 1 << (30 if FULL else 28)
    packed = bomb(size)
    for says, most in ((1000, 0), (size, 1_000_000), (size - 1, 1_000_000)):
        path = put(place, frame(b'{"bytes":%d}' % says) + packed)
        assert path.stat().st_size < 40_000
        came, memory = child(path, most)
        assert came == "refused 65"
        assert memory < 64_000, f"{memory} KiB"
        assert os.listdir(place) == ["hostile"]


@pytest.mark.parametrize("more", [0, 1])
def test_a_bomb_that_is_wanted_opens_within_64_mb_if_it_does_not_lie(place, method, more):
    seal.recipient()
    size = 1 << (30 if SCALE >= 10 else 28)
    came, memory = child(put(place, frame(b'{"bytes":%d}' % (size + more)) + blocks(size)))
    assert came == ("refused 65" if more else f"{size}")
    assert memory < 64_000, f"{memory} KiB"
    assert os.listdir(place) == ["hostile"]


def test_a_window_of_gigabytes_is_refused_within_64_mb(place, method):
    seal.recipient()
    for window in (0x70, 0x90, 0xA8, 0xFF) if FULL else (0x70, 0xFF):
        path = put(place, frame(b'{"bytes":131072}') + b"\x28\xb5\x2f\xfd\0" + bytes([window]) + (131072 << 3 | 3).to_bytes(3, "little") + b"\0")
        came, memory = child(path)
        assert came == "refused 65"
        assert memory < 64_000


def test_a_big_file_opens_within_64_mb(place, method):
    path = made(place, os.urandom(48 * MIB))
    came, memory = child(path)
    assert came == f"{48 * MIB}"
    assert memory < 64_000


@pytest.mark.parametrize("header", [
    b"-> X25519 " + b"a" * 80_000_000,
    (b"-> a b\n" + b"A" * 64 + b"\n") * 300 + b"\n--- " + b"A" * 43 + b"\n" + bytes(1000),
])  # fmt: skip
def test_an_age_header_without_an_end_is_refused_at_once(place, monkeypatch, header):
    """The library would read it for hours, or all of it into memory."""
    seal.recipient()
    (place / "x").write_bytes(sealed.AGE + header)
    came, memory = child(place / "x")
    assert came == "refused 65"
    assert memory < 64_000
    word = (sealed.AGE + header)[:0xFFFF]
    (place / "x").write_bytes(sealed.MAGIC + len(word).to_bytes(2, "big") + word + bytes(1000))
    assert child(place / "x")[0] == "refused 65"


# ---- disks, folders and ends ----


def test_a_folder_that_cannot_be_written_to(place, method):
    path = made(place, b"words")
    assert code(made, place, b"words", "none/x") == CANTCREAT
    assert code(sealed.open_, str(path), folder=str(place / "none")) == CANTCREAT
    assert code(sealed.extract, str(path), str(place / "none" / "x")) == CANTCREAT
    (place / "folder").mkdir()
    assert code(sealed.extract, str(path), str(place / "folder")) == CANTCREAT
    # No root may write there either.
    assert code(sealed.open_, str(path), folder="/proc/self") == CANTCREAT
    assert code(sealed.extract, str(path), "/proc/self/x") == CANTCREAT
    assert sorted(os.listdir(place)) == ["folder", path.name]


def test_a_full_disk_leaves_nothing(place, method):
    """RLIMIT_FSIZE: a write ends with EFBIG, as others do with ENOSPC, at each of many places."""
    import resource

    data = random.Random(8).randbytes(300_000)
    path = made(place, data)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for limit in (0, 1, 17, 500, 5000, 100_000, 280_000, 300_000 - 1):
        with open(path, "rb") as file:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                assert code(sealed.write, file.fileno(), str(place / "y"), ABOUT) == IOERR, limit
                assert code(sealed.open_, str(path)) == IOERR
                assert code(sealed.extract, str(path), str(place / "out")) == IOERR
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert os.listdir(place) == [path.name]
    signal.signal(signal.SIGXFSZ, old)
    assert opened(path) == data


def test_a_disk_that_is_full_or_read_only(place, method, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("NO ROOT, OR NO MOUNTS ALLOWED: no small disk can be made")
    try:
        path = made(place, random.Random(8).randbytes(3_000_000))
        with open(path, "rb") as file:
            assert code(sealed.write, file.fileno(), str(disk / "y"), ABOUT) == IOERR
            assert code(sealed.open_, str(path), folder=str(disk)) == IOERR
            assert code(sealed.extract, str(path), str(disk / "y")) == IOERR
            assert os.listdir(disk) == []
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            assert code(sealed.write, file.fileno(), str(disk / "y"), ABOUT) == CANTCREAT
            assert code(sealed.open_, str(path), folder=str(disk)) == CANTCREAT
            assert code(sealed.extract, str(path), str(disk / "y")) == CANTCREAT
    finally:
        subprocess.run(["umount", disk], check=True)


SEALING = """
import os, select, sys
from serenamaster import sealed
act, path = sys.argv[1:]
def slow(count):
    if count > 3_000_000:
        print("half", flush=True)
        # Python sees a signal between its own steps: one that came just before it waits would not end a wait without end.
        while not select.select([0], [], [], 0.1)[0]:
            pass
if act == "write":
    with open(path, "rb") as file:
        sealed.write(file.fileno(), path, {}, told=slow)
else:
    read = sealed._Source.read
    def slowly(self, size=65536):
        slow(self.at)
        return read(self, size)
    sealed._Source.read = slowly
    sealed.extract(path, path + ".out") if act == "extract" else sealed.open_(path)
"""


@pytest.mark.parametrize("act", ["write", "extract", "open"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM][: None if FULL else 2])
def test_what_is_killed_half_way_leaves_nothing_that_looks_whole(place, method, act, end):
    seal.recipient()
    data = random.Random(9).randbytes(6_000_000)
    path = made(place, data) if act != "write" else place / "plain"
    path.write_bytes(path.read_bytes() if act != "write" else data)
    before = os.listdir(place)
    env = os.environ | {"PYTHONPATH": LIB}
    process = subprocess.Popen([sys.executable, "-c", SEALING, act, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    try:
        assert process.stdout.readline() == b"half\n"
        process.send_signal(end)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    left = sorted(set(os.listdir(place)) - set(before))
    if act == "open" or end == signal.SIGINT:
        assert left == []
    else:
        name = {"write": f"plain{sealed.SUFFIX[method]}", "extract": f"{path.name}.out"}[act]
        assert left == [f".{name}.{process.pid}.tmp"]
        # As purge knows what a crash left.
        assert re.fullmatch(r"\..*\.([0-9]+)\.tmp", left[0])
        (place / left[0]).unlink()


def test_what_a_process_of_our_number_left_is_no_hindrance(place, method):
    (place / f".x{sealed.SUFFIX[method]}.{os.getpid()}.tmp").write_text("left")
    (place / "precious").write_text("old")
    (place / f".out.{os.getpid()}.tmp").symlink_to("precious")
    path = made(place, b"words")
    sealed.extract(str(path), str(place / "out"))
    assert (place / "out").read_text() == "words"
    assert (place / "precious").read_text() == "old"
    assert sorted(os.listdir(place)) == ["out", "precious", path.name]
