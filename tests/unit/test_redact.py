"""Redaction: what comes out, of texts, lines and records; fingerprints; broken surroundings; hostile input."""

import base64
import json
import os
import random
import re
import string
import subprocess
import sys
import urllib.parse
from pathlib import Path

import fakes
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from serenamaster import journal, record, redact, specs, stream
from serenamaster.errors import Failure

ROOT = Path(__file__).parents[2]
SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
MARK = re.compile(r"\[redacted:([a-z0-9-]+):([0-9a-f]{4})\]")
ID = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "ftai"))
    specs.forget()
    redact._own.clear()
    yield tmp_path / "ftai"
    specs.forget()
    redact._own.clear()


def fake(kind="anthropic") -> str:
    return fakes.KINDS[kind](random.Random())[0]


def marks(text: str) -> list[tuple]:
    return MARK.findall(text)


def own_spec(home: Path, text: str) -> None:
    (home / "config").mkdir(parents=True, mode=0o700)
    (home / "config" / "serenamaster.redact.ftai").write_text(f"@ftai v2.0\n\n{text}\n")
    specs.forget()


# ---- texts ----


def test_a_text_without_secrets_comes_back_as_the_same_object():
    words = f"see {ID} of 2026-11-22T13:25:00.123Z, 50 % of it\\n, größer als 3.14159"
    assert redact.text(words) is words
    assert redact.found(words) == []


def test_what_is_found_stays_visible_with_its_kind():
    key = fake()
    out = redact.text(f"use {key}, please")
    assert MARK.sub("*", out) == "use *, please"
    assert marks(out)[0][0] == "anthropic"
    assert redact.found(f"use {key}, please") == [("anthropic", 4, 4 + len(key))]


def test_equal_secrets_have_equal_digests_in_all_clothes_and_other_processes():
    rng, key = random.Random(), fake()
    texts = [key, f"x={key} y", *(clothe(rng, key) for clothe in (fakes.CODED | fakes.BASE64).values())]
    digests = {marks(redact.text(text))[0] for text in texts}
    assert len(digests) == 1
    code = "import sys; from serenamaster import redact; print(redact.text(sys.stdin.read()))"
    out = subprocess.run(
        [sys.executable, "-c", code], input=key, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": f"{ROOT}/lib"}
    ).stdout
    assert marks(out)[0] in digests
    assert marks(redact.text(fake()))[0] not in digests


def test_a_card_is_the_same_however_it_is_grouped():
    number = fakes.luhn(random.Random(), "4", 16)
    grouped = " ".join(number[n : n + 4] for n in range(0, 16, 4))
    assert marks(redact.text(number)) == marks(redact.text(grouped)) == marks(redact.text(grouped.replace(" ", "-")))


@pytest.mark.parametrize("number", ["4" + "1" * 15, "42" * 8, "5" * 12 + "4444"])
def test_the_cards_that_everybody_tests_with_are_found(number):
    assert MARK.sub("*", redact.text(f"pay with {number}, please")) == "pay with *, please"


@pytest.mark.parametrize("wrong", ["luhn", "mod 97"])
def test_numbers_that_do_not_check_are_left_alone(wrong):
    number = fakes.luhn(random.Random(), "4", 16) if wrong == "luhn" else fakes.iban(random.Random()).replace(" ", "")
    broken = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert redact.text(number) != number
    assert redact.text(broken) == broken


@pytest.mark.parametrize(
    "words",
    [
        "call(token=value)", "token=abcdefghijkl)",
        "password=getPassword()", "pwd=os.getcwd()", "password=password", "password=xxxx", "password=***", "password: Optional[str] = None",
        "bypass=correcthorse", "http://host:8080/path/@foo", "Authorization: Basic authentication", "the password is case-sensitive",
        '"password": "The password of the user"',
        'password="abc%sdef"', 'password="%(word)s-of-%(user)s"',
        "password = directory", "password: SecretStr", "password=os.environ['X']", 'password="{password}"',
        "password=None", "password=getpass()", "password = self.password", "token: str", "passwd=args.passwd", "password=$PASSWORD", "password: ${DB_PASSWORD}",
        "password=<password>", "https://user:password@host/", "secret = secrets.token_hex(16)", "Bearer authentication is used here", "git@github.com:a/b.git",
        "127.0.0.1", "0.0.0.0", "version 1.2.3.4", "sk-learn and sk-image", "-----BEGIN PRIVATE KEY----- is how it begins", "std::vector<int>::iterator",
        "12:34:56", "2026-11-22", "call me at 5", "1234 5678", "AKIA is how it begins", "eyJ.eyJ.x", "[redacted:key:12ab]", "password=[redacted:password:12ab]",
        "token 0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e", "d41d8cd98f00b204e9800998ecf8427e", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "a" * 40, "A" * 40,
    ],
)  # fmt: skip
def test_talk_code_and_digests_are_left_alone(words):
    assert redact.text(words) == words


