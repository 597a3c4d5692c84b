"""Backups: the journal, what was made from it and what opens it, sealed, in a folder on another disk. See ftai-rotate(1), Backups.

A backup is objects, sealed files that are never changed, and last of all its manifest, a signed note that names them: what was begun and did not
end is nothing, and is cleared away by the next. First the manifest, then the folder, then making, looking, restoring and trying; last the records.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import time
from collections import namedtuple

from . import canonical, chain, journal, paths, proofs, retention, sealed, segments, specs, stream
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOINPUT, NOPERM, SOME, TEMPFAIL, USAGE, Failure
from .record import Malformed, clean, decode, encode, is_id, new_id, now, shown
from .record import make as record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKER = "ftai-backup"
FOLDERS = ("objects", "snapshots", "latest")
KEYS = "keys"  # the name of the manifest in `latest`: of keys of threads nothing older is kept, so that what was purged stays unreadable
ENTRIES = 100_000  # of a manifest
HELD = 10_000  # names of manifests that are remembered of a folder
NOTE = 64 * 1024 * 1024  # bytes of a manifest
WAIT = 10.0  # seconds to wait for another process
CHUNK = 1024 * 1024
DAMAGED = "segment {} is damaged inside"

# ---- the manifest ----

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
OBJECT = re.compile(rf"{UUID}\.zst\.(?:sealed|age)")
NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z")
HEX = re.compile(r"[0-9a-f]{64}")
# kind of an entry -> the names that it may have: where it goes below FTAI_HOME. Nothing else is ever written by a restore.
PLACES = {
    "segment": re.compile(r"state/journal/(?:[0-9]{6,18}|current)\.ftai"),
    "accepted": re.compile(r"state/journal/\.accepted"),
    "checkpoint": re.compile(r"state/journal/checkpoint"),
    "archive": re.compile(r"state/archive\.db"),
    "state": re.compile(r"state/state\.db"),
    "trust": re.compile(r"state/trusted"),
    "recipient": re.compile(r"state/keys/recipient"),
    "signer": re.compile(r"state/keys/signing\.pub"),
    "spec": re.compile(r"config/serenamaster\.[a-z0-9_-]{1,64}\.ftai"),
    "answer": re.compile(rf"data/answers/{UUID}\.txt"),
    "threads": re.compile(r"state/keys/threads\.db"),
}


def named(ts: str) -> str:
    """The name of the backup that was made then."""
    return re.sub("[-:]", "", ts)


def instant(name: str) -> str:
    """When the backup of this name was made, as records hold times."""
    return f"{name[:4]}-{name[4:6]}-{name[6:11]}:{name[11:13]}:{name[13:]}"


def written(about: dict, entries: list[dict]) -> str:
    """The text of a manifest: the record `backup` and the records `entry`, in line form."""
    return b"".join(map(encode, (about, *entries))).decode()


def parsed(words: str, known: dict[str, dict] | None = None) -> tuple[dict, list[dict]]:
    """(backup, entries) of the text of a manifest. Raises Failure 65 for what is not as written() makes it: what it names is nowhere looked up then.

    known: {line: entry} of other manifests, to which its own are added: most lines are those of the one before, and are held once.
    """
    if words.count("\n") > ENTRIES + 1:
        raise Failure(f"it has more than {ENTRIES} entries", DATAERR)
    known = {} if known is None else known
    try:
        first, *lines = words.split("\n")[:-1] or [""]
        about, entries = decode(first.encode()), [known.get(line) or decode(line.encode()) for line in lines]
    except (Malformed, ValueError) as bad:
        raise Failure(f"it is no list of records: {bad}", DATAERR) from None
    sound = (
        about.get("@tag") == "backup"
        and about.get("v") == 1
        and about.get("of") in ("all", "keys")
        and is_id(about.get("journal"))
        and type(about.get("verified")) is bool
    )
    sound = sound and _fits(NAME, named(str(about.get("ts")))) and instant(named(about["ts"])) == about["ts"] and _fits(HEX, about.get("head"))
    sound = sound and ("archives" not in about or _fits(NAME, about["archives"]))
    if not sound or not _whole(about.get("size")) or type(about.get("key")) is not str or about.get("entries") != len(entries):
        raise Failure("it does not begin with what a backup says of itself", DATAERR)
    seen: set[str] = set()
    for line, entry in zip(lines, entries, strict=True):
        if wrong := ("" if line in known else _unfit(entry)) or ("it stands twice" if entry["name"] in seen else ""):
            raise Failure(f"its entry '{str(entry.get('name'))[:100]}' is not what a backup holds: {wrong}", DATAERR)
        seen.add(entry["name"])
        known[line] = entry
    return about, entries


def _unfit(entry: dict) -> str:
    """What of an entry is not as it must be, or ""."""
    kind = entry.get("kind")
    if entry.get("@tag") != "entry" or type(kind) is not str or kind not in PLACES or not _fits(PLACES[kind], entry.get("name")):
        return "its name is none of those"
    if not _fits(OBJECT, entry.get("object")):
        return "the name of its object"
    if not all(_whole(entry.get(key)) for key in ("bytes", "sealed_bytes")) or not all(_fits(HEX, entry.get(key)) for key in ("sha256", "sealed_sha256")):
        return "size or checksum"
    if kind == "segment":
        number = os.path.basename(entry["name"])[:-5]
        if not all(_whole(entry.get(key)) for key in ("segment", "first", "last")) or not _fits(HEX, entry.get("hash")):
            return "what it says of the chain"
        if number != "current" and number != f"{entry['segment']:06d}":
            return "it is of another segment"
    return ""


def _fits(pattern: re.Pattern, value) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def _whole(value) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


# ---- the folder ----


def known() -> dict[str, dict]:
    """{folder: {"snapshot", "at", "checked", "drilled", "ok", …}} of the folders with backups, the one that was used last first."""
    try:
        with open(os.path.join(paths.where("state"), "backups"), "rb") as file:
            lines = file.read(1 << 20).splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            rec = decode(line)
        except Malformed:
            continue
        if type(rec.get("folder")) is str:
            found[rec["folder"]] = {key: value for key, value in rec.items() if key not in ("@tag", "folder")}
    return found


def remember(folder: str, found: dict[str, bool] | None = None, **fields) -> None:
    """Keeps what is known of a folder, and that it was used last. Raises Failure 73, 75.

    found: {what was looked at: whether something is wrong}. `ok` is true while nothing is: what a check found no drill makes good.
    """
    path = os.path.join(paths.state(), "backups")
    with stream.Lock(f"{path}.lock", WAIT):
        book = known()
        said = book.pop(folder, {}) | fields
        if found is not None:
            wrong = sorted({*said.get("wrong", "").split(), *found} - {what for what, bad in found.items() if not bad})
            said |= {"ok": not wrong, "wrong": " ".join(wrong)}
        book = {folder: said} | book
        try:
            stream.save(path, b"".join(encode({"@tag": "place", "folder": place, **about}) for place, about in book.items()))
        except OSError as bad:
            raise _unwritten(bad, path) from None


def located(to: str | None, *, making: bool = False) -> str:
    """The folder to use: the one that was named, else (making) the place `backup` of the config spec, else the last used. Raises Failure 2, 66, 73, 78."""
    if to is None and making:
        set_ = str(specs.setting("backup", ""))
        to = os.path.join(paths.where("data"), paths.home() + set_[1:] if set_.startswith("~/") else set_) if set_ else None
    to = next(iter(known()), None) if to is None else to
    if not to:
        # On a new machine a backup is what is to be had, not to be made.
        raise Failure("no folder for backups is known", USAGE, "ftai-rotate backup --to DIR" if making else "--to DIR, where they are")
    folder = os.path.realpath(to)
    if folder != clean(folder):
        raise Failure(f"no record can tell of '{to}': its name is no UTF-8, or holds control characters", USAGE, "--to a folder with another name")
    if not os.path.isdir(folder):
        # Made here, it could be below the mount point of a disk that is not there, and fill the one that is backed up.
        raise Failure(f"there is no folder '{to}'", CANTCREAT if making else NOINPUT, f"mount its disk{f', or mkdir {to!r}' if making else ''}")
    return folder


def _owner(folder: str) -> str | None:
    """The journal whose backups are in a folder, None where there are none. Raises Failure 65, 74, 77."""
    data = _small(os.path.join(folder, MARKER), NOTE)
    if data is None:
        return None
    found = re.fullmatch(rf"ftai-backup/1 ({UUID})\n", data.decode("ascii", "replace"))
    if not found and re.match(rb"ftai-backup/([2-9]|[1-9][0-9]+) ", data):
        raise Failure(f"'{folder}/{MARKER}' is of a newer version", DATAERR, "use the ftai-rotate that made these backups, or a newer one")
    if not found:
        # What the newest manifest says may be wrong: then no manifest is believed with it.
        there = _firsts(folder) if os.path.isdir(os.path.join(folder, "snapshots")) else ()
        own = next((said["journal"] for said in there if is_id(said.get("journal"))), None)
        hint = f"echo 'ftai-backup/1 {own}' >'{folder}/{MARKER}'; ftai-rotate check"
        raise Failure(f"'{folder}/{MARKER}' is damaged", DATAERR, hint if own else "begin in another folder: no manifest tells whose backups these are")
    return found[1]


def _firsts(folder: str) -> Iterator[dict]:
    """What the manifests of a folder say of themselves, newest first, whoever signed them."""
    for name in reversed(names(folder)):
        try:
            yield decode((_small(_path(folder, name), NOTE) or b"").partition(b"\n")[0])
        except (Malformed, Failure):
            continue


def owner(folder: str) -> str:
    """As _owner(), but Failure 66 where there are none."""
    found = _owner(folder)
    if found is None:
        raise Failure(f"there is no backup in '{folder}'", NOINPUT, "is its disk mounted?" if folder in known() else "ftai-rotate backup --to DIR")
    for name in FOLDERS:
        _folder(os.path.join(folder, name))
    return found


def _folder(path: str) -> None:
    try:
        seen = os.lstat(path)
    except OSError as bad:
        raise Failure(f"cannot use '{path}': {bad.strerror}", IOERR, "put it back as it was, or begin in another folder") from None
    if not stat.S_ISDIR(seen.st_mode):
        raise Failure(f"'{path}' is no folder", NOPERM)


def _open(path: str) -> int:
    """A descriptor of a regular file, by no link. Raises FileNotFoundError, Failure 77 for anything else, 74."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as bad:
        link = bad.errno == errno.ELOOP
        raise Failure(f"cannot read '{path}': {'it is a link' if link else bad.strerror}", NOPERM if link or bad.errno == errno.EACCES else IOERR) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Failure(f"cannot read '{path}': it is no regular file", NOPERM)
    return fd


