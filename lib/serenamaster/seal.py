"""Encryption: of single texts of a record, of values of the config, and of whole files as age does it. See ftai(5), SEALED TEXTS."""

import os
import re
import time

from . import paths, stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOPERM, TEMPFAIL, Failure

HIDDEN = "aes256gcm:"
THREADS = "threads.db"
WAIT = 10.0  # seconds to wait for another process
WORK = 16  # that a passphrase is to cost at least: the library measures what takes a second, and on a busy machine far too little does
TRIES = 20  # to measure it again
# Patterns are compiled when they are used: who encrypts nothing does not wait for them.
SEALED = r"\[sealed:([A-Za-z0-9_-]{43}):([A-Za-z0-9_-]{38,})\]"
DAMAGED = "[damaged]"  # what stands for a text that is not as it was sealed
# NIST SP 800-38D allows 2**32 random nonces under one key. With so many, two are the same with a probability of 2**-57.
MOST = 2**20
KEPT = 10_000  # ciphers and keys of threads that a process keeps

# What says where a record stands, and what becomes of it: ftai(5), SEALED TEXTS.
PLACE = frozenset(("@tag", "id", "ts", "thread", "@comments", "@hints", "@quoted"))
# These are of a closed vocabulary, or name something: they stay where they are one word.
FRAME = frozenset(
    ("parent", "updates", "about", "from", "via", "lang", "tz", "privacy", "log", "status", "target", "rule", "rule_at", "specs", "class", "recovery")
    + ("model", "currency", "price_row", "act", "who", "outcome", "op", "tier", "level", "agent", "part_of", "deadline", "hash", "prev", "digest")
)
WORD = r"[A-Za-z0-9_.:/+@-]{1,128}"
PURGED = r"[1-9][0-9]{0,17} [0-9a-f]{64}"
ORIGIN = r"[0-9a-fA-F-]{36} [1-9][0-9]{0,11}|[0-9a-f]{64}"  # what an import writes there
WITHHELD = r"\[withheld:[0-9]+\]"


def folder() -> str:
    """The folder of the keys. Raises Failure 73, 77."""
    return paths.make(os.path.join(paths.state(), "keys"))


# ---- whole files: age ----


def lock(data: bytes, recipients=(), *, passphrase: str | None = None) -> bytes:
    """`data` as an age file for these recipients (`age1…`), or for who knows the passphrase. Raises Failure 78 for what is no recipient."""
    import pyrage

    if passphrase is not None:
        tried: list[bytes] = []
        while len(tried) < 3 and (not tried or _work(tried[-1]) < WORK):
            tried.append(pyrage.passphrase.encrypt(data, passphrase))
        return max(tried, key=_work)
    try:
        return pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(one) for one in recipients])
    except (pyrage.RecipientError, pyrage.EncryptError) as bad:
        raise Failure(f"cannot encrypt for '{' '.join(recipients)}': {bad}", CONFIG) from None


def _work(locked: bytes) -> int:
    """What a passphrase costs who tries it on this file, as the power of two that its second line ends with."""
    return int(locked.split(b"\n", 2)[1].rpartition(b" ")[2])


def unlock(data: bytes, identity: str | None = None, *, passphrase: str | None = None) -> bytes:
    """What an age file holds. identity: `AGE-SECRET-KEY-1…`, or the lines of a file that age-keygen made.

    Raises Failure 77 where it was made for another identity or passphrase, 65 for what is damaged or no age file, 78 for what is no identity,
    75 where the passphrase would take this machine too long.
    """
    import pyrage

    for again in range(TRIES, -1, -1):
        try:
            if passphrase is not None:
                return pyrage.passphrase.decrypt(data, passphrase)
            return pyrage.decrypt(data, [_identity(identity or "")])
        except pyrage.DecryptError as bad:
            said = str(bad)
        # The library measures how fast the machine is; where others use it just then, it takes it for one that is too slow.
        if not said.startswith("Excessive work"):
            break
        if not again:
            raise Failure("cannot decrypt: the passphrase would take this machine too long just now", TEMPFAIL)
        time.sleep(0.02)
    # The words of the age library for a file that is whole, but not for us.
    if said in ("No matching keys found", "Decryption failed"):
        raise Failure(f"cannot decrypt: made for another {'identity' if passphrase is None else 'passphrase'}", NOPERM)
    raise Failure("cannot decrypt: damaged, or no age file", DATAERR)


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
    with stream.Lock(f"{place}.lock", WAIT):
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

    from . import specs

    place = os.path.join(folder(), "identity")
    try:
        return _text(place)
    except FileNotFoundError:
        # The identity was moved to a keychain, or the folder of the keys to another disk: with a new one, what was sealed before and what is sealed
        # now would be for two, and who puts the old one back in its place would lose the new.
        owned = os.path.exists(os.path.join(paths.where("state"), "journal", "ledger")) and not specs.setting("recipients", "")
        if owned or os.path.exists(os.path.join(folder(), THREADS)):
            hint = f"put back what was there; or age-keygen -y IDENTITY > '{folder()}/recipient'"
            raise Failure(f"cannot seal: '{folder()}/recipient' is missing, and there is what was sealed before", CONFIG, hint) from None
    fresh = str(pyrage.x25519.Identity.generate())
    try:
        stream.save(place, f"{fresh}\n".encode())
    except OSError as bad:
        raise Failure(f"cannot write '{place}': {bad.strerror}", CANTCREAT) from None
    return fresh


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


