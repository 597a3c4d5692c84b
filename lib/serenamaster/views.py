"""Records as people see them (one line, whole, the answer alone), and findings. Nothing a record holds can steer a terminal."""

import re

from . import __version__
from .record import STEERING, is_id

_UNSAFE = re.compile(STEERING)
_SEALED = r"\[sealed:[A-Za-z0-9_-]{43}:[A-Za-z0-9_-]+\]"  # nobody reads what is in there: ftai(5)
_COLOURS = {"error": 31, "alert": 31, "result": 32, "command": 36, "task": 33, "memory": 35, "decision": 35}
# Fields that the first columns show, or that say nothing to a person.
_FRAME = frozenset(("id", "ts", "thread", "parent", "from", "agent", "privacy", "updates"))


def plain(text: str) -> str:
    """`text` with U+FFFD for all that could steer a terminal; line ends are LF. Tabs and line ends stay."""
    text = text.replace("\r\n", "\n")
    if "[sealed:" in text:
        text = re.sub(_SEALED, "[sealed]", text)
    return _UNSAFE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """`text` on one line: white space of any kind and length is one space."""
    return plain(" ".join(text.split()))


def local_time(ts) -> str:
    """An RFC 3339 time as `2026-11-22 14:25` in the local time zone (TZ); what is no such time as it stands, 16 columns wide."""
    if type(ts) is not str:
        return " " * 16
    key = ts[:16] if len(ts) == 24 and ts[23] == "Z" else ts
    if (seen := _times.get(key)) is None:
        import datetime

        try:
            seen = datetime.datetime.fromisoformat(ts).astimezone().replace(tzinfo=None).isoformat(" ", "minutes")
        except (ValueError, OverflowError, OSError):
            seen = f"{one_line(ts)[:16]:16}"
        if len(_times) > 1000:
            _times.clear()
        _times[key] = seen
    return seen


_times: dict[str, str] = {}


def marker(thread) -> str:
    """Six characters that tell threads apart: the end of the id, as the beginning of a UUIDv7 is its time."""
    if is_id(thread):
        return thread[-6:]
    return f"{one_line(str(thread))[:6]:6}" if thread not in (None, "") else "-     "


def _string(value) -> str:
    """A value as people write it."""
    if type(value) is str:
        return value
    if type(value) is list:
        return ", ".join(map(_string, value))
    return str(value).lower() if type(value) is bool else str(value)


def _joined(*parts) -> str:
    return ": ".join(text for part in parts if part is not None and (text := _string(part)))


def gist(rec: dict) -> str:
    """What a record says, on one line, without time, tag, author and thread."""
    get = rec.get
    tag = get("@tag")
    words = None
    if tag == "route":
        words = f"-> {_joined(get('target'), get('reason'))}"
    elif tag == "attempt":
        again = f"try {get('n')}" if get("n", 1) != 1 else None
        words = _joined(get("target"), " ".join(_string(part) for part in (get("status"), get("class"), again) if part is not None))
        words += f", {get('ms')} ms" if "ms" in rec else ""
    elif tag == "result":
        words = _joined(get("status") if get("status") != "done" else None, get("body")) or get("status")
    elif tag == "error":
        words = _joined(get("class"), get("message"))
    elif tag == "task":
        words = _joined(get("status") if get("status") != "open" else None, get("title") or get("body"))
        words += f" (due {one_line(_string(get('due')))})" if get("due") else ""
    elif tag == "file":
        words = f"{_joined(get('op'), get('path'))}" + (f", {get('bytes')} bytes" if "bytes" in rec else "")
    elif tag == "decision":
        words = _joined(get("decision"), get("reasoning"))
    elif tag == "audit":
        words = _joined(get("act"), get("subject"), get("outcome"))
    elif tag == "specs":
        words = f"{_string(get('digest'))}, {len(_string(get('body')))} characters"
    elif tag == "checkpoint" and "note" in rec:
        gone = f", removed: {_string(get('removed'))}" if "removed" in rec else ""
        words = f"signed: seq {get('size')}, {_string(get('hash'))}{gone}"
    elif tag == "alert":
        words = _joined(get("level"), get("rule"), get("value"))
    words = words or _joined(get("@head"), get("title"), get("body") or get("message") or get("@text"))
    if not words:
        shown = (f"{key}={_string(value)}" for key, value in rec.items() if key[0] != "@" and key not in _FRAME)
        words = " ".join(shown) or " ".join(f"@{block.get('@tag', 'text')}" for block in get("@blocks", ()))
    if "updates" in rec:
        words = f"(updates {marker(get('updates'))}) {words}"
    return one_line(words)