def _small(path: str, most: int) -> bytes | None:
    """What a file holds, None where there is none. Raises Failure as _open(), 65 where it is bigger."""
    try:
        fd = _open(path)
    except FileNotFoundError:
        return None
    try:
        data = b""
        while len(data) <= most and (part := os.read(fd, most + 1 - len(data))):
            data += part
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", IOERR) from None
    finally:
        os.close(fd)
    if len(data) > most:
        raise Failure(f"'{path}' is bigger than {most} bytes", DATAERR)
    return data


def _cold(fd: int) -> None:
    """What is read of a file from here on is to come from the disk, and not from memory."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _sum(fd: int) -> tuple[int, str]:
    """(bytes, sha256) of a file. Raises OSError."""
    made, at = chain.hashing()(), 0
    while data := os.pread(fd, CHUNK, at):
        made.update(data)
        at += len(data)
    return at, made.hexdigest()


class _Shared:
    """`with _Shared(folder):` no backup is made in it meanwhile, where that can be had. Raises Failure 75."""

    def __init__(self, folder: str):
        self.path, self.fd = os.path.join(folder, ".lock"), -1

    def __enter__(self):
        try:
            self.fd = _open(self.path)
        except (FileNotFoundError, Failure):
            return self  # what stands there instead of it keeps nobody from reading
        end = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(self.fd)
                    raise Failure(f"a backup is made in '{os.path.dirname(self.path)}'", TEMPFAIL, f"fuser '{self.path}'") from None
            except OSError:
                return self  # a file system without locks
            time.sleep(0.01)

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)


class Scratch:
    """`with Scratch(path) as path:` a new folder, 0700, that is gone afterwards, also what a killed process left of it; unless `kept` is set.

    Raises Failure 75 where another process has it, 73, 77.
    """

    def __init__(self, path: str):
        self.path, self.fd, self.kept = path, -1, False

    def __enter__(self):
        import shutil

        end = time.monotonic() + WAIT
        while True:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                pass
            except OSError as bad:
                raise Failure(f"cannot make folder '{self.path}': {bad.strerror}", CANTCREAT) from None
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as bad:
                raise Failure(f"cannot use '{self.path}': {bad.strerror}", NOPERM) from None
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.fd), os.stat(self.path)):
                    break
            except FileNotFoundError:
                pass
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(self.fd)
                    raise Failure(f"'{self.path}' is in use by another process", TEMPFAIL) from None
                time.sleep(0.01)
            os.close(self.fd)
        paths.guard(self.path, os.fstat(self.fd))
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        return self

    def __exit__(self, *_):
        import shutil

        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.fd)


# ---- the manifests of a folder ----


def names(folder: str) -> list[str]:
    """The names of the backups in a folder, oldest first. Raises Failure 74, 77."""
    place = os.path.join(folder, "snapshots")
    try:
        return sorted(name[:-5] for name in os.listdir(place) if name.endswith(".note") and NAME.fullmatch(name[:-5]))
    except OSError as bad:
        raise Failure(f"cannot read '{place}': {bad.strerror}", NOPERM if bad.errno == errno.EACCES else IOERR) from None


def _path(folder: str, name: str) -> str:
    return os.path.join(folder, "latest" if name == KEYS else "snapshots", f"{name}.note")


def _object(folder: str, name: str, entry: dict) -> str:
    return os.path.join(folder, "latest" if name == KEYS else "objects", entry["object"])


def manifest(folder: str, name: str, owner: str, keys=None, known: dict[str, dict] | None = None) -> tuple[dict, list[dict]]:
    """(backup, entries) of the backup of this name, KEYS that of the keys of threads. owner: whose backups are there; keys: vkeys that may have signed it.

    Raises Failure: 66 where there is none, 65 for one that nobody of them signed, that is damaged, or was signed for another name or journal, 74, 77, 78.
    """
    path = _path(folder, name)
    note = _small(path, NOTE)
    if note is None:
        raise Failure(f"there is no '{path}'", NOINPUT)
    try:
        about, entries = parsed(proofs.opened(note.decode("utf-8", "replace"), keys), known)
        if about["journal"] != owner:
            raise Failure(f"it is of another journal, '{about['journal']}'", DATAERR)
        if name != KEYS and named(about["ts"]) != name:
            raise Failure(f"it is that of {named(about['ts'])}, put in the place of another", DATAERR)
        # Both may be of the same moment.
        if about["of"] != ("keys" if name == KEYS else "all") or [entry for entry in entries if (entry["kind"] == "threads") != (name == KEYS)]:
            raise Failure("it is that of another kind", DATAERR)
    except Failure as bad:
        hint = f"put back the one that was there, or move '{path}' away"
        if "not signed by a key that is known" in bad.message:
            hint = f"--key VKEY, as ftai-keys init printed it where it was made; or {hint}"
        raise Failure(f"cannot believe '{path}': {bad.message}", bad.code, bad.hint or hint) from None
    return about, entries


def _all(folder: str, owner: str, keys=None) -> tuple[dict[str, tuple], dict[str, Failure]]:
    """({name: (backup, entries)}, {name: why it can't be believed}) of all backups in a folder, that of the keys of threads last.

    A copy of the archive that was let go is none of the entries.
    """
    good: dict[str, tuple] = {}
    bad: dict[str, Failure] = {}
    lines: dict[str, dict] = {}
    for name in [*names(folder), *([KEYS] if os.path.lexists(_path(folder, KEYS)) else [])]:
        try:
            good[name] = manifest(folder, name, owner, keys, lines)
        except Failure as failure:
            if failure.code == CONFIG:
                raise
            bad[name] = failure
    if KEYS in good and (newest := max((name for name in good if name != KEYS), default="")) > named(good[KEYS][0]["ts"]):
        # Who puts an older one back brings back keys that a purge destroyed.
        bad[KEYS] = Failure(f"cannot believe '{_path(folder, KEYS)}': it is older than the backup of {newest}", DATAERR)
        del good[KEYS]
    since = _since(good)
    for name, (about, entries) in good.items():
        if name < since:
            good[name] = about, [entry for entry in entries if entry["kind"] != "archive" or os.path.lexists(_object(folder, name, entry))]
    return good, bad


def _since(good: dict[str, tuple]) -> str:
    """The oldest backup whose copy of the archive stays, as the manifests say, "" where all do. Those of older ones may be gone: a rebuild makes them."""
    return max((about.get("archives", "") for about, _ in good.values()), default="")


def _lost(folder: str) -> list[str]:
    """The names of the manifests that were there after the last backup, as far as this machine knows, and are not, oldest first."""
    return [name for name in known().get(folder, {}).get("held", ()) if not os.path.lexists(_path(folder, name))]


def _gone(folder: str) -> dict[str, Failure]:
    """{name: failure} of the first and the last manifest that is lost. What only these name is no rubbish."""
    lost = _lost(folder)
    hint = f"put it back, or, if it is to be gone, take the line of '{folder}' out of '{paths.where('state')}/backups'"
    return {name: Failure(f"the manifest '{_path(folder, name)}' is gone", SOME, hint) for name in (*lost[:1], *lost[-1:])}


def signers(folder: str, given: str | None, warn: Callable) -> list[str] | None:
    """The vkeys that count: the one that was given, else our own (None), else, on a new machine, the one that the newest backup names itself."""
    if given is not None:
        proofs._known(given)
        return [given]
    if proofs.vkeys():
        return None
    owner(folder)
    for said in _firsts(folder):
        if type(key := said.get("key")) is str:
            warn(f"no signing key is known here; taking the one that the backup names itself, which proves nothing unless you know it: {key}")
            return [key]
    raise Failure("no signing key is known here", CONFIG, "--key VKEY, as ftai-keys init printed it where the backup was made")


# ---- making one ----


def make(folder: str, *, stage: str, warn: Callable, fail: Callable, told: Callable | None = None) -> dict:
    """Makes a backup in a folder, as located() gives it, and then lets go of what the policy does not keep; returns the fields of a report.

    stage: whose records say nothing of the clock. fail(Failure): for what does not end it: what is left out, could not be opened again, or keeps
    old backups from being removed. told(bytes, of all): how far it is. Raises Failure: 78 without a signing key, 73 and 74 where it can't be
    written, 75 where another is made or the clock is wrong, 77 where it is another journal's: then no backup was made, and those that are there
    are as they were.
    """
    _signing()
    own, times = _journal(), _times(stage)
    fresh = _owner(folder) is None
    if fresh:
        _begin(folder)
    with stream.Lock(os.path.join(folder, ".lock"), WAIT, f"'{folder}' is in use by another process"):
        try:
            if fresh and _owner(folder) is None:
                for name in FOLDERS:
                    os.makedirs(os.path.join(folder, name), mode=0o700, exist_ok=True)
                # Last: a folder that is missing where this stands is a loss.
                stream.save(os.path.join(folder, MARKER), f"ftai-backup/1 {own}\n".encode())
        except OSError as bad:
            raise _unwritten(bad, folder) from None
        if (other := owner(folder)) != own:
            raise Failure(f"the backups in '{folder}' are those of another journal, '{other}'", NOPERM, "ftai-rotate backup --to another folder")
        with Scratch(os.path.join(paths.cache(), "backup")) as scratch:
            try:
                return _Making(folder, own, scratch.path, warn, fail, told).run(times)
            except OSError as bad:
                raise _unwritten(bad, folder) from None


def _signing() -> None:
    if not proofs.has_key():
        raise Failure("there is no key to sign backups with", CONFIG, "ftai-keys init")


def _meanwhile(bad: Failure) -> str:
    return f"{bad.message}; nothing is removed meanwhile{f': {bad.hint}' if bad.hint else ''}"


def _unwritten(bad: OSError, folder: str) -> Failure:
    return Failure(f"cannot write '{bad.filename or folder}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT)


def _journal() -> str:
    """The id of our journal. Raises Failure 66 where there is none."""
    try:
        fd, _, top = chain.open_plain(os.path.join(paths.journal(), chain.LIVE))
    except FileNotFoundError:
        raise Failure(f"there is no journal in '{paths.journal()}'", NOINPUT) from None
    os.close(fd)
    if top is None:
        raise Failure(f"'{paths.journal()}/{chain.LIVE}' has no head", DATAERR, "ftai-log --verify")
    return top.journal


def _times(stage: str) -> list[str]:
    """The times of the journal's records, in its order, without those that this stage wrote itself, with a clock that may be wrong.

    Of what was sealed before the last two days the first and the last are enough, as the ledger has them; for what can't be opened here there is
    "unknown" behind these.
    """
    folder, own = paths.journal(), b'\n  from: "%s"\n' % stage.encode()
    entries, recent = chain.ledger(folder), (retention.seconds(now()) or 0.0) - 2 * 86400
    made: list[str] = []
    for part in (chain.live(folder), *reversed(chain.segments(folder))):
        held = entries.get(part.number, {}) if part.sealed else {}
        span = [held[key] for key in ("since", "until") if type(held.get(key)) is str]
        # Behind a rotation there is nothing in the live segment but what this stage wrote: the newest of the others' is in a sealed one.
        if made and span and (retention.seconds(span[-1]) or 0.0) < recent:
            made[:0] = span
            continue
        try:
            fd, size, top = chain.open_segment(part)
        except FileNotFoundError:
            continue
        except Failure:
            made[:0] = [*span, "unknown"]
            continue
        try:
            pieces = chain.pieces(fd, top.start, size) if top else ()
            made[:0] = [found for _, piece in pieces if own not in piece and (found := canonical.ts(piece))]
        finally:
            os.close(fd)
    return made


def _begin(folder: str) -> None:
    """Raises Failure 73 where it would not be right to begin with backups in this folder."""
    if known().get(folder, {}).get("snapshot"):
        hint = f"mount it; where another one is in its place, take the line of this folder out of '{paths.where('state')}/backups'"
        raise Failure(f"'{folder}' held backups, and now holds none: its disk is not mounted", CANTCREAT, hint)
    odd = [name for name in os.listdir(folder) if name not in ("lost+found", ".lock", *FOLDERS) and not name.startswith(f".{MARKER}.")]
    if odd:
        raise Failure(f"'{folder}' is not empty, and holds no backups", CANTCREAT, f"mkdir '{folder}/ftai' && ftai-rotate backup --to '{folder}/ftai'")


class _Rotten(Exception):
    """A sealed segment is damaged: the rest is backed up all the same."""


class _Making:
    """One backup while it is made, under the lock of its folder."""

    def __init__(self, folder: str, own: str, scratch: str, warn: Callable, fail: Callable, told: Callable | None):
        self.folder, self.own, self.scratch, self.warn, self.fail, self.told = folder, own, scratch, warn, fail, told
        self.total = self.done = 0  # bytes
        self.ts = now()
        self.good, self.bad = _all(folder, own)
        self.bad |= _gone(folder)
        self.fresh: list[str] = []  # paths of the objects that were written
        self.new = 0
        self.left: list[str] = []  # what could not be put into it
        self.shut: Failure | None = None  # why what was written can't be opened here
        self.lost: list[str] = []  # what the journal should hold and does not
        self.mended = 0  # objects that were there, damaged, and were written anew
        self.whole = True  # no older backup names one that is damaged
        # (bytes, sha256) -> entry of what is there already, and whether that was opened once.
        self.there: dict[tuple, tuple[dict, bool]] = {}
        for name, (about, entries) in self.good.items():
            if name != KEYS:
                for entry in entries:
                    key = entry["bytes"], entry["sha256"]
                    self.there[key] = entry, about["verified"] or (key in self.there and self.there[key][1])
        self.sizes = {size for size, _ in self.there}

    def run(self, times: list[str]) -> dict:
        began = time.monotonic()
        _after(self.folder, self.good, self.ts)
        for bad in self.bad.values():
            self.warn(_meanwhile(bad))
        collect(self.folder, self.good, self.bad)
        try:
            fields = self.written(times)
        except BaseException:
            # What no manifest names: a full disk is not left fuller than it was. One that has its name is whole, whatever came behind that.
            for path in self.fresh if not os.path.lexists(_path(self.folder, named(self.ts))) else ():
                try:
                    os.unlink(path)
                except OSError:
                    pass
            raise
        said, found = known().get(self.folder, {}), {"backup": not fields["verified"]} | ({} if self.whole else {"check": True})
        # One that can't be believed may be taken away, one that is gone stays missed.
        held = {*self.good, fields["snapshot"], *(name for name in said.get("held", ()) if not os.path.lexists(_path(self.folder, name)))}
        remember(self.folder, found, snapshot=fields["snapshot"], at=self.ts, journal=self.own, held=sorted(held)[-HELD:])
        return fields | self.retained() | {"ms": int((time.monotonic() - began) * 1000)}

    def written(self, times: list[str]) -> dict:
        entries: list[dict] = []
        copies, parts, ledger = self.gathered()
        self.total = sum(size for *_, size in parts) + sum(os.fstat(fd).st_size for *_, fd in copies)
        size, head = 0, chain.root(self.own)
        try:
            for fields in self.segments(parts, ledger):
                entries.append(fields)
                size, head = fields["last"], fields["hash"]
            for kind, name, fd in copies:
                if kind != "threads":
                    entries.append(self.entry(kind, name, fd))
            for kind, name, path in _files():
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if kind != "spec" else 0))
                except FileNotFoundError:
                    continue  # a purge took it away
                except OSError as bad:
                    self.warn(f"cannot read '{path}': {bad.strerror}")
                    self.left.append(path)
                    continue
                copies.append((kind, name, fd))
                if not PLACES[kind].fullmatch(name) or not stat.S_ISREG(os.fstat(fd).st_mode):
                    self.left.append(path)
                else:
                    entries.append(self.entry(kind, name, fd))
                os.close(copies.pop()[2])
            if len(entries) > ENTRIES:
                raise Failure(f"{len(entries)} files, and a backup holds {ENTRIES} at most", IOERR)
            self.threads(next((fd for kind, _, fd in copies if kind == "threads"), -1))
        finally:
            for fd in {fd for _, fd, _ in parts} | {fd for _, _, fd in copies}:
                os.close(fd)
        self.proven(size, head)
        spans = [entry for entry in entries if entry["kind"] == "segment"]
        self.lost += [*_missed(spans, _removed(paths.journal(), None), self.own), *self.behind(size)]
        why = "a manifest is gone or cannot be believed" if self.bad else "the journal has lost what older backups may have" if self.lost else ""
        why = why or ("it lacks what older backups have" if self.lacked() else "")
        stop = Failure(why) if why else None
        self.plan = judged(self.good | {named(self.ts): ({"verified": not self.shut}, entries)}, self.ts, times, stop)
        about = self.about("all", entries, size=size, head=head, new=self.new, left=self.left or None, lost=self.lost or None, archives=self.plan.since or None)
        path = _path(self.folder, named(self.ts))
        stream.save(path, proofs.sign(written(about, entries)).encode())
        self.fresh.clear()
        if self.shut:
            self.fail(Failure(f"the backup is made, and could not be opened again: {self.shut.message}", SOME, self.shut.hint))
        for place in self.left:
            self.fail(Failure(f"'{place}' is not in the backup", SOME, "ftai-log --verify"))
        for words in self.lost:
            self.fail(Failure(f"{words}; older backups are kept", SOME, "ftai-log --verify; ftai-rotate restore; or, to go on without, --to a new folder"))
        if self.plan.stop and self.plan.stop is not stop:
            self.fail(self.plan.stop)
        said = {key: about[key] for key in ("head", "entries", "bytes", "new", "verified")}
        said |= {"segments": len(spans), "first": spans[0]["first"], "last": size, "left": self.left or None, "lost": self.lost or None}
        said |= {"mended": self.mended or None}
        return {"snapshot": named(self.ts), "path": self.folder, **said}

    def about(self, of: str, entries: list[dict], **more) -> dict:
        total = sum(entry["bytes"] for entry in entries)
        fields = {"id": new_id(), "ts": self.ts, "v": 1, "of": of, "journal": self.own, "key": proofs.vkeys()[0], "verified": not self.shut}
        return {"@tag": "backup", **fields, "entries": len(entries), "bytes": total, **{key: value for key, value in more.items() if value is not None}}

    def gathered(self) -> tuple[list[tuple], list[tuple], dict[int, dict]]:
        """([(kind, name, fd)] of copies of what changes, the segments as segments.snapshot() gives them, the ledger): as of one moment, between purges."""
        folder, copies = paths.journal(), []
        state, keys = paths.state(), os.path.join(paths.state(), "keys")
        whole = (("state", "state/state.db", os.path.join(state, "state.db")), ("archive", "state/archive.db", os.path.join(state, "archive.db")))
        try:
            with stream.Lock(os.path.join(folder, ".purge"), WAIT, "a purge or a rotation is under way"):
                for kind, name, path in (*whole, ("threads", "state/keys/threads.db", os.path.join(keys, "threads.db"))):
                    if (fd := self.copied(path)) is not None:
                        copies.append((kind, name, fd))
                # Before the segments, which then reach at least as far.
                for kind, name in (("checkpoint", "checkpoint"), ("accepted", ".accepted")):
                    try:
                        copies.append((kind, f"state/journal/{name}", chain.regular(os.path.join(folder, name))))
                    except FileNotFoundError:
                        continue
                _roomy()
                return copies, segments.snapshot(folder), chain.ledger(folder)
        except BaseException:
            for _, _, fd in copies:
                os.close(fd)
            raise

    def copied(self, path: str) -> int | None:
        """A descriptor of a whole copy of a database that others write to, which has no name any more; None where there is none, or none that is whole."""
        import sqlite3

        if not os.path.exists(paths.unlinked(path)):
            return None
        copy = os.path.join(self.scratch, f".{os.path.basename(path)}.{os.getpid()}.tmp")
        name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            source = sqlite3.connect(f"file:{name}?mode=ro", uri=True, isolation_level=None, timeout=WAIT)
            try:
                os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                target = sqlite3.connect(copy, isolation_level=None)
                try:
                    target.execute("PRAGMA synchronous = OFF")
                    source.backup(target)
                    found = [row[0] for row in target.execute("PRAGMA integrity_check(3)")]
                finally:
                    target.close()
            finally:
                source.close()
            if found == ["ok"]:
                return os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            why = "; ".join(found)
        except sqlite3.Error as bad:
            if getattr(bad, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Failure(f"cannot copy '{path}': {bad}", TEMPFAIL) from None
            why = str(bad)
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                if os.path.lexists(copy + end):
                    os.unlink(copy + end)
        # One that is damaged, or a home whose disk is full, must not keep the journal from being backed up.
        self.left.append(path)
        self.warn(f"cannot copy '{path}': {why}")
        return None

    def segments(self, parts: list[tuple], ledger: dict[int, dict]) -> Iterator[dict]:
        tops = [None if part.sealed else chain.head(os.pread(fd, chain.WINDOW, 0)) for part, fd, _ in parts]
        for n, (part, fd, size) in enumerate(parts):
            name = f"state/journal/{'current' if part.name == chain.LIVE else f'{part.number:06d}'}.ftai"
            held = ledger.get(part.number, {}) if part.sealed else {}
            if held.keys() >= {"first", "last", "hash", "file", "bytes", "sha256", "sealed_bytes", "sealed_sha256"}:
                if "damaged" in held:
                    self.lost.append(DAMAGED.format(part.number))
                try:
                    yield self.entry("segment", name, fd, copy=held, segment=part.number, **{key: held[key] for key in ("first", "last", "hash")})
                except _Rotten:
                    self.left.append(part.path)
                continue
            top, later, own = tops[n], next((top for top in tops[n + 1 : n + 2] if top), None), -1
            try:
                if part.sealed:
                    # Where the ledger is lost, nobody knows what it should be: it is opened, and sealed anew.
                    own, size, top = chain.open_segment(part)
                    fd = own
                seq, prev, *_ = chain.tail(fd, top, size) if top else (0, "0" * 64)
                if top and later and later.first - 1 < seq:
                    # An error of fsync left what stands behind in doubt, and the next segment took its place.
                    seq, prev, *_ = chain.tail(fd, top, size, later.first - 1)
                if top and top.journal != self.own:
                    raise Failure(f"'{part.path}' is of another journal", IOERR, "ftai-log --verify")
                if top is None or _followed(fd, {"bytes": size, "last": seq})[3]:
                    self.lost.append(DAMAGED.format(part.number))
                yield self.entry("segment", name, fd, size=size, segment=part.number, first=top.first if top else 0, last=seq, hash=prev)
            finally:
                if own >= 0:
                    os.close(own)

    def entry(self, kind: str, name: str, fd: int, *, copy: dict | None = None, size: int | None = None, **place) -> dict:
        """The entry of a file, which is in the folder when it returns: written and opened again, or once opened and still what it was.

        copy: of a sealed one what the ledger says.
        """
        size = os.fstat(fd).st_size if size is None else size
        fields = {"@tag": "entry", "name": name, "kind": kind}
        # What the folder can't have is not read twice.
        key = (copy["bytes"], copy["sha256"]) if copy else (size, _part(fd, size)) if size in self.sizes else None
        held, opened = self.there.get(key, (None, False)) if key else (None, False)
        own = new_id()
        if held is not None and (wrong := _looked(os.path.join(self.folder, "objects", held["object"]), held, None, {})):
            self.warn(f"{wrong}; it is written anew")
            self.mended += 1
            if copy and copy["sealed_sha256"] == held["sealed_sha256"] and not os.path.isdir(os.path.join(self.folder, "objects", held["object"])):
                own = held["object"].partition(".")[0]  # the older backups get it back too
            else:
                self.whole = False
            held = None
        if held is not None:
            made = {each: held[each] for each in ("object", "bytes", "sha256", "sealed_bytes", "sealed_sha256")}
        else:
            opened = False
            path = os.path.join(self.folder, "objects" if kind != "threads" else "latest", own)
            made = self.copy(fd, path, copy) if copy else self.seal(fd, path, size, {"journal": self.own, "kind": kind, "name": name, "ts": self.ts, **place})
            self.new += made["sealed_bytes"]
        if not opened:
            self.reopen(os.path.join(self.folder, "objects" if kind != "threads" else "latest", made["object"]), made)
        if kind != "threads":
            self.there[made["bytes"], made["sha256"]] = {**fields, **made}, True
            self.sizes.add(made["bytes"])
        self.done += made["bytes"]
        if self.told:
            self.told(self.done, max(self.total, self.done))
        return {**fields, **made, **place}

    def seal(self, fd: int, path: str, size: int, about: dict) -> dict:
        made = sealed.write(fd, path, about, end=size)
        self.fresh.append(os.path.join(os.path.dirname(path), made["file"]))
        return {"object": made["file"], **{key: made[key] for key in ("bytes", "sha256", "sealed_bytes", "sealed_sha256")}}

    def copy(self, fd: int, path: str, held: dict) -> dict:
        """Copies a segment that is sealed already, byte for byte. Raises _Rotten where it is not what the ledger says."""
        name = os.path.basename(path) + sealed.SUFFIX["age" if held["file"].endswith(sealed.SUFFIX["age"]) else "aes256"]
        path = os.path.join(os.path.dirname(path), name)
        out, temporary = stream.draft(path)
        try:
            made, at = chain.hashing()(), 0
            while data := os.pread(fd, CHUNK, at):
                made.update(data)
                chain.write(out, data)
                at += len(data)
            if (at, made.hexdigest()) != (held["sealed_bytes"], held["sealed_sha256"]):
                raise _Rotten
            os.fsync(out)
            if not os.path.lexists(path):
                self.fresh.append(path)
            os.rename(temporary, path)
        except BaseException:
            stream.discard(temporary)
            raise
        finally:
            os.close(out)
        chain.sync_folder(os.path.dirname(path))
        return {"object": name, **{key: held[key] for key in ("bytes", "sha256", "sealed_bytes", "sealed_sha256")}}

    def reopen(self, path: str, made: dict) -> None:
        """Opens what was written, and compares. Without the identity, that is told and the backup counts as not verified. Raises Failure 74."""
        if self.shut:
            return
        fd = _open(path)
        _cold(fd)
        os.close(fd)
        try:
            if sealed.summed(path, most=made["bytes"]) != (made["bytes"], made["sha256"]):
                raise Failure(f"it is not what was written into '{path}'", IOERR)
        except Failure as bad:
            if bad.code != NOPERM:
                raise Failure(f"what was written reads back otherwise: {bad.message}", IOERR) from None
            self.shut = bad

    def threads(self, fd: int) -> None:
        """Puts the keys of threads as they are now in the place of those of the backup before: what a purge destroyed is not to be found there either."""
        entries = self.good[KEYS][1] if KEYS in self.good else []
        if fd >= 0:
            entries = [self.entry("threads", "state/keys/threads.db", fd)]
        elif KEYS in self.bad and any(map(OBJECT.fullmatch, os.listdir(os.path.join(self.folder, "latest")))):
            return
        elif entries:
            # Of a journal that has lost them, these may be the last.
            self.warn("there are no keys of threads here: the backup keeps those it has")
        about = self.about("keys", entries, size=0, head="0" * 64)
        kept = {entry["object"] for entry in entries}
        # Before: as soon as this manifest has its name, they are all that there is.
        self.fresh = [path for path in self.fresh if os.path.basename(path) not in kept]
        stream.save(_path(self.folder, KEYS), proofs.sign(written(about, entries)).encode())
        _clear(os.path.join(self.folder, "latest"), kept)
        self.good[KEYS] = about, entries
        self.bad.pop(KEYS, None)

    def proven(self, size: int, head: str) -> None:
        """Raises Failure 74 where the journal does not hold the head that the manifest is to name."""
        found = next(journal.read(paths.journal(), after=size - 1), None) if size else None
        if size and (found is None or found[0] != size or found[1]["@blocks"][-1]["hash"] != head):
            raise Failure(f"the journal does not hold seq {size} as it was backed up", IOERR, "ftai-log --verify")

    def lacked(self) -> set[str]:
        """Paths of what is not in this backup, and older ones have; an archive is made again from the segments, keys of threads are in none of them."""
        names = [entry["name"].partition("/") for _, entries in self.good.values() for entry in entries if entry["kind"] not in ("archive", "threads")]
        return {os.path.join(paths.where(top), rest) for top, _, rest in names} & {*self.left}

    def behind(self, size: int) -> Iterator[str]:
        """What of the backup that reaches farthest the journal does not go on from."""
        most = max((about for name, (about, _) in self.good.items() if name != KEYS), key=lambda about: about["size"], default=None)
        if not most or not most["size"]:
            return
        try:
            found = next(journal.read(paths.journal(), after=most["size"] - 1), None)
        except Failure:
            return  # in a sealed segment, and the identity is not at hand
        if most["size"] > size or (found and found[0] == most["size"] and found[1]["@blocks"][-1]["hash"] != most["head"]):
            yield f"the journal does not go on from seq {most['size']} as the backup {named(most['ts'])} has it"

    def retained(self) -> dict:
        """Lets go of what the plan does not keep. Returns fields for the report: names of what went, and what stopped it."""
        if self.plan.stop:
            return {"stopped": self.plan.stop.message}
        self.good[named(self.ts)] = manifest(self.folder, named(self.ts), self.own)
        going = [name for name, keep, _ in self.plan.kept if not keep]
        if going:
            # Before it goes: a manifest that is missed keeps everything from being removed.
            remember(self.folder, held=sorted({*self.good} - {*going})[-HELD:])
        for one in going:
            os.unlink(_path(self.folder, one))
            del self.good[one]
        if going:
            chain.sync_folder(os.path.join(self.folder, "snapshots"))
        collect(self.folder, self.good, {})
        return {"gone": going or None, "archives": self.plan.archives or None}


def _missed(spans: list[dict], runs: list[proofs.Removed], own: str) -> Iterator[str]:
    """What is missing before and between the segments of a backup, and in none of the runs that a signed checkpoint says retention took away.

    spans: their entries, with the hash before them as `prev` where it is known.
    """
    number, last, hash_ = 0, 0, chain.root(own)
    for entry in spans:
        before, first = entry["segment"] - 1, entry["first"]
        if (number < before or last + 1 < first) and not any(proofs.explains(run, (last, hash_), (first - 1, entry.get("prev"))) for run in runs):
            if number == before:
                yield f"the records from seq {last + 1} to {first - 1} are missing"
            else:
                yield f"of the segments {number + 1} to {before} one is missing" if number + 1 < before else f"segment {before} is missing"
        number = entry["segment"]
        if entry["last"]:
            last, hash_ = entry["last"], entry["hash"]


def _part(fd: int, size: int) -> str:
    """The sha256 of the first so many bytes of a file."""
    made, at = chain.hashing()(), 0
    while at < size and (data := os.pread(fd, min(CHUNK, size - at), at)):
        made.update(data)
        at += len(data)
    return made.hexdigest()


def _roomy() -> None:
    """Lets this process open as many files as the system lets it: all segments are open at once."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, 10240) if soft != hard else ():
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, soft), hard))
            return
        except (ValueError, OSError):
            pass  # macOS takes no more than OPEN_MAX, which is 10240