@pytest.mark.parametrize(
    "line",
    [
        "password=*correct-horse*", 'PASSWORD="*my secret 123*"', "password=*Tr0ub4dor(3)*", "DB_PASS=*hunter22*", "password=*correcthorsebattery*",
        "password=*{9aZ!k2}x*", 'password="*Lb0BP@A$72%s9j*"',
        "client_secret=*abc-def-ghi*", '{"password":"*correct horse battery*"}', "Authorization: Basic *dXNlcjpwYXNz*",
        "Authorization: Bearer *ABCDEFGHIJKLMNOPQRSTUVWX*", "https://user:*pa/ss1*@h", "f(x, password=*abc-defgh*)", 'f(password="*Tr0ub4dor(3)*")',
    ],
)  # fmt: skip
def test_passwords_as_people_make_them_are_found(line):
    assert MARK.sub("**", redact.text(line.replace("*", ""))) == re.sub(r"\*.*\*", "**", line)


@pytest.mark.parametrize("value", ["correct horse battery", 'some "quotes" around', "two\nshort lines", "hunter22", "long " * 60])
def test_a_field_of_that_name_holds_one_as_a_whole(value):
    out = redact.batch([{"@tag": "m", "password": value, "pass": value}])[0]
    assert MARK.fullmatch(out["password"])
    assert MARK.fullmatch(out["pass"])


def test_a_password_of_letters_that_is_cut_is_found():
    out = redact.batch([{"@tag": "m", "body": "it is password=abc"}, {"@tag": "m", "body": "def ok"}])
    assert [MARK.sub("*", rec["body"]) for rec in out] == ["it is password=*", "* ok"]


def test_a_key_in_a_url_with_a_user_leaves_the_host():
    assert MARK.sub("*", redact.text(f"psql postgres://bob:{fake('url')}@db.example.org:5432/x")).endswith("bob:*@db.example.org:5432/x")


def test_one_layer_of_base64_is_mapped_back_to_its_signs():
    key = fake()
    clear = f"a: 1, key: {key}, b: 2"
    out = redact.text(f"Data {base64.b64encode(clear.encode()).decode()} end")
    parts = MARK.split(out)
    assert base64.b64decode(parts[0][5:]).decode() == clear[: len(base64.b64decode(parts[0][5:]))]
    assert out.startswith("Data ")
    assert out.endswith(" end")
    broken = "\n".join(base64.encodebytes(f"{'x' * 40} {key} {'y' * 90}".encode()).decode().split("\n"))
    assert marks(redact.text(broken)) == [marks(out)[0]]


@pytest.mark.parametrize("ahead", ["", "Q", "/x", "abc", "/data/"])
def test_base64_that_begins_behind_other_letters_is_read(ahead):
    key = fake()
    coded = base64.b64encode(f"a: 1, key: {key}, b: 2".encode()).decode()
    assert [kind for kind, _ in marks(redact.text(f"see {ahead}{coded}"))] == ["anthropic"]


@pytest.mark.parametrize(
    "sign",
    ["\u2028", "\u2029", "\u3164", "\u115f", "\u1160", "\uffa0", "\u180e", "\ufe0f", "\U000e0101", "\U000e0041", "\u2800", "^[[1m", "\\033[1;31m", "\\e[0m"],
)
def test_what_cannot_be_seen_hides_nothing(sign):
    for kind in ("github", "anthropic", "card"):
        key = fake(kind)
        out = redact.text(f"use {key[:6]}{sign}{key[6:]} now")
        assert MARK.sub("*", out) == "use * now"
        assert marks(out) == marks(redact.text(key))


def test_what_is_struck_over_is_read_as_on_paper():
    key = fake("github")
    for struck in ("".join(f"{sign}\b{sign}" for sign in key), "".join(f"_\b{sign}" for sign in key), f"{key[:9]}\b{key[9:]}"):
        assert marks(redact.text(f"use {struck} now")) == marks(redact.text(key))
        assert len(MARK.sub("", redact.text(struck))) <= 2


def test_entities_of_html_are_read():
    for kind in ("anthropic", "email", "github"):
        key = fake(kind)
        named = key.replace("-", "&#45;").replace("@", "&commat;")
        for text in ("".join(f"&#{ord(sign)};" for sign in key), "".join(f"&#x{ord(sign):x};" for sign in key), named):
            assert MARK.sub("*", redact.text(f"<p>{text}</p>")) == "<p>*</p>"
    assert marks(redact.text("password=&quot;hunter22&quot;"))[0][0] == "password"
    assert redact.remember("some", "Qx&Zr<Wv>T&u")
    assert MARK.sub("*", redact.text("a Qx&amp;Zr&lt;Wv&gt;T&amp;u b")) == "a * b"


