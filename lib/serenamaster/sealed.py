"""Sealed files: compressed, encrypted for the owner's recipients, and opened only when the last byte was checked. See ftai-seal(5).

What is encrypted is the same both ways: a skippable frame of zstd with the header as JSON, then one frame with the data.
"""

import errno
import hashlib
import os
import re
import stat
import struct

import orjson

from . import seal, secret, specs, stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, Failure

SUFFIX = {"aes256": ".zst.sealed", "age": ".zst.age"}
MAGIC = b"ftai-backup/1".ljust(16, b"\0")
AGE = b"age-encryption.org/v1\n"
SKIPPABLE, ZSTD = 0x184D2A50, b"\x28\xb5\x2f\xfd"  # what frames begin with: RFC 8878
LEVEL = 3
THREADS = 4  # at most, that pack
JOB = 2 * 1024 * 1024  # bytes that one of them packs at a time
CHUNK = 256 * 1024
BLOCK = 128 * 1024  # the most that a block of zstd may have, packed or not
HEADER = 64 * 1024  # bytes of a header
WINDOW = 8 * 1024 * 1024  # that unpacking may need; level 3 needs 2 MiB
FRONT = 16 * 1024  # bytes of the header of an age file, which the library reads again from its beginning for each piece that it gets
WHOLE = 16 * 1024 * 1024  # bytes of an age file for a passphrase: the library has it in memory as a whole
WORK = 20  # the power of two that a passphrase may cost: seconds, and 1 GiB of memory


# ---- sealing ----


def write(source: int, path: str, about: dict, *, end: int | None = None, told=None, check: bool = False) -> dict:
    """Seals the bytes of a descriptor, from its beginning to `end` or its size, as `path` and the suffix of the method that the config says.

    about: what the header is to say; `bytes` is added. told: called with how many bytes were read, now and then; those of the check too.
    check: it takes its name only when it was opened again, from the disk, and held what it was to hold: see _opener(). Raises Failure 77, 65 or 74 else.
    Returns {file, bytes, sha256, sealed_bytes, sealed_sha256, method}: file is the name in the folder; with check and `opened` false where it is
    for the owner, and no identity of the owner's was at hand to open it. Raises Failure 73, 74, 77, 78; leaves nothing behind then.
    """
    method = specs.setting("seal", "aes256")
    lock, keys, blind = _locker(check)
    place = path + SUFFIX[method]
    size = os.fstat(source).st_size if end is None else end
    head = orjson.dumps(about | {"bytes": size})
    if len(head) > HEADER:
        raise Failure(f"cannot seal '{place}': a header of {len(head)} bytes, expected at most {HEADER}", DATAERR)
    given = _Source(source, size, hashlib.sha256(), told)
    with _Draft(place) as draft:
        out = _Out(draft.fd)
        with _Calls(f"cannot seal '{place}'", given, out):
            packed = _Packed(head, given, size)
            if method == "age":
                lock(packed, out)
            else:
                _encrypt(packed, out, lock)
        if check:
            draft.sync()
            _compare(f"cannot check '{place}'", _Source(draft.fd, out.count), _Same(source, told, size), about | {"bytes": size}, keys)
        draft.keep()
    return {
        "file": os.path.basename(place), "bytes": size, "sha256": given.digest.hexdigest(),
        "sealed_bytes": out.count, "sealed_sha256": out.digest.hexdigest(), "method": method, **({"opened": False} if blind else {}),
    }  # fmt: skip


def _encrypt(packed, out, lock) -> None:
    import io

    import tink
    from tink import json_proto_keyset_format, secret_key_access

    streaming_aead = _registered()
    keyset = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    words = io.BytesIO()
    lock(io.BytesIO(json_proto_keyset_format.serialize(keyset, secret_key_access.TOKEN).encode()), words)
    front = MAGIC + words.tell().to_bytes(2, "big") + words.getvalue()
    out.write(front)
    with keyset.primitive(streaming_aead.StreamingAead).new_encrypting_stream(out, hashlib.sha256(front).digest()) as into:
        while data := packed.read(CHUNK):
            into.write(data)


def _registered():
    """Tink's streaming AEAD. To register it takes longer than to open a small file."""
    from tink import streaming_aead

    if not _once:
        streaming_aead.register()
        _once.append(True)
    return streaming_aead


