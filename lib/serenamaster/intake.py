"""What a person said or typed, or a document, as a `command` record."""

import os

from .errors import DATAERR, NOINPUT, SOME, USAGE, Failure
from .record import clean, is_id, make

BODY = 1024 * 1024  # bytes of text that a record carries itself; what is longer stays in its file


def zone() -> str:
    """The IANA name of the local time zone: TZ, else what /etc/localtime points to, else "UTC"."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        try:
            name = os.path.realpath("/etc/localtime")
        except OSError:
            name = ""
    _, found, tail = name.rpartition("zoneinfo/")
    name = tail if found else name
    return name if name and not name.startswith("/") and os.path.isfile(f"/usr/share/zoneinfo/{name}") else "UTC"


def command(words: str, stage: str, *, via="text", tz=None, lang=None, privacy=None, thread=None, documents=()) -> dict:
    """A `command` record for these words. documents: blocks made by document(). Raises Failure (65) for words over 1 MiB."""
    text = clean(words).strip()
    if len(text) > BODY:
        raise Failure(f"a command of more than {BODY} characters", DATAERR, "ftai-listen --file takes long text in")
    rec = make("command", stage, thread=thread, body=text, via=via, lang=lang, tz=tz or zone(), privacy=privacy)
    if documents:
        rec["@blocks"] = list(documents)
    return rec


def document(path: str) -> dict:
    """The `@document` block of a file: title, path, bytes, sha256, and its text as `body` where that is UTF-8 of at most 1 MiB.

    Raises Failure: 66 for a file that is missing or can't be read, 65 for what is no regular file.
    """
    import hashlib
    import stat

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", NOINPUT) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Failure(f"cannot take in '{path}': not a regular file", DATAERR)
        digest, size, kept = hashlib.sha256(), 0, b""
        while data := os.read(fd, BODY):
            digest.update(data)
            size += len(data)
            kept = kept + data if size <= BODY else b""
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", NOINPUT) from None
    finally:
        os.close(fd)
    name = clean(os.fsencode(os.path.abspath(path)).decode("utf-8", "replace"))
    block = {"@tag": "document", "title": os.path.basename(name), "path": name, "bytes": size, "sha256": digest.hexdigest()}
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        return block
    if size <= BODY and clean(text) == text:
        block["body"] = text
    return block


def argument(words) -> str:
    """The words of a command line as one text; bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(" ".join(words)).decode("utf-8", "replace")


def thread(given, follow, via, newest) -> str | None:
    """The thread that a command joins: `given`, or with `follow` the one in FTAI_THREAD, else newest(via); None for a new one.

    Raises Failure: 2 for a thread that is no UUID, 1 where there is no conversation to go on with.
    """
    if given is None and not follow:
        return None
    found = given or os.environ.get("FTAI_THREAD") or newest(via)
    if not found:
        raise Failure(f"no conversation by '{via}' to go on with", SOME)
    if not is_id(found):
        raise Failure(f"'{found}' is no thread: expected a UUID", USAGE)
    return found