def line(rec: dict, *, width: int = 0, colour: bool = False) -> str:
    """One record as one line: time, end of the thread's id, who, tag, what it says.

    width: columns to cut it to (0: never cut); below 70 there is room for hour and tag only. colour: with the colour of its tag.
    """
    tag = one_line(rec.get("@tag", "text"))  # a quoted tag of a document may hold anything
    who = rec.get("agent") or rec.get("from") or "-"
    who = one_line(_string(who)).removeprefix("ftai-")
    front = f"{local_time(rec.get('ts'))}  {marker(rec.get('thread'))}  {who:7} "
    if 0 < width < 70:
        front = front[11:18]
    back = gist(rec)
    if width:
        back = cut(back, width - len(front) - max(len(tag), 8) - 1)
    if colour and tag in _COLOURS:
        return f"\x1b[2m{front}\x1b[0m\x1b[{_COLOURS[tag]}m{tag:8}\x1b[0m {back}"
    return f"\x1b[2m{front}\x1b[0m{tag:8} {back}" if colour else f"{front}{tag:8} {back}".rstrip()


def cut(text: str, width: int) -> str:
    """`text` cut to so many columns of a terminal, the last of them an ellipsis where something is missing."""
    if text.isascii():
        return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
    import unicodedata

    used = 0
    ends = 0  # what fits beside the ellipsis
    for place, char in enumerate(text):
        used += 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used < width:
            ends = place + 1
        elif used > width:
            return text[:ends] + "…"
    return text


def whole(rec: dict, *, colour: bool = False) -> str:
    """A whole record: tag and head, then a line a field, text of several lines indented below, blocks indented."""
    lines: list[str] = []
    _whole(rec, 0, colour, lines)
    return "\n".join(lines) + "\n"


def _whole(rec, depth, colour, lines) -> None:
    pad = "  " * depth
    tag = rec.get("@tag")
    if tag is None:
        lines.extend(f"{pad}{row}" for row in plain(rec.get("@text", "")).split("\n"))
        return
    tag = one_line(tag)
    name = f"\x1b[{_COLOURS.get(tag, 1)}m{tag}\x1b[0m" if colour else tag
    lines.append(f"{pad}{name}" + (f"  {one_line(rec['@head'])}" if "@head" in rec else ""))
    for key, value in rec.items():
        if key[0] == "@" and key != "@text":
            continue
        rows = plain(_string(value)).rstrip("\n").split("\n")
        label = f"{pad}  {'text' if key == '@text' else key}:"
        if len(rows) == 1:
            lines.append(f"{label} {rows[0]}".rstrip())
        else:
            lines.append(label)
            lines.extend(f"{pad}    {row}".rstrip() for row in rows)
    for block in rec.get("@blocks", ()):
        _whole(block, depth + 1, colour, lines)


class Answer:
    """The answers of a stream of records: what its results say, and pieces of streamed answers as they come.

    A result that holds what its pieces said already adds only what is missing.
    """

    def __init__(self):
        self._open = {}  # id of a route or attempt -> route; only answers of these are shown, not the pieces of a command being spoken
        self._pieces = {}  # route -> what was shown of its answer
        self._last = None  # the route that the last text shown belongs to
        self._inside = False  # the last line is not ended

    def feed(self, rec: dict) -> str:
        """What is to be shown now: whole lines, or a piece of one ("" for nothing)."""
        tag = rec.get("@tag")
        if tag == "partial":
            route = self._open.get(rec.get("parent"))
            body = rec.get("body")
            if route is None or not body or type(body) is not str:
                return ""
            self._pieces.setdefault(route, []).append(body)
            return ("" if self._last == route else self.close()) + self._show(route, body)
        if tag == "result":
            return self._result(rec.get("parent"), rec.get("body"))
        if tag in ("route", "attempt") and (own := rec.get("id")):
            self._open[own] = own if tag == "route" else rec.get("parent", own)
            if len(self._open) > 1000:  # a route further back than 1,000 records is not looked for (ftai(7))
                oldest = next(iter(self._open))
                del self._open[oldest]
                self._pieces.pop(oldest, None)
        return ""

    def _show(self, route, text) -> str:
        if text:
            self._last, self._inside = route, not text.endswith("\n")
        return plain(text)

    def _result(self, route, body) -> str:
        pieces = "".join(self._pieces.pop(route, ()))
        self._open.pop(route, None)
        if type(body) is not str:
            return self.close()
        if pieces and self._last == route and body.startswith(pieces):
            return self._show(route, body[len(pieces) :]) + self.close()
        return self.close() + self._show(route, body) + self.close()

    def close(self) -> str:
        """What ends the last line, if one is open."""
        ended, self._inside = self._inside, False
        return "\n" if ended else ""


