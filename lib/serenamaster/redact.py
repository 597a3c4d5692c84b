"""Secrets and personal data taken out of texts, before anything is written: by the patterns of the redact spec, and by fingerprints of the
values that ftai-keys holds.

A text is first looked at for anchors, plain bytes that one of which every match of a pattern holds; that is a few searches in C for a whole
batch, and nothing is compiled before one was found. Then the patterns of that anchor are tried there, on the text as it stands (without
what can't be seen, in NFKC) and as it reads without percent signs, escapes and one layer of base64; what is found is mapped back.

Fingerprints: of each value, and of what it is in base64 at each of three alignments, the file keeps the length, a keyed hash, and for five
characters in the middle which of 16 letters each is by a keyed table. These letters find the places where the hash is worth computing.
Who has that file and the salt beside it learns the length and 4 times 20 bits of the value, and can try guesses against the hash as fast as
he can compute it: of no use for a key of a vendor, but a password that can be guessed is not safe with them. Hence both are 0600.
"""

import errno
import os
import re
from binascii import Error, a2b_base64, b2a_base64
from bisect import bisect_right

import orjson

from . import paths, record, specs, stream
from .errors import CANTCREAT, IOERR, Failure

LEAST = 6  # characters of a value that can be told from words
ROUNDS = 8  # what is left after one redaction is looked at again, so that another changes nothing
LONGEST = 25_000  # characters of a private key
DEPTH = 200  # lists and blocks in one another; a record has 64 at most
WAIT = 10.0  # seconds for the lock of the fingerprints
READINGS = 4  # of one text that are read on: percent signs and escapes in one another
WINDOW = 512 * 1024  # characters of a group that are looked at at once, so that memory is bounded
AROUND = 64 * 1024  # characters on each side of them that are looked at too
MANY = 1000  # names that are looked at as one text
SOME = 100  # places of an anchor that are worth a search of the whole text first
ENOUGH = 256 * 1024  # bytes of text after which google-re2 is worth its import

# Letters small, digits 0: what anchors are looked for in.
SHAPE = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ123456789", b"abcdefghijklmnopqrstuvwxyz000000000")
_WORDLY = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/_-"
CLASS = bytes(35 if byte in _WORDLY else 32 for byte in range(256))
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\r") + b"\x7f"
_PRINTED = bytes(112 if 32 <= byte < 127 or byte in b"\t\n\r" else 32 for byte in range(256))
_SAFE = bytes.maketrans(b"-_", b"+/")

_RUN = b"#" * 15  # letters, digits and the like in a row that may be base64

_own: dict = {}  # what this process has: rules, fingerprints, salt, what was warned of


# ---- the spec ----


def _tell(warn, message: str) -> None:
    told = _own.setdefault("told", set())
    # Who asks without `warn` takes nothing from who could tell.
    if warn and message not in told:
        told.add(message)
        warn(message)


def _rules(warn) -> dict:
    """The patterns in order, by anchor; made anew when other specs were loaded. A broken spec of the owner's leaves the shipped ones."""
    if specs.loaded.get("redact") is not None and _own.get("data") is specs.loaded["redact"]:
        return _own["rules"]
    if _own.get("broken") is not None and _own["broken"] is specs.loaded.get(""):
        return _own["rules"]
    try:
        data = specs.load("redact")
    except (Failure, OSError) as bad:
        _tell(warn, f"redaction by the shipped patterns alone: {getattr(bad, 'message', bad)}")
        _own["broken"] = specs.loaded.get("")
        try:
            data = specs.compile_("redact", [("shipped", os.path.join(specs.shipped(), "serenamaster.redact.ftai"))])
        except (Failure, OSError) as worse:
            _tell(warn, f"redaction of the keys of ftai-keys alone: {getattr(worse, 'message', worse)}")
            data = {"pattern": [], "gone": {}}
    rules = {"patterns": data["pattern"], "anchors": {}, "runs": {}, "bare": [], "set": None, "seen": 0}
    for rank, entry in enumerate(data["pattern"]):
        for anchor in entry.get("anchors", ()):
            table = rules["runs"] if not anchor.strip("#") else rules["anchors"]
            table.setdefault(anchor.encode("latin-1", "replace").translate(SHAPE), []).append(rank)
        if not entry.get("anchors"):
            rules["bare"].append(rank)
    rules["kinds"] = {"key", "depth", *(entry["name"] for entry in data["pattern"]), *data["gone"].get("pattern", ())}
    _own["data"], _own["rules"] = data, rules
    _own["names"] = {}
    return rules


def _compiled(pattern: str):
    rules = _own.setdefault("compiled", {})
    if pattern not in rules:
        rules[pattern] = re.compile(pattern)
    return rules[pattern]


# ---- what the keys are known by ----


def _mac(salt: bytes, data: bytes, size: int = 16) -> bytes:
    # hashlib itself loads every other algorithm too.
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return blake2b(data, key=salt, digest_size=size).digest()


def _folder(made: bool = False) -> str:
    if made:
        return paths.make(os.path.join(paths.state(), "keys"))
    # Asked for every batch.
    asked = os.environ.get("FTAI_HOME"), os.environ.get("XDG_STATE_HOME"), os.environ.get("HOME")
    if _own.get("asked") != asked:
        _own["folder"], _own["asked"] = os.path.join(paths.where("state"), "keys"), asked
    return _own["folder"]