@pytest.mark.parametrize("kind", ["openai", "pypi", "huggingface", "jwt", "card", "iban", "email", "phone", "ip"])
def test_what_is_glued_to_a_secret_hides_it_not(kind):
    for _ in range(20 * SCALE):
        key = fake(kind)
        for line in (f"x_{key}_end", f"-{key}", f"+{key}", f"-  a: {key}", f"see -{key} there"):
            left = MARK.sub("", redact.text(line))
            assert marks(redact.text(line)), line
            assert not any(key[n : n + 4 + len(key) // 4] in left for n in range(len(key))) or len(left) < len(line) - len(key) * 0.8, line


def test_a_piece_of_base64_is_no_secret_of_aws():
    key = fake("aws-secret")
    assert marks(redact.text(f"+{key}"))[0][0] == "aws-secret"
    assert redact.text(f"ab_{key}-cd") == f"ab_{key}-cd"


@pytest.mark.parametrize("words", ["java/net/MulticastSocket/SetLoopbackMode", "order 0123 456789 shipped", "-" * 80, "const_" * 12, "a/b_" * 15])
def test_what_is_like_a_secret_is_left_alone(words):
    assert redact.text(words) == words


def test_a_number_of_a_telephone_is_told_by_the_words_before_it():
    assert MARK.sub("*", redact.text("call 0123 456789 now, Tel.: 0171 2345678")) == "call * now, Tel.: *"


def test_a_mark_and_what_is_glued_to_it_are_left_alone():
    words = "password=[redacted:password:12ab]foo99 and [redacted:password:34cd]bar77"
    assert redact.text(words) == words


def test_lines_of_one_read_are_looked_at_joined():
    key, pem = fake(), fakes.pem(random.Random())
    given_lines = ["first\n", f"{key[:40]}\n", f"{key[40:]}\n", "\n", *(f"{line}\r\n" for line in pem.split("\n")), "last"]
    out = redact.lines(given_lines)
    assert [re.sub(MARK, "*", line) for line in out] == ["first\n", "*\n", "*\n", "\n", *["*\r\n"] * (pem.count("\n") + 1), "last"]
    assert marks(out[1]) == marks(out[2])


def test_a_private_key_with_headers_or_without_its_end_is_taken_out():
    body = fakes.pem(random.Random()).split("\n")[1:-1]
    old = [
        "-----BEGIN RSA PRIVATE KEY-----",
        "Proc-Type: 4,ENCRYPTED",
        "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF",
        "",
        *body,
        "-----END RSA PRIVATE KEY-----",
    ]
    assert not set(body) & set(redact.lines(old))
    assert not any(line in out for line in body for out in redact.lines(["-----BEGIN EC PRIVATE KEY-----", *body])[:-1])
    assert not any(line in redact.text("\n".join(old)) for line in body)


# ---- records ----


def test_records_without_secrets_come_back_as_the_same_objects():
    records = [record.make("command", "x", body="remember the milk", tags=["a", ["b"]], n=3, blocks=[{"@tag": "slots", "text": "milk"}]), {"@text": "words"}]
    assert all(old is new for old, new in zip(records, redact.batch(records), strict=True))
    assert redact.batch([]) == []


def test_all_strings_at_any_depth_are_looked_at():
    key = fake()
    inner = {"@tag": "b", "@head": key, "@text": f"a\n{key}", "x": ["a", [[key], 1, 2.5, True]], "@comments": [f"// {key}"]}
    rec = {"@tag": "a", "body": "x", "@blocks": [{"@tag": "c", "@blocks": [inner, {"@text": key}]}]}
    (out,) = redact.batch([rec])
    written = json.dumps(out)
    assert key not in written
    assert len(marks(written)) == 5
    assert json.loads(MARK.sub(key, written)) == rec
    assert key in json.dumps(rec), "the record that was handed in was changed"


def test_a_name_that_holds_a_secret_is_a_name_again():
    key = fake("huggingface")
    (out,) = redact.batch([{"@tag": "a", f"x.{key}": 1, "body": "y"}])
    (name,) = out.keys() - {"@tag", "body"}
    assert re.fullmatch(r"x\.redacted_huggingface_[0-9a-f]{4}", name)
    record.check(out)
    assert list(out) == ["@tag", name, "body"]


def test_what_the_name_of_a_field_calls_a_password_is_one():
    rec = {"@tag": "login", "user": "bob", "password": fake("password"), "api_key": "d41d8cd98f00b204e9800998ecf8427e", "token": ID, "secret": "none"}
    (out,) = redact.batch([rec])
    assert [key for key in rec if rec[key] != out[key]] == ["password", "api_key"]
    assert MARK.fullmatch(out["password"])


@pytest.mark.parametrize("kind", ["anthropic", "jwt", "card", "password", "bearer", "github"])
def test_a_secret_that_is_cut_over_two_records_is_taken_out_of_both(kind):
    secret, place = fakes.KINDS[kind](random.Random())
    head, tail = place.split("{}")
    half = len(secret) // 2
    between = {"@tag": "route", "reason": "a record of another tag between them"}
    out = redact.batch([{"@tag": "message", "body": head + secret[:half]}, between, {"@tag": "message", "body": secret[half:] + tail}])
    assert [MARK.sub("*", rec.get("body", "")) for rec in out] == [f"{head}*", "", f"*{tail}"]
    assert out[1] is between


def test_what_follows_a_whole_secret_in_the_next_record_stays():
    key = fake("github")
    out = redact.batch([{"@tag": "message", "body": f"use {key}"}, {"@tag": "message", "body": "Then go home"}])
    assert out[1]["body"] == "Then go home"


def test_a_private_key_over_many_records_is_taken_out_of_each():
    lines = fakes.pem(random.Random()).split("\n")
    out = redact.batch([{"@tag": "message", "body": line} for line in ["before", *lines, "after"]])
    assert [MARK.sub("*", rec["body"]) for rec in out] == ["before", *["*"] * len(lines), "after"]


def test_records_of_a_real_pipe_are_left_alone(home):
    env = {
        "PATH": f"{ROOT}/bin:{os.path.dirname(sys.executable)}:/usr/bin:/bin",
        "HOME": str(home.parent),
        "FTAI_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    said = "printf 'remember to send the invoice tomorrow\\nwhat time is it\\nnote the door is open\\nabracadabra\\n'"
    subprocess.run(
        ["bash", "-c", f"{said} | ftai-listen - | ftai-route | ftai-exec | ftai-log >/dev/null"], env=env, check=False, capture_output=True, timeout=120
    )
    held = [rec for _, rec in journal.read(str(home / "state" / "journal"))]
    assert {"command", "route", "result", "specs"} <= {rec["@tag"] for rec in held}
    for rec, other in zip(held, redact.batch(held), strict=True):
        assert rec is other, rec
    assert "[redacted:" not in json.dumps(held)


def test_the_text_of_the_specs_is_left_alone():
    words = specs.source_text()
    assert redact.text(words) is words
    assert [line for line in redact.lines(words.split("\n")) if marks(line)] == []


def test_ids_times_and_digests_of_our_own_are_never_hit():
    rng = random.Random()
    for _ in range(2000 * SCALE):
        digest = "".join(rng.choices("0123456789abcdef", k=64))
        values = [record.new_id(), record.now(), digest, digest[:32], digest[:12], digest[:40]]
        rec = {"@tag": "chain", "list": values, "body": " ".join(values)} | {f"f{n}": value for n, value in enumerate(values)}
        assert redact.batch([rec, rec])[0] is rec


# ---- properties ----

pieces = st.sampled_from(
    [*" \n%+=:@./-_[]\"'\\", "%41", "\\u0041", "\\n", "\x1b[31m", "\u200b", "Ａ", "é", "password=", "token: ", "Bearer ", "://", "eyJ", "sk-ant-",
     "AKIA", "[redacted:", "[redacted:key:12ab]"]
)  # fmt: skip
secrets = st.builds(
    lambda kind, seed: (made := fakes.KINDS[kind](random.Random(seed)))[1].replace("{}", made[0]), st.sampled_from(list(fakes.KINDS)), st.integers(0, 10**9)
)
clothed = st.builds(
    lambda text, clothe, seed: clothe(random.Random(seed), text),
    secrets,
    st.sampled_from([*fakes.PLAIN.values(), *fakes.CODED.values(), *fakes.BASE64.values()]),
    st.integers(0, 99),
)
words = st.lists(pieces | secrets | clothed | st.text(string.printable, max_size=12) | strategies.text.filter(lambda text: len(text) < 100), max_size=8).map(
    "".join
)


@given(words)
def test_redacting_twice_changes_nothing(text):
    once = redact.text(text)
    assert redact.text(once) == once


@given(st.lists(words, max_size=5))
def test_redacting_records_and_lines_twice_changes_nothing(texts):
    once = redact.batch([{"@tag": "message", "body": text, "list": texts} for text in texts])
    assert redact.batch(once) == once
    flat = [text.replace("\n", " ").replace("\r", " ") for text in texts]
    lines = redact.lines(flat)
    assert redact.lines(lines) == lines


@given(words)
def test_findings_are_in_order_apart_and_within(text):
    spans = [(start, end) for _, start, end in redact.found(text)]
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= start < end <= len(text) for start, end in spans)


@given(st.lists(strategies.record, max_size=4))
def test_any_record_goes_through_and_stays_one(records):
    for old, new in zip(records, redact.batch(records), strict=True):
        assert len(old) == len(new)
        assert old.get("@tag") == new.get("@tag")


@given(st.lists(words, min_size=1, max_size=4))
def test_google_re2_finds_the_same_as_re_alone(texts):
    pytest.importorskip("re2")
    rules = redact._rules(None)
    rules["set"], rules["seen"] = False, 0
    alone = redact.lines(texts), [redact.found(text) for text in texts]
    rules["set"], rules["seen"] = None, redact.ENOUGH + 1
    assert (redact.lines(texts), [redact.found(text) for text in texts]) == alone
    assert rules["set"], "google-re2 was not used"


def test_without_google_re2_it_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", None)
    monkeypatch.setattr(redact, "ENOUGH", 0)
    assert marks(redact.text(fake()))
    assert redact._rules(None)["set"] is False


# ---- the keys of ftai-keys ----


def dressed(value: str) -> list[str]:
    """A value as it may stand in a text, each way that ftai(7) names."""
    rng = random.Random()
    made = [value, urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), json.dumps(value), json.dumps(json.dumps(value))]
    made.append("".join(f"%{byte:02X}" for byte in value.encode()))
    made.append("".join(f"\\u{ord(sign):04x}" for sign in value if ord(sign) < 65536))
    for ahead in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"z" * ahead + value.encode() + b"z" * rng.randint(0, 5)).decode()
            made += [whole, whole.rstrip("="), f"/x/{whole}", urllib.parse.quote(whole, safe="")]
    return [*made, *(clothe(rng, value) for clothe in (fakes.PLAIN | fakes.CODED | fakes.BASE64).values())]


