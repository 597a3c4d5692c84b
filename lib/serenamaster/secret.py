"""Keys: where their values are kept, who may read them, and what is known of them without asking for a value. See ftai-keys(1).

A value is in the keychain or in keys.age as one item, JSON text: {"v": 1, "values": [{"value", "state": "current" | "next" | "old", "added",
"until"?}]}, so that each step of a rotation is one replacement, whole or not at all. What another program put there is a current value.
keys.ftai holds the names, readers and times, and never a value.
"""

import errno
import os

import orjson

from . import paths
from .errors import CANTCREAT, CONFIG, DATAERR, IOERR, NOPERM, TEMPFAIL, UNAVAILABLE, USAGE, Failure
from .record import now

TIMES = ("added", "next", "until")
SERVICE = "ftai"  # what our items in a keychain are filed under
STORES = ("keychain", "file")  # what can be written to
_KINDS = {"keychain": "keychain", "file": "file of keys"}
# What to do where a key is known to be in a store that can't be asked for it.
_REACHED = {"keychain": "unlock the keychain, or ask from a session where it is unlocked, then again", "file": "put back your copy of the identity"}
LEAST, MOST = 8, 64 * 1024  # of a value: characters, as shorter ones could not be told from words where they are redacted; bytes
SIZE = 64 * 1024 * 1024  # bytes of one of our files
DEADLINE, PATIENCE, COMMAND = 2.0, 60.0, 5.0  # seconds: for a keychain, for one while a person is there, for a `cmd`
WAIT = 10.0  # seconds for the lock
# The only ones that are used, best first: all others keep what they get where others can read it, or nowhere, or ask for a password.
BACKENDS = (
    "keyring.backends.macOS.Keyring",
    "keyring.backends.SecretService.Keyring",
    "keyring.backends.kwallet.DBusKeyring",
    "keyring.backends.kwallet.DBusKeyringKWallet4",
    "keyring.backends.libsecret.Keyring",
)
# What a child sees of our environment, LC_* and XDG_* too: what leads to keychains and agents, and nothing that could hold a key.
KEEP = frozenset(("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"))
KEEP |= {"DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND", "SSH_AUTH_SOCK", "GPG_TTY", "GNUPGHOME", "PASSWORD_STORE_DIR"}
CHILD = "import sys; sys.path.append(sys.argv[1]); from serenamaster import secret; secret.serve()"

_turns = [-1, 0]  # the descriptor of the lock while it is ours, and how often it was taken
_phrases: list[str] = []  # the passphrase of keys.age, once it was given: it may have come from a pipe


def protect() -> None:
    """No core file of this process from now on, and no other process of this user may read its memory. To be called before a value is in it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = _prctl()
    if prctl:
        prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: core_pattern may name a program, which no limit keeps from being run


def _prctl():
    """prctl(2), None where there is none."""
    import sys

    if sys.platform != "linux":
        return None
    try:
        import ctypes

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


# ---- what is a name, a value, an item ----


def named(name: str) -> str:
    """`name`, where it can be that of a key or a reader: letters, digits and `_.-:`. Raises Failure 2, and does not quote what may be a key."""
    if not name or len(name) > 100 or not all(char.isascii() and (char.isalnum() or char in "_.-:") for char in name):
        raise Failure("this is no name of a key or a reader: expected at most 100 letters, digits and _.-:", USAGE)
    return name


def unfit(value: str) -> str:
    """Why this can't be the value of a key, "" where it can. It never says what the value is."""
    if len(value) < LEAST:
        return f"it is shorter than {LEAST} characters"
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        return "it is no text"
    return f"it is longer than {MOST} bytes" if len(value.encode()) > MOST else ""


def _item(text: str) -> dict:
    """The item that was kept as this text; a text that is none was put there by another program."""
    try:
        made = orjson.loads(text)
    except orjson.JSONDecodeError:
        made = None
    if type(made) is dict and made.get("v") == 1 and "values" in made:
        return _sound(made)
    return {"v": 1, "values": [{"value": text.rstrip("\n"), "state": "current"}]}