# ---- texts of records ----


def cover(records: list) -> list:
    """The records (which have an id and a thread) as they are to be stored: where the config says so, each text of what is not for the cloud is sealed.

    A record without anything to seal comes back as the same object. The keys are on the disk when it returns; only a public key is needed for
    that. Raises Failure 73, 74, 75, 77, 78 where they cannot be kept: then nothing is to be written.
    """
    on, clear, default = _settings()
    if not on:
        return records
    chosen = [n for n, rec in enumerate(records) if _is_private(rec, rec.get("privacy", default) != "cloud")]
    if not chosen:
        return records
    made = list(records)
    ciphers = _ciphers({str(records[n]["thread"]) for n in chosen})
    for n in chosen:
        rec = records[n]
        made[n] = _covered(rec, f"{rec['id']} {rec['@tag']}", ciphers[str(rec["thread"])], clear, rec.get("privacy", default) != "cloud", True)
    return made


def lasting() -> bool:
    """True while the keys of threads that the last cover() sealed with are there: else nobody could open what it made. Raises Failure."""
    import sqlite3

    try:
        db = _database(False)
        return _used.keys() <= _sealing.keys() or (db is not None and _known(db, list(_used)) == _used)
    except sqlite3.Error as bad:
        raise _storage(bad) from None


def _settings() -> tuple[bool, frozenset, str]:
    """(whether to seal, the fields that stay clear, the privacy of a record that has none of its own)."""
    from . import specs

    try:
        if specs.setting("encrypt", "off") == "off":
            return False, frozenset(), ""
        return True, frozenset(specs.setting("clear", "").replace(",", " ").split()), specs.setting("privacy", "local")
    except Failure:
        # The journal goes on with broken specs. What was sealed until now is sealed, and what asks for it by any word.
        return os.environ.get("FTAI_ENCRYPT", "") not in ("", "off") or os.path.exists(os.path.join(folder(), THREADS)), frozenset(), "local"


def _is_private(rec: dict, local: bool) -> bool:
    """True for a block that is not for the cloud, or has one in it: text is as private as the most private that it stands with."""
    return local or any(_is_private(block, block.get("privacy", "cloud") != "cloud") for block in rec.get("@blocks", ()))


def _covered(rec: dict, path: str, cipher, clear, local: bool, top: bool = False) -> dict:
    made: dict = {}
    for key, value in rec.items():
        if key == "@blocks":
            made[key] = [
                _covered(block, f"{path}/{n}:{block.get('@tag', '')}", cipher, clear, local or block.get("privacy", "cloud") != "cloud")
                for n, block in enumerate(value)
            ]
        elif not local or key in clear or key == "@tag" or (top and _stays(rec, key, value)):
            made[key] = value
        else:
            made[key] = _sealed(value, f"{path}/{key}", cipher)
    return made


def _stays(rec: dict, key: str, value) -> bool:
    if key == "purged" and rec["@tag"] == "audit":
        # Of this list --verify knows which tombstones are right.
        return type(value) is list and all(type(words) is str and re.fullmatch(PURGED, words) for words in value)
    if key == "origin":
        # Who shows what was done tells by it what came from elsewhere; an import, what it may change.
        return type(value) is str and re.fullmatch(ORIGIN, value) is not None
    return key in PLACE or (key in FRAME and type(value) is str and re.fullmatch(WORD, value) is not None)