VALUES = [
    lambda: "".join(random.choices(string.ascii_letters + string.digits, k=random.randint(8, 80))),
    lambda: "".join(random.choices(string.ascii_lowercase, k=8)),
    lambda: "".join(random.choices(string.punctuation + string.ascii_letters, k=random.randint(8, 40))),
    lambda: "".join(random.choices("abc äöü€漢字 + ", k=20)).strip().ljust(9, "x"),
    lambda: "".join(random.choices("0123456789", k=9)),
    lambda: str(random.randbytes(8).hex()),
    lambda: record.new_id(),
]


@pytest.mark.parametrize("make", VALUES)
def test_a_held_value_is_found_in_all_clothes(make):
    for _ in range(5 * SCALE):
        value = make()
        redact.forget("some")
        assert redact.remember("some", value)
        for text in dressed(value):
            out = redact.text(f"a {text} b")
            assert ("key", "") in [(kind, "") for kind, _ in marks(out)], (value, text, out)
            assert value not in urllib.parse.unquote(out)
            assert redact.text(out) == out
        assert len({digest for text in dressed(value) for kind, digest in marks(redact.text(text)) if kind == "key"}) == 1


HARD = [
    lambda: "".join(chr(ord(sign) + 0xFEE0) for sign in random.choices(string.ascii_letters, k=16)),
    lambda: "\u200b".join("".join(random.choices(string.ascii_letters, k=6)) for _ in range(3)),
    lambda: "\x01\x7f".join("".join(random.choices(string.ascii_letters, k=6)) for _ in range(3)),
    lambda: " ".join("".join(random.choices(string.ascii_lowercase, k=5)) for _ in range(3)),
    lambda: "'".join("".join(random.choices(string.ascii_letters, k=5)) for _ in range(3)),
    lambda: "[redacted:key:abcd]".join("".join(random.choices(string.ascii_letters, k=8)) for _ in range(2)),
]