class Text:
    """Findings for people and editors: `file:line:column: level: message [rule]`."""

    def line(self, name: str, finding) -> bytes:
        """One finding about the file `name`."""
        place = f"{name}:{finding.line}:{finding.column}" if finding.line else name
        return (one_line(f"{place}: {finding.level}: {finding.message} [{finding.rule}]") + "\n").encode("utf-8", "surrogateescape")

    def close(self) -> bytes:
        """What stands behind the last one."""
        return b""


class Github(Text):
    """Findings as workflow commands, which GitHub shows beside the lines."""

    def line(self, name: str, finding) -> bytes:
        def escaped(text):
            return plain(text).replace("%", "%25").replace("\n", "%0A")

        def value(text):
            return escaped(text).replace(":", "%3A").replace(",", "%2C")

        place = f"file={value(name)}" + (f",line={finding.line},col={finding.column}" if finding.line else "")
        level = "notice" if finding.level == "note" else finding.level
        return f"::{level} {place},title={value(finding.rule)}::{escaped(finding.message)}\n".encode("utf-8", "surrogateescape")


class Json:
    """Findings as one array of objects, written as they come."""

    def __init__(self):
        self.before = b"[\n"

    def line(self, name: str, finding) -> bytes:
        """One finding about the file `name`."""
        import orjson

        keys = ("line", "column", "level", "rule", "message")
        shown = {"file": _unicode(name)} | {key: getattr(finding, key) for key in keys}
        before, self.before = self.before, b",\n"
        return before + orjson.dumps(shown)

    def close(self) -> bytes:
        """What stands behind the last one."""
        return b"\n]\n" if self.before == b",\n" else b"[]\n"


class Sarif:
    """Findings as one SARIF 2.1.0 log, written as they come: the rules that were met stand behind the results."""

    def __init__(self):
        schema = b"https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
        self.before = b'{"version":"2.1.0","$schema":"' + schema + b'","runs":[{"columnKind":"unicodeCodePoints","results":[\n'
        self.rules: dict[str, int] = {}

    def line(self, name: str, finding) -> bytes:
        """One finding about the file `name`."""
        from urllib.parse import quote

        import orjson

        place: dict[str, dict] = {"artifactLocation": {"uri": ("file://" if name.startswith("/") else "") + quote(name, errors="surrogateescape")}}
        if finding.line:
            place["region"] = {"startLine": finding.line, "startColumn": max(finding.column, 1)}
        result = {"ruleId": finding.rule, "ruleIndex": self.rules.setdefault(finding.rule, len(self.rules)), "level": finding.level}
        result |= {"message": {"text": plain(finding.message)}, "locations": [{"physicalLocation": place}]}
        before, self.before = self.before, b",\n"
        return before + orjson.dumps(result)

    def close(self) -> bytes:
        """What stands behind the last one."""
        import orjson

        driver = {"name": "serenamaster", "version": __version__, "rules": [{"id": rule} for rule in self.rules]}
        return (b"" if self.before == b",\n" else self.before) + b'\n],"tool":{"driver":' + orjson.dumps(driver) + b"}}]}\n"


def _unicode(name: str) -> str:
    """A file's name as JSON can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


FORMATS: dict[str, type] = {"text": Text, "json": Json, "github": Github, "sarif": Sarif}