def _files() -> Iterator[tuple[str, str, str]]:
    """(kind, name, path) of the files that a backup holds besides journal and databases."""
    state, config, answers = paths.where("state"), paths.config(), os.path.join(paths.where("data"), "answers")
    for kind, name in (("trust", "trusted"), ("recipient", "keys/recipient"), ("signer", "keys/signing.pub")):
        yield kind, f"state/{name}", os.path.join(state, name)
    for name in sorted(os.listdir(config)) if os.path.isdir(config) else ():
        if name.startswith(specs.PREFIX) and name.endswith(specs.SUFFIX):
            yield "spec", f"config/{name}", os.path.join(config, name)
    for name in sorted(os.listdir(answers)) if os.path.isdir(answers) else ():
        if name.endswith(".txt") and not name.startswith("."):
            yield "answer", f"data/answers/{name}", os.path.join(answers, name)


def chosen(good: dict[str, tuple], present: str) -> list[tuple[str, bool, str]]:
    """[(name, keep, why)] of these backups, by the policy `backups` of the memory spec. The newest that was opened again is kept whatever it says."""
    policy = specs.find("memory", "retention", "backups")
    every = sorted(name for name in good if name != KEYS)
    opened = max((name for name in every if good[name][0]["verified"]), default="")
    made = retention.chosen([(name, instant(name)) for name in every], policy, present)
    return [(name, True, f"the newest that was verified{f', {why}' if keep else ''}") if name == opened else (name, keep, why) for name, keep, why in made]


