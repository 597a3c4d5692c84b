"""Encryption: of single texts of a record, of values of the config, and of whole files as age does it. See ftai(5), SEALED TEXTS."""

import fcntl
import os
import time

from . import paths, stream
from .errors import CANTCREAT, CONFIG, DATAERR, NOPERM, TEMPFAIL, Failure

HIDDEN = "aes256gcm:"
THREADS = "threads.db"
WAIT = 10.0  # seconds to wait for another process


def folder() -> str:
    """The folder of the keys. Raises Failure 73, 77."""
    return paths.make(os.path.join(paths.state(), "keys"))


# ---- whole files: age ----


def lock(data: bytes, recipients=(), *, passphrase: str | None = None) -> bytes:
    """`data` as an age file for these recipients (`age1…`), or for who knows the passphrase. Raises Failure 78 for what is no recipient."""
    import pyrage

    if passphrase is not None:
        return pyrage.passphrase.encrypt(data, passphrase)
    try:
        return pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(one) for one in recipients])
    except (pyrage.RecipientError, pyrage.EncryptError) as bad:
        raise Failure(f"cannot encrypt for '{' '.join(recipients)}': {bad}", CONFIG) from None


def unlock(data: bytes, identity: str | None = None, *, passphrase: str | None = None) -> bytes:
    """What an age file holds. identity: `AGE-SECRET-KEY-1…`, or the lines of a file that age-keygen made.

    Raises Failure 77 where it was made for another identity or passphrase, 65 for what is damaged or no age file, 78 for what is no identity.
    """
    import pyrage

    try:
        if passphrase is not None:
            return pyrage.passphrase.decrypt(data, passphrase)
        return pyrage.decrypt(data, [_identity(identity or "")])
    except pyrage.DecryptError as bad:
        # The words of the age library for a file that is whole, but not for us.
        if str(bad) in ("No matching keys found", "Decryption failed"):
            raise Failure(f"cannot decrypt: made for another {'identity' if passphrase is None else 'passphrase'}", NOPERM) from None
        raise Failure("cannot decrypt: damaged, or no age file", DATAERR) from None


def _identity(words: str):
    import pyrage

    keys = [line.strip() for line in words.splitlines() if line.strip() and not line.startswith("#")]
    try:
        return pyrage.x25519.Identity.from_str(keys[0] if len(keys) == 1 else "")
    except pyrage.IdentityError:
        raise Failure("no age identity: expected one line 'AGE-SECRET-KEY-1…'", CONFIG, "age-keygen") from None


def recipient() -> str:
    """The owner's recipient, `age1…`: what is sealed is sealed for it. Where there is neither it nor an identity, both are made.

    Raises Failure 73, 74, 75, 77, 78.
    """
    place = os.path.join(folder(), "recipient")
    try:
        return _text(place)
    except FileNotFoundError:
        pass
    with _Lock(place):
        try:
            return _text(place)
        except FileNotFoundError:
            public = str(_identity(_own()).to_public())
        try:
            stream.save(place, f"{public}\n".encode())
        except OSError as bad:
            raise Failure(f"cannot write '{place}': {bad.strerror}", CANTCREAT) from None
    return public


def _own() -> str:
    """The identity in the folder of the keys, made where there is none. Call it under the lock."""
    import pyrage

    place = os.path.join(folder(), "identity")
    try:
        return _text(place)
    except FileNotFoundError:
        if os.path.exists(os.path.join(folder(), THREADS)):
            # The identity was moved to a keychain: with a new one, nobody could open what was sealed before.
            raise Failure(f"cannot seal: '{folder()}/recipient' is missing", CONFIG, f"age-keygen -y IDENTITY > '{folder()}/recipient'") from None
    fresh = str(pyrage.x25519.Identity.generate())
    try:
        stream.save(place, f"{fresh}\n".encode())
    except OSError as bad:
        raise Failure(f"cannot write '{place}': {bad.strerror}", CANTCREAT) from None
    return fresh


class _Lock:
    """`with _Lock(path):` one process at a time. Raises Failure 75 after 10 seconds, 73."""

    def __init__(self, path: str):
        self.path = path + ".lock"

    def __enter__(self):
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as bad:
            raise Failure(f"cannot open '{self.path}': {bad.strerror}", CANTCREAT) from None
        end = time.monotonic() + WAIT
        while True:
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(self.fd)
                    raise Failure(f"'{self.path}' is locked by another process", TEMPFAIL) from None
            time.sleep(0.005)

    def __exit__(self, *_):
        os.close(self.fd)


def _text(place: str) -> str:
    """What a small file of our own holds. Raises FileNotFoundError, Failure 77 for a link, or a file of others."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as bad:
        raise Failure(f"cannot read '{place}': {bad.strerror}", NOPERM) from None
    try:
        paths.guard(place, os.fstat(fd))
        return os.read(fd, 64 * 1024).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


# ---- values of the config ----


def hide(key: bytes, name: str, words: str) -> str:
    """A value of the config as it may be written down: `aes256gcm:` and BASE64 of nonce, text and tag. key: 32 bytes; name: the field it is for."""
    from base64 import b64encode

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(12)
    return HIDDEN + b64encode(nonce + AESGCM(key).encrypt(nonce, words.encode(), name.encode())).decode()


def reveal(key: bytes, name: str, hidden: str) -> str:
    """The text that hide() was given. Raises Failure 65 where it was hidden with another key, under another name, or is damaged."""
    from base64 import b64decode, b64encode

    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = b64decode(hidden[len(HIDDEN) :], validate=True)
        if hidden != HIDDEN + b64encode(data).decode():
            raise ValueError
        return AESGCM(key).decrypt(data[:12], data[12:], name.encode()).decode()
    except (ValueError, InvalidTag):
        raise Failure(f"cannot decrypt the value of '{name}': another key, another name, or damaged", DATAERR) from None