def _sound(item) -> dict:
    """An item as it was kept. Raises Failure 65, whose message is only the reason."""
    try:
        if all(type(held["value"]) is str and type(held["state"]) is str for held in item["values"]):
            return item
    except (TypeError, KeyError):
        pass
    raise Failure("what it has is damaged", DATAERR)


def _checked(item: dict) -> dict:
    """The item, where it has one current value, at most one next one, and all fit. Raises Failure 65."""
    states = [held.get("state") for held in item["values"]]
    if states.count("current") != 1 or states.count("next") > 1 or set(states) - {"current", "next", "old"}:
        raise Failure("an item has one value that is current, and at most one that is next", DATAERR)
    for held in item["values"]:
        if wrong := unfit(held["value"]):
            raise Failure(f"this is not the value of a key: {wrong}", DATAERR)
    return item


def _current(item: dict | None) -> str | None:
    return _in_use(item).get("value")


def _in_use(item: dict | None) -> dict:
    """The current value of an item with its times, {} where there is none."""
    return next((held for held in item["values"] if held.get("state") == "current"), {}) if item else {}


# ---- files ----


def _folder() -> str:
    """Where our files are; not made. Raises Failure 77 where others may write there, or it is a link."""
    folder = paths.unlinked(os.path.join(paths.where("state"), "keys"))
    try:
        paths.guard(folder, os.stat(folder))
    except OSError:
        pass
    return folder


