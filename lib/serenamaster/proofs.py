"""What a journal is proven by: an Ed25519 key that signs notes (c2sp.org/signed-note), and trees of hashes (RFC 6962). See ftai(5), Checkpoints."""

import errno
import os
import re
from binascii import a2b_base64, b2a_base64
from collections import namedtuple

from . import paths, stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOPERM, Failure
from .record import is_id

NAME = "serenamaster"  # of our keys, in notes
ORIGIN = "ftai-journal/"
WAIT = 10.0  # seconds for another process that makes the key
HINT = "ftai-keys init"
MOST = 64 * 1024  # bytes of a file of keys
BLOCK = 1024  # leaves of a tree that are hashed at once: a power of two
NUMBER = "0|[1-9][0-9]{0,17}"
HEX = "[0-9a-f]{64}"

# size: the last seq that the note covers, head: the chain's hash there. closed: the newest closed segment that this note or one before it gave
# a root for, 0 without. segments: those that this one does; removed: what retention takes away.
Checkpoint = namedtuple("Checkpoint", "journal size head closed segments removed")
Segment = namedtuple("Segment", "number first last root")
Removed = namedtuple("Removed", "number first last before hash")  # before: the hash before `first`; hash: of `last`


def explains(run: Removed, start: tuple, end: tuple) -> bool:
    """True where all of a gap, from (seq, hash) before it to (seq, hash) at its end, was removed by a run. A hash of None fits all.

    Of a removal that is not ended yet segments may stand in between.
    """
    within = run.first - 1 <= start[0] and end[0] <= run.last
    return within and (run.first - 1 < start[0] or run.before == start[1]) and (end[0] < run.last or end[1] in (None, run.hash))


def _sha256():
    # hashlib itself loads every other algorithm too.
    try:
        from _hashlib import openssl_sha256
    except ImportError:
        from hashlib import sha256 as openssl_sha256
    return openssl_sha256


# ---- keys ----


def _place(name: str) -> str:
    """Where a file of the keys is; nothing is made. Raises Failure 77 where others may write into that folder, or it is a link."""
    folder = paths.unlinked(os.path.join(paths.where("state"), "keys"))
    try:
        paths.guard(folder, os.stat(folder))
    except FileNotFoundError:
        pass
    return os.path.join(folder, name)