# kept: [(name, keep, why)]; since: the oldest backup whose copy of the archive stays, "" where all do; archives: those that stay and let go of
# theirs now; stop: why nothing may go just now, or None.
Plan = namedtuple("Plan", "kept since archives stop")


def judged(good: dict[str, tuple], present: str, times: list[str], stop: Failure | None) -> Plan:
    """What is to become of these backups. times: of the journal's records, in its order; stop: why nothing may go, as far as it is known already.

    An archive is about twice as big as its segments, and is made from them: of the copies that were opened again the newest two stay.
    """
    before = _since(good)
    try:
        if stop:
            raise stop
        kept = chosen(good, present)
        copies = [name for name, keep, _ in kept if keep and any(entry["kind"] == "archive" for entry in good[name][1])]
        opened = [name for name in copies if good[name][0]["verified"]]
        since = max([before, *opened[-2:-1]])
        lean = [name for name in copies if name < since]
        if lean or not all(keep for _, keep, _ in kept):
            if times[-1:] == ["unknown"]:
                why = "nothing is removed: the newest segment cannot be opened here, and so the clock not be compared with it"
                raise Failure(why, TEMPFAIL, "unlock the keychain, or FTAI_IDENTITY=FILE")
            retention.clock(present, times[-1] if times else "")
            retention.steady(times, present)
    except Failure as bad:
        return Plan([(name, True, bad.message) for name in sorted(good) if name != KEYS], before, [], bad)
    return Plan(kept, since, lean, None)