@pytest.mark.parametrize("make", HARD)
def test_a_held_value_of_odd_signs_is_found_in_all_clothes(make):
    value = make()
    assert redact.remember("some", value)
    plus = urllib.parse.quote_plus(value)
    shell = "'" + value.replace("'", "'\"'\"'") + "'"
    for text in [*dressed(value), plus, f"/x/{plus}/y", shell, value.replace("'", "'\\''"), json.dumps(shell)]:
        assert "key" in [kind for kind, _ in marks(redact.text(f"a {text} b"))][-1:], (value, text)
        assert "key" in [kind for kind, _ in marks(redact.text(text))][-1:], (value, text)


def test_a_held_value_is_found_where_it_is_cut_or_stands_alone():
    value = record.new_id()
    redact.remember("heroku", value)
    half = value[:17], value[17:]
    assert all(marks(rec["body"]) for rec in redact.batch([{"@tag": "m", "body": f"a {half[0]}"}, {"@tag": "m", "body": f"{half[1]} b"}]))
    assert marks(redact.batch([{"@tag": "m", "about": value}])[0]["about"])[0][0] == "key"
    (out,) = redact.batch([{"@tag": "m", f"x_{value}": 1}])
    assert value not in str(out)


def test_a_held_value_of_many_lines_is_found_in_lines():
    value = "\n".join("".join(random.choices(string.ascii_letters, k=30)) for _ in range(4))
    redact.remember("service", value)
    assert all(MARK.fullmatch(line) for line in redact.lines(value.split("\n")))
    assert MARK.fullmatch(redact.text(value))


def test_names_are_known_and_forgotten():
    first, second = fake("aws-secret"), fake("aws-secret")
    assert redact.known() == []
    redact.remember("b", first)
    redact.remember("a", second)
    redact.remember("a", first + "2")
    redact.remember("a", first + "2")
    assert redact.known() == ["a", "b"]
    assert [kind for kind, _ in marks(redact.text(f"{second} {first}2"))] == ["key", "key"]
    redact.forget("a")
    assert redact.known() == ["b"]
    assert marks(redact.text(first))[0][0] == "key"
    assert marks(redact.text(second))[0][0] == "aws-secret"
    redact.forget("nobody")


def test_what_is_too_short_to_be_told_from_words_is_not_held():
    assert redact.remember("pin", "1234") is False
    assert redact.known() == []