def _sealed(value, path: str, cipher):
    if type(value) is list:
        return [_sealed(item, f"{path}/{n}", cipher) for n, item in enumerate(value)]
    if type(value) is not str or not value or re.fullmatch(WITHHELD, value):
        return value
    name, aead = cipher
    made = ""
    # 40 letters and digits in a row are what redaction takes for a key, should the record pass it again.
    while not made or len(made) == 40 and made.isalnum():
        nonce = os.urandom(12)
        _session["count"] += 1
        made = _base64(nonce + aead.encrypt(nonce, value.encode(), path.encode()))
    return f"[sealed:{name}:{made}]"


def _base64(data: bytes) -> str:
    from binascii import b2a_base64

    return b2a_base64(data, newline=False).translate(_SAFE, b"=").decode()


_SAFE = bytes.maketrans(b"+/", b"-_")


def _bytes(words: str) -> bytes:
    """What _base64() made this of. Raises ValueError for what it could not have made."""
    from base64 import urlsafe_b64decode

    data = urlsafe_b64decode(words + "=" * (-len(words) % 4))
    if _base64(data) != words:
        raise ValueError("more than one way to write it")
    return data


def opened(rec: dict, identity, warn=None) -> dict:
    """The record with all texts open that can be opened; the same object where none is sealed.

    identity: asked for the owner's age identity when the first sealed text is met, and once only; None where there is none at hand: then, and
    where the key of a thread is gone, sealed texts stay as they are. What is not as it was sealed becomes `[damaged]`.
    warn: called with a message the first time of each of these. Never raises for anything that a record can hold.
    """
    if not _holds(rec):
        return rec
    from cryptography.exceptions import InvalidTag

    thread = str(rec.get("thread"))
    _refresh(warn)

    def reveal_text(words: str, path: str) -> str:
        found = re.fullmatch(SEALED, words)
        if not found:
            return words
        try:
            cipher = _opener(thread, found[1], identity, warn)
            if cipher is None:
                return words
            data = _bytes(found[2])
            return cipher.decrypt(data[:12], data[12:], path.encode("utf-8", "surrogatepass")).decode()
        except (InvalidTag, ValueError):  # the latter for what is no key, no base64 or no UTF-8
            _tell(warn, f"a sealed text of the record '{rec.get('id')}' is damaged, or was moved there")
            return DAMAGED

    return _uncovered(rec, f"{rec.get('id')} {rec.get('@tag')}", reveal_text)


def _holds(value) -> bool:
    if type(value) is str:
        return value.startswith("[sealed:")
    if type(value) is dict:
        return any(map(_holds, value.values()))
    return type(value) is list and any(map(_holds, value))


def _uncovered(value, path: str, reveal_text):
    if type(value) is str:
        return reveal_text(value, path)
    if type(value) is list:
        return [_uncovered(item, f"{path}/{n}", reveal_text) for n, item in enumerate(value)]
    if type(value) is not dict:
        return value
    made = {}
    for key, inner in value.items():
        if key == "@blocks":
            made[key] = [_uncovered(block, f"{path}/{n}:{block.get('@tag', '')}", reveal_text) for n, block in enumerate(inner)]
        else:
            made[key] = inner if key == "@tag" else _uncovered(inner, f"{path}/{key}", reveal_text)
    return made


def _tell(warn, message: str) -> None:
    kind = message.partition("'")[0]
    if warn and kind not in _told:
        _told.add(kind)
        warn(message)


_told: set[str] = set()


# ---- the keys of threads ----
#
# A thread has a pair of X25519 keys: the public one as it is, the private one locked for the owner. A process has a pair of its own, never
# written down, and seals with HKDF(their shared secret). So it needs no secret to write, and a thread one row, however many write into it.

_session: dict = {"count": MOST}
_desk: dict = {}  # the connection, for which file and process, and the version that was last seen
_sealing: dict = {}  # thread -> (name, cipher) of this process, and the thread's public key
_used: dict = {}  # thread -> its public key, of what was sealed last
_opening: dict = {}  # (thread, name) -> cipher, None where it cannot be opened
_private: dict = {}  # thread -> its private key, or None
_identities: dict = {}  # what was asked -> what it said
_inherited: list = []  # connections of a process that forked: SQLite allows neither to use nor to close them here