_once: list[bool] = []


def _compare(what: str, given, same, head: dict, keys: list) -> None:
    out = _Plain(same, None)
    with _Calls(what, given, out):
        _opened(given, out, keys)
        if out.header != head:
            raise Failure("its header is not what it was to be", IOERR)


def _opener(own: str):
    """(identities, recipient or None) to check with what is being sealed. own: the owner's recipient, where it is for that alone.

    Then it is the owner's identity, so that nothing is sealed for a recipient that nobody has the identity of. Where that is not at hand, or it is
    for others, it is an identity made for this once: one recipient more, whose identity is nowhere but in this process, and is forgotten.
    """
    import pyrage

    if own:
        try:
            if found := secret.identity():
                return [pyrage.x25519.Identity.from_str(found)], None
        except (Failure, pyrage.IdentityError):
            pass
        try:
            # The setting may name others, which say nothing of this recipient.
            if mine := [one for one in _named() if isinstance(one, pyrage.x25519.Identity) and str(one.to_public()) == own]:
                return mine, None
        except Failure:
            pass
    fresh = pyrage.x25519.Identity.generate()
    return [fresh], fresh.to_public()


def at_hand() -> bool:
    """True where an identity is at hand that opens what is sealed for the owner's recipient. Raises Failure as seal.recipient() does."""
    own = seal.recipient()
    return any(str(one.to_public()) == own for one in _opener(own)[0])


def for_others() -> bool:
    """True where the setting `recipients` names some, and not the owner's own. Raises Failure as seal.recipient() does."""
    named = _recipients()
    return bool(named) and seal.recipient() not in named


def vouch() -> None:
    """Raises Failure 77 where what is sealed might be for nobody: for SSH keys alone, which have no checksum as age1… has, so that most with one
    letter wrong are keys too. One is right where its fingerprint stands behind it, or where an identity at hand opens what is sealed for it.
    Raises Failure 78 for a fingerprint of another key.
    """
    import io
    from binascii import a2b_base64, b2a_base64

    import pyrage

    named = _recipients()
    if not named or not all(one.startswith("ssh-") for one in named):
        return
    try:
        made = [pyrage.ssh.Recipient.from_str(one) for one in named]
        sure = False
        for _, key, *rest in map(str.split, named):
            own = f"SHA256:{b2a_base64(hashlib.sha256(a2b_base64(key)).digest(), newline=False).decode().rstrip('=')}"
            said = [word for word in rest if word.startswith("SHA256:")]
            if said and said != [own]:
                raise Failure(f"the setting 'recipients' has an SSH key whose fingerprint is not the one behind it, {said[0]}", CONFIG)
            sure = sure or bool(said)
        if sure:
            return
        _unlock(io.BytesIO(pyrage.encrypt(b"", made)), io.BytesIO(), None)
    except (pyrage.RecipientError, ValueError):
        return  # as who seals will tell
    except Failure as bad:
        if bad.code == CONFIG:
            raise
        hint = "put its fingerprint behind the key, SHA256:… of ssh-keygen -lf FILE.pub, or FTAI_IDENTITY=FILE"
        raise Failure(f"cannot seal for an SSH key that may be mistyped: {bad.message}", NOPERM, hint) from None


def _recipients() -> list[str]:
    return [one.strip() for one in str(specs.setting("recipients", "")).split(",") if one.strip()]


def _locker(check: bool):
    """lock(from, to) for the recipients of the config, which reads one file whole, and writes it to the other as age does; what opens it again
    if it is to be checked; and whether it is for the owner, but not with the owner's identity that it is checked. Raises Failure 77, 78.
    """
    import pyrage

    named = _recipients()
    own = "" if named else seal.recipient()
    named = named or [own]
    if "passphrase" in named:
        if named != ["passphrase"]:
            raise Failure("the setting 'recipients' names a passphrase and others: age knows no file for both", CONFIG)
        phrase = _phrase()

        def lock(source, out):
            out.write(seal.lock(_all(source, "FTAI_SEAL=aes256"), passphrase=phrase))

        return lock, [], False
    # What a recipient adds is shorter than its name and 64 bytes; a line more is nobody's.
    if sum(len(one) + 64 for one in named) > FRONT - 1024:
        raise Failure("the setting 'recipients' has too many of them", CONFIG)
    try:
        made: list = [(pyrage.ssh if one.startswith("ssh-") else pyrage.x25519).Recipient.from_str(one) for one in named]
    except pyrage.RecipientError as bad:
        raise Failure(f"the setting 'recipients' holds no recipient: {bad}", CONFIG, "age1…, ssh-ed25519 …, ssh-rsa … or passphrase") from None
    keys, more = _opener(own) if check else ([], None)
    made += [more] if more else []
    return lambda source, out: pyrage.encrypt_io(source, out, made), keys, bool(own and more)