def collect(folder: str, good: dict[str, tuple], bad: dict[str, Failure]) -> list[str]:
    """Removes temporary files, copies of the archive that are let go, and the objects that no manifest names, unless there is one that can't be believed.

    Returns their names. Raises OSError.
    """
    gone, since = [], _since(good)
    for name in FOLDERS:
        place = os.path.join(folder, name)
        kept = None
        if not bad and name != "snapshots":
            kept = {
                entry["object"]
                for own, (_, entries) in good.items()
                for entry in entries
                if (own == KEYS) == (name == "latest") and (entry["kind"] != "archive" or own >= since)
            }
        gone += _clear(place, kept)
    return gone


def _clear(place: str, kept: set[str] | None) -> list[str]:
    """Removes temporary files from a folder, and objects that are none of `kept` (None: all are)."""
    gone = []
    for name in os.listdir(place):
        if os.path.isdir(os.path.join(place, name)):
            continue  # none of ours, whatever its name
        if re.fullmatch(r"\..*\.tmp", name) or (kept is not None and OBJECT.fullmatch(name) and name not in kept):
            os.unlink(os.path.join(place, name))
            gone.append(name)
    if gone:
        chain.sync_folder(place)
    return gone


def _after(folder: str, good: dict[str, tuple], present: str) -> None:
    """Raises Failure 75 where the newest backup is of a time to come."""
    last = max((name for name in good if name != KEYS), default="")
    if named(present) <= last:
        raise Failure(f"the clock is before the newest backup, {last}", TEMPFAIL, f"date; if that is right, rm '{_path(folder, last)}'")