def _content(path: str) -> bytes:
    """The bytes of a file of our own. Raises OSError, Failure 77 for somebody else's."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        paths.guard(path, os.fstat(fd))
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _stored_salt(made: bool) -> bytes:
    """The salt of the folder of keys, made where it is missing. Raises OSError, Failure; ValueError where it is damaged."""
    path = os.path.join(_folder(), "salt")
    try:
        salt = bytes.fromhex(_content(path).decode("ascii"))
    except FileNotFoundError:
        if not made:
            raise
        folder = _folder(True)
        fresh = os.path.join(folder, f".salt.{os.getpid()}")
        stream.save(fresh, os.urandom(32).hex().encode() + b"\n")
        try:
            os.link(fresh, path)  # of two that make one at once, the first wins
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh)
        salt = bytes.fromhex(_content(path).decode("ascii"))
    if len(salt) != 32:
        raise ValueError(f"'{path}' holds no salt")
    return salt


def _salt(warn) -> bytes:
    if "salt" not in _own:
        try:
            _own["salt"] = _stored_salt(True)
        except (OSError, Failure, ValueError) as bad:
            _tell(warn, f"equal secrets will look different in the next run: {getattr(bad, 'message', bad)}")
            _own["salt"] = os.urandom(32)
    return _own["salt"]


def _table(salt: bytes) -> bytes:
    """One of 16 letters for each byte, evenly among digits, small letters, capitals and the rest. `-` and `_` are as in the other base64."""
    table = bytearray(256)
    for group in (range(48, 58), range(97, 123), range(65, 91), [byte for byte in range(256) if not chr(byte).isalnum() or byte > 127]):
        for n, byte in enumerate(sorted(group, key=lambda byte: _mac(salt, b"byte %d" % byte))):
            table[byte] = 65 + n % 16
    table[45], table[95] = table[43], table[47]
    return bytes(table)


def _mark(text: str, table: bytes) -> tuple[int, bytes]:
    """(offset, letters) of the five characters in the middle of `text`: at its beginning keys of one vendor are alike."""
    at = (len(text) - 5) // 2
    return at, text[at : at + 5].encode("latin-1", "replace").translate(table)


def _forms(value: str, raw: str) -> list[tuple[str, str]]:
    """(form, text) of what a value is looked for as: in plain, as one line, a form or a shell has it, in base64 behind 0, 1 and 2 other bytes.

    raw: the value as it came, which base64 may be made of as well.
    """
    forms = [("plain", value)]
    others = {
        "joined": value.replace("\r", "").replace("\n", ""),
        "plus": value.replace(" ", "+"),
        "quoted": value.replace("'", "'\"'\"'"),
        "escaped": value.replace("'", "'\\''"),
        "marked": _compiled(_MARKS).sub("\n", value),
    }
    forms += [(form, text) for form, text in others.items() if text != value and len(text) >= LEAST]
    for form, text in (("base64", value), ("base64-raw", raw)):
        if form == "base64-raw" and raw == value:
            continue
        data = text.encode("utf-8", "surrogatepass")
        for ahead in range(3):
            whole = b2a_base64(bytes(ahead) + data, newline=False).decode()
            # The characters at the ends that other bytes have a share in are left out.
            cut = whole[(0, 2, 3)[ahead] : (len(data) + ahead) * 8 // 6]
            forms.append((f"{form}-{ahead}", cut))
    return forms


def _stamp(name: str) -> tuple:
    """What changes where a file of ours does; two elements where there is none."""
    path = os.path.join(_folder(), name)
    try:
        seen = os.stat(path, follow_symlinks=False)
    except OSError as bad:
        return path, bad.errno
    return path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_mode


def _held(warn) -> dict:
    """Fingerprints by their bits, {} without any; read again when the file has changed."""
    stamp = _stamp("fingerprints")
    # Who keeps keys has fingerprints.
    stamp = stamp if len(stamp) > 2 else stamp + _stamp("keys.ftai")
    if _own.get("stamp") != stamp:
        _own["held"], _own["troubles"] = _loaded()
        _own["stamp"], _own["names"] = stamp, {}
    for trouble, _ in _own["troubles"]:
        _tell(warn, trouble)
    return _own["held"]


def troubles() -> list[tuple[str, str]]:
    """(what is wrong, the hint) where redaction does not know all keys that ftai-keys holds, or others may learn of them."""
    return _loaded()[1]


def _loaded() -> tuple[dict, list[tuple[str, str]]]:
    """(fingerprints by their bits, what troubles() returns)."""
    path = os.path.join(_folder(), "fingerprints")
    held: dict = {}
    kept, names = _kept(), set()
    wrong: list[tuple[str, str]] = []
    again = "; ".join(f"ftai-keys get {name} >/dev/null" for name in sorted(kept)) or "ftai-keys get NAME >/dev/null, for each"
    try:
        known = _known(path)
        salt = _stored_salt(False)
        if known["check"] != _mac(salt, b"fingerprints").hex():
            raise ValueError(f"'{path}' was made with another salt")
        for name, form, length, at, mark, digest, shown in known["values"]:
            held.setdefault("marks", {}).setdefault(mark.encode(), set()).add((int(at), int(length), form.startswith("base64")))
            held.setdefault("digests", {})[digest] = shown
            names |= {name, name.partition("#")[0]}
        if held:
            held["table"], held["salt"] = _table(salt), salt
        wrong += [(f"the key '{name}' is not known to redaction", f"ftai-keys get {name} >/dev/null") for name in sorted(kept) if kept[name] not in names]
        for each in (path, os.path.join(_folder(), "salt")):
            if os.stat(each, follow_symlinks=False).st_mode & 0o077:
                wrong.append((f"'{each}' can be read by others, who can try guesses against it", f"chmod 600 '{each}'"))
    except (OSError, Failure, ValueError, KeyError, TypeError, AttributeError) as bad:
        held = {}
        # No file is no trouble where no key is.
        if kept or not (isinstance(bad, FileNotFoundError) and bad.filename == path):
            why = bad.message if isinstance(bad, Failure) else f"cannot read '{bad.filename or path}': {bad.strerror}" if isinstance(bad, OSError) else bad
            wrong = [(f"the keys of ftai-keys are not known to redaction: {why}", again)]
    return held, wrong


def _kept() -> dict[str, str]:
    """{name of a key that a store has: what the fingerprint of its value is known by}, as keys.ftai tells.

    None where it can't be read, which whoever needs it tells.
    """
    found: dict[str, str] = {}
    name = ""
    try:
        lines = _content(os.path.join(_folder(), "keys.ftai")).decode("utf-8", "replace").split("\n")
    except (OSError, Failure):
        return found
    # As secret.py writes it; to load what reads any of our texts would slow down the start of every stage.
    for line in lines:
        key, _, value = line.strip().replace('"', "").partition(": ")
        name = value if key == "name" else name
        if key == "store":
            found[name] = name
        elif key == "added" and name in found:
            found[name] = f"{name}#{value}"
    return found


def _known(path: str) -> dict:
    known = orjson.loads(_content(path))
    if type(known) is not dict or type(known.get("values")) is not list or type(known.get("check")) is not str:
        raise ValueError(f"'{path}' holds no fingerprints")
    return known


def _digest(salt: bytes, text: str, base64: bool) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return _mac(salt, data.translate(_SAFE) if base64 else data).hex()


def _change(change) -> None:
    """Lets change(salt, values) make a new list of fingerprints, under a lock. What can't be used is replaced: none could be told by it any more.

    Raises Failure (73, 74, 75, 77), which names the file.
    """
    path = os.path.join(_folder(True), "fingerprints")
    try:
        with stream.Lock(f"{path}.lock", WAIT):
            salt, values = _sound(path)
            old = [entry for entry in values or () if type(entry) is list and len(entry) == 7]
            new = change(salt, old)
            if new != values:
                stream.save(path, orjson.dumps({"v": 1, "check": _mac(salt, b"fingerprints").hex(), "values": new}) + b"\n")
    except OSError as bad:
        code = IOERR if bad.errno in stream.FULL else CANTCREAT
        raise Failure(f"cannot write '{bad.filename or path}': {bad.strerror}", code) from None
    _own.pop("stamp", None)
    _own.pop("salt", None)


def _sound(path: str) -> tuple[bytes, list | None]:
    """(salt, fingerprints), the salt made anew where it can't be used; None where the file is to be. Raises OSError."""
    place = os.path.join(os.path.dirname(path), "salt")
    try:
        salt = _stored_salt(True)
    except (Failure, ValueError, OSError) as bad:
        if isinstance(bad, OSError) and bad.errno != errno.ELOOP:
            raise
        os.unlink(place)
        salt = _stored_salt(True)
    if os.stat(place).st_mode & 0o077:
        os.chmod(place, 0o600)
    try:
        known = _known(path)
        alone = not os.stat(path).st_mode & 0o077
    except (Failure, ValueError, OSError) as bad:
        if isinstance(bad, OSError) and bad.errno not in (errno.ELOOP, errno.ENOENT):
            raise
        return salt, None
    if known["check"] != _mac(salt, b"fingerprints").hex():
        return salt, None
    # Written again for its mode alone, it is a new file that nobody else has open.
    return salt, known["values"] if alone else [*known["values"], None]