def _derived(shared: bytes, ours: bytes, theirs: bytes, thread: str):
    """The cipher of one process for one thread, from their shared secret (RFC 7748, RFC 5869); ours, theirs: public keys."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = b"ftai-seal/1 " + ours + theirs + thread.encode("utf-8", "surrogatepass")
    return AESGCM(HKDF(SHA256(), 32, None, info).derive(shared))


def _ciphers(threads: set[str]) -> dict:
    """{thread: (name, cipher)} of this process, the keys of threads made where there are none. Raises Failure."""
    import sqlite3

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    if _session["count"] >= MOST or _session["pid"] != os.getpid():
        own = X25519PrivateKey.generate()
        _session.update(count=0, pid=os.getpid(), own=own, public=own.public_key().public_bytes_raw())
        _sealing.clear()
    try:
        db = _database(True)
        fresh = [name for name in threads if name not in _sealing]
        if len(_sealing) + len(fresh) > KEPT:
            _sealing.clear()
            fresh = list(threads)
        public = _known(db, fresh)
        if missing := [name for name in fresh if name not in public]:
            _make(db, missing)
            public |= _known(db, missing)
    except sqlite3.Error as bad:
        raise _storage(bad) from None
    name = _base64(_session["public"])
    for thread in fresh:
        shared = _session["own"].exchange(X25519PublicKey.from_public_bytes(public[thread]))
        _sealing[thread] = name, _derived(shared, _session["public"], public[thread], thread), public[thread]
    _used.clear()
    _used.update((name, _sealing[name][2]) for name in threads)
    return {name: _sealing[name][:2] for name in threads}


def _known(db, threads: list[str]) -> dict[str, bytes]:
    import orjson

    question = "SELECT t.thread, t.public FROM json_each(?) AS j CROSS JOIN threads AS t ON t.thread = j.value"
    return dict(db.execute(question, (orjson.dumps(threads).decode(),))) if threads else {}


def _make(db, threads: list[str]) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    # That there were none is true no more.
    _opening.clear()
    _private.clear()
    owner = recipient()
    rows = []
    for thread in threads:
        own = X25519PrivateKey.generate()
        rows.append((thread, own.public_key().public_bytes_raw(), lock(own.private_bytes_raw(), [owner])))
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been first: then its key is the thread's.
        db.executemany("INSERT OR IGNORE INTO threads VALUES (?, ?, ?)", rows)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _refresh(warn) -> None:
    """Forgets keys that were destroyed since the last record."""
    import sqlite3

    try:
        _database(False)
    except (Failure, sqlite3.Error, OSError) as bad:
        _forget()
        _tell(warn, f"cannot open what is sealed: {bad}")


def _opener(thread: str, name: str, identity, warn):
    """The cipher for what the process of this name sealed in a thread; None where the key of the thread can't be had. Raises ValueError."""
    if (thread, name) in _opening:
        return _opening[thread, name]
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    theirs = _bytes(name)
    if thread not in _private:
        _private[thread] = _unlocked(thread, identity, warn)
    own = _private[thread]
    if len(_opening) >= KEPT:
        _opening.clear()
        _private.clear()
    found = own and _derived(own.exchange(X25519PublicKey.from_public_bytes(theirs)), theirs, own.public_key().public_bytes_raw(), thread)
    _opening[thread, name] = found
    return found


def _unlocked(thread: str, identity, warn):
    """The private key of a thread; None where it can't be had, which is told."""
    import sqlite3

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        db = _database(False)
        row = db and db.execute("SELECT locked FROM threads WHERE thread = ?", (thread,)).fetchone()
        if not row:
            _tell(warn, f"cannot open what is sealed in the thread '{thread}': its key is not here, or was destroyed")
            return None
        if identity not in _identities:
            _identities[identity] = None
            _identities[identity] = identity()
            if not _identities[identity]:
                _tell(warn, "cannot open what is sealed: the identity is not at hand")
        return X25519PrivateKey.from_private_bytes(unlock(row[0], _identities[identity])) if _identities[identity] else None
    except (Failure, sqlite3.Error, OSError, ValueError) as bad:
        _tell(warn, f"cannot open what is sealed: {bad}")
        return None