def _read(path: str, secret: bool) -> str | None:
    """The text of a file of keys, None where there is none. Raises Failure 77 for a link or what is open to others, 74."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as bad:
        why = "it is a link" if bad.errno == errno.ELOOP else bad.strerror
        raise Failure(f"cannot read '{path}': {why}", NOPERM if bad.errno in (errno.ELOOP, errno.EACCES) else IOERR) from None
    try:
        seen = os.fstat(fd)
        paths.guard(path, seen)
        if seen.st_mode & 0o170000 != 0o100000:
            raise Failure(f"'{path}' is no regular file", NOPERM)
        if secret and seen.st_mode & 0o077:
            raise Failure(f"'{path}' can be read by others", NOPERM, f"chmod 600 '{path}'")
        return os.read(fd, MOST).decode("ascii", "replace")
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", IOERR) from None
    finally:
        os.close(fd)


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _bytes(words: str, size: int) -> bytes:
    """What _base64() made this of, so many bytes. Raises ValueError for what it could not have made."""
    data = a2b_base64(words)
    if len(data) != size or _base64(data) != words:
        raise ValueError("no base64, or not of so many bytes")
    return data


def _number(name: str, public: bytes) -> bytes:
    """The id of a key: four bytes."""
    return _sha256()(name.encode() + b"\n\x01" + public).digest()[:4]


def _vkey(public: bytes) -> str:
    return "+".join((NAME, _number(NAME, public).hex(), _base64(b"\x01" + public)))


def _known(vkey: str) -> tuple[str, bytes, bytes]:
    """(name, id, public key) of a verifier key. Raises Failure 78."""
    name, _, rest = vkey.partition("+")
    number, _, key = rest.partition("+")
    try:
        data = _bytes(key, 33)
    except ValueError:
        data = b""
    if not re.fullmatch(r"[^\s+]+", name) or data[:1] != b"\x01" or number != _number(name, data[1:]).hex():
        raise Failure(f"'{vkey}' is no public key of a note for Ed25519: expected NAME+ID+BASE64", CONFIG)
    return name, bytes.fromhex(number), data[1:]


def _private():
    """The signing key, None where there is none. Raises Failure 65 for a damaged one, 77."""
    path = _place("signing.key")
    words = _read(path, True)
    if words is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        return Ed25519PrivateKey.from_private_bytes(_bytes(words.removesuffix("\n"), 32))
    except ValueError:
        # With a new key in its place nothing is lost: the old public one stays known.
        raise Failure(f"'{path}' is damaged", DATAERR, f"take it from a backup, or rm '{path}' and {HINT}") from None


def vkeys() -> list[str]:
    """The public keys whose notes count, newest first. Raises Failure 77, 78 for what is none."""
    made = (_read(_place("signing.pub"), False) or "").split("\n")
    if made.pop():
        raise Failure(f"'{_place('signing.pub')}' is cut off", CONFIG, f"rm '{_place('signing.pub')}' and {HINT}")
    for vkey in made:
        _known(vkey)
    return made


def has_key() -> bool:
    """True where there is a signing key, good or not."""
    return os.path.lexists(_place("signing.key"))


def own() -> str | None:
    """The vkey of the signing key, None where there is no key, or signing.pub lacks it. Raises Failure as sign() does."""
    key = _private()
    public = key and _vkey(key.public_key().public_bytes_raw())
    return public if public in vkeys() else None


def make_key() -> str:
    """Makes the signing key where there is none, and puts its public part into signing.pub where that lacks it; returns that, as a vkey.

    Raises Failure 65 for a damaged key, 73, 74, 75, 77, 78.
    """
    paths.state()
    paths.make(os.path.dirname(_place("")))
    with stream.Lock(_place("signing.lock"), WAIT, "the signing key is being made by another process"):
        own = _private()
        if own is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            own = Ed25519PrivateKey.generate()
            _save("signing.key", _base64(own.private_bytes_raw()))
        public = _vkey(own.public_key().public_bytes_raw())
        if public not in (known := vkeys()):
            _save("signing.pub", "\n".join([public, *known]))
    return public


def _save(name: str, words: str) -> None:
    path = _place(name)
    try:
        for left in os.listdir(os.path.dirname(path)):
            # Of a process that was killed while it wrote: the lock is ours, so nobody writes it now.
            if left.startswith(f".{name}.") and left.endswith(".tmp"):
                os.unlink(os.path.join(os.path.dirname(path), left))
        stream.save(path, f"{words}\n".encode())
    except OSError as bad:
        raise Failure(f"cannot write '{path}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT) from None


# ---- signed notes ----


def key():
    """The private key that signs. Raises Failure 78 where there is none, 65 for a damaged one, 77."""
    own = _private()
    if own is None:
        raise Failure("there is no key to sign with", CONFIG, HINT)
    return own


def sign(text: str) -> str:
    """The note of a text, which ends with a newline. Raises Failure 78, 65, 77."""
    own = key()
    public = own.public_key().public_bytes_raw()
    if _vkey(public) not in vkeys():
        raise Failure(f"'{_place('signing.pub')}' lacks the public part of the signing key", CONFIG, HINT)
    _plain(text)
    return f"{text}\n\u2014 {NAME} {_base64(_number(NAME, public) + own.sign(text.encode()))}\n"


def _plain(words: str) -> None:
    """Raises Failure 65 for what can't stand in a note: no UTF-8, control characters, or no newline at its end."""
    if not words.endswith("\n") or re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff]", words):
        raise Failure("no signed note: it holds control characters, is no UTF-8, or is cut off", DATAERR)


def opened(note: str, keys=None) -> str:
    """The text of a note that one of our keys signed, and nobody else; with its last newline.

    keys: vkeys instead of those in signing.pub. Raises Failure 65 where it is malformed or not signed so, 77, 78 where no key is known.
    """
    return signer(note, keys)[0]


def signer(note: str, keys=None) -> tuple[str, str]:
    """(text, vkey that signed it) of a note. As opened()."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys = vkeys() if keys is None else keys
    if not keys:
        raise Failure("there is no public key to check the signature with", CONFIG, HINT)
    _plain(note)
    text, gap, signature = note.rpartition("\n\n")
    # Others may add signatures to a note, and who does not know them is to ignore them; ours never went through other hands.
    found = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/]+=*)\n", signature)
    try:
        data = _bytes(found[2], 68) if gap and found else b""
    except ValueError:
        data = b""
    if not data or not found:
        raise Failure("no signed note: expected a text, a blank line and one signature", DATAERR)
    for vkey in keys:
        name, number, public = _known(vkey)
        if (name, number) == (found[1], data[:4]):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(data[4:], f"{text}\n".encode())
            except (InvalidSignature, ValueError):
                continue
            return f"{text}\n", vkey
    raise Failure(f"the note is not signed by a key that is known here: it names '{found[1]}+{data[:4].hex()}'", DATAERR)


# ---- the text of a checkpoint ----


def lines(closed: int, segments=(), removed=()) -> list[str]:
    """What follows the hash in the text of a checkpoint. segments, removed: (number, first, last, root), (number, first, last, before, hash) each."""
    words = [("segment", *each) for each in segments] + [("removed", *each) for each in removed]
    return [f"closed {closed}", *(" ".join(map(str, each)) for each in words)]


def text(journal: str, size: int, head: str, lines: list[str]) -> str:
    """The text of a checkpoint. head: the chain's hash at seq `size`, hex; lines: as lines() makes them."""
    return "".join(f"{line}\n" for line in (f"{ORIGIN}{journal}", size, _base64(bytes.fromhex(head)), *lines))


