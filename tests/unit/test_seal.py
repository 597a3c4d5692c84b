"""seal.py: age files, hidden values of the config, and the texts of records."""

import os
import random
import secrets
import subprocess
import sys

import pytest
from serenamaster import seal
from serenamaster.errors import CONFIG, DATAERR, NOPERM, Failure

LIB = os.path.dirname(os.path.dirname(seal.__file__))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "state" / "keys"


def code(call, *args, **more):
    with pytest.raises(Failure) as caught:
        call(*args, **more)
    return caught.value.code


# ---- whole files ----


def test_an_age_file_opens_for_its_recipients_alone():
    data = os.urandom(1000)
    one, two, other = (subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout for _ in range(3))
    public = [seal._identity(words).to_public() for words in (one, two)]
    locked = seal.lock(data, [str(key) for key in public])
    assert data not in locked
    assert seal.unlock(locked, one) == seal.unlock(locked, two.splitlines()[-1]) == data
    assert code(seal.unlock, locked, other) == NOPERM
    assert code(seal.unlock, locked, "no identity") == CONFIG
    assert code(seal.unlock, locked) == CONFIG
    assert code(seal.lock, data, ["age1nobody"]) == CONFIG


def test_an_age_file_opens_with_its_passphrase_alone():
    locked = seal.lock(b"words", passphrase="river stone")
    assert seal.unlock(locked, passphrase="river stone") == b"words"
    assert code(seal.unlock, locked, passphrase="river") == NOPERM


def test_a_damaged_age_file_never_opens():
    own = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    locked = seal.lock(b"some words", [str(seal._identity(own).to_public())])
    for cut in range(len(locked)):
        assert code(seal.unlock, locked[:cut], own) in (DATAERR, NOPERM)
    # Every bit of the body, and of the stanza that is ours; another stanza of the header is there to be skipped by who does not know it.
    at = locked.index(b"\n---")
    for bit in range(at * 8, len(locked) * 8):
        flipped = bytearray(locked)
        flipped[bit // 8] ^= 1 << bit % 8
        assert code(seal.unlock, bytes(flipped), own) in (DATAERR, NOPERM)


def test_the_age_program_opens_what_is_locked(tmp_path):
    own = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(own)], capture_output=True, check=True)
    locked = seal.lock(b"some words", [str(seal._identity(own.read_text()).to_public())])
    assert subprocess.run(["age", "-d", "-i", str(own)], input=locked, capture_output=True, check=True).stdout == b"some words"


# ---- the owner's identity ----


def test_an_identity_is_made_once_by_eight_at_once(place):
    script = "from serenamaster import seal; print(seal.recipient())"
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": LIB}) for _ in range(8)]
    said = {process.communicate()[0].strip() for process in running}
    assert len(said) == 1
    own = (place / "identity").read_text()
    assert said == {str(seal._identity(own).to_public())} == {seal.recipient()}
    assert {path.name for path in place.iterdir()} == {"identity", "recipient", "recipient.lock"}
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600] * 3
    assert place.stat().st_mode & 0o777 == 0o700


def test_without_identity_the_recipient_is_enough(place):
    public = seal.recipient()
    (place / "identity").unlink()  # it was moved to a keychain
    assert seal.recipient() == public
    assert not (place / "identity").exists()


def test_no_second_identity_is_made_for_what_was_sealed_before(place):
    seal.recipient()
    (place / seal.THREADS).touch()
    for name in ("identity", "recipient"):
        (place / name).unlink()
    assert code(seal.recipient) == CONFIG
    assert not (place / "identity").exists()


@pytest.mark.parametrize("name", ["identity", "recipient"])
def test_a_link_and_a_file_of_others_are_refused(place, tmp_path, name):
    seal.recipient()
    real = (place / name).rename(tmp_path / "elsewhere")
    (place / "recipient").unlink(missing_ok=True)
    (place / name).symlink_to(real)
    assert code(seal.recipient) == NOPERM
    (place / name).unlink()
    real.rename(place / name).chmod(0o622)
    assert code(seal.recipient) == NOPERM


# ---- values of the config ----


def test_a_hidden_value_comes_back_under_its_name_alone():
    key, words = os.urandom(32), "pässword " + secrets.token_hex(8)
    hidden = seal.hide(key, "mail-password", words)
    assert hidden.startswith("aes256gcm:")
    assert words not in hidden
    assert hidden != seal.hide(key, "mail-password", words)
    assert seal.reveal(key, "mail-password", hidden) == words
    assert seal.reveal(key, "empty", seal.hide(key, "empty", "")) == ""
    assert code(seal.reveal, key, "other", hidden) == DATAERR
    assert code(seal.reveal, os.urandom(32), "mail-password", hidden) == DATAERR


def test_a_damaged_hidden_value_is_refused():
    key = os.urandom(32)
    hidden = seal.hide(key, "name", "some words")
    for number in range(len(seal.HIDDEN), len(hidden)):
        for other in random.Random(number).sample([sign for sign in "AZaz09+/" if sign != hidden[number]], 3):
            assert code(seal.reveal, key, "name", hidden[:number] + other + hidden[number + 1 :]) == DATAERR
    for hostile in ("", "aes256gcm:", "aes256gcm:AAAA", "aes256gcm:!", hidden[:-5], hidden + "A", hidden[len(seal.HIDDEN) :], "aes256gcm:\ud800"):
        assert code(seal.reveal, key, "name", hostile) == DATAERR