def planned(folder: str, *, stage: str, warn: Callable, fail: Callable) -> dict:
    """What a backup would do, as fields of a report, with a block `snapshot` for each that is there. fail, and raises Failure, as make() does."""
    _signing()
    own, times, other = _journal(), _times(stage), _owner(folder)
    if other not in (None, own):
        raise Failure(f"the backups in '{folder}' are those of another journal, '{other}'", NOPERM, "ftai-rotate backup --to another folder")
    if other is None:
        _begin(folder)
    if not os.access(folder, os.W_OK):
        raise Failure(f"cannot write in '{folder}'", CANTCREAT)
    good, bad = _all(folder, own) if other else ({}, {})
    bad |= _gone(folder)
    present = now()
    _after(folder, good, present)
    for failure in bad.values():
        warn(_meanwhile(failure))
    there = {(entry["bytes"], entry["sha256"]) for _, entries in good.values() for entry in entries}
    sizes, entries, would, fresh = {size for size, _ in there}, chain.ledger(paths.journal()), 0, 0
    _roomy()
    for part, fd, size in segments.snapshot(paths.journal()):
        held = entries.get(part.number) if part.sealed else None
        key = (held["bytes"], held["sha256"]) if held else (size, _part(fd, size) if size in sizes else "")
        os.close(fd)
        would, fresh = would + (key not in there), fresh + (size if key not in there else 0)
    stop = Failure("a manifest is gone or cannot be believed") if bad else None
    plan = judged(good | {named(present): ({"verified": True}, [{"kind": "archive"}])}, present, times, stop)
    if plan.stop and plan.stop is not stop:
        fail(plan.stop)
    blocks = [{"@tag": "snapshot", "name": name, "keep": keep, "because": why} for name, keep, why in plan.kept if name in good]
    gone = [name for name, keep, _ in plan.kept if not keep]
    said = {"gone": gone or None, "archives": plan.archives or None}
    return {"path": folder, "would": ["backup"], "segments": would, "new": fresh, **said, "blocks": blocks}


# ---- looking at them ----


def listed(folder: str, keys, fail: Callable) -> list[dict]:
    """Fields of a report for each backup in a folder, oldest first. fail: called with the Failure of each that can't be believed, or is gone."""
    with _Shared(folder):
        good, bad = _all(folder, owner(folder), keys)
        bad |= _gone(folder)
    for failure in bad.values():
        fail(failure)
    made = []
    for name, (about, entries) in good.items():
        if name != KEYS:
            parts = [entry for entry in entries if entry["kind"] == "segment"]
            span = {"first": parts[0]["first"], "last": about["size"]} if parts else {}
            said = {key: about.get(key) for key in ("bytes", "new", "verified", "left", "lost")}
            made.append({"snapshot": name, "at": about["ts"], "path": folder, "segments": len(parts), **span, "entries": len(entries), **said})
    return made


def check(folder: str, keys, fail: Callable, *, read_data: bool = False, warn: Callable, told: Callable | None = None) -> dict:
    """Checks all backups in a folder, and returns fields of a report: signatures, and that each object is there with its size and checksum.

    read_data: and opens each, compares it with the checksum of what it holds, and follows the chain over the segments. fail: called with a
    Failure for each finding. Raises Failure 66, 75, 77 where an object can't be opened as the identity is missing, 78.
    """
    with _Shared(folder), Scratch(os.path.join(paths.cache(), "check")) as scratch:
        own = owner(folder)
        good, bad = _all(folder, own, keys)
        bad |= _gone(folder)
        for failure in bad.values():
            fail(failure)
        seen: dict[tuple, str] = {}
        facts: dict[tuple, tuple] = {}
        size = damaged = 0
        total = sum({entry["object"]: entry["sealed_bytes"] for _, entries in good.values() for entry in entries}.values())
        for name, (_, entries) in good.items():
            for entry in entries:
                key = entry["object"], entry["sealed_sha256"], entry["sealed_bytes"], entry["sha256"], entry["bytes"], name == KEYS
                if key not in seen:
                    seen[key] = _looked(_object(folder, name, entry), entry, scratch.path if read_data else None, facts)
                    size += entry["sealed_bytes"]
                    if told:
                        told(size, total)
                    if seen[key]:
                        fail(Failure(f"{name}: {seen[key]}", SOME, "ftai-rotate backup, which writes it anew"))
                if seen[key]:
                    damaged += 1
            if read_data and name != KEYS:
                for wrong in _chained(name, entries, facts, own, keys, warn):
                    fail(Failure(wrong, SOME))
                    damaged += 1
    found = [name for name in good if name != KEYS]
    if not found and not bad:
        fail(Failure(f"there is no backup in '{folder}'", SOME, f"ftai-rotate backup --to '{folder}'"))
    failed = bool(damaged or bad) or not found
    remember(folder, {"check": failed, "data": failed} if read_data else {"check": failed}, checked=now())
    fields = {"path": folder, "snapshots": len(found), "newest": found[-1] if found else None, "objects": len(seen), "bytes": size, "read": read_data}
    return fields | {"damaged": damaged, "refused": len(bad), "outcome": "failed" if failed else "done"}