def kept(path: str) -> bytes | None:
    """What a file of ours holds, None where there is none. Raises Failure: 77 for one that is not this user's alone, 74, 65 for one too big."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
        if seen.st_mode & 0o077:
            raise Failure(f"'{path}' can be read by others", NOPERM, f"chmod 600 '{path}'")
        if seen.st_size > SIZE:
            raise Failure(f"'{path}' is too big, expected at most {SIZE} bytes", DATAERR)
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", IOERR) from None
    finally:
        os.close(fd)
    return b"".join(parts)


def _save(name: str, data: bytes) -> None:
    """Writes a file of ours whole or not at all. To be called in a turn. Raises Failure (73, 74)."""
    from . import stream

    folder = _folder()
    try:
        for left in os.listdir(folder):
            # Of a process that was killed while it wrote: the turn is ours, so nobody writes it now.
            if left.startswith(f".{name}.") and left.endswith(".tmp"):
                os.unlink(os.path.join(folder, left))
        stream.save(os.path.join(folder, name), data)
    except OSError as bad:
        raise Failure(f"cannot write '{os.path.join(folder, name)}': {bad.strerror}", IOERR if bad.errno in stream.FULL else CANTCREAT) from None


class turn:
    """The lock under which keys are written; whoever changes an item that it has read holds it all the while. Raises Failure 75 after WAIT s."""

    def __enter__(self):
        from . import stream

        if _turns[1] == 0:
            paths.state()
            path = os.path.join(paths.make(_folder()), "lock")
            _turns[0] = stream.Lock(path, WAIT, f"the keys are locked: no turn within {WAIT:.0f} s", f"fuser '{path}'").__enter__().fd
        _turns[1] += 1

    def __exit__(self, *_):
        _turns[1] -= 1
        if _turns[1] == 0:
            os.close(_turns[0])


def _book() -> dict[str, dict]:
    """keys.ftai: {name: {name, store?, readers?, added?, next?, until?}}. Raises Failure: 65 for a damaged one, as it says who may read; 77, 74."""
    path = os.path.join(_folder(), "keys.ftai")
    data = kept(path)
    if data is None:
        return {}
    from . import text

    records, findings = text.read(data)
    made: dict[str, dict] = {}
    fine = not any(found.level == "error" for found in findings)
    for rec in records:
        if rec.get("@tag") == "key":
            name, known = rec.get("name"), rec.get("readers", [])
            fine = fine and type(name) is str and name not in made and rec.get("store", "file") in STORES and type(known) is list
            fine = fine and all(type(one) is str for one in (*known, *(rec.get(key, "") for key in TIMES)))
            made[str(name)] = rec
    # Cut at the end of a record it would look whole, and grants would have come back that were revoked.
    if not fine or not records or records[-1].get("@tag") != "note" or records[-1].get("keys") != len(made):
        raise Failure(f"'{path}' is damaged", DATAERR, "take it from a backup, or remove it, and grant and set your keys again")
    return made


def _write_book(book: dict[str, dict]) -> None:
    from . import text

    records = [*(book[name] for name in sorted(book)), {"@tag": "note", "keys": len(book)}]
    _save("keys.ftai", ("@ftai v2.0\n\n" + "\n".join(text.dump(rec) for rec in records)).encode())


# ---- children ----


def _run(argv: list[str], given: bytes, seconds: float, most: int, kept=()) -> tuple[int | None, bytes]:
    """(status, what it wrote) of a child; the status is None where it took longer or wrote more than `most` bytes. It is gone then.

    kept: descriptors that the child keeps open. Raises OSError.
    """
    import select
    import signal
    import subprocess
    import time

    end = time.monotonic() + seconds
    seen = {name: value for name, value in os.environ.items() if name in KEEP or name.startswith(("LC_", "XDG_"))}
    seen["PATH"] = os.pathsep.join(folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder.startswith("/")) or os.defpath
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=seen, cwd="/", start_new_session=True,
        pass_fds=kept,
    )  # fmt: skip
    into, out = child.stdin.fileno(), child.stdout.fileno()  # type: ignore[union-attr]
    wrote, left = bytearray(), memoryview(given)
    poller = select.poll()
    try:
        poller.register(out, select.POLLIN)
        poller.register(into, select.POLLOUT)
        os.set_blocking(into, False)
        while True:
            # What the child has left running may hold the pipe open: its own end is what counts.
            over = child.poll() is not None
            now = time.monotonic()
            ready = dict(poller.poll(0 if over else min(max(end - now, 0), 0.05) * 1000))
            if into in ready:
                try:
                    left = left[os.write(into, left) :] if left and not ready[into] & select.POLLERR else left[:0]
                except BrokenPipeError:
                    left = left[:0]
                if not left:
                    poller.unregister(into)
                    child.stdin.close()  # type: ignore[union-attr]
            if out in ready:
                part = os.read(out, 65536)
                wrote += part
                if not part:
                    poller.unregister(out)
            if len(wrote) > most or (now >= end and not over):
                return None, b""
            if over and out not in ready:
                return child.returncode, bytes(wrote)
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # macOS says EPERM where only a zombie is left
        child.wait()
        child.stdin.close()  # type: ignore[union-attr]
        child.stdout.close()  # type: ignore[union-attr]


def _keychain(op: str, name: str, value: str | None = None) -> str | None:
    """Asks the keychain in a child: `get` a text or None, `set` it, `del` what is there (None where nothing was).

    Raises Failure, whose message is only the reason: 69 where there is none, 75 where it is locked or does not answer, 78 for a refused backend.
    """
    import sys

    if sys.platform != "darwin" and not os.environ.get("DBUS_SESSION_BUS_ADDRESS", "").startswith("unix:"):
        # Nor is one started, as "autolaunch:" would: it would be left running.
        raise Failure("there is no session bus", UNAVAILABLE)
    # On a terminal without a display nobody could answer what a window asks.
    person = os.isatty(2) and (sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")))
    seconds = PATIENCE if person else DEADLINE
    asked = orjson.dumps({"op": op, "name": name, "value": value, "person": person, "seconds": seconds})
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        # The child holds the lock too: should we be killed, nobody writes before it has ended.
        status, wrote = _run([sys.executable, "-I", "-c", CHILD, folder], asked, seconds, SIZE, _turns[:1] if _turns[1] else ())
    except OSError as bad:
        raise Failure(f"it can't be asked: {bad.strerror}", UNAVAILABLE) from None
    if status is None:
        raise Failure(f"it gave no answer within {seconds:.0f} s", TEMPFAIL)
    try:
        answer = orjson.loads(wrote)
    except orjson.JSONDecodeError:
        raise Failure("it can't be asked: the child died", UNAVAILABLE) from None
    if answer["code"]:
        raise Failure(answer["why"], answer["code"])
    return answer["value"]


def serve() -> None:
    """The child that asks a keychain: one request on standard input, one answer on standard output. It ends by itself if nobody waits any more."""
    import signal

    protect()
    parts = []
    while part := os.read(0, 65536):
        parts.append(part)
    asked = orjson.loads(b"".join(parts))
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + 1)
    out = os.dup(1)
    os.dup2(2, 1)  # a backend that prints would spoil the answer
    try:
        answer = {"value": _asked(**asked), "code": 0}
    except Failure as bad:
        answer = {"why": bad.message, "code": bad.code}
    except Exception as bad:
        # No more than the kind of it: the message of a library may quote what it was given.
        locked = type(bad).__name__ in ("KeyringLocked", "LockedException", "PromptDismissedException")
        answer = {"why": "it is locked" if locked else f"it failed: {type(bad).__name__}", "code": TEMPFAIL if locked else UNAVAILABLE}
    data = memoryview(orjson.dumps(answer))
    while data:
        data = data[os.write(out, data) :]
    os._exit(0)


def _asked(op: str, name: str, value: str | None, person: bool, seconds: float) -> str | None:
    """In the child: does what was asked for. Raises Failure, and what the backend raises."""
    backend, ring = _backend()
    if not person:
        _hush(backend, ring)
    # Its set_password() deletes and then adds: a copy is kept for who is killed between the two.
    copy = name + "~" if "macOS" in backend else ""
    if op == "get":
        found = ring.get_password(SERVICE, name)
        return found if found is not None or not copy else ring.get_password(SERVICE, copy)
    if op == "del":
        return "gone" if [one for one in (name, copy) if one and _drop(ring, one)] else None
    if copy:
        ring.set_password(SERVICE, copy, value)
    ring.set_password(SERVICE, name, value)
    if ring.get_password(SERVICE, name) != value:
        raise Failure("it does not give back what it was given", IOERR)
    if copy:
        _drop(ring, copy)
    return None


def _drop(ring, name: str) -> bool:
    """Deletes all items of this name; False where there was none."""
    for count in range(16):
        if ring.get_password(SERVICE, name) is None:
            return count > 0
        ring.delete_password(SERVICE, name)
    return True


def _backend() -> tuple:
    """(name, backend) of the first keychain that is there. Raises Failure: 69 where there is none, 78 where the user's choice is refused.

    keyring's own choice is not used: it runs what an environment variable, a file or any installed package names.
    """
    import configparser
    import importlib

    try:
        from keyring.util import platform_
    except ImportError:
        raise Failure("the package keyring is missing", UNAVAILABLE) from None
    chosen, by = os.environ.get("PYTHON_KEYRING_BACKEND", ""), "PYTHON_KEYRING_BACKEND"
    if not chosen:
        by = str(platform_.config_root() / "keyringrc.cfg")
        config = configparser.RawConfigParser()
        try:
            config.read(by, encoding="utf-8")
            chosen = config.get("backend", "default-keyring", fallback="").strip()
        except (configparser.Error, UnicodeDecodeError, OSError):
            raise Failure(f"'{by}' can't be read", CONFIG) from None
    if chosen and chosen not in BACKENDS:
        raise Failure(f"the backend '{chosen}', which {by} names, is refused", CONFIG)
    plasma = "KDE" in os.environ.get("XDG_CURRENT_DESKTOP", "").split(":")
    for name in [chosen] if chosen else sorted(BACKENDS, key=lambda name: not (plasma and "kwallet" in name)):
        module, _, kind = name.rpartition(".")
        try:
            backend = getattr(importlib.import_module(module), kind)
            backend.priority  # noqa: B018 - raises where it can't be used here
            return name, backend()
        except Exception:
            continue
    raise Failure(f"the backend '{chosen}' can't be used here" if chosen else "there is none", UNAVAILABLE)


def _hush(backend: str, ring) -> None:
    """Makes sure that no window asks anybody for anything: nobody may be there. Raises Failure 75 where it is locked, 69."""
    import sys
    from contextlib import closing

    if "macOS" in backend:
        import ctypes

        ctypes.CDLL("/System/Library/Frameworks/Security.framework/Security").SecKeychainSetUserInteractionAllowed(False)
    elif "kwallet" in backend:
        dbus = sys.modules["dbus"]
        wallet = dbus.Interface(dbus.SessionBus().get_object(ring.bus_name, ring.object_path), "org.kde.KWallet")
        if not wallet.isOpen(wallet.networkWallet()):
            raise Failure("it is locked", TEMPFAIL)
    else:
        from keyring.backends import SecretService

        storage = SecretService.secretstorage
        with closing(storage.dbus_init()) as bus:
            try:
                # Not get_default_collection(), which would make one, and ask for its password.
                shut = storage.Collection(bus).is_locked()
            except storage.ItemNotFoundException:
                raise Failure("it has no default collection", UNAVAILABLE) from None
        if shut:
            raise Failure("it is locked", TEMPFAIL)


# ---- keys.age ----


def phrase(ask=None, wait: bool = True) -> str | None:
    """The passphrase of keys.age, None where there is none to be had.

    ask: a callable that may return one; else the descriptor that FTAI_PASSPHRASE_FD numbers, the `cmd` of the `@key` entry "passphrase", and,
    with `wait`, the terminal. Raises Failure (2, and those of a `cmd`).
    """
    from . import specs

    if _phrases:
        return _phrases[0]
    given = ask() if ask else None
    number = os.environ.get("FTAI_PASSPHRASE_FD", "")
    try:
        entry = None if given or number else specs.find("config", "key", "passphrase")
    except Failure:
        entry = None  # as where the spec names none: what is to be mended here must not need it
    if not given and number:
        try:
            parts = []
            while part := os.read(int(number), 65536):
                parts.append(part)
            given = b"".join(parts).decode()
        except (ValueError, OSError):
            # What it is instead may be the passphrase itself.
            raise Failure("FTAI_PASSPHRASE_FD is not the number of a descriptor that a passphrase can be read from", USAGE) from None
    elif entry and "cmd" in entry:
        given = command(entry["cmd"])
    elif not given and wait and os.isatty(2):
        import getpass

        given = getpass.getpass("passphrase of the keys: ")
    given = (given or "").rstrip("\n")
    if given:
        _phrases.append(given)
    return given or None


def identity(*, keychain: bool = True) -> str | None:
    """The age identity of this user, or None: the file `identity`, else the item "identity" of the keychain, where it was put instead.

    The file first, as a look tells whether it is there. keychain: False where it was asked already and did not answer.
    Raises Failure: 77 for a file that others may read, 65 for one without an identity.
    """
    path = os.path.join(_folder(), "identity")
    data = kept(path)
    if data is not None:
        found = [line for line in data.decode("utf-8", "replace").split() if line.startswith("AGE-SECRET-KEY-")]
        if len(found) != 1:
            raise Failure(f"'{path}' holds no age identity", DATAERR, "put back your copy of it: what was encrypted for it can't be read without it")
        return found[0]
    try:
        text = _keychain("get", "identity") if keychain else None
    except Failure:
        return None
    try:
        return _current(_item(text)) if text else None
    except Failure as bad:
        raise Failure(f"the identity in the keychain can't be used: {bad.message}", bad.code) from None


def _open(ask=None, keychain: bool = True) -> tuple[dict, dict | None]:
    """(items, what it is locked with) of keys.age; ({}, None) where there is none. Raises Failure: 65 damaged, 77 not the right passphrase, 69."""
    from . import seal

    path = os.path.join(_folder(), "keys.age")
    data = kept(path)
    if data is None:
        return {}, None
    with_: dict
    if data.startswith(b"age-encryption.org/v1\n-> scrypt "):
        with_ = {"passphrase": phrase(ask)}
        if with_["passphrase"] is None:
            raise Failure("its passphrase was not given", UNAVAILABLE, "FTAI_PASSPHRASE_FD=3 … 3<FILE")
    else:
        with_ = {"identity": identity(keychain=keychain)}
        if with_["identity"] is None:
            raise Failure("its identity is missing", UNAVAILABLE)
    try:
        made = orjson.loads(seal.unlock(data, **with_))
        return {name: _sound(made["keys"][name]) for name in made["keys"]}, with_
    except Failure:
        _phrases.clear()
        raise
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Failure(f"'{path}' is damaged", DATAERR, "take it from a backup") from None


def _shut(items: dict, with_: dict | None, ask=None) -> None:
    """Writes keys.age, in a turn; a new one with a passphrase where one is given, else for the identity. Raises Failure: 69 where that is missing."""
    from . import seal

    data = orjson.dumps({"v": 1, "keys": items})
    chosen = phrase(ask, wait=False) if with_ is None else with_.get("passphrase")
    if chosen:
        _save("keys.age", seal.lock(data, passphrase=chosen))
        return
    made = seal.lock(data, [seal.recipient()])
    own = with_["identity"] if with_ else identity()
    # What nobody could open any more does not replace what can be opened.
    if own is None or seal.unlock(made, own) != data:
        raise Failure(f"cannot write '{os.path.join(_folder(), 'keys.age')}': the identity is missing that could read it", UNAVAILABLE)
    _save("keys.age", made)


# ---- sources ----


def command(argv: list[str], seconds: float = COMMAND) -> str:
    """What a `cmd` of the spec wrote. Raises Failure, whose message is only the reason and quotes nothing that the command said."""
    import shutil

    folders = os.pathsep.join(folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder.startswith("/")) or os.defpath
    program = shutil.which(argv[0], path=folders) if argv else None
    if program is None:
        raise Failure(f"there is no program '{argv[0] if argv else ''}'", UNAVAILABLE)
    try:
        status, wrote = _run([program, *argv[1:]], b"", seconds, MOST + 2)
    except OSError as bad:
        raise Failure(f"cannot run '{argv[0]}': {bad.strerror}", UNAVAILABLE) from None
    if status is None:
        raise Failure(f"'{argv[0]}' took longer than {seconds:.0f} s or wrote more than {MOST} bytes, and was ended", TEMPFAIL)
    if status:
        raise Failure(f"'{argv[0]}' ended with {f'status {status}' if status > 0 else f'signal {-status}'}", UNAVAILABLE)
    try:
        return wrote.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise Failure(f"'{argv[0]}' wrote no text", UNAVAILABLE) from None


def _stored(store: str, name: str, ask=None, keychain: bool = True) -> dict | None:
    """The item in a store, None where it has none. Raises Failure, whose message is only the reason."""
    if store == "file":
        return _open(ask, keychain)[0].get(name)
    text = _keychain("get", name)
    return None if text is None else _item(text)


def _served(source: str, name: str, entry: dict, ask, keychain: bool) -> tuple[str | None, str]:
    """(the value that a source has for a key, None where it has none; what its fingerprint is known by). Raises Failure, whose message is only the reason."""
    added = source
    if source in STORES:
        held = _in_use(_stored(source, name, ask, keychain))
        value, added = held.get("value"), held.get("added", "")
    elif source == "environment":
        value = next((os.environ[one].removesuffix("\n") for one in entry.get("env", ()) if os.environ.get(one)), None)
    else:
        value = command(entry["cmd"]) if "cmd" in entry else None
    if value is not None and (wrong := unfit(value)):
        raise Failure(f"what it has is no key: {wrong}", DATAERR)
    return value, f"{name}#{added}"


def _missing(source: str, entry: dict) -> str:
    """Why a source that answered has no value."""
    if source == "environment":
        return " and ".join(entry.get("env", ())) + " not set" if entry.get("env") else "the spec names no variable"
    return "the spec names none" if source == "command" else "it has no such key"


def admitted(name: str, *, reader: str, agent: str | None = None, log, entry: dict, book: dict | None = None) -> str:
    """Who reads a key, in words for the audit record. Arguments as in read(). Raises Failure 77, audited, for a reader that was not granted."""
    granted = readers(name, entry=entry, book=book)
    who = f"'{reader}'" + (f" for agent '{agent}'" if agent else "") if reader else "the owner"
    for one in [one for one in (reader, f"agent:{agent}" if agent else "") if one and one not in granted]:
        log("key-read", name, "refused", f"{who}: '{one}' is none of its readers")
        raise Failure(f"'{one}' may not read the key '{name}'", NOPERM, f"ftai-keys grant {name} {one}")
    return who


def read(name: str, *, reader: str, agent: str | None = None, log, entry: dict | None = None, ask=None) -> tuple[str, str]:
    """(value, source) of a key; source: "keychain", "file", "environment" or "command". The one it was set in is asked first.

    Its fingerprint is there before the value is returned: from a variable or a `cmd` it may be one that was never set here.
    reader: the stage that reads it, agent: for whom; "" is the owner's own tool, which need not be granted. log(act, subject, outcome,
    because) journals the audit record: the value is returned after that, so no use of a key is without one. entry: the `@key` entry of the
    config spec, where the caller has it. ask: see phrase(). Raises Failure: 77 for a reader that was not granted, and where our files are not
    this user's alone; 69 where no source has it; 65 where none has it and what a store has is damaged; 75 where the store that has it is locked; 73, 74, 77
    where its fingerprint can't be kept.
    """
    from . import redact, specs

    protect()
    entry = specs.find("config", "key", named(name)) or {} if entry is None else entry
    book = _book()
    who = admitted(name, reader=reader, agent=agent, log=log, entry=entry, book=book)
    tried: list[tuple[str, Failure]] = []
    first, shut = book.get(name, {}).get("store"), None
    for source in sorted((*STORES, "environment", "command"), key=lambda source: source != first):
        try:
            value, mark = _served(source, name, entry, ask, not any(one == "keychain" for one, _ in tried))
        except Failure as bad:
            tried.append((source, bad))
            shut = bad if source == first else shut
            continue
        if value is not None:
            try:
                redact.remember(mark, value, alone=True)
            except Failure as bad:
                log("key-read", name, "failed", f"{who}, from {source}: {bad.message}")
                raise
            log("key-read", name, "done", f"{who}, from {source}")
            return value, source
        tried.append((source, Failure(_missing(source, entry), UNAVAILABLE)))
    why = "; ".join(f"{source}: {bad.message}" for source, bad in tried)
    log("key-read", name, "failed", f"{who}: {why}")
    # What is broken is to be mended first: to set the key again would not do. Nor would it where the key is there and its store shut.
    worst = next((bad for source, bad in tried if source in STORES and bad.code in (DATAERR, NOPERM, IOERR)), None)
    if shut and not worst:
        worst = Failure(shut.message, TEMPFAIL if shut.code == TEMPFAIL else UNAVAILABLE, shut.hint or _REACHED[str(first)])
    raise Failure(f"no key '{name}': {why}", worst.code if worst else UNAVAILABLE, worst.hint if worst and worst.hint else f"ftai-keys set {name}")


# ---- keeping ----


def write(name: str, value: str, *, store: str | None = None, ask=None) -> str:
    """Sets the value of a key, its only one from now on; returns the store: "keychain" or "file".

    store: where to; else where the key is, else the keychain, else the file. Raises Failure: 2 for a name, 65 for a value that does not fit,
    69, 75 and 78 where the store can't be reached, is locked or is refused, 73, 74, 77.
    """
    if wrong := unfit(value):
        raise Failure(f"this is not the value of a key: {wrong}", DATAERR)
    return replace(name, {"v": 1, "values": [{"value": value, "state": "current", "added": now()}]}, store=store, ask=ask)


def item(name: str, *, ask=None) -> dict | None:
    """The item of a key, where it was set here or put into a store by another program; else None. Raises Failure as write() does, 65 where damaged."""
    protect()
    first = _book().get(named(name), {}).get("store")
    failed = None
    for store in [first] if first else STORES:
        try:
            found = _stored(store, name, ask, failed is None)
            if found is not None:
                return found
        except Failure as bad:
            failed = failed or (None if bad.code == UNAVAILABLE and not first else _said(store, bad))
    if failed:
        raise failed
    return None


def _said(store: str, bad: Failure) -> Failure:
    """The failure of a store, whose reason alone came up from below."""
    return Failure(f"cannot use the {_KINDS[store]}: {bad.message}", bad.code, bad.hint)


def replace(name: str, item: dict, *, store: str | None = None, ask=None) -> str:
    """Puts an item in the place of the one that is there, whole or not at all; returns the store. Raises Failure as write() does.

    Who has read it first, to change it, holds turn() from before that.
    """
    protect()
    _checked(item)
    with turn():
        book = _book()
        known = book.get(named(name), {"@tag": "key", "name": name})
        held = known.get("store")
        where = _put(name, item, store or held, ask)
        states = {one["state"]: one for one in item["values"]}
        times = {"added": states["current"].get("added"), "next": states.get("next", {}).get("added"), "until": states.get("old", {}).get("until")}
        kept = {key: value for key, value in known.items() if key not in times}
        book[name] = kept | {"store": where} | {key: value for key, value in times.items() if value}
        _write_book(book)
        if held and held != where:
            try:
                _take(held, name, ask)
            except Failure as bad:
                raise Failure(f"'{name}' is in the {_KINDS[where]} now, and its old value still in the {_KINDS[held]}: {bad.message}", bad.code) from None
    return where


def _put(name: str, item: dict, store: str | None, ask) -> str:
    if store != "file":
        try:
            _keychain("set", name, orjson.dumps(item).decode())
            return "keychain"
        except Failure as bad:
            if store:
                raise _said(store, bad) from None
    try:
        items, with_ = _open(ask)
    except Failure as bad:
        raise _said("file", bad) from None
    _shut(items | {name: item}, with_, ask)
    return "file"


def _take(store: str, name: str, ask) -> bool:
    """Takes a key out of a store; False where it had none. Raises Failure, whose message is only the reason."""
    if store == "keychain":
        return _keychain("del", name) is not None
    items, with_ = _open(ask)
    if name not in items:
        return False
    del items[name]
    _shut(items, with_, ask)
    return True


def remove(name: str, *, ask=None) -> list[str]:
    """Removes a key, its readers and times; returns the stores that had it. Raises Failure where the store that has it can't be reached: it stays then."""
    protect()
    with turn():
        book = _book()
        held = book.get(named(name), {}).get("store")
        gone, failed = [], None
        for store in STORES:
            try:
                if _take(store, name, ask):
                    gone.append(store)
            except Failure as bad:
                if store == held:
                    raise _said(store, bad) from None
                failed = failed or (bad.code != UNAVAILABLE and _said(store, bad)) or None
        if failed and not gone and not held:
            raise failed
        if book.pop(name, None):
            _write_book(book)
    return gone