def parsed(words: str) -> Checkpoint:
    """What the text of a checkpoint says. Raises Failure 65 for what text() could not have made."""
    rows = words.split("\n")
    try:
        journal, size, head = rows[0].removeprefix(ORIGIN), int(rows[1]), _bytes(rows[2], 32).hex()
        closed = int(rows[3].removeprefix("closed "))
        rest = [row.split(" ") for row in rows[4:-1]]
        segments = [Segment(int(row[1]), int(row[2]), int(row[3]), *row[4:]) for row in rest if row[0] == "segment"]
        removed = [Removed(int(row[1]), int(row[2]), int(row[3]), *row[4:]) for row in rest if row[0] == "removed"]
    except (ValueError, IndexError, TypeError):
        raise Failure("no checkpoint of a journal: its lines are not as ftai(5) says", DATAERR) from None
    numbers = [each.number for each in segments]
    good = is_id(journal) and all(re.fullmatch(NUMBER, str(n)) for n in (size, closed, *(n for each in (*segments, *removed) for n in each[:3])))
    good = good and all(re.fullmatch(HEX, each) for row in (*segments, *removed) for each in row[3:])
    good = good and all(number and 0 < first <= last + 1 and last <= size for number, first, last, *_ in (*segments, *removed))
    good = good and numbers == sorted(set(numbers)) and (not numbers or numbers[-1] == closed)
    # Written anew it must be the same: so there is one way to say it.
    if not good or text(journal, size, head, lines(closed, segments, removed)) != words:
        raise Failure("no checkpoint of a journal: its lines are not as ftai(5) says", DATAERR)
    return Checkpoint(journal, size, head, closed, segments, removed)


# ---- trees of hashes: RFC 6962, 2.1 ----


def _row(hashes: list[str]) -> list[bytes]:
    sha256, raw = _sha256(), bytes.fromhex
    return [sha256(b"\0" + raw(own)).digest() for own in hashes]


def _above(row: list[bytes]) -> list[bytes]:
    """The next level of a tree. The last of an odd number has no neighbour, and goes up as it is."""
    sha256 = _sha256()
    made = [sha256(b"\1" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
    return made + row[-1:] if len(row) & 1 else made


class Tree:
    """The root of hashes that are added one by one, of which no more than some thousand are kept."""

    def __init__(self):
        self.size, self._fresh, self._parts = 0, [], []  # _parts: the nodes of whole subtrees, the largest first

    def add(self, own: str) -> None:
        """own: the hash of a record, hex."""
        self._fresh.append(own)
        self.size += 1
        if len(self._fresh) == BLOCK:
            row, blocks = _row(self._fresh), self.size // BLOCK
            self._fresh.clear()
            while len(row) > 1:
                row = _above(row)
            while not blocks & 1:
                row = _above([self._parts.pop(), *row])
                blocks >>= 1
            self._parts += row

    def root(self) -> str:
        row = _row(self._fresh)
        while len(row) > 1:
            row = _above(row)
        nodes = self._parts + row
        while len(nodes) > 1:
            nodes[-2:] = _above(nodes[-2:])
        return nodes[0].hex() if nodes else _sha256()(b"").hexdigest()


def path(hashes: list[str], index: int) -> list[str]:
    """The audit path of one of these hashes (of records, hex): what climb() needs to come to their root, from the leaf upwards."""
    row, made = _row(hashes), []
    while len(row) > 1:
        if index ^ 1 < len(row):
            made.append(row[index ^ 1].hex())
        row, index = _above(row), index >> 1
    return made


def climb(own: str, index: int, size: int, path: list[str]) -> str:
    """The root of `size` hashes of which the one at `index` is `own`, by its audit path. Raises Failure 65 where the path has another length."""
    sha256 = _sha256()
    node, left, last = sha256(b"\0" + bytes.fromhex(own)).digest(), list(path), size - 1
    while last > 0:
        if index & 1 or index < last:
            if not left:
                break
            other = bytes.fromhex(left.pop(0))
            node = sha256(b"\1" + (other + node if index & 1 else node + other)).digest()
        index, last = index >> 1, last >> 1
    if left or last > 0 or index:
        raise Failure("the audit path does not fit the index and the size of the tree", DATAERR)
    return node.hex()