def test_another_process_is_heeded_at_once():
    value = fake("aws-secret").replace("/", "x")[:30]
    redact.remember("a", fake("aws-secret"))
    assert redact.text(value) == value
    code = "import sys; from serenamaster import redact; redact.remember('b', sys.stdin.read())"
    subprocess.run([sys.executable, "-c", code], input=value, text=True, check=True, env={**os.environ, "PYTHONPATH": f"{ROOT}/lib"})
    assert marks(redact.text(value))[0][0] == "key"


def test_many_processes_remember_at_once_and_none_is_lost(home):
    code = "import sys; from serenamaster import redact\nfor n in range(5): redact.remember(f'{sys.argv[1]}-{n}', f'value {sys.argv[1]} {n}')"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/lib"}
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=env) for n in range(6)]
    assert [each.wait(timeout=60) for each in running] == [0] * 6
    assert len(redact.known()) == 30
    assert sorted(path.name for path in (home / "state" / "keys").iterdir()) == ["fingerprints", "fingerprints.lock", "salt"]


def test_who_holds_the_fingerprints_for_too_long_is_not_waited_for(home, monkeypatch):
    redact.remember("a", "a value of one")
    monkeypatch.setattr(redact, "WAIT", 0.05)
    with stream.Lock(str(home / "state" / "keys" / "fingerprints.lock")), pytest.raises(Failure) as bad:
        redact.remember("b", "a value of another")
    assert bad.value.code == 75 and "fingerprints.lock" in bad.value.message
    assert redact.remember("b", "a value of another")


def test_the_files_hold_no_value_and_are_the_owners_alone(home):
    value = fake("aws-secret")
    os.umask(0)
    try:
        redact.remember("a", value)
    finally:
        os.umask(0o022)
    folder = home / "state" / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert not any(value[n : n + 6].encode() in path.read_bytes() for n in range(len(value) - 5))
        assert base64.b64encode(value.encode())[:12] not in path.read_bytes()


# ---- broken surroundings ----


def told(function, *args):
    said: list[str] = []
    return function(*args, warn=said.append), said


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"v":1}', b'{"check":"00","values":[]}', b'{"check":"00","values":[[1]]}', b"\xff\xfe", b'{"check":1,"values":{}}']
)
def test_a_damaged_fingerprint_file_is_told_of_once(home, content):
    redact.remember("a", fake())
    (home / "state" / "keys" / "fingerprints").write_bytes(content)
    key = fake()
    out, said = told(redact.text, key)
    assert marks(out)[0][0] == "anthropic"
    assert len(said) == 1
    assert told(redact.batch, [{"@tag": "m", "body": key}])[1] == []