def _looked(path: str, entry: dict, scratch: str | None, facts: dict) -> str:
    """What is wrong with an object, or "". scratch: where it is opened; None: only its checksum is compared. Raises Failure 77 without identity.

    facts: takes {(object, last seq): what _followed() gives} of a segment, {(object, None): its text} of a checkpoint.
    """
    try:
        fd = _open(path)
    except FileNotFoundError:
        return f"the object '{path}' of '{entry['name']}' is missing"
    except Failure as bad:
        return bad.message
    try:
        if os.fstat(fd).st_size != entry["sealed_bytes"]:
            return f"the object '{path}' of '{entry['name']}' has {os.fstat(fd).st_size} bytes, expected {entry['sealed_bytes']}"
        _cold(fd)
        if _sum(fd)[1] != entry["sealed_sha256"]:
            return f"the object '{path}' of '{entry['name']}' is damaged: its checksum is another"
    except OSError as bad:
        return f"cannot read '{path}': {bad.strerror}"
    finally:
        os.close(fd)
    if scratch is None:
        return ""
    try:
        if entry["kind"] not in ("segment", "checkpoint"):
            held = sealed.summed(path, most=entry["bytes"])
        else:
            _, fd = sealed.open_(path, folder=scratch, most=entry["bytes"])
            try:
                held = _sum(fd)
                if held == (entry["bytes"], entry["sha256"]):
                    fact = _followed(fd, entry) if entry["kind"] == "segment" else os.pread(fd, NOTE, 0).decode("utf-8", "replace")
                    facts[entry["object"], entry.get("last")] = fact
            finally:
                os.close(fd)
    except Failure as bad:
        if bad.code != DATAERR:
            raise
        return f"'{entry['name']}' cannot be opened: {bad.message}"
    return "" if held == (entry["bytes"], entry["sha256"]) else f"the object '{path}' does not hold '{entry['name']}' as it was"


def _followed(fd: int, entry: dict) -> tuple:
    """(head, the last seq and its hash, how many records are not what the chain says) of a segment up to the end that its entry tells."""
    top = chain.head(os.pread(fd, chain.WINDOW, 0))
    if top is None:
        return None, 0, "", 0
    last, prev, odd = top.first - 1, top.prev, 0
    for _, _, _, seq, stored, wrong in chain.walk(fd, top.start, entry["bytes"], last, prev):
        if seq > entry["last"]:
            break
        if wrong:
            odd += 1
        else:
            last, prev = seq, stored
    return top, last, prev, odd


def _chained(name: str, entries: list[dict], facts: dict, own: str, keys, warn: Callable) -> Iterator[str]:
    """What is wrong with the chain over the segments of a backup. What retention took away leaves gaps, which its own checkpoint explains."""
    note = next((facts.get((entry["object"], None)) for entry in entries if entry["kind"] == "checkpoint"), None)
    spans = [dict(entry) for entry in entries if entry["kind"] == "segment"]
    before: tuple = (0, chain.root(own))
    for entry in spans:
        found = facts.get((entry["object"], entry["last"]))
        if found is None:
            before = (entry["last"], entry["hash"])
            continue
        top, last, prev, odd = found
        if odd or (top is None and entry["last"] == 0):
            # The backup is what the journal was.
            warn(f"{name}: segment {entry['segment']} was damaged when it was backed up")
        said = own, entry["segment"], entry["first"], entry["last"], entry["hash"]
        if top is not None and (*top[:3], last, prev) != said:
            yield f"{name}: segment {entry['segment']} does not hold the part of the chain that its entry tells"
        elif top is not None and top.first == before[0] + 1 and top.prev != before[1]:
            yield f"{name}: segment {entry['segment']} does not go on from the one before"
        if top is not None:
            entry["prev"] = top.prev
        before = entry["last"], entry["hash"]
    for words in _missed(spans, _runs(note, keys), own):
        yield f"{name}: {words}, and no signed checkpoint says that retention took it away"


# ---- restoring ----


def found(folder: str, own: str, keys, *, before: str | None = None, segment: int | None = None) -> tuple[str, dict, list[dict]]:
    """(name, backup, entries) of the newest backup made at or before that instant, and which has that segment; the entries are those to restore.

    Raises Failure: 66 where there is none, and what manifest() raises for the one that it would be: another is not taken in its place.
    """
    for name in reversed(names(folder)):
        if before is not None and instant(name) > before:
            continue
        about, entries = manifest(folder, name, own, keys)
        if segment is None:
            return name, about, entries
        if part := [entry for entry in entries if entry["kind"] == "segment" and entry["segment"] == segment]:
            return name, about, part
    what = f" with segment {segment}" if segment is not None else ""
    raise Failure(f"there is no backup{what} in '{folder}'{' from before that time' if before else ''}", NOINPUT, "ftai-rotate list")


def restore(
    folder: str,
    into: str,
    keys,
    *,
    before: str | None = None,
    segment: int | None = None,
    verify: Callable,
    rebuild: Callable | None = None,
    warn: Callable,
    told: Callable | None = None,
) -> dict:
    """Restores a backup into a new or empty folder, laid out as FTAI_HOME is; returns fields of a report.

    before: the newest that was made at or before that instant; segment: of that number alone. verify(home, segment) -> what is wrong with a restored
    journal, or "". rebuild(home) -> as that, makes the archive where the backup has no copy of it; without it there is none then. It is built beside
    `into`, and put in its place when it is whole. Raises Failure: 65 for what is damaged or not believed, 66, 73, 74, 75, 77; then there is nothing
    in `into`.
    """
    began, into = time.monotonic(), os.path.abspath(into)
    _empty(into)
    if os.path.realpath(into).startswith(f"{os.path.realpath(folder)}/"):
        raise Failure(f"'{into}' is in the folder of the backups, where nothing is in plain", CANTCREAT, "--into another place")
    place = os.path.join(os.path.dirname(into), f".{os.path.basename(into)}.restore")
    if os.path.isdir(place) and {*os.listdir(place)} - paths.BASES.keys():
        raise Failure(f"'{place}' holds what no restore has left there", CANTCREAT, "look at it, or --into another place")
    with _Shared(folder), Scratch(place) as scratch:
        own = owner(folder)
        newest = max((name for name in names(folder) if before is None or instant(name) <= before), default="")
        gone = [name for name in _lost(folder) if name != KEYS and name > newest and (before is None or instant(name) <= before)]
        if gone:
            warn(f"the manifest '{_path(folder, gone[-1])}' is gone: an older backup is taken")
        name, about, entries = found(folder, own, keys, before=before, segment=segment)
        # The archive is only a view: where its copy is gone, whoever took it, all else is restored.
        pairs = [(name, entry) for entry in entries if entry["kind"] != "archive" or os.path.lexists(_object(folder, name, entry))]
        if segment is None:
            pairs += [(KEYS, entry) for entry in _threads(folder, own, keys, warn)]
        _restored(folder, pairs, scratch.path, told)
        wrong = verify(scratch.path, segment)
        rebuilt = None
        if rebuild and segment is None and not os.path.exists(os.path.join(scratch.path, "state", "archive.db")):
            rebuilt, wrong = True, "; ".join(filter(None, [wrong, rebuild(scratch.path)]))
        try:
            os.rename(scratch.path, into)
            scratch.kept = True
            chain.sync_folder(os.path.dirname(into))
        except OSError as bad:
            raise Failure(f"cannot put the restored files into '{into}': {bad.strerror}", CANTCREAT) from None
    last = max((entry["last"] for _, entry in pairs if entry["kind"] == "segment"), default=0)
    fields = {"snapshot": name, "at": about["ts"], "path": folder, "into": shown(into), "files": len(pairs), "bytes": sum(entry["bytes"] for _, entry in pairs)}
    fields |= {"last": last, "segment": segment, "rebuilt": rebuilt, "missing": gone or None, "left": about.get("left")}
    fields |= {"wrong": wrong or None, "outcome": "damaged" if wrong else "done"}
    return fields | {"ms": int((time.monotonic() - began) * 1000)}