def remember(name: str, value: str, alone: bool = False) -> bool:
    """Keeps the fingerprint of a value of this key, beside those that it has, or `alone`; False for one too short to be told from words.

    Raises Failure (73, 74, 77) where it can't be kept.
    """
    raw, value = value, _noiseless(value, frozenset())[0]
    if len(value) < LEAST:
        return False

    def change(salt, values):
        table = _table(salt)
        shown = _mac(salt, value.encode("utf-8", "surrogatepass"), 2).hex()
        made = []
        for form, text in _forms(value, raw):
            at, mark = _mark(text, table)
            made.append([name, form, len(text), at, mark.decode(), _digest(salt, text, form.startswith("base64")), shown])
        others = [entry for entry in values if entry not in made and not (alone and entry[0] == name)]
        same = len(others) + len(made) == len(values) and all(entry in values for entry in made)
        return values if same else [*others, *made]

    if not _is_settled(change):
        _change(change)
    return True


def _is_settled(change) -> bool:
    """True where the files are as they should be and change() would change nothing: to see that takes no lock, and no room on the disk."""
    folder = _folder()
    files = [os.path.join(folder, name) for name in ("fingerprints", "salt")]
    try:
        salt, known = _stored_salt(False), _known(files[0])
        shut = not any(os.stat(each).st_mode & 0o077 for each in files)
        return shut and known["check"] == _mac(salt, b"fingerprints").hex() and change(salt, known["values"]) is known["values"]
    except (OSError, Failure, ValueError, TypeError, IndexError):
        return False


def forget(name: str) -> None:
    """Drops all fingerprints of this key. Raises Failure as remember() does."""
    _change(lambda _, values: [entry for entry in values if entry[0] != name])


def known() -> list[str]:
    """The names of the keys whose values are known by a fingerprint, sorted; none where these can't be used."""
    path = os.path.join(_folder(), "fingerprints")
    try:
        held = _known(path)
        return sorted({entry[0] for entry in held["values"]}) if held["check"] == _mac(_stored_salt(False), b"fingerprints").hex() else []
    except (OSError, Failure, ValueError, TypeError, IndexError):
        return []


# ---- readings of a text ----

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _edited(text: str, rule, change) -> tuple[str, list]:
    """`text` with what the rule matches changed, and the changes: starts and ends in the new text, starts and ends in the old one."""
    parts: list[str] = []
    edits: list[list] = [[], [], [], []]
    new_starts, new_ends, starts, ends = edits
    at = size = 0
    for found in rule.finditer(text):
        new = change(found)
        if new is None:
            continue
        start, end = found.span()
        parts += (text[at:start], new)
        size += start - at
        new_starts.append(size)
        size += len(new)
        new_ends.append(size)
        starts.append(start)
        ends.append(end)
        at = end
    if not parts:
        return text, []
    parts.append(text[at:])
    return "".join(parts), edits


def _through(edits: list, before):
    """What maps a span of an edited text back, and then on by `before`."""
    starts, ends, old_starts, old_ends = edits

    def back(start: int, end: int) -> tuple[int, int]:
        n = bisect_right(starts, start) - 1
        start = start if n < 0 else old_starts[n] if start < ends[n] else start - ends[n] + old_ends[n]
        n = bisect_right(starts, end - 1) - 1
        end = end if n < 0 else old_ends[n] if end - 1 < ends[n] else end - ends[n] + old_ends[n]
        return before(start, end) if before else (start, end)

    return back


# U+FFFD stands for ESC in what was taken in from outside. Marks of former redactions end what can be matched.
_MARKS = r"\[redacted:([a-zA-Z0-9_.-]{1,64}):[0-9a-f]{4}\]"
_CODES = r"[\x1b\ufffd\x9b]\[[0-?]{0,60}[ -/]{0,9}[@-~]|\x9b[0-?]{0,60}[ -/]{0,9}[@-~]|\x1b\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|\x1b[ -/]{0,4}[0-~]"
_UNSEEN = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffd"
    r"\U000e0000-\U000e01ef]"
)
_STRUCK = r"[^\n\x08]\x08"  # what is struck over on paper
_NOISE, _BARE_NOISE = f"{_MARKS}|{_CODES}|{_STRUCK}|{_UNSEEN}", f"{_MARKS}|{_UNSEEN}"


def _noiseless(text: str, kinds, noise: str = _NOISE) -> tuple[str, list]:
    """`text` without what can't be seen, in NFKC sign by sign, and the edits that made it so."""
    plain = _own.setdefault("plain", set(map(chr, range(32, 127))) | {"\t", "\n", "\r"})
    fresh = set(text) - plain
    if not fresh and "[redacted:" not in text:
        return text, []
    odd: dict = {}
    if not text.isascii():
        from unicodedata import normalize

        unseen = _compiled(_UNSEEN)
        odd = {sign: new for sign in fresh if sign > "\x7f" and not unseen.match(sign) and (new := normalize("NFKC", sign)) != sign}
        plain.update(sign for sign in fresh if sign not in odd and not unseen.match(sign))

    def change(found):
        if found[1] is not None:
            return "\n" if found[1] in kinds else None
        return odd.get(found[0], "")

    rule = _compiled(noise)
    if odd:
        rule = re.compile(f"{noise}|[{''.join(map(re.escape, odd))}]")
    return _edited(text, rule, change)


# One sign at a time, which in UTF-8 is up to four bytes.
_PERCENT = (
    "%[0-7][0-9A-Fa-f]|%[CDcd][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]|%[Ee][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){2}|%[Ff][0-7](?:%[89ABab][0-9A-Fa-f]){3}"
    "|%[89A-Fa-f][0-9A-Fa-f]"
)


_ENTITIES = {
    "amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " ", "sol": "/", "bsol": "\\", "lowbar": "_", "hyphen": "-", "dash": "-", "plus": "+",
    "equals": "=", "colon": ":", "period": ".", "commat": "@", "num": "#", "excl": "!", "dollar": "$", "percnt": "%", "ast": "*", "comma": ",", "semi": ";",
}  # fmt: skip
_SPELLED = r"(?:\^\[|\\(?:0?33|[eE]|x1[bB]|u001[bB]))\[[0-?]{0,60}[ -/]{0,9}[@-~]"  # a code of a terminal, as text


def _unentity(found) -> str | None:
    name = found[1]
    if not name.startswith("#"):
        return _ENTITIES.get(name.lower())
    number = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
    return chr(number) if 8 < number < 0x110000 else None


def _unpercent(found) -> str:
    return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "replace")


def _unescape(found) -> str:
    sign = found[0][1]
    if sign in "ux":
        return bytes.fromhex("".join(found[0].split("\\u"))).decode("utf-16-be", "replace") if sign == "u" else chr(int(found[0][2:], 16))
    return _ESCAPES.get(sign, sign)


def _readings(text: str, kinds, layer: int = 1):
    """Yields (text, back) of the other ways to read `text`: back maps a span into it, as a span of `text`."""
    todo: list = [(text, None, layer)]
    seen = {text}
    count = 0
    for text, before, layer in todo:
        count += layer
        if count > READINGS:
            break
        made: list = []
        if "%" in text:
            new, edits = _edited(text, _compiled(_PERCENT), _unpercent)
            if edits:
                made.append((new, _through(edits, before), layer))
                if "+" in text:
                    new, edits = _edited(text.replace("+", " "), _compiled(_PERCENT), _unpercent)
                    made.append((new, _through(edits, before), layer))
        elif "+" in text and "=" in text and "&" in text:
            made.append((text.replace("+", " "), before or _same, layer))
        if "&" in text and ";" in text:
            new, edits = _edited(text, _compiled(r"&(#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});"), _unentity)
            if edits:
                made.append((new, _through(edits, before), layer))
        if "^[[" in text or ("\\" in text and "[" in text):
            new, edits = _edited(text, _compiled(_SPELLED), lambda _: "")
            if edits:
                made.append((new, _through(edits, before), layer))
        if "\\" in text:
            pattern = r"\\u[dD][89aAbB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\[\"'\\/bfnrt]"
            new, edits = _edited(text, _compiled(pattern), _unescape)
            if edits:
                made.append((new, _through(edits, before), layer))
        if before and (not text.isascii() or len(text) != len(text.encode().translate(None, _CONTROLS))):
            new, edits = _noiseless(text, kinds)
            if edits:
                made.append((new, _through(edits, before), layer))
        if layer:
            made += _from_base64(text, before)
        for reading in made:
            if reading[0] not in seen:
                seen.add(reading[0])
                if reading[2] >= 0:
                    todo.append(reading)
                yield reading[:2]