@pytest.mark.parametrize("name", ["fingerprints", "salt"])
@pytest.mark.parametrize("fault", ["others", "link", "folder", "fifo"])
def test_a_file_that_is_not_ours_alone_is_not_used(home, name, fault):
    redact.remember("a", "open sesame")
    redact._own.clear()
    path = home / "state" / "keys" / name
    if fault == "others":
        path.chmod(0o666)
    else:
        path.rename(f"{path}.old")
        {"link": lambda: path.symlink_to(f"{path}.old"), "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}[fault]()
    out, said = told(redact.text, f"open sesame {fake()}")
    assert out.startswith("open sesame [redacted:anthropic:")
    assert said


def book(home, *names):
    """keys.ftai as secret.py writes it where a store has these keys."""
    folder = home / "state" / "keys"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    blocks = [f'@key\n  name: "{name}"\n  readers: []\n  store: "file"\n@end\n' for name in names]
    (folder / "keys.ftai").write_text("@ftai v2.0\n\n" + "\n".join([*blocks, "@note\n  keys: 2\n@end\n"]))
    return folder


@pytest.mark.parametrize("name", ["fingerprints", "salt"])
@pytest.mark.parametrize("fault", ["missing", "link", "shown"])
def test_fingerprints_that_fail_are_told_of_once_and_come_back(home, name, fault):
    value = fake("aws-secret")
    folder = book(home, "a")
    assert len(redact.troubles()) == 1, "no fingerprint yet"
    redact.remember("a#1", value)
    assert redact.troubles() == []
    path = folder / name
    if fault == "shown":
        path.chmod(0o644)
    else:
        path.rename(f"{path}.old")
        if fault == "link":
            path.symlink_to(f"{path}.old")
    redact._own.clear()
    # Who can't be told, as within a library, leaves it to the next.
    redact.text("nothing in it")
    assert len(told(redact.text, "nothing in it")[1]) == 1 and told(redact.text, "nothing")[1] == []
    ((trouble, hint),) = redact.troubles()
    assert str(path) in trouble and hint.startswith(f"chmod 600 '{path}'" if fault == "shown" else "ftai-keys get a >/dev/null")
    redact.remember("a#1", value, alone=True)
    assert redact.troubles() == []
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert marks(redact.text(value))[0][0] == "key"


def test_a_key_without_a_fingerprint_is_told_of(home):
    book(home, "a", "b")
    redact.remember("a#1", fake("aws-secret"))
    assert redact.troubles() == [("the key 'b' is not known to redaction", "ftai-keys get b >/dev/null")]
    assert told(redact.text, "x")[1] == ["the key 'b' is not known to redaction"]


def test_without_keys_there_is_nothing_to_tell(home):
    assert redact.troubles() == [] and told(redact.text, "x")[1] == []
    book(home)
    assert redact.troubles() == [] and told(redact.text, "x")[1] == []


def test_a_value_that_changes_leaves_no_pile(home):
    first, second = fake("aws-secret"), fake("aws-secret")
    for value in (first, second, second):
        redact.remember("a#command", value, alone=True)
        size = (home / "state" / "keys" / "fingerprints").stat().st_size
        assert marks(redact.text(value))[0][0] == "key"
    assert marks(redact.text(first))[0][0] == "aws-secret"
    # What is known already is seen without a turn.
    (home / "state" / "keys" / "fingerprints.lock").unlink()
    redact.remember("a#command", second, alone=True)
    assert not (home / "state" / "keys" / "fingerprints.lock").exists()
    redact.forget("a#command")
    redact.remember("a#command", second)
    assert (home / "state" / "keys" / "fingerprints").stat().st_size == size


def test_no_folder_for_state_is_no_reason_to_stop(home):
    home.write_text("a file where the folder should be")
    out, said = told(redact.batch, [{"@tag": "m", "body": fake()}])
    assert marks(out[0]["body"])
    assert said


def test_a_salt_that_was_lost_is_told_of(home):
    redact.remember("a", "open sesame")
    redact._own.clear()
    (home / "state" / "keys" / "salt").unlink()
    out, said = told(redact.text, f"open sesame {fake()}")
    assert out.startswith("open sesame [redacted:")
    assert said


@pytest.mark.parametrize("text", ['@pattern\n  name: "x"\n@end', "@nosuch\n@end", '@pattern\n  name: "x"\n  summary: "x"\n  pattern: "a*"\n@end', "@pattern"])
def test_a_broken_spec_leaves_the_shipped_patterns(home, text):
    own_spec(home, text)
    out, said = told(redact.text, fake())
    assert marks(out)
    assert len(said) == 1
    assert "serenamaster.redact.ftai:" in said[0]
    assert told(redact.text, fake())[1] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('pattern: "(a"', "is no regular expression"),
        ('pattern: "a*"', "'*' in pattern 'x' repeats without end"),
        ('pattern: "[a]+b"', "'+' in pattern 'x' repeats without end"),
        ('pattern: "a{2,}"', "'{2,}' in pattern 'x' repeats without end"),
        ('pattern: "a{1,2}+b?+[*+]\\\\+"', ""),
        ('pattern: "a"\n  check: "nosuch"', "there is no check 'nosuch'"),
        ('pattern: "a"\n  anchors: ["ab", "x"]', "anchor 'x' stands nearly everywhere"),
    ],
)
def test_a_pattern_of_a_spec_is_checked(home, line, reason):
    own_spec(home, f'@pattern\n  name: "x"\n  summary: "x"\n  {line}\n@end')
    if not reason:
        assert specs.find("redact", "pattern", "x")
        return
    with pytest.raises(Failure) as bad:
        specs.load("redact")
    assert reason in bad.value.message
    assert bad.value.code == 78
    assert re.search(r"serenamaster\.redact\.ftai:[67]:", bad.value.message)


def test_the_checks_of_the_specs_are_those_there_are():
    assert set(specs.REDACT_CHECKS) == set(redact.CHECKS)


def test_an_owner_turns_patterns_off_and_adds_own(home):
    own_spec(
        home,
        '@pattern\n  name: "email"\n  off: true\n@end\n\n'
        '@pattern\n  name: "badge"\n  summary: "of staff"\n  anchors: "badge-"\n  pattern: "badge-[0-9]{4,9}"\n@end\n\n'
        '@pattern\n  name: "ward"\n  summary: "without an anchor"\n  pattern: "ward ([A-Z]{3,5})"\n@end',
    )
    assert redact.text("bob@example.org") == "bob@example.org"
    assert MARK.sub("*", redact.text("badge-12345 in ward ABC of badge-1")) == "* in ward * of badge-1"
    assert marks(redact.text(fake()))


def test_a_project_that_is_not_trusted_turns_nothing_off(home, tmp_path, monkeypatch):
    (tmp_path / "p" / ".ftai").mkdir(parents=True)
    text = '@ftai v2.0\n\n@pattern\n  name: "email"\n  off: true\n@end\n\n@pattern\n  name: "x"\n  summary: "x"\n  anchors: "hello"\n  pattern: "hello"\n@end\n'
    (tmp_path / "p" / ".ftai" / "serenamaster.redact.ftai").write_text(text)
    monkeypatch.chdir(tmp_path / "p")
    specs.forget()
    assert MARK.sub("*", redact.text("hello bob@example.org")) == "hello *"


