"""What a person said or typed, or a document, as `command` records."""

import os

from . import specs, stream
from .errors import DATAERR, NOINPUT, SOME, USAGE, Failure
from .record import clean, is_id, make

BODY = 1024 * 1024  # bytes of text that a record carries itself; what is longer stays in its file


def zone() -> str:
    """The IANA name of the local time zone: TZ, else what /etc/localtime points to, else "UTC". A path in TZ counts as what it points to."""
    name = os.environ.get("TZ", "").lstrip(":") or "/etc/localtime"
    if name.startswith("/"):
        # Links in the data itself are other names of a zone: the one that was given stays.
        name = (name if "zoneinfo/" in name else os.path.realpath(name)).rpartition("zoneinfo/")[2]
    return name if name and name[0] != "/" and ".." not in name and os.path.isfile(f"/usr/share/zoneinfo/{name}") else "UTC"


def command(words: str, stage: str, *, via="text", tz=None, lang=None, privacy=None, log=None, stream=None, thread=None, documents=()) -> dict:
    """A `command` record for these words. documents: blocks made by document(). log: "fact" keeps its texts out of the journal. stream: True
    where the answer is wanted piece by piece.

    Raises Failure (65) for words over 1 MiB.
    """
    text = clean(words).strip()
    if len(text) > BODY:
        raise Failure(f"a command of more than {BODY} characters", DATAERR, "ftai-listen --file takes long text in")
    rec = make("command", stage, thread=thread, body=text, via=via, lang=lang, tz=tz or zone(), privacy=privacy, log=log, stream=stream)
    if documents:
        rec["@blocks"] = list(documents)
    return rec


def document(path: str, *, stopped=None, most: int | None = None) -> dict:
    """The `@document` block of a file: title, path, bytes, sha256, and its text as `body` where that is UTF-8 of at most 1 MiB.

    Of a file of more than `most` bytes nothing but its beginning is read, and there is no sha256; where stopped(), which is asked between
    reads, says so, neither. Raises Failure: 66 for a file that is missing or can't be read, 65 for what is no regular file.
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
        digest, size, kept, whole = hashlib.sha256(), 0, b"", False
        while not (whole := not (data := os.read(fd, BODY))):
            digest.update(data)
            size += len(data)
            kept = kept + data if size <= BODY else b""
            if (most is not None and size > most) or (stopped and stopped()):
                size = max(size, os.fstat(fd).st_size)
                break
    except OSError as bad:
        raise Failure(f"cannot read '{path}': {bad.strerror}", NOINPUT) from None
    finally:
        os.close(fd)
    name = clean(os.fsencode(os.path.abspath(path)).decode("utf-8", "replace"))
    block = {"@tag": "document", "title": os.path.basename(name), "path": name, "bytes": size}
    if not whole:
        return block
    block["sha256"] = digest.hexdigest()
    try:
        text = kept.decode()
    except UnicodeDecodeError:
        return block
    if size <= BODY and clean(text) == text:
        block["body"] = text
    return block


def join(given, follow, via, newest) -> str | None:
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


def lines(chunks):
    """Yields lists of (number, line) of the bytes in `chunks`: what each of them completed, without what is blank.

    A line is given up to twice the limit and the rest of it skipped: command() refuses it by its length.
    """
    parts: list[bytes] = []
    number = size = 0
    skipping = False
    for data in chunks:
        *whole, rest = data.split(b"\n")
        found = []
        for line in whole:
            number += 1
            if parts:
                line = b"".join(parts) + line
                parts, size = [], 0
            if not skipping and not line.isspace() and line:
                found.append((number, line))
            skipping = False
        if rest and not skipping:
            parts.append(rest)
            size += len(rest)
        if size > 2 * BODY:
            found.append((number + 1, b"".join(parts)))
            parts, size, skipping = [], 0, True
        yield found
    line = b"".join(parts)
    if line.strip():
        yield [(number + 1, line)]


def commands(ctx, words, *, stage, newest, files=(), via=None, privacy=None, no_log=False, stream_=False, thread=None, follow=False):
    """Yields lists of `command` records: of `words` (with `files` as their documents), of each of `files`, or for ("-",) of what each
    read of standard input brought.

    stage: who made them. newest(via): the thread of the newest command that came in this way, or None. no_log: their texts are kept out of
    the journal. What is refused is told to ctx.fail and left out. Raises Failure: 2 where there is nothing to take in, 65 and 66 where it can't be.
    """
    if not words and not files:
        raise Failure("nothing to listen to", USAGE, f"{ctx.name} WORDS, {ctx.name} --file FILE, or {ctx.name} - for lines on standard input")
    kind = via or ("file" if files else "text")
    common = {"via": kind, "lang": specs.setting("lang"), "tz": zone(), "privacy": privacy, "thread": join(thread, follow, kind, newest)}
    common |= {"log": "fact" if no_log else None, "stream": True if stream_ else None}
    if tuple(words) == ("-",):
        documents = [document(name) for name in files]
        for found in lines(stream.chunks("-")):
            made = []
            for number, line in found:
                try:
                    made.append(command(line.decode("utf-8", "replace"), stage, documents=documents, **common))
                except Failure as bad:
                    ctx.fail(Failure(f"standard input:{number}: {bad.message}", bad.code, bad.hint))
            yield made
    elif words:
        text = os.fsencode(" ".join(words)).decode("utf-8", "replace")
        if not text.strip():
            raise Failure("the command is empty", DATAERR)
        yield [command(text, stage, documents=[document(name) for name in files], **common)]
    else:
        for name in files:
            try:
                block = document(name)
            except Failure as bad:
                ctx.fail(bad)
            else:
                yield [command(f"take in {block['path']}", stage, documents=[block], **common)]


def options(click) -> list:
    """The click options of a command that takes in what commands() does."""
    return [
        click.Option(["-f", "--file", "--attach", "files"], multiple=True, metavar="FILE", help="Take in a document; beside words, as part of them."),
        click.Option(["--privacy"], type=click.Choice(["local", "cloud"]), help="Who may see this command and what comes of it."),
        click.Option(["--no-log"], is_flag=True, help="Keep the texts out of journal and archive; the fact stays."),
        click.Option(["--stream", "stream_"], is_flag=True, help="Have the answer of a model piece by piece, as it comes."),
        click.Option(["--thread"], metavar="ID", help="Join this thread."),
        click.Option(["--continue", "follow"], is_flag=True, help="Join the thread in FTAI_THREAD, else the newest one."),
        click.Option(["--via"], type=click.Choice(["text", "voice", "file", "cron"]), help="How the command came in (else text, or file)."),
    ]