def _same(start: int, end: int) -> tuple[int, int]:
    return start, end


def _runs(classes: bytes, low: int = 0, high: int | None = None):
    """Yields (start, end) of the runs in these classes that may be base64."""
    high = len(classes) if high is None else high
    while (low := classes.find(_RUN, low, high)) >= 0:
        end = classes.find(b" ", low, high)
        end = high if end < 0 else end
        yield low, end
        low = end


def _from_base64(text: str, before):
    """(text, back, layer) of what the runs of base64 in `text` hold, where that is text."""
    made = []
    done = 0
    for start, end in _runs(text.encode("latin-1", "replace").translate(CLASS)):
        run = text[start:end]
        if start < done or run.islower() or run.isupper() or run.isdecimal():
            continue
        breaks: list = []
        # Lines of base64, as programs break them, go on from one to the next.
        if end - start >= 60 and text[end : end + 1] in ("\r", "\n"):
            run = _compiled(r"[A-Za-z0-9+/_-]{60,1000}(?:\r?\n[A-Za-z0-9+/_-]{1,1000}){0,100000}").match(text, start)[0]
            done = start + len(run)
            run, breaks = _edited(run, _compiled(r"\r?\n"), lambda _: "")
        data = run.encode().translate(_SAFE)
        unbroken = _through(breaks, None) if breaks else _same
        for ahead in range(4):
            part = data[ahead:]
            part = part[: len(part) - (len(part) % 4 == 1)]
            try:
                clear = a2b_base64(part + b"=" * (-len(part) % 4))
            except Error:
                continue
            printed = clear.translate(_PRINTED)
            if b"pppppppp" not in printed:
                continue

            size = len(run)

            def back(first, last, start=start, ahead=ahead, unbroken=unbroken, size=size):
                first, last = unbroken(ahead + first // 3 * 4, min(ahead - (-last // 3) * 4, size))
                return before(start + first, start + last) if before else (start + first, start + last)

            # Where nearly all of it is text, that is read on and the other alignments hold nothing.
            whole = printed.count(b"p") * 10 >= len(printed) * 9
            made.append((clear.decode("latin-1"), back, 0 if whole else -1))
            if whole:
                break
    return made


# ---- checks: what a pattern alone can't tell. Each returns where the finding ends, 0 for none. ----


def _whole(text, start, end):
    return end


def _mixed(text, start, end):
    """Not words alone: a digit in it, or both cases within a word."""
    found = text[start:end]
    return end if any(map(str.isdigit, found)) and any(map(str.isalpha, found)) else 0


def _token(text, start, end):
    found = text[start:end].rstrip(".,;:/-")
    if len(found) < 8 or _is_place(found) or _is_code(found) or text[start + len(found) :][:1] == "(":
        return 0
    # Words, in small letters or with a capital, are talk about tokens; but not one long word behind the scheme of a header.
    words = all(word.islower() or word.istitle() or word.isupper() or not word for word in re.split("[._~+/-]", found))
    header = _compiled(r"(?i)authorization[\"']{0,2}[ \t]{0,3}[:=][ \t]{0,3}[\"']{0,2}[a-z]{5,9}[ \t]{1,3}$").search(text, max(0, start - 50), start)
    long = len(found) >= 16 if not header else not words or (len(found) >= 20 and found.isalpha())
    return start + len(found) if any(map(str.isdigit, found)) or (long and (header or not words)) else 0


def _random(text, start, end):
    found = text[start:end]
    if found.islower() or found.isupper() or not any(map(str.isdigit, found)):
        return 0
    classes = [1 if sign.islower() else 2 if sign.isupper() else 0 for sign in found]
    changes = sum(one != other for one, other in zip(classes, classes[1:], strict=False))
    # What is text in base64 is no secret by itself.
    said = a2b_base64(found.encode() + b"=" * (-len(found) % 4)).translate(_PRINTED).count(b"p") * 4 >= len(found) * 3
    return end if len(set(found)) >= 18 and changes >= 12 and {1, 2} <= set(classes) and not said else 0


def _is_place(found: str, named: bool = False) -> bool:
    """True for what stands in the place of a secret: `$TOKEN`, `{token}`, `<token>`, `****`. A named one may begin with a bracket and a digit."""
    opened = found[0] in "<{(" and not (named and found[1:2].isdigit() and found[-1] not in ">})")
    if opened or found[:2] in ("%(", "%s", "${", "$(") or len(set(found)) <= 2 or (found[0] == "$" and found[1:].replace("_", "").isalpha()):
        return True
    return record.UUID.match(found) is not None or found.lower().strip("_-").rstrip("0123456789") in _PLACES


_WORDS = """password passwd passphrase secret token pass pwd user username none null true false undefined redacted example changeme
your-password yourpassword your_password your-token mypassword string required optional"""
_PLACES = frozenset(_WORDS.split())


_NAMED = (
    r"(?i)(?:password|passwort|passwd|passphrase|pwd|secret|(?<![a-z])pass)[\\]{0,3}[\"']?[ \t]{0,3}(?::=|=>|[:=>])[ \t]{0,3}[\\]{0,3}[\"']?$"
)
_SPOKEN = "a an and as at be by for from if in is it must no not of on or that the this to when with you your"
_TALK = frozenset(_SPOKEN.split())


def _word(text, start, end):
    """A secret by its context: not code, no place-holder. What a password is assigned to needs no digit."""
    found = text[start:end]
    if text[start - 1] == ":" and text[end : end + 1] == "@":
        # A port and a path, behind which some `@` stands, are none.
        return end if not _is_place(found) and found.lower() not in _PLACES and not _compiled(r"\[|[0-9]{1,5}[/?#]").match(found) else 0
    named = _compiled(_NAMED).search(text[max(0, start - 40) : start]) is not None
    if text[start - 1] in "\"'":
        # A named one with a digit may have these signs by chance.
        formed = ("%s" in found or "%(" in found) and not (named and _compiled("[0-9]").search(found))
        if formed or _is_place(found, named):
            return 0
        if named:
            words = found.lower().split()
            said = found[-1] in ".:?!" or not _TALK.isdisjoint(words) or _compiled("passw|secret").search(found.lower())
            talk = said and len(words) > 1 and not _compiled("[0-9]").search(found)
            return end if (len(found) >= 6 or not found.isalpha()) and not _compiled("[{][A-Za-z_{}]").search(found) and not talk else 0
        return end if not _compiled(r"\s").search(found) and (len(found) >= 6 or not found.isalpha()) and "{" not in found else 0
    bare = found.isalpha() and text[start - 1] == "="
    while found and (found[-1] in ".,;:\\" or (found[-1] in ")]}" and found.count(found[-1]) > found.count("([{"[")]}".index(found[-1])]))):
        found = found[:-1]
    if len(found) < 6 or _is_place(found, named):
        return 0
    odd = _compiled("[0-9!@#$%^&*~?]").search(found) and _compiled("[^\\W\\d_]").search(found)
    if not named:
        odd = odd and not _compiled(r"[(\[{]").search(found)
        return start + len(found) if (bare and len(found) >= 8) or (odd and not _is_code(found)) else 0
    call = _compiled(r"[$@&*]?([A-Za-z_][\w.]{0,99})[(\[{]").match(found)
    # Letters and digits by turns are no name of a function.
    if (call and len(_compiled("(?<=[A-Za-z])[0-9](?=[A-Za-z])").findall(call[1])) < 2) or text[start + len(found) - 1 : start + len(found) + 1] == "->":
        return 0
    if found.isalpha():
        # Letters alone are one where they are assigned as a shell and a URL do it.
        return start + len(found) if bare and not found.lower().endswith(("password", "passwd", "pwd", "secret", "passphrase", "pass")) else 0
    joined = _compiled(r"[A-Za-z][A-Za-z_.]{0,99}+[-!@#%^*~?+$][A-Za-z._!@#%^*~?+$-]{0,99}+={0,2}$").match(found)
    return start + len(found) if (odd or joined) and not _is_code(found) else 0


def _is_code(found: str) -> bool:
    """True for names with dots, names of one case, numbers, paths, URLs."""
    if sum(map(str.isdigit, found)) > 2 and not found.islower() and not found.isupper():
        return False
    code = r"[A-Za-z_][a-z0-9_]*(?:[.][A-Za-z_][A-Za-z0-9_]*)+$|(?:[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)(?:_?[0-9]{1,2})?$|[.~]?/|[0-9.]+$|[a-z]+://"
    return _compiled(code).match(found) is not None


def _pem(text, start, end):
    # A heading alone is talk about keys.
    return end if end - start > 80 or "-----END" in text[start:end] else 0


_CARDS = {"2": (16,), "3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": (16, 17, 18, 19)}  # digits by issuer
_DOUBLED = str.maketrans("0123456789", "0246813579")  # the digits of the double, added


def _card(text, start, end):
    groups = _compiled("[ +-]").split(text[start:end])
    digits, sizes = "".join(groups), [*map(len, groups)]
    first = digits[0]
    if (first == "2" and not "2221" <= digits[:4] <= "2720") or digits[1] not in {"5": "12345", "3": "045678"}.get(first, digits[1]):
        return 0
    # What follows a card behind a space may be another one.
    for count in (1,) if sizes[0] > 4 else (5, 4) if sizes[:4] == [4, 4, 4, 4] else (3,) if sizes[:2] == [4, 6] else ():
        size = sum(sizes[:count])
        own = digits[:size][::-1]
        total = sum(own[::2].encode()) + sum(own[1::2].translate(_DOUBLED).encode()) - 48 * size
        if size in _CARDS[first] and not total % 10 and len(set(own)) > 1:
            return start + size + min(count, len(sizes)) - 1
    return 0


# Lengths by country: the IBAN registry of SWIFT.
_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23"
    " GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28"
    " NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)


def _iban(text, start, end):
    size = {pair[:2]: int(pair[2:]) for pair in _IBANS.split()}.get(text[start : start + 2], 0)
    signs = [(n, sign) for n, sign in enumerate(text[start:end], start) if sign not in " +-"]
    # What follows an IBAN behind a space may look like more of it.
    if not size or len(signs) < size or (len(signs) > size and signs[size][0] == signs[size - 1][0] + 1):
        return 0
    plain = "".join(sign for _, sign in signs[:size])
    number = int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4]))
    return signs[size - 1][0] + 1 if number % 97 == 1 else 0