def listed(entries: list | None = None) -> list[dict]:
    """What is known of the keys without asking for one, sorted by name: {name, source, readers, added?, next?, until?}.

    source: the store, or what the `@key` entry of the spec names ("environment", where the variable is set, "command"), or "". next: when the next
    value was added, in a rotation; until: how long the old one is kept. entries: of the spec, where the caller has them. Raises Failure (65, 77, 78).
    """
    from . import specs

    book = _book()
    of = {entry["name"]: entry for entry in (specs.load("config")["key"] if entries is None else entries) if "blocked" not in entry}
    made = []
    for name in sorted(book.keys() | of.keys()):
        entry, known = of.get(name, {}), book.get(name, {})
        source = "environment" if any(os.environ.get(one) for one in entry.get("env", ())) else "command" if "cmd" in entry else ""
        made.append({"name": name, "source": known.get("store", source), "readers": readers(name, entry=entry, book=book)})
        made[-1] |= {key: known[key] for key in ("added", "next", "until") if key in known}
    return made


# ---- readers ----


def readers(name: str, *, entry: dict | None = None, book: dict | None = None) -> list[str]:
    """Who may read a key, sorted: names of stages, and `agent:NAME`. What was granted or revoked, else the `readers` of the spec's `@key` entry."""
    from . import specs

    known = (_book() if book is None else book).get(named(name), {})
    if "readers" in known:
        return sorted(known["readers"])
    entry = specs.find("config", "key", name) or {} if entry is None else entry
    return sorted(entry.get("readers", ()))


def grant(name: str, reader: str) -> list[str]:
    """Lets a stage or an `agent:NAME` read a key; returns all who may. Raises Failure (2, 65, 73, 74, 75, 77)."""
    return _grant(name, lambda held: held | {named(reader)})


def revoke(name: str, reader: str) -> list[str]:
    """Takes that back; returns all who still may: where the spec can't tell, none. Raises Failure as grant() does."""
    return _grant(name, lambda held: held - {named(reader)}, broken={})


def _grant(name, change, broken=None) -> list[str]:
    from . import specs

    with turn():
        book = _book()
        try:
            entry = specs.find("config", "key", name) or {}
        except Failure:
            if broken is None:
                raise
            entry = broken
        made = sorted(change(set(readers(name, entry=entry, book=book))))
        book[name] = book.get(name, {"@tag": "key", "name": name}) | {"readers": made}
        _write_book(book)
    return made