def _forget() -> None:
    _sealing.clear()
    _opening.clear()
    _private.clear()


def marks(threads: list[str]) -> list[str]:
    """Words for the keys of these threads that say nothing of the threads' names; for those that have one. Raises Failure 73, 74, 75, 77."""
    import sqlite3

    try:
        db = _database(False)
        return [f"key:{public.hex()}" for public in _known(db, threads).values()] if db else []
    except sqlite3.Error as bad:
        raise _storage(bad) from None


def marked(words: list[str]) -> list[str]:
    """The threads whose keys marks() gave these words for, as far as they still have them. Raises Failure 73, 74, 75, 77."""
    import sqlite3

    import orjson

    try:
        db = _database(False)
        question = "SELECT thread FROM threads WHERE 'key:' || lower(hex(public)) IN (SELECT value FROM json_each(?))"
        return [name for (name,) in db.execute(question, (orjson.dumps(words).decode(),))] if db and words else []
    except sqlite3.Error as bad:
        raise _storage(bad) from None


def destroy(thread: str) -> int:
    """Destroys the key of a thread, so that nobody opens any more what is sealed in it; returns how many there were, 0 or 1.

    What others still have in memory ends with their process. Raises Failure 73, 74, 75, 77.
    """
    import mmap
    import sqlite3

    _forget()
    try:
        db = _database(False)
        rows = db.execute("DELETE FROM threads WHERE thread = ? RETURNING thread, public, locked", (str(thread),)).fetchall() if db else ()
        if not rows:
            return 0
        # SQLite's secure_delete blanks the row, but not the copies of it that may be left where pages were split.
        with open(_desk["key"][0], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            left = any(data.find(part) >= 0 for name, public, locked in rows for part in (name.encode(), public, locked[-64:]))
        if left:
            db.execute("VACUUM")
        return 1
    except sqlite3.Error as bad:
        raise _storage(bad) from None


def _database(make: bool):
    """The connection to the keys of threads, with what this process remembers of them up to date; None where there are none and make is False.

    Raises sqlite3.Error, Failure 73, 77.
    """
    import sqlite3

    place = os.path.join(paths.where("state"), "keys", THREADS)
    try:
        seen = os.lstat(place)
    except FileNotFoundError:
        if not make:
            return _forget()
        recipient()
        try:
            os.close(os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as bad:
            raise Failure(f"cannot make '{place}': {bad.strerror}", CANTCREAT) from None
        seen = os.lstat(place)
    if not make and not seen.st_size:
        return _forget()  # another process is about to make it
    key = place, seen.st_dev, seen.st_ino, os.getpid()
    if _desk.get("key") != key:
        folder()
        paths.guard(paths.unlinked(place), seen)
        if _desk:
            if _desk["key"][-1] == os.getpid():
                _desk["db"].close()
            else:
                _inherited.append(_desk["db"])
            _desk.clear()
        # One file in the old mode of SQLite, without a WAL: 3.7.0 to 3.51.2 can spoil one. EXTRA: a key is not lost with the folder's entry.
        db = sqlite3.connect(place, timeout=WAIT, isolation_level=None)
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA fullfsync = 1")
        db.execute("PRAGMA secure_delete = ON")
        if make and not db.execute("PRAGMA user_version").fetchone()[0]:
            db.execute("BEGIN IMMEDIATE")
            db.execute("CREATE TABLE IF NOT EXISTS threads (thread TEXT PRIMARY KEY, public BLOB NOT NULL, locked BLOB NOT NULL) WITHOUT ROWID")
            db.execute("PRAGMA user_version = 1")
            db.execute("COMMIT")
        _desk.update(db=db, key=key, version=-1)
    version = _desk["db"].execute("PRAGMA data_version").fetchone()[0]
    if version != _desk["version"]:
        _desk["version"] = version
        # Another process made keys, or destroyed some.
        _forget()
    return _desk["db"]


def _storage(bad) -> Failure:
    place, words = os.path.join(folder(), THREADS), str(bad)
    code = TEMPFAIL if "locked" in words or "busy" in words else CANTCREAT if "full" in words or "readonly" in words or "unable to open" in words else IOERR
    return Failure(f"cannot keep the keys of threads in '{place}': {words}", code)