def _mail(text, start, end):
    before = text[max(0, start - 100) : start]
    scheme = before.rfind("://")
    # `git@` is no person, and what stands before the host of a URL no address.
    if text[start : start + 4] == "git@" or (scheme >= 0 and not re.search(r"[\s/?#]", before[scheme + 3 :])):
        return 0
    return end


def _phone(text, start, end):
    groups = [*re.finditer("[0-9]+", text[start:end])]
    abroad = text[start] == "+" or text.startswith("00", start)
    # What follows a number behind a space may be another one.
    while sum(len(group[0]) for group in groups) > (15 if abroad else 13):
        groups.pop()
    digits = "".join(group[0] for group in groups)
    if len(digits) < (8 if abroad else 9) or len(groups[-1][0]) < 2:
        return 0
    # Two short groups behind a space are a number of anything, but for what the words before them say.
    if text[start] == "0" and not abroad and len(digits) < 11 and len(groups) == 2 and text[start + groups[0].end()] == " ":
        before = text[max(0, start - 20) : start]
        said = r"(?i)(?:tel|phone|fon|fax|mobile?|handy|cell|call|ruf|dial|ring|sms)[a-z]{0,6}[.: \t=]{1,9}(?:me |us |him |her |on |at |unter )?$"
        if not _compiled(said).search(before):
            return 0
    # North America has 1 and ten digits.
    return start + groups[-1].end() if not abroad or digits[0] != "1" or len(digits) == 11 and digits[1] > "1" else 0


def _ip(text, start, end):
    found = text[start:end]
    if ":" not in found:
        octets = [*map(int, found.split("."))]
        # Small numbers with dots are versions and sections.
        return end if octets[0] not in (0, 255) and octets[:2] != [127, 0] and max(octets) > 9 else 0
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, found)
    except (OSError, ValueError):
        return 0
    return end if any(map(str.isdigit, found)) and (found.count(":") == 7 or "::" in found) and len(found) > 6 else 0


CHECKS = {
    "whole": _whole, "mixed": _mixed, "token": _token, "random": _random, "word": _word, "pem": _pem,
    "card": _card, "iban": _iban, "mail": _mail, "phone": _phone, "ip": _ip,
}  # fmt: skip


# ---- looking ----


class View:
    """A text to look at: the pieces of a group, which end at `ends`, or one piece alone in another reading, with `back` mapping to it.

    piece: its number; -1 - n for the n-th as it came, which `back` maps to at once.
    """

    __slots__ = ("text", "back", "group", "piece", "ends")

    def __init__(self, text, back, group, piece, ends):
        self.text, self.back, self.group, self.piece, self.ends = text, back, group, piece, ends


def _present(shape: bytes, rules: dict) -> list[bytes]:
    """The anchors that occur: by google-re2 in one pass where there is enough to look through and it is installed, else one by one."""
    rules["seen"] += len(shape)
    if rules["set"] is None and rules["seen"] > ENOUGH:
        rules["order"] = list(rules["anchors"])
        try:
            import re2  # type: ignore[import-untyped]

            options = re2.Options()
            options.encoding = re2.Options.Encoding.LATIN1
            many = re2.Set.SearchSet(options)
            for anchor in rules["order"]:
                many.Add(re2.escape(anchor))
            many.Compile()
            rules["set"] = many
        except ImportError:
            rules["set"] = False
    if rules["set"]:
        return [rules["order"][n] for n in rules["set"].Match(shape) or ()]
    return [anchor for anchor in rules["anchors"] if anchor in shape]


def _places(text: bytes, part: bytes):
    """Yields where `part` stands; one of digits alone once in each run of them, as a number is matched from its first digit."""
    digits = not part.strip(b"0")
    at = text.find(part)
    while at >= 0:
        yield at
        if digits:
            at += len(part) - 1
            while text[at + 1 : at + 2] == b"0":
                at += 1
        at = text.find(part, at + 1)


