"""Documents in any form as records: text form, line form, JSON, the old dialect, and what a document includes."""

import os

from . import record, stream, text
from .errors import SOME, Failure, Finding

DEEP, MANY, LARGE = 16, 1000, 16 * 1024 * 1024  # what is followed of @include: levels, files, bytes in all
LAST = ("@text", "@blocks", "@comments", "@hints", "@quoted")


class Reading:
    """How FILEs are read, and how much of what can be included is used up.

    ctx: takes the messages. form: auto, ftai, ndjson, json or v1. at: adds at_file and at_line. include: follows @include.
    lines: records may come as bytes, many at once, in line form.
    """

    def __init__(self, ctx, form="auto", *, strict=False, keep_comments=False, at=False, include=False, lines=False):
        self.ctx, self.form, self.at, self.include, self.lines = ctx, form, at, include, lines
        self.settings = {"strict": strict, "keep_comments": keep_comments}
        self.files = self.bytes = 0


def read(how, name, within=()):
    """Yields batches of one FILE (`-`: stdin): lists of records, or of (record, line, number) where it is in line form.

    Errors are told through `how.ctx`, and what was refused has become an `error` record in its place. within: the FILEs that include it.
    Raises Failure for a FILE that can't be read.
    """
    source = stream.chunks(name, 256 * 1024)
    head, form = b"", how.form
    if form == "auto":
        kind = None
        # A megabyte of blank lines in front is no reason to wait.
        while kind is None and len(head) < 65536 and (data := next(source, b"")):
            head += data
            kind = text.sniff(head)
        form = "ndjson" if kind == "line" else "ftai"
    if form == "ndjson":
        yield from _lines(how, name, _chain(head, source))
    elif form == "json":
        yield _objects(how, name, b"".join(source))
    else:
        yield from _document(how, name, _chain(head, source), form == "v1", within)


def _chain(head, source):
    if head:
        yield head
    yield from source


def _lines(how, name, source):
    for batch in stream.numbered(source):
        items = []
        for number, line, size in batch:
            try:
                if size > record.LIMIT:
                    raise record.Malformed(f"a record of {size} bytes, expected at most {record.LIMIT}")
                items.append((record.decode(line), line + b"\n", number))
            except record.Malformed as bad:
                items.append((*stream.refuse(how.ctx, name, number, bad.column, bad.reason, line, False), number))
                if number == 1 and line.strip() in (b"{", b"[", b"[{"):
                    stream.say(f"hint: {how.ctx.name} --from json")
        yield items


def _objects(how, name, data):
    items = []
    number = 1
    try:
        for number, item in enumerate(record.load_json(data), 1):
            try:
                items.append(record.from_json(item))
            except record.Malformed as bad:
                items.append(stream.refuse(how.ctx, name, 0, 0, f"object {number}: {bad.reason}", b"", False)[0])
    except record.Malformed as bad:
        items.append(stream.refuse(how.ctx, name, 1, bad.column, bad.reason, data, False)[0])
    return items


def _document(how, name, source, old, within):
    """Batches of a FILE in text form, with the records of the files that it includes behind each @include."""
    checks = None
    if how.settings["strict"]:
        from .rules import Document

        checks = Document()
    lined = how.at or how.include or checks is not None
    reader = text.Reader(**how.settings, at=lined, old=old, lines=how.lines, on_tag=checks and checks.tag)
    for data in source:
        yield from _settle(how, name, reader.feed(data), checks, lined, within)
    yield from _settle(how, name, reader.close(), checks, lined, within)
    if checks:
        yield from _settle(how, name, checks.close(), None, False, within)


def _settle(how, name, items, checks, lined, within):
    """Batches of records from the reader's items: findings become messages, refused records error records."""
    batch = []
    for item in items:
        if type(item) is Finding:
            if item.refused:
                batch.append(stream.refuse(how.ctx, name, item.line, item.column, item.message, b"", False)[0])
                continue
            message = f"{stream.shown(name)}:{item.line}:{item.column}: {item.message}"
            if item.level == "error":
                how.ctx.fail(Failure(message, SOME))
            else:
                how.ctx.warn(message)
            continue
        if not lined:
            batch.append(item)
            continue
        line = item.pop("at_line", 0)
        if checks:
            checks.schemas(item, line)
        if how.at and line:
            place = {"at_file": record.clean(name), "at_line": line}
            item = {key: item[key] for key in item if key not in LAST} | place | {key: item[key] for key in LAST if key in item}
        if within and text.is_added(item):
            continue
        batch.append(item)
        if how.include and item.get("@tag") == "include":
            yield batch
            batch = []
            yield from _included(how, name, item, line, within)
    if batch:
        yield batch


def _included(how, name, rec, line, within):
    """Batches of the file that an @include names; an error record where it must not or cannot be followed."""
    target = rec.get("@head", "")
    here = os.path.realpath(name) if name != "-" else os.path.join(os.path.realpath("."), "-")
    folder = os.path.dirname(here)
    path = os.path.realpath(os.path.join(folder, target)) if "\0" not in target else ""
    reason = ""
    if not target or os.path.commonpath([path or "/", folder]) != folder:
        reason = "is not inside the folder of the including file"
    elif path in (*within, here):
        reason = "includes itself"
    elif len(within) >= DEEP:
        reason = f"stands more than {DEEP} deep"
    elif not os.path.isfile(path):
        reason = "is no file"
    else:
        how.files += 1
        how.bytes += os.path.getsize(path)
        if how.files > MANY or how.bytes > LARGE:
            reason = f"is one more than the {MANY} files or {LARGE} bytes that are followed"
    if reason:
        yield [stream.refuse(how.ctx, name, line, 1, f"'{target}' {reason}", b"", False)[0]]
        return
    try:
        yield from read(how, path, (*within, here))
    except Failure as bad:
        yield [stream.refuse(how.ctx, name, line, 1, bad.message, b"", False)[0]]


def whole(how, to: str, kept: list) -> list[bytes]:
    """The output in form `to` (ndjson, ftai, json) of all that was read: (name, item) as read() gave them.

    What the text form cannot hold is told, and becomes an `error` record.
    """
    if to == "ndjson":
        return [item[1] if type(item) is tuple else record.encode(item) for _, item in kept]
    if to == "json":
        recs = [item[0] if type(item) is tuple else item for _, item in kept]
        made = [record.encode(record.to_json(rec))[:-1] for rec in recs if not text.is_added(rec)]
        return [b"[\n", b",\n".join(made), b"\n]\n"] if made else [b"[]\n"]
    used: dict = {}
    recs = []
    for name, item in kept:
        rec, _, number = item if type(item) is tuple else (item, b"", 0)
        notes: list[str] = []
        tags: dict = {}
        try:
            text.dump(rec, notes, tags)
        except text.Unwritable as bad:
            rec, tags = stream.refuse(how.ctx, name, number, 0, str(bad), b"", False)[0], {"error": None}
        used |= tags
        for note in notes:
            how.ctx.warn(f"{stream.shown(name)}:{number}: {note}")
        recs.append(rec)
    writer = text.Writer(tags=used)
    return [*[writer.write(rec).encode() for rec in recs], writer.close().encode()]