def _all(given, hint: str) -> bytes:
    """What a file holds. Raises Failure 65 where it is too much."""
    data = b""
    while more := given.read(CHUNK):
        data += more
        if len(data) > WHOLE:
            raise Failure(f"an age file for a passphrase can't have more than {WHOLE} bytes here", DATAERR, hint)
    return data


def _phrase() -> str:
    phrase = secret.phrase()
    if phrase is None:
        raise Failure("the passphrase was not given", NOPERM, "FTAI_PASSPHRASE_FD=3 … 3<FILE")
    return phrase


# ---- opening ----


def open_(path: str, *, folder: str | None = None, most: int | None = None) -> tuple[dict, int]:
    """(header, descriptor of the plain bytes) of a sealed file, all of it checked. The plain bytes are in a file without a name.

    folder: where that is; else beside the sealed one. most: plain bytes that are too many. Raises Failure: 77 where the identity or the
    passphrase is missing, or it was made for another; 65 damaged or no sealed file; 66, 73, 74, 75, 78. Leaves nothing behind then.
    """
    place = os.path.join(os.path.dirname(path) if folder is None else folder, os.path.basename(path))
    with _Sealed(path) as file, _Draft(place, named=False) as draft:
        said = file.open(lambda data: _whole(draft.fd, data), most)
        os.lseek(draft.fd, 0, os.SEEK_SET)
        return said, os.dup(draft.fd)


def extract(path: str, to: str, *, most: int | None = None) -> dict:
    """Opens a sealed file as the file `to`, which is there only when all was checked; returns the header. Raises Failure as open_() does."""
    with _Sealed(path) as file, _Draft(to) as draft:
        said = file.open(lambda data: _whole(draft.fd, data), most)
        draft.keep()
    return said


def summed(path: str, *, most: int | None = None) -> tuple[int, str]:
    """(bytes, sha256) of what a sealed file holds, all of it checked and kept nowhere. Raises Failure as open_() does."""
    digest = hashlib.sha256()
    with _Sealed(path) as file:
        return file.open(digest.update, most)["bytes"], digest.hexdigest()


class _Sealed:
    """`with _Sealed(path) as file:` a regular file that is there, and no link. Raises Failure 65, 66, 74, 77."""

    def __init__(self, path: str):
        self.path = path

    def __enter__(self):
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as bad:
            link = bad.errno == errno.ELOOP
            code = NOPERM if link else NOINPUT if bad.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR) else IOERR
            raise Failure(f"cannot open '{self.path}': {'it is a link' if link else bad.strerror}", code) from None
        self.seen = os.fstat(self.fd)
        if not stat.S_ISREG(self.seen.st_mode):
            os.close(self.fd)
            raise Failure(f"cannot open '{self.path}': it is no regular file", DATAERR)
        return self

    def open(self, into, most: int | None) -> dict:
        """Hands the plain bytes to into(data), and returns the header. Raises Failure."""
        given, out = _Source(self.fd, self.seen.st_size), _Plain(into, most)
        with _Calls(f"cannot open '{self.path}'", given, out):
            _opened(given, out)
        return out.header

    def __exit__(self, *_) -> None:
        os.close(self.fd)


def _opened(given, out, keys=None) -> None:
    """Opens one file into the other. keys: identities, in the place of the owner's."""
    try:
        front = given.read(len(AGE))
        given.seek(0)
        if front == AGE:
            _unlock(given, out, keys)
        elif front.startswith(MAGIC):
            _decrypt(given, out, keys)
        else:
            raise Failure("it is no sealed file", DATAERR)
        out.end()
    finally:
        out.steps.close()  # or it stays in memory for ever: the garbage collector can't look into what unpacks