def _starts(text: str, classes: bytes, size: int):
    """Yields where a run of at least `size` signs begins, and where one of that size could begin in it, behind a slash or what glues."""
    glue = _compiled("/|[_+-](?=[A-Za-z0-9/+])")
    run = b"#" * size
    at = 0
    while (at := classes.find(run, at)) >= 0:
        end = classes.find(b" ", at)
        end = len(classes) if end < 0 else end
        # A digest is no secret, and logs are full of them.
        if not text[at:end].islower():
            yield at
            yield from (found.end() for found in glue.finditer(text, at, end - size + 1))
        at = end


def _matches(entry: dict, text: str, positions, end: int):
    """Yields the spans (start, end) of what a pattern takes out of `text`, where its anchors are."""
    rule = _compiled(entry["pattern"])
    check = CHECKS[entry.get("check", "whole")]
    before = entry.get("before", 0)
    # What begins that far ahead of its anchor does not go on for much longer behind it.
    reach = 4 * before + 40
    last = -1
    failed: set = set()  # what is no card, and is none elsewhere
    for at in positions:
        if at < last:
            continue
        for found in rule.finditer(text, max(at - before, last, 0), min(at + reach, end)) if before else [rule.match(text, at, end)]:
            if found is None:
                continue
            n = found.lastindex if rule.groups and found.lastindex and entry.get("check") in ("word", "token", None) else 0
            start, stop = found.span(n)
            if check is _card:
                if found[n] in failed:
                    continue
                stop = check(text, start, stop)
                if not stop and len(failed) < MANY:
                    failed.add(found[n])
            else:
                stop = check(text, start, stop)
            if stop:
                last = max(last, found.end() if n else stop)
                yield start, stop
        if before:
            last = max(last, at + reach - before)


def _look(views: list, rules: dict, held: dict, add) -> bytes:
    """Calls add(view, start, end, rank, value) for all that stands in these views; returns their classes, to look for runs in."""
    whole = "\n".join([view.text for view in views])
    raw = whole.encode("latin-1", "replace")
    starts = [0]
    for view in views:
        starts.append(starts[-1] + len(view.text) + 1)
    shape, classes = raw.translate(SHAPE), raw.translate(CLASS)
    hits: dict = {}

    def note(places, ranks):
        if len(views) == 1:
            own = [*places]
            for rank in ranks if own else ():
                hits.setdefault((rank, 0), []).extend(own)
            return
        for at in places:
            n = bisect_right(starts, at) - 1
            for rank in ranks:
                hits.setdefault((rank, n), []).append(at - starts[n])

    for anchor in _present(shape, rules):
        note(_places(shape, anchor), rules["anchors"][anchor])
    for run, ranks in rules["runs"].items():
        note(_starts(whole, classes, len(run)), ranks)
    for rank in rules["bare"]:
        for n, view in enumerate(views):
            hits[rank, n] = range(len(view.text))
    for (rank, n), positions in hits.items():
        entry, view = rules["patterns"][rank], views[n]
        positions = sorted(set(positions))
        if len(positions) > SOME + len(view.text) // 50 and not _is_anywhere(entry["pattern"], view):
            continue
        for start, end in _matches(entry, view.text, positions, len(view.text)) if len(view.ends) < 2 else _across(entry, view, positions):
            add(view, start, end, rank, view.text[start:end])
    if held:
        for view, start, end, value in _held_in(views, raw, starts, held):
            add(view, start, end, -1, value)
    return classes


def _is_anywhere(pattern: str, view: View) -> bool:
    """False where one search of all, faster than many of a few signs, tells that there is nothing; what looks at edges is not searched for."""
    rule = _compiled(pattern)
    if "^" in pattern.replace("[^", "") or "$" in pattern or "\\" in pattern or rule.search(view.text):
        return True
    if len(view.ends) < 2:
        return False
    return rule.search("\n".join([view.text[low:high] for low, high in zip([0, *view.ends], view.ends, strict=False)])) is not None


def _across(entry: dict, view: View, positions: list):
    """_matches() in each piece of a group, and over the ends of pieces, where a secret may be cut."""
    text, ends = view.text, view.ends
    before = entry.get("before", 0)
    pieces: dict = {}
    for at in positions:
        pieces.setdefault(bisect_right(ends, at), []).append(at)
    joints: dict = {}
    for n, own in pieces.items():
        low, high = ends[n - 1] if n else 0, ends[n]
        last = 0
        for start, end in _matches(entry, text[low:high], [at - low for at in own], high - low):
            yield low + start, low + end
            last = low + end
        # Checks may leave out a few signs at the end.
        whole = last > high - 4
        if n + 1 < len(ends):
            left = [at for at in own if at >= last or whole or entry.get("check") == "pem"]
            # What has no spaces is not cut at one.
            if left and (not before or (high - left[-1] < 4 * before + 40 and (entry.get("check") == "iban" or not _spaced(text, high)))):
                joints.setdefault(n, [whole, []])[1].extend(left)
        if n and before and own[0] - low < before and not _spaced(text, low):
            joints.setdefault(n - 1, [False, []])[1].append(own[0])
    for n, (whole, own) in joints.items():
        low, high = ends[n - 1] if n else 0, ends[n]
        # A private key has many lines, all else is cut once at most.
        limit = min(len(text), high + LONGEST) if entry.get("check") == "pem" else ends[n + 1]
        for start, end in _matches(entry, text[low:limit], sorted({at - low for at in own}), limit - low):
            start, end = start + low, end + low
            # What goes on with small letters behind a password of words is more of it.
            more = entry.get("check") == "word" and text[high:end].islower() and not _compiled("[0-9]").search(text, start, high)
            if start < high < end and (more or not (whole and _is_ordinary(text[high:end]))) and not _is_apart(entry, text, start, high, end):
                yield start, end


def _spaced(text: str, at: int) -> bool:
    return any(map(str.isspace, text[at - 1 : at + 1]))


def _is_ordinary(rest: str) -> bool:
    """True for what a line may begin with, where what was found before it was whole already."""
    return len(rest) < 16 and rest.isalpha() and (rest.islower() or rest.isupper() or rest.istitle())


def _is_apart(entry: dict, text: str, start: int, cut: int, end: int) -> bool:
    """True for what two lines of code make of each other: a decorator no address, a number and a name no secret."""
    if entry.get("check") == "word":
        return text[start:cut].isdecimal() or re.match(r"\s{0,9}[=:(]", text[end : end + 10]) is not None
    return entry.get("check") == "mail" and text[cut] == "@"


def _held_in(views: list, raw: bytes, starts: list, held: dict):
    """Yields (view, start, end, digest to show) where a value that ftai-keys holds stands."""
    letters = raw.translate(held["table"])
    for mark, forms in held["marks"].items():
        for place in _places(letters, mark):
            n = bisect_right(starts, place) - 1
            for at, size, base64 in forms:
                start = place - starts[n] - at
                value = views[n].text[start : start + size] if start >= 0 else ""
                if len(value) == size and (shown := held["digests"].get(_digest(held["salt"], value, base64))):
                    yield views[n], start, start + size, shown


_CARET, _SPELT = frozenset("["), ("\\e[", "\\E[", "\\033[", "\\33[")
_BEGUN = frozenset(["#", *(name[0] for name in _ENTITIES)])
_HEX, _ESCAPED = frozenset("0123456789abcdefABCDEF"), frozenset("\"'\\/bfnrtux")