# ---- hostile input ----


def test_what_stands_over_the_edge_of_a_window_is_found(monkeypatch):
    monkeypatch.setattr(redact, "WINDOW", 300)
    monkeypatch.setattr(redact, "AROUND", 200)
    key = fake()
    for ahead in range(0, 900, 23):
        words = f"{'x ' * ahead}{key}{' y' * 700}"
        assert MARK.sub("*", redact.text(words)) == words.replace(key, "*")
        pieces = [words[n : n + 37] for n in range(0, len(words), 37)]
        assert key[:60] not in "".join(redact.lines(pieces))
    assert redact.found(words) == [("anthropic", words.index(key), words.index(key) + len(key))]


def test_a_name_among_many_is_found_and_told_from_the_others():
    names = [f"name{n}" for n in range(3000)]
    names[1500:1500] = [f"x_{fake('github')}", "password"]
    rec = {"@tag": "m", **dict.fromkeys(names, "correct horse")}
    (out,) = redact.batch([rec])
    assert [key for key in rec if key not in out] == names[1500:1501]
    assert [key for key in rec if key in out and rec[key] != out[key]] == ["password"]


def test_names_and_strings_take_steps_by_their_number():
    def made(count):
        return redact.batch([{"@tag": "m", "l": [f"item {n} of it" for n in range(100_000, 100_000 + count)], **{f"password{n}x": 1 for n in range(count)}}])

    made(10)
    first, second = steps(1000, made), steps(2000, made)
    assert second <= first * 2.3 + 500
    assert second < 2000 * 60


def test_deep_and_odd_records_go_through():
    key, deep, odd = fake(), ["end"], ["end"]
    for _ in range(150):
        deep = [deep, key]
    for _ in range(5000):
        odd = [odd]
    out = redact.batch([{"@tag": "m", "list": deep}, {"@tag": "m", "list": odd}, {"@tag": 7, "x": None, "@blocks": "no list"}, {"@blocks": [1, [2]]}, {}])
    assert key not in str(out[0])
    assert len(out) == 5


@pytest.mark.parametrize(
    "sign", ["\ud800", "\x00", "\ufffd", "\U0001f600", "%", "%zz", "\\", "\\u", "\\ud83d", "=", "A" * 5 + "=", "\r", "\n", "[redacted:", "\x1b["]
)
def test_odd_signs_hide_nothing_and_break_nothing(sign):
    key = fake()
    out = redact.text(f"{sign}{sign} {key} {sign}")
    assert key not in out
    assert out.startswith(sign)
    assert redact.text(sign * 3000) == sign * 3000
    assert key not in redact.lines([sign, key, sign])[1]


def test_what_is_encoded_twice_is_found_once_more():
    key = fake()
    twice = urllib.parse.quote(urllib.parse.quote(f"key={key}+/", safe=""), safe="")
    assert key[:60] not in urllib.parse.unquote(urllib.parse.unquote(redact.text(twice)))
    assert key not in json.loads(json.loads(redact.text(json.dumps(json.dumps(f'a "{key}"')))))


HOSTILE = [
    "a", "aA1", "0", "%41", "\\u0041", "\x1b[", "\u200b", "Ａ", "password=", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "pypi-", "a@a.", "://a:b@",
    "1.1.1.1.", "+49 ", "4111 ", "4111 1111 1111 1111 ", "DE89370400440532013000", "Bearer ", "[redacted:", "[redacted:key:12ab]", "A" * 64 + "\n",
    "hooks.slack.com/services/", "fe80:", "AKIA", "&a=+",
]  # fmt: skip


def steps(text, function=None) -> int:
    """How many functions are called to redact a text, those in C included."""
    count = 0

    def called(_frame, event, _arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        (function or redact.text)(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("sign", HOSTILE)
def test_twice_the_text_takes_no_more_than_twice_the_steps(sign):
    texts = [(sign * 20_000)[:size] for size in (5_000, 10_000, 20_000)]
    redact.text(texts[0])
    first, second, third = map(steps, texts)
    assert second <= first * 2.3 + 500
    assert third <= second * 2.3 + 500


def test_quadratic_steps_would_be_seen(monkeypatch):
    monkeypatch.setattr(redact, "text", lambda text: [text.find("x") for n in range(len(text) // 50) for _ in range(n)])
    first, second = steps("a" * 5_000), steps("a" * 10_000)
    assert second > first * 2.3 + 500


@pytest.mark.parametrize("entry", [entry["name"] for entry in specs.load("redact")["pattern"]])
def test_shipped_patterns_have_anchors_and_begin_with_what_is_rare(entry):
    found = specs.find("redact", "pattern", entry)
    assert found["anchors"]
    redact._compiled(found["pattern"])
    # One that may begin in the middle of what it matches would be tried at each sign of it.
    assert re.match(r"\(\?<|[A-Za-z-]{2}|\(\?i?:|gh\[|gl|://|AIza|ya29", found["pattern"])