def _empty(into: str) -> None:
    """Raises Failure 73 for what is neither nothing nor an empty folder."""
    above = os.path.dirname(into)
    if not os.path.isdir(above):
        raise Failure(f"there is no folder '{above}'", CANTCREAT, f"mkdir -p '{above}'")
    if os.path.lexists(into):
        if os.path.islink(into) or not os.path.isdir(into) or os.listdir(into):
            raise Failure(f"'{into}' is no empty folder", CANTCREAT, "--into a new one")
        if os.path.ismount(into):
            raise Failure(f"'{into}' is a mount point", CANTCREAT, f"--into '{into}/restored'")


def _threads(folder: str, own: str, keys, warn: Callable) -> list[dict]:
    """The entries of the manifest of the keys of threads. What does not open texts is no reason to restore nothing: warn(message)."""
    good, bad = _all(folder, own, keys)
    if KEYS in bad:
        warn(f"{bad[KEYS].message}; encrypted texts will not open")
    return good[KEYS][1] if KEYS in good else []


def _restored(folder: str, pairs: list[tuple[str, dict]], home: str, told: Callable | None) -> None:
    """Writes what the entries name below `home`. Raises Failure."""
    room, needed = os.statvfs(home), sum(entry["bytes"] for _, entry in pairs)
    if needed > room.f_bavail * room.f_frsize:
        raise Failure(f"{needed} bytes are to be restored, and {room.f_bavail * room.f_frsize} are free", IOERR)
    hints = {NOPERM: "FTAI_IDENTITY=FILE, with each identity that segments were sealed for", DATAERR: "an older backup by --at; ftai-rotate check"}
    done = 0
    for name, entry in pairs:
        path = os.path.join(home, entry["name"])
        for n, letter in enumerate(entry["name"]):
            if letter == "/" and not os.path.isdir(above := os.path.join(home, entry["name"][:n])):
                os.mkdir(above, 0o700)
        try:
            sealed.extract(_object(folder, name, entry), path, most=entry["bytes"])
        except Failure as bad:
            # With damage in who it was made for it looks like another's.
            if bad.code == NOPERM and (damage := _looked(_object(folder, name, entry), entry, None, {})):
                bad = Failure(damage, DATAERR)
            raise Failure(f"cannot restore '{entry['name']}': {bad.message}", bad.code, bad.hint or hints.get(bad.code, "")) from None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _sum(fd) != (entry["bytes"], entry["sha256"]):
                raise Failure(f"the object '{entry['object']}' does not hold '{entry['name']}' as it was", DATAERR)
        finally:
            os.close(fd)
        done += entry["bytes"]
        if told:
            told(done, needed)


# ---- trying it ----


def drill(folder: str, keys, *, before: str | None = None, verify: Callable, rebuild: Callable, warn: Callable, told: Callable | None = None) -> dict:
    """Restores a backup for a try, has the archive made again from the restored journal, and compares it with the one of the backup, row for row.

    verify(home, None) and rebuild(home) -> what is wrong, or "". Returns fields of a report; nothing is left behind. Raises Failure as restore() does.
    """
    began = time.monotonic()
    with Scratch(os.path.join(paths.cache(), "drill")) as scratch:
        home = os.path.join(scratch.path, "home")
        fields = restore(folder, home, keys, before=before, verify=verify, warn=warn, told=told)
        held, made = os.path.join(scratch.path, "archive.db"), os.path.join(home, "state", "archive.db")
        if os.path.exists(made):
            os.rename(made, held)
        wrong = [fields["wrong"], rebuild(home)]
        rows = None
        if os.path.exists(held) and not wrong[1]:
            rows, differ = _compared(held, made, _removed(os.path.join(home, "state", "journal"), keys))
            wrong.append(f"the archive made again differs from that of the backup in {differ} of {rows} rows" if differ else "")
        elif not wrong[1]:
            warn("the backup has no archive to compare with")
    wrong = [words for words in wrong if words]
    remember(folder, {"drill": bool(wrong)}, drilled=now())
    fields = {key: value for key, value in fields.items() if key not in ("into", "segment", "wrong", "outcome", "ms")} | {"rows": rows}
    return fields | {"wrong": "; ".join(wrong) or None, "outcome": "failed" if wrong else "done", "ms": int((time.monotonic() - began) * 1000)}


def _removed(folder: str, keys) -> list[proofs.Removed]:
    """What retention took from a journal, by its checkpoint: an archive that lives on still has it, one made again has not."""
    return _runs(segments.anchor(folder), keys)


def _runs(note: str | None, keys) -> list[proofs.Removed]:
    """What retention took away, as a checkpoint that one of these keys signed says."""
    try:
        return proofs.parsed(proofs.opened(note or "", keys)).removed
    except Failure:
        return []


def _compared(held: str, made: str, removed: list[proofs.Removed]) -> tuple[int, int]:
    """(rows of an archive, how many of them are not in the other, or otherwise), without those of what was removed.

    The other may go on behind them, as it is made from all of the journal.
    """
    import sqlite3

    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        db.execute("ATTACH ? AS held", (held,))
        db.execute("ATTACH ? AS made", (made,))
        db.execute("CREATE TABLE removed (first, last)")
        db.executemany("INSERT INTO removed VALUES (?, ?)", [(run.first, run.last) for run in removed])
        stays = "NOT EXISTS (SELECT 1 FROM removed WHERE {}.seq BETWEEN first AND last)".format
        columns = [row[1] for row in db.execute("PRAGMA held.table_info(records)")]
        other = " OR ".join(f"h.{column} IS NOT m.{column}" for column in columns)
        rows, last = db.execute(f"SELECT count(*), max(seq) FROM held.records AS h WHERE {stays('h')}").fetchone()
        question = f"SELECT count(*) FROM held.records AS h LEFT JOIN made.records AS m ON m.seq = h.seq WHERE {stays('h')} AND (m.seq IS NULL OR {other})"
        differ = db.execute(question).fetchone()[0]
        more = db.execute(f"SELECT count(*) FROM made.records AS m WHERE seq <= ? AND {stays('m')}", (last or 0,)).fetchone()[0] - rows
    except sqlite3.Error as bad:
        raise Failure(f"cannot compare the archives: {bad}", IOERR) from None
    finally:
        db.close()
    return rows, differ + max(more, 0)


# ---- the records of it ----


def tried(name: str, *words: str) -> Callable:
    """What runs a command that stands beside this one in a home that it is given, and returns the first of what that finds wrong, or "".

    With a segment: on its file alone.
    """
    program = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), name)

    def run(home: str, segment: int | None = None) -> str:
        import subprocess

        place = os.path.join(home, "state", "journal")
        files = [os.path.join(place, name) for name in os.listdir(place)] if segment is not None else []
        environment = os.environ | {"FTAI_HOME": home}
        ran = subprocess.run([sys.executable, program, *words, *files], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said = (ran.stderr or ran.stdout).partition("\n")[0] or f"status {ran.returncode}"
        return f"{name} {' '.join(words)}: {said}" if ran.returncode else ""

    return run


def acted(act: str, work: Callable, *, stage: str, warn: Callable, **about) -> Iterator[dict]:
    """Yields the audit record of what is to be done, then the report of what work() returned, each when it is in the journal.

    Where there is no journal, as on a machine that one is restored to, none is begun for them. Raises Failure as work() does, behind a report of it.
    """
    audit = _journaled(record("audit", stage, act=act, subject="backup", who=journal.user(), outcome="intended", **about), stage, warn)
    yield audit
    try:
        try:
            fields = work()
        except OSError as bad:
            raise Failure(f"cannot use '{bad.filename or about.get('path')}': {bad.strerror}", IOERR) from None
    except BaseException as bad:
        because = bad.message if isinstance(bad, Failure) else f"ended by {type(bad).__name__}"
        try:
            rec = _journaled(record("report", stage, parent=audit, subject="backup", act=act, outcome="failed", because=because), stage, warn)
        except Failure as worse:
            warn(worse.message)  # what came first is what is told, and is the status
            raise bad from None
        if isinstance(bad, Failure):
            yield rec
        raise
    yield _journaled(record("report", stage, parent=audit, subject="backup", act=act, **{"outcome": "done", **fields}), stage, warn)


def _journaled(rec: dict, stage: str, warn: Callable) -> dict:
    folder = os.path.join(paths.where("state"), "journal")
    if os.path.exists(os.path.join(folder, chain.LIVE)) or chain.segments(folder):
        kind, _, reason = journal.append(folder, [rec], stage=stage, warn=warn)[0]
        if kind != "written":
            raise Failure(f"cannot write the journal: {reason or kind}", IOERR)
    return rec