def _codings(view: View, classes: bytes, offset: int):
    """Yields (piece, text) of the pieces that may be read in another way too."""
    text, ends = view.text, view.ends
    found = set()
    for sign, follows in (("%", _HEX), ("\\", _ESCAPED), ("^", _CARET), ("&", _BEGUN), ("+", None)):
        at = text.find(sign)
        while at >= 0:
            piece = bisect_right(ends, at)
            low = ends[piece - 1] if piece else 0
            if follows:
                coded = text[at + 1 : at + 2] in follows and (sign != "&" or text.find(";", at, at + 10) > 0)
                coded = coded or (sign == "\\" and text.startswith(_SPELT, at))
            else:
                coded = text.find("=", low, ends[piece]) >= 0 and text.find("&", low, ends[piece]) >= 0
            if coded:
                found.add(piece)
            at = text.find(sign, ends[piece] if coded or not follows else at + 1)
    for start, end in _runs(classes, offset, offset + len(text)):
        start, end = start - offset, end - offset
        piece = bisect_right(ends, start)
        while start < end:
            run = text[start : min(end, ends[piece])]
            if len(run) >= len(_RUN) and not (run.islower() or run.isupper() or run.isdecimal()):
                found.add(piece)
            start, piece = ends[piece], piece + 1
    for piece in sorted(found):
        yield piece, text[ends[piece - 1] if piece else 0 : ends[piece]]


def _scan(groups: list, rules: dict, held: dict) -> dict:
    """(group, piece) -> list of (start, end, rank, value) of what is to be taken out of groups of strings, each in reading order."""
    found: dict = {}
    cats = ["".join(group) for group in groups]
    noisy = [not cat.isascii() or "[redacted:" in cat or len(cat) != len(cat.encode().translate(None, _CONTROLS)) for cat in cats]
    views: list = []
    backs: dict = {}
    more: list = []
    for n, group in enumerate(groups):
        if noisy[n]:
            group = list(group)
            for piece, text in enumerate(group):
                if not text.isascii() or not text.isprintable() or "[redacted:" in text:
                    group[piece], edits = _noiseless(text, rules["kinds"])
                    if edits:
                        backs[n, piece] = _through(edits, None)
                        # What looks like a code of a terminal may be none.
                        if "[" in text or "\x1b" in text or "\x9b" in text or "\b" in text:
                            bare, edits = _noiseless(text, rules["kinds"], _BARE_NOISE)
                            more.append(View(bare, _through(edits, None) if edits else _same, n, -1 - piece, ()))
            cats[n] = "".join(group)
        size, ends = 0, []
        for text in group:
            size += len(text)
            ends.append(size)
        views.append(View(cats[n], None, n, 0, ends))

    def add(view, start, end, rank, value):
        if view.piece < 0:
            found.setdefault((view.group, -1 - view.piece), []).append((*view.back(start, end), rank, value))
            return
        if not view.ends:
            start, end = view.back(start, end)
            back = backs.get((view.group, view.piece))
            found.setdefault((view.group, view.piece), []).append((*(back(start, end) if back else (start, end)), rank, value))
            return
        piece = bisect_right(view.ends, start)
        while start < end:
            low, high = view.ends[piece - 1] if piece else 0, view.ends[piece]
            if start < high:
                span = start - low, min(end, high) - low
                back = backs.get((view.group, piece))
                found.setdefault((view.group, piece), []).append((*(back(*span) if back else span), rank, value))
            start, piece = max(start, high), piece + 1

    classes = _look(views, rules, held, add)
    offset = 0
    for n, view in enumerate(views):
        for piece, text in _codings(view, classes, offset):
            more += [View(other, back, n, piece, ()) for other, back in _readings(text, rules["kinds"])]
        offset += len(view.text) + 1
    if more:
        _look(more, rules, held, add)
    return found


def _scanned(groups: list, rules: dict, held: dict) -> dict:
    """_scan(), with a bounded number of characters at a time: each finding is told by the window that it begins in."""
    sizes = [sum(map(len, group)) for group in groups]
    if sum(sizes) <= WINDOW:
        return _scan(groups, rules, held)
    found: dict = {}
    some: list = []
    total = 0
    for n, size in enumerate([*sizes, WINDOW]):
        if some and total + size > WINDOW:
            for (at, piece), spans in _scan([groups[one] for one in some], rules, held).items():
                found[some[at], piece] = spans
            some, total = [], 0
        if n < len(sizes) and size <= WINDOW:
            some.append(n)
            total += size
        elif n < len(sizes):
            for piece, spans in _windowed(groups[n], rules, held):
                found.setdefault((n, piece), []).extend(spans)
    return found


def _windowed(group: list, rules: dict, held: dict):
    """Yields (piece, spans) of what stands in a group, found in one window of it after the other."""
    ends, size = [], 0
    for text in group:
        size += len(text)
        ends.append(size)
    for core in range(0, size, WINDOW):
        low, high = max(0, core - AROUND), min(size, core + WINDOW + AROUND)
        first = bisect_right(ends, low)
        bases, parts = [], []
        for piece in range(first, len(group)):
            start = ends[piece] - len(group[piece])
            if start >= high:
                break
            bases.append(max(start, low))
            parts.append(group[piece][max(0, low - start) : high - start])
        for (_, n), spans in _scan([parts], rules, held).items():
            ahead = bases[n] - (ends[first + n] - len(group[first + n]))
            own = [(ahead + start, ahead + end, rank, value) for start, end, rank, value in spans if core <= bases[n] + start < core + WINDOW]
            if own:
                yield first + n, own


def _marker(kind: str, value: str, warn) -> str:
    plain = "".join(filter(str.isalnum, value)) if kind in ("card", "iban", "ssn", "phone") else value.lower() if kind == "email" else value
    return f"{kind}:{_mac(_salt(warn), plain.encode('utf-8', 'surrogatepass'), 2).hex()}"


def _merged(spans: list) -> list:
    """Spans (start, end, rank, value) without overlaps: what overlaps is one, named by the pattern that stands first."""
    merged: list = []
    for start, end, rank, value in sorted(spans):
        if merged and start < merged[-1][1]:
            last = merged[-1]
            # Of one that was cut the whole tells more than its part.
            best = (rank, value) if (rank, -len(value)) < (last[2], -len(last[3])) else last[2:]
            merged[-1] = (last[0], max(end, last[1]), *best)
        elif end > start:
            merged.append((start, end, rank, value))
    return merged


def _cleared(groups: list, warn) -> list:
    """Groups of strings with all that is to be taken out replaced; the same strings where there was nothing."""
    rules, held = _rules(warn), _held(warn)
    groups = [list(group) for group in groups]
    todo = list(range(len(groups)))
    for _ in range(ROUNDS):
        found = _scanned([groups[n] for n in todo], rules, held)
        if not found:
            break
        for (n, piece), spans in found.items():
            text, at = groups[todo[n]][piece], 0
            parts: list[str] = []
            for start, end, rank, value in _merged(spans):
                shown = f"key:{value}" if rank < 0 else _marker(rules["patterns"][rank]["name"], value, warn)
                parts += (text[at:start], f"[redacted:{shown}]")
                at = end
            groups[todo[n]][piece] = "".join(parts) + text[at:]
        todo = sorted({todo[n] for n, _ in found})
    return groups


def text(string: str, warn=None) -> str:
    """`string` without what is to be taken out of it; the same object where there is nothing."""
    return _cleared([[string]], warn)[0][0]


