"""What is sealed is opened again before it counts: with the owner's identity, or where that is not at hand with one made for this once."""

import os
from pathlib import Path

import pyrage
import pytest
from serenamaster import seal, sealed, secret
from serenamaster.errors import Failure

SIZE = 6_000_000
METHODS = pytest.mark.parametrize("method", ["aes256", "age"])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    seal.recipient()
    return tmp_path


@pytest.fixture
def source(home):
    path = home / "plain"
    path.write_bytes(os.urandom(SIZE // 2) + bytes(SIZE // 2))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def out(home):
    (home / "out").mkdir()
    return home / "out"


def write(source, out, **settings) -> Path:
    made = sealed.write(source, str(out / "x"), {"segment": 7}, check=True, **settings)
    assert os.listdir(out) == [made["file"]]
    return out / made["file"]


def recipients(path) -> int:
    return path.read_bytes()[:4000].count(b"\n-> X25519 ")  # the library adds others that nobody knows, so that they are borne with


def holds(path, source) -> bool:
    header, fd = sealed.open_(str(path))
    data = os.read(fd, SIZE + 1)
    os.close(fd)
    return header == {"segment": 7, "bytes": SIZE} and data == os.pread(source, SIZE, 0)


@METHODS
def test_with_the_owners_identity_there_is_no_other_recipient(monkeypatch, source, out, method):
    monkeypatch.setenv("FTAI_SEAL", method)
    told = []
    path = write(source, out, told=told.append)
    assert recipients(path) == 1
    assert holds(path, source)
    assert told == sorted(told)
    assert told[-1] == 2 * SIZE


@METHODS
def test_without_it_what_is_sealed_is_checked_all_the_same(monkeypatch, source, out, method):
    monkeypatch.setenv("FTAI_SEAL", method)
    own = Path(seal.folder()) / "identity"
    kept = own.read_text()
    own.unlink()
    assert secret.identity() is None
    assert sealed.write(source, str(out), {}, check=True)["opened"] is False
    assert "opened" not in sealed.write(source, str(out), {})
    path = write(source, out)
    assert recipients(path) == 2
    with pytest.raises(Failure, match="identity is missing"):
        sealed.open_(str(path))
    own.write_text(kept)
    own.chmod(0o600)
    assert holds(path, source)
    assert "opened" not in sealed.write(source, str(out), {}, check=True)


@METHODS
def test_the_identity_may_be_that_of_the_setting(monkeypatch, source, out, method, tmp_path):
    monkeypatch.setenv("FTAI_SEAL", method)
    named = tmp_path / "elsewhere"
    # Others in it say nothing of the owner's recipient.
    named.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    named.chmod(0o600)
    own = Path(seal.folder()) / "identity"
    kept = own.read_text()
    own.unlink()
    monkeypatch.setenv("FTAI_IDENTITY", str(named))
    assert sealed.write(source, str(out), {}, check=True)["opened"] is False
    named.write_text(f"{named.read_text()}{kept}")
    assert "opened" not in sealed.write(source, str(out), {}, check=True)
    assert recipients(write(source, out)) == 1


@METHODS
def test_for_somebody_else(monkeypatch, source, out, method):
    monkeypatch.setenv("FTAI_SEAL", method)
    other = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("FTAI_RECIPIENTS", str(other.to_public()))
    path = write(source, out)
    assert recipients(path) == 2
    with pytest.raises(Failure, match="another identity") as caught:
        sealed.open_(str(path))
    assert caught.value.code == 77
    place = out.parent / "other"
    place.write_text(f"{other}\n")
    place.chmod(0o600)
    monkeypatch.setenv("FTAI_IDENTITY", str(place))
    assert holds(path, source)


def test_for_a_passphrase(monkeypatch, source, out):
    monkeypatch.setenv("FTAI_RECIPIENTS", "passphrase")
    reading, writing = os.pipe()
    os.write(writing, b"correct horse battery\n")
    os.close(writing)
    monkeypatch.setenv("FTAI_PASSPHRASE_FD", str(reading))
    assert holds(write(source, out), source)


@METHODS
def test_a_recipient_that_nobody_has_the_identity_of(monkeypatch, source, out, method):
    """As after an identity was taken from a backup, and the recipient not: sealed for it, the segment would be lost."""
    monkeypatch.setenv("FTAI_SEAL", method)
    (Path(seal.folder()) / "identity").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    with pytest.raises(Failure, match="cannot check .*another identity") as caught:
        write(source, out)
    assert caught.value.code == 77
    assert os.listdir(out) == []
    sealed.write(source, str(out / "x"), {})  # unchecked, it is not seen


@pytest.fixture
def meddle(monkeypatch):
    """Has something done to the draft, or to the source, between the sealing and the check; a list of what was done."""
    done: list = []

    def begin(act):
        sync = sealed._Draft.sync

        def first(draft):
            done.append(act())
            sync(draft)

        monkeypatch.setattr(sealed._Draft, "sync", first)
        return done

    return begin


@METHODS
@pytest.mark.parametrize("at", [40, 700_000])
def test_damage_on_the_disk(monkeypatch, meddle, source, out, method, at):
    monkeypatch.setenv("FTAI_SEAL", method)

    def damage():
        (draft,) = out.iterdir()
        with open(draft, "r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))

    done = meddle(damage)
    with pytest.raises(Failure, match="cannot check") as caught:
        write(source, out)
    assert len(done) == 1
    assert caught.value.code in (65, 77)  # who it was made for is among what can be damaged
    assert os.listdir(out) == []


@METHODS
@pytest.mark.parametrize("at", [0, SIZE - 1])
def test_a_source_that_is_no_longer_what_was_sealed(monkeypatch, meddle, home, source, out, method, at):
    monkeypatch.setenv("FTAI_SEAL", method)

    def change():
        with open(home / "plain", "r+b") as file:
            file.seek(at)
            file.write(bytes([os.pread(source, 1, at)[0] ^ 1]))

    done = meddle(change)
    with pytest.raises(Failure, match="does not hold what was sealed") as caught:
        write(source, out)
    assert len(done) == 1
    assert caught.value.code == 74
    assert os.listdir(out) == []