def _decrypt(given, out, keys) -> None:
    import io

    from tink import json_proto_keyset_format, secret_key_access

    front = given.read(len(MAGIC) + 2)
    front += given.read(int.from_bytes(front[len(MAGIC) :], "big"))
    words = io.BytesIO()
    _unlock(io.BytesIO(front[len(MAGIC) + 2 :]), words, keys)
    keyset = _checked(words.getvalue().decode("utf-8", "replace"))
    streaming_aead = _registered()
    aead = json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN).primitive(streaming_aead.StreamingAead)
    with aead.new_decrypting_stream(given, hashlib.sha256(front).digest()) as stream_:
        while data := stream_.read(CHUNK):
            out.write(data)


def _checked(keyset: str) -> str:
    """The keyset, if its one key is of our kind: another could be a weaker one, or ask for gigabytes. Raises Failure 65."""
    from base64 import b64decode

    from tink.proto import aes_gcm_hkdf_streaming_pb2
    from tink.streaming_aead import streaming_aead_key_templates

    template = streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    try:
        (key,) = orjson.loads(keyset)["key"]
        value = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey.FromString(b64decode(key["keyData"]["value"], validate=True))
        wanted = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
        if key["keyData"]["typeUrl"] == template.type_url and value.params == wanted.params and len(value.key_value) == wanted.key_size:
            return keyset
    except (ValueError, KeyError, TypeError):
        pass
    raise Failure("its keyset is not one of AES256_GCM_HKDF_1MB", DATAERR)


def _unlock(given, out, keys) -> None:
    """Decrypts an age file with what is at hand of the owner's. Raises Failure 65, 75, 77, 78, and what the library does."""
    import pyrage

    front = given.read(FRONT)
    if not front.startswith(AGE):
        raise Failure("what it holds is no age file", DATAERR)
    if not re.search(rb"\n--- [^\n]{43}\n", front):
        raise Failure(f"the header of its age file is damaged, or has more than {FRONT} bytes", DATAERR)
    if found := re.match(rb"-> scrypt [^ \n]+ ([0-9]{1,3})\n", front[len(AGE) :]):
        if int(found[1]) > WORK:
            raise Failure("its passphrase would take too much time and memory", DATAERR)
        given.seek(0)
        out.write(seal.unlock(_all(given, "age -d"), passphrase=_phrase()))
        return
    for found in [keys] if keys else _identities():
        given.seek(0)
        try:
            pyrage.decrypt_io(given, out, found)
            return
        except pyrage.DecryptError as bad:
            if str(bad) not in ("No matching keys found", "Decryption failed"):
                raise
    raise Failure("it was made for another identity", NOPERM, "FTAI_IDENTITY=FILE, which holds that one")


def _identities():
    """Yields the identities of the setting, and then, if these open nothing, the owner's own: what was sealed before the setting was, opens too."""
    import pyrage

    if named := _named():
        yield named
    try:
        own = secret.identity()
        if own is None:
            raise Failure("the identity is missing", NOPERM, "unlock the keychain, or FTAI_IDENTITY=FILE")
        made = pyrage.x25519.Identity.from_str(own)
    except Failure:
        if named:
            return
        raise
    except pyrage.IdentityError:
        raise Failure("the identity is damaged", CONFIG) from None
    yield [made]


def _named() -> list:
    """The identities in the file that the setting names, none where it names none. Raises Failure 77, 78."""
    import pyrage

    place = os.path.expanduser(str(specs.setting("identity", "")))
    if not place:
        return []
    data = secret.kept(place)
    if data is None:
        raise Failure(f"the identity '{place}' is missing", NOPERM)
    blocks = re.findall(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", data, re.DOTALL)
    for block in blocks:
        data = data.replace(block, b"")
    try:
        lines = [line.strip() for line in data.decode().splitlines() if line.strip() and not line.startswith("#")]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines or ([] if blocks else [""])]
        return [*found, *(pyrage.ssh.Identity.from_buffer(block + b"\n") for block in blocks)]
    except (pyrage.IdentityError, ValueError):
        raise Failure(f"'{place}' holds no identity: expected AGE-SECRET-KEY-1…, or an SSH key without passphrase", CONFIG) from None