def lines(strings: list, warn=None) -> list:
    """As text(), for lines that one read brought: secrets may be cut over two of them, and a private key goes over many."""
    bare = [string.rstrip("\r\n") for string in strings]
    groups: list = [[]]
    within = False
    for line in bare:
        within = "-----BEGIN " in line or (within and "-----END " not in line)
        # An empty line ends what a cut could go over, but stands behind the head of a private key.
        if line or within or not groups[-1]:
            groups[-1].append(line)
        else:
            groups += [[line], []]
    clear = [line for group in _cleared(groups, warn) for line in group]
    return [old if new == line else new + old[len(line) :] for old, line, new in zip(strings, bare, clear, strict=True)]


def found(string: str, warn=None) -> list:
    """(kind, start, end) of all that is to be taken out of `string`, in order."""
    rules = _rules(warn)
    spans = _scanned([[string]], rules, _held(warn)).get((0, 0), [])
    return [("key" if rank < 0 else rules["patterns"][rank]["name"], start, end) for start, end, rank, _ in _merged(spans)]


# ---- records ----

_WITHIN = {ord(sign): "'" for sign in '"\r\n'}
_SAMPLE = "1aB2cD3eF4"  # what no pattern finds by itself


def _is_own(value: str) -> bool:
    """True for an id, a time, a digest as our own records have them."""
    size = len(value)
    if size == 36:
        return record.UUID.match(value) is not None
    if size == 24 and value[10] == "T":
        return value.isascii() and value.encode().translate(SHAPE) == b"0000-00-00t00:00:00.000z"
    return size in (12, 32, 40, 64) and not value.strip("0123456789abcdef")


def _collect(rec: dict, at: tuple, strings: list, ways: list, names: set, depth: int) -> None:
    known_names = _own["names"]
    for key, value in rec.items():
        if key not in known_names and key not in record.STRUCTURE:
            names.add(key)
        kind = type(value)
        if kind is str:
            strings.append(value)
            ways.append((at, key))
        elif kind is list:
            _collect_list(value, at, key, strings, ways, names, depth + 1)


def _collect_list(values: list, at: tuple, key: str, strings: list, ways: list, names: set, depth: int) -> None:
    if depth > DEPTH:
        return
    for value in values:
        kind = type(value)
        if kind is str:
            strings.append(value)
            ways.append((at, key))
        elif kind is list:
            _collect_list(value, at, key, strings, ways, names, depth + 1)
        elif kind is dict:
            _collect(value, (*at, value.get("@tag")), strings, ways, names, depth + 1)


def _rebuilt(value, texts, names: dict, depth: int = 0):
    if type(value) is str:
        return next(texts)
    if type(value) is dict:
        return {names.get(key, key): _rebuilt(item, texts, names, depth + 1) if type(item) in (str, list) else item for key, item in value.items()}
    if type(value) is list:
        if depth > DEPTH:
            return ["[redacted:depth:0000]"]
        return [_rebuilt(item, texts, names, depth + 1) for item in value]
    return value


def _is_deep(value, depth: int = 0) -> bool:
    if depth > DEPTH:
        return True
    inner = value.values() if type(value) is dict else value
    return any(type(item) in (list, dict) and _is_deep(item, depth + 1) for item in inner)


def batch(records: list, warn=None) -> list:
    """The records of one read, aligned: the same object where there was nothing to take out, else one with `[redacted:KIND:xxxx]` in its place.

    Looks at all strings at any depth, names of fields too, but not by patterns at what is wholly an id, a time or a hex digest; records of
    the same tag are looked at joined as well, field by field. Never raises for what it finds, or for what it can't read: warn(message) tells.
    """
    _rules(warn)
    held = _held(warn)
    strings: list = []
    ways: list = []
    names: set = set()
    bounds = [0]
    for rec in records:
        _collect(rec, (rec.get("@tag"),), strings, ways, names, 0)
        bounds.append(len(strings))
    fresh = sorted(names)
    renamed = {}
    hit = sorted({n for n, _ in _lines_hit(fresh, warn)})
    for n, (value,) in zip(hit, _cleared([[fresh[n]] for n in hit], warn), strict=True):
        if value != fresh[n]:
            renamed[fresh[n]] = value.replace("[redacted:", "redacted_").replace(":", "_").replace("]", "")
    telling = {name for name, tells in _own["names"].items() if tells} | _said([name for name in fresh if name not in renamed], warn)
    for name in fresh:
        if len(_own["names"]) >= 10_000:
            break
        if name not in renamed:
            _own["names"][name] = name in telling
    order: dict = {}
    apart: list = []
    said: list = []
    for n, value in enumerate(strings):
        if ways[n][1] in telling:
            said.append(n)
        elif not _is_own(value):
            order.setdefault(ways[n], []).append(n)
        elif held:
            apart.append([n])
    places = [*order.values(), *apart, *([n] for n in said)]
    groups = [[strings[n] for n in place] for place in places]
    for n, group in zip(said, groups[len(groups) - len(said) :], strict=True):
        name, value = ways[n][1], group[0]
        if len(value) > 200 or '"' in value or "\n" in value or "\r" in value:
            # The quotes stand around all of it: what would end it is looked at as another sign.
            spans = found(f'{name}="{value[:200].translate(_WITHIN)}"')
            kinds = [kind for kind, start, end in spans if start == len(name) + 2 and end - start >= min(len(value), 200)]
            value = f"[redacted:{_marker(kinds[0], value, warn)}]" if kinds else value
        group[0] = f'{name}="{value}"'
    clear = _cleared(groups, warn)
    new = list(strings)
    for place, group in zip(places, clear, strict=True):
        for n, value in zip(place, group, strict=True):
            new[n] = value
    for n in said:
        new[n] = new[n][len(ways[n][1]) + 2 : -1]
    out = []
    for rec, low, high in zip(records, bounds, bounds[1:], strict=False):
        if strings[low:high] == new[low:high] and not (renamed and renamed.keys() & _keys(rec)) and not _is_deep(rec):
            out.append(rec)
        else:
            out.append(_rebuilt(rec, iter(new[low:high]), renamed))
    return out


def _lines_hit(lines: list, warn):
    """Yields (number, where in it) of the lines in which something may stand: many are looked at as one text, as nearly all hold nothing."""
    for low in range(0, len(lines), MANY):
        some = lines[low : low + MANY]
        joined = "\n".join(some)
        if len(some) == 1 or not joined.isascii() or not "".join(some).isprintable():
            yield from ((n, start) for n, line in enumerate(some, low) for _, start, _ in found(line, warn))
            continue
        spans = found(joined, warn)
        ends, size = [], 0
        for line in some if spans else ():
            size += len(line) + 1
            ends.append(size)
        for _, start, end in spans:
            for n in range(bisect_right(ends, start), bisect_right(ends, end - 1) + 1):
                yield low + n, max(0, start - (ends[n] - len(some[n]) - 1))


def _said(names: list, warn) -> set:
    """The names of fields that say of their values what a text says by `password=`."""
    lines = [f'{name}="{_SAMPLE}"' for name in names]
    shape = "\n".join(lines).encode("latin-1", "replace").translate(SHAPE)
    if not any(anchor in shape for anchor in _own["rules"]["anchors"]):
        return set()
    return {names[n] for n, start in _lines_hit(lines, warn) if start > len(names[n])}


def _keys(rec: dict) -> set:
    names = set(rec)
    todo = [value for value in rec.values() if type(value) is list]
    while todo:
        for value in todo.pop():
            if type(value) is list:
                todo.append(value)
            elif type(value) is dict:
                names |= set(value)
                todo += [item for item in value.values() if type(item) is list]
    return names
