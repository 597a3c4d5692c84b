"""Reading and writing records: FILEs or stdin in, line form out, as the process contract of ftai(7) says."""

import errno
import os
import re
import sys

from .errors import CANTCREAT, DATAERR, IOERR, NOINPUT, SOME, TEMPFAIL, USAGE, Failure
from .record import LIMIT, Malformed, clean, decode, encode, make
from .record import shown as safe

CHUNK = 64 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a disk, not of a place: 74


def read(files, ctx, *, strict=False):
    """Yields batches: lists of (record, line), what one read of the input returned, in order.

    files: names (`-` is stdin; none at all is stdin). line: the record's bytes in line form, as they came where they came so, with the newline.
    Bad lines and blocks have become `error` records in their place, with a message through `ctx`; strict: the first one raises Failure.
    Raises Failure 65 for input in no form of a record (each FILE on its own: with several, the others are still read), 66 for a FILE that
    is missing, 2 where there is nothing to read but a terminal.
    """
    names = list(files) or ["-"]
    if names == ["-"] and not files and os.isatty(0):
        raise Failure("nothing to read", USAGE, f"{ctx.name} FILE, or a pipe on standard input; {ctx.name} --help tells more")
    for name in names:
        try:
            yield from _read_file(name, ctx, strict)
        except Failure as bad:
            if len(names) == 1 or strict:
                raise
            ctx.fail(bad)


def chunks(name: str, size: int = CHUNK):
    """Yields the bytes of a FILE (`-` is stdin) as they arrive. Raises Failure (66, 65 for a folder, 74)."""
    fd = 0
    try:
        if name != "-":
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        while data := os.read(fd, size):
            yield data
    except FileNotFoundError:
        raise Failure(f"cannot read '{name}': no such file", NOINPUT) from None
    except IsADirectoryError:
        raise Failure(f"cannot read '{name}': is a folder", DATAERR) from None
    except OSError as bad:
        # Standard input may be closed altogether (`<&-`), as some cron and launchd set-ups leave it.
        code = NOINPUT if bad.errno in (errno.EBADF, errno.EACCES, errno.ENOENT, errno.ENOTDIR) else IOERR
        raise Failure(f"cannot read '{name}': {bad.strerror}", code) from None
    finally:
        if fd:
            os.close(fd)


def shown(name: str) -> str:
    """A FILE's name as messages give it."""
    return "standard input" if name == "-" else name


def _read_file(name, ctx, strict):
    head = b""
    form = None
    source = chunks(name)
    for data in source:
        head += data
        if head.lstrip()[:1] == b"{":
            form = "line"
        elif not head.isspace():
            from .text import sniff

            form = sniff(head)
        if form is not None:
            break
    else:
        if not head.strip():
            return
        form = sniff(head + b"\n")
    if form not in ("line", "text"):
        raise Failure(
            f"'{shown(name)}' holds no records: its first line begins neither with '{{' nor with '@ftai'",
            DATAERR,
            "ftai-listen - takes lines of plain text, ftai-parse any document",
        )
    reader = _line_form if form == "line" else _text
    yield from reader(name, head, source, ctx, strict)


def refuse(ctx, name, line, column, reason, sample, strict):
    """The error record that stands in the place of bad input, and its message. strict: raises Failure instead."""
    # A name may be no text at all, and a reason may quote a hostile line.
    reason = clean(reason if len(reason) <= 200 else reason[:199] + "…")
    place = f"{shown(name)}:{line}" + (f":{column}" if column else "")
    if strict:
        raise Failure(f"{place}: {reason}", SOME)
    ctx.error(f"{place}: {reason}")
    ctx.codes.append(SOME)
    rec = make("error", ctx.name, class_="input", message=reason, where=clean(f"{shown(name)}:{line}"), recovery="none", sample=mask(sample) or None)
    return rec, encode(rec)


def mask(sample: bytes, width: int = 40) -> str:
    """The first bytes of bad input in shape only: each letter `a`, each digit `0`, so that an error record can't carry a secret."""
    text = sample[:width].decode("utf-8", "replace")
    return "".join("a" if c.isalpha() else "0" if c.isnumeric() else c if c.isprintable() else "\ufffd" for c in text)


def numbered(source):
    """Yields batches of (number, line, size): the lines that one read brought, without their newline; blank ones are left out.

    Of a line past the limit only a part comes; its size tells.
    """
    number = size = 0
    parts: list[bytes] = []  # the line that has begun; past the limit only its first bytes are kept
    for data in _chain(b"", source, b"\n"):
        batch = []
        lines = data.split(b"\n")
        tail = lines.pop()
        for line in lines:
            number += 1
            if parts:
                size += len(line)
                line = b"".join([*parts, line[: LIMIT + 1]])
                parts = []
            else:
                size = len(line)
            if size > LIMIT or line and not line.isspace():
                batch.append((number, line, size))
        if tail:
            size = size + len(tail) if parts else len(tail)
            if size <= LIMIT:
                parts.append(tail)
            else:
                parts = [(parts or [tail])[0][:64]]
        if batch:
            yield batch