# ---- what the libraries read and write ----


class _Calls:
    """`with _Calls(what, given, out):` raises what an end of ours raised: the libraries make exceptions of their own of it, or none at all.

    What they say by themselves is damage.
    """

    def __init__(self, what: str, given, out):
        self.what, self.given, self.out = what, given, out

    def __enter__(self):
        return self

    def __exit__(self, kind, bad, _):
        first = self.given.bad or self.out.bad or bad
        if isinstance(first, Failure):
            raise Failure(f"{self.what}: {first.message.removeprefix('cannot decrypt: ')}", first.code, first.hint) from None
        if isinstance(first, OSError) and first.errno:
            code = IOERR if first is self.given.bad or first.errno in stream.FULL else CANTCREAT
            raise Failure(f"{self.what}: {first.strerror}", code) from None
        if isinstance(first, OSError) or type(first).__module__.split(".")[0] in ("google", "pyrage", "tink", "zstandard", "zstd"):
            raise Failure(f"{self.what}: it is damaged", DATAERR) from None
        if first:
            raise first


class _Source:
    """The first `size` bytes of a descriptor, as a file to be read. digest: of hashlib, to be told what was read; told: called with how many bytes."""

    def __init__(self, fd: int, size: int, digest=None, told=None):
        self.fd, self.size, self.digest, self.told, self.at = fd, size, digest, told, 0
        self.bad: BaseException | None = None

    def read(self, size: int = CHUNK) -> bytes:
        try:
            data = os.pread(self.fd, min(size, self.size - self.at), self.at)
            if not data and size and self.at < self.size:
                raise Failure("it became shorter while it was read", IOERR)
        except BaseException as bad:
            self.bad = bad
            raise
        self.at += len(data)
        if self.digest:
            self.digest.update(data)
        if self.told:
            self.told(self.at)
        return data

    def seek(self, at: int) -> None:
        self.at = at

    def readable(self) -> bool:
        return True

    closed = False

    def close(self) -> None:
        pass


class _Packed:
    """What is to be encrypted, as a file to be read: the header in a frame of its own, then the packed data."""

    def __init__(self, head: bytes, given: _Source, size: int):
        import zstandard

        self.front = SKIPPABLE.to_bytes(4, "little") + len(head).to_bytes(4, "little") + head
        threads = min(THREADS, (os.cpu_count() or 1) - 1) if size > JOB else 0
        how = zstandard.ZstdCompressionParameters.from_level(LEVEL, source_size=size, threads=threads, job_size=JOB if threads else 0, write_content_size=True)
        self.packed = zstandard.ZstdCompressor(compression_params=how).stream_reader(given, size=size, read_size=CHUNK)

    def read(self, size: int) -> bytes:
        data, self.front = self.front[:size], self.front[size:]
        return data or self.packed.read(size)


class _Out:
    """A descriptor, as a file to be written, and the digest of what was."""

    def __init__(self, fd: int):
        self.fd, self.digest, self.count = fd, hashlib.sha256(), 0
        self.bad: BaseException | None = None

    def write(self, data) -> int:
        if self.bad:
            raise self.bad  # the library tries again, as it leaves
        try:
            _whole(self.fd, data)
        except BaseException as bad:
            self.bad = bad
            raise
        self.digest.update(data)
        self.count += len(data)
        return len(data)

    def writable(self) -> bool:
        return True

    closed = False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _whole(fd: int, data) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Same:
    """Takes the plain bytes of what was sealed, and raises Failure 74 where they are not those of a descriptor."""

    def __init__(self, fd: int, told, size: int):
        self.fd, self.told, self.size, self.at = fd, told, size, 0

    def __call__(self, data) -> None:
        if os.pread(self.fd, len(data), self.at) != data:
            raise Failure(f"it does not hold what was sealed, from byte {self.at} on", IOERR)
        self.at += len(data)
        if self.told:
            self.told(self.size + self.at)


class _Plain:
    """Takes what was encrypted, as a file to be written, and hands the plain bytes on to into(data).

    It takes one skippable frame with the header and one frame with as many bytes as that says, and nothing else; it walks from block to block by
    itself, as the library would go on behind the frame. Raises Failure 65.
    """

    def __init__(self, into, most: int | None):
        self.into, self.most, self.count, self.kept = into, most, 0, bytearray()
        self.header: dict = {}
        self.bad: BaseException | None = None
        self.steps = self._steps()
        self.needs: int | None = next(self.steps)

    def write(self, data) -> int:
        if self.bad:
            raise self.bad  # the library tries again, as it leaves
        try:
            self.kept += data
            while self.needs is not None and len(self.kept) >= self.needs:
                piece = bytes(memoryview(self.kept)[: self.needs])
                del self.kept[: self.needs]
                self.needs = self.steps.send(piece)
            if self.needs is None and self.kept:
                raise Failure("something stands behind its end", DATAERR)
        except BaseException as bad:
            self.bad = bad
            raise
        return len(data)

    def _steps(self):
        """Yields how many bytes it needs next, and None at the end."""
        import zstandard

        mark, size = struct.unpack("<II", (yield 8))
        if mark != SKIPPABLE or size > HEADER:
            raise Failure("it has no header", DATAERR)
        self.header = _read_header((yield size))
        if self.most is not None and self.header["bytes"] > self.most:
            raise Failure(f"it holds {self.header['bytes']} bytes, expected at most {self.most}", DATAERR)
        unpack = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_writer(_Counted(self, self.into), write_size=BLOCK, closefd=False)
        # RFC 8878, 3.1.1.1: its mark, what there is of a frame's header, how big the window is, a number of a dictionary, how many bytes it holds.
        front = yield 5
        flags = front[4]
        if front[:4] != ZSTD or flags & 3:
            raise Failure("behind its header stand no data", DATAERR)
        more = (not flags & 32) + (1 << (flags >> 6) if flags >> 6 else flags >> 5 & 1)
        unpack.write(front + (yield more))
        last = 0
        while not last:
            front = yield 3
            word = int.from_bytes(front, "little")
            last, size = word & 1, word >> 3
            if size > BLOCK:
                raise Failure("it is damaged", DATAERR)
            unpack.write(front + (yield 1 if word >> 1 & 3 == 1 else size))  # a block of one byte many times
        if flags & 4:
            unpack.write((yield 4))
        yield None

    def end(self) -> None:
        """Raises Failure 65 where something is missing."""
        if self.needs is not None or self.count != self.header["bytes"]:
            raise Failure("it is cut off" if self.needs is not None else f"it holds {self.count} bytes, and says {self.header['bytes']}", DATAERR)


class _Counted:
    """What unpacking writes to."""

    def __init__(self, plain: _Plain, into):
        self.plain, self.into = plain, into

    def write(self, data) -> int:
        self.plain.count += len(data)
        if self.plain.count > self.plain.header["bytes"]:
            raise Failure(f"it holds more than the {self.plain.header['bytes']} bytes that it says", DATAERR)
        self.into(data)
        return len(data)


def _read_header(data: bytes) -> dict:
    try:
        made = orjson.loads(data)
    except orjson.JSONDecodeError:
        made = None
    if type(made) is not dict or type(made.get("bytes")) is not int or made["bytes"] < 0:
        raise Failure("its header is damaged", DATAERR)
    return made


class _Draft:
    """`with _Draft(path) as draft:` a temporary file beside `path`, which takes its name by keep(), and else is gone. named: False for none at all."""

    def __init__(self, path: str, named: bool = True):
        self.path, self.named, self.folder = path, named, os.path.dirname(path) or "."

    def __enter__(self):
        try:
            self.fd, self.name = stream.draft(self.path)
            if not self.named:
                os.unlink(self.name)
        except OSError as bad:
            raise self._failure(bad) from None
        return self

    def sync(self) -> None:
        """Puts it on the disk, and lets what is read of it from here on come from there, where the system can be told so."""
        try:
            os.fsync(self.fd)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as bad:
            raise self._failure(bad) from None

    def keep(self) -> None:
        try:
            os.fsync(self.fd)
            os.rename(self.name, self.path)
            self.named = False
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as bad:
            raise self._failure(bad) from None

    def _failure(self, bad: OSError) -> Failure:
        return Failure(f"cannot write '{self.path}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT)

    def __exit__(self, *_) -> None:
        os.close(self.fd)
        if self.named:
            stream.discard(self.name)