def _line_form(name, head, source, ctx, strict):
    for lines in numbered(_chain(head, source)):
        batch = []
        for number, line, size in lines:
            reason, column = "", 0
            if size > LIMIT:
                reason = f"a record of {size} bytes, expected at most {LIMIT}"
            else:
                try:
                    batch.append((decode(line), line + b"\n"))
                except Malformed as bad:
                    reason, column = bad.reason, bad.column
            if reason:
                if strict and batch:
                    yield batch  # the good records before the first bad one
                    batch = []
                batch.append(refuse(ctx, name, number, column, reason, line, strict))
        yield batch


def _chain(head, source, end=b""):
    yield head
    yield from source
    if end:
        yield end


def _text(name, head, source, ctx, strict):
    from .text import Reader

    reader = Reader(limit=LIMIT)
    for data in _chain(head, source):
        yield from _items(name, reader.feed(data), ctx, strict)
    yield from _items(name, reader.close(), ctx, strict)


def _items(name, items, ctx, strict):
    """The batch of these items; nothing where there are none."""
    batch = []
    for item in items:
        if type(item) is dict:
            batch.append((item, encode(item)))
        elif item.refused or (strict and item.level == "error"):
            if strict and batch:
                yield batch
                batch = []
            batch.append(refuse(ctx, name, item.line, item.column, item.message, b"", strict))
        elif item.level == "error":
            ctx.error(f"{shown(name)}:{item.line}:{item.column}: {item.message}")
            ctx.codes.append(SOME)
        else:
            ctx.warn(f"{shown(name)}:{item.line}:{item.column}: {item.message}")
    if batch:
        yield batch


_pending: list = []


def write(line: bytes) -> None:
    """Puts bytes into the buffer of standard output; flush() writes them."""
    _pending.append(line)
    if len(_pending) >= 4096:
        flush()


def flush() -> None:
    """Writes what was put into the buffer, whole. A reader that went away ends the process by SIGPIPE; else Failure 74."""
    if not _pending:
        return
    data = memoryview(b"".join(_pending))
    _pending.clear()
    while data:
        try:
            data = data[os.write(1, data) :]
        except BlockingIOError:
            import select

            select.select([], [1], [])
        except BrokenPipeError:
            raise
        except OSError as bad:
            raise Failure(f"cannot write to standard output: {bad.strerror}", IOERR) from None


def draft(path: str, mode: int = 0o600) -> tuple[int, str]:
    """(descriptor, name) of a new, empty file beside `path`, to be renamed to it: is_left() knows by its name whose it was. Raises OSError."""
    name = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, mode), name
    except FileExistsError:
        # Of a process that had our number and was killed; the number is ours alone now.
        os.unlink(name)
        return os.open(name, flags, mode), name


def discard(name: str) -> None:
    """Removes a temporary file; where a signal came when it was renamed already, there is nothing to remove."""
    try:
        os.unlink(name)
    except FileNotFoundError:
        pass


def save(path: str, data: bytes, mode: int = 0o600) -> None:
    """Writes a file whole or not at all: a temporary file beside it, synced, renamed. Raises OSError; leaves nothing behind then."""
    fd, temporary = draft(path, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        os.close(fd)
        fd = -1
        os.rename(temporary, path)
    except BaseException:
        if fd >= 0:
            os.close(fd)
        discard(temporary)
        raise
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_left(name: str) -> bool:
    """True for the name of a temporary file, as draft() makes it, of a process that is gone."""
    found = re.fullmatch(r"\..*\.([0-9]+)\.tmp", name)
    try:
        if found:
            os.kill(int(found[1]), 0)
    except PermissionError:
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


class Lock:
    """`with Lock(path):` holds a lock file, which is made where it is missing; `fd` is its descriptor.

    Raises Failure: 75, with the reason `why` and a hint, where another process still holds it after so many seconds; 73 and 74 where it can't be
    opened or locked.
    """

    def __init__(self, path: str, seconds: float = 10.0, why: str = "", hint: str = ""):
        self.path, self.seconds, self.why, self.hint, self.fd = path, seconds, why, hint, -1

    def __enter__(self):
        import fcntl
        import time

        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as bad:
            reason, code = "it is a link" if bad.errno == errno.ELOOP else bad.strerror, IOERR if bad.errno in FULL else CANTCREAT
            raise Failure(f"cannot open '{self.path}': {reason}", code) from None
        # flock() itself knows no deadline, and an alarm signal would belong to the whole process.
        end, pause = time.monotonic() + self.seconds, 0.0005
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(self.fd)
                    raise Failure(self.why or f"'{self.path}' is locked by another process", TEMPFAIL, self.hint) from None
            except OSError as bad:
                os.close(self.fd)  # a file system without locks
                raise Failure(f"cannot lock '{self.path}': {bad.strerror}", IOERR) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.01)

    def __exit__(self, *_):
        os.close(self.fd)


def through(text: str) -> str:
    """What talk passes through on its way to stderr; who runs a stage puts something else in its place."""
    return text


def say(text: str) -> None:
    """One line of talk on stderr, without what would steer a terminal; a closed stderr is no reason to stop the work."""
    text = through(text)
    try:
        sys.stderr.write(safe(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass
