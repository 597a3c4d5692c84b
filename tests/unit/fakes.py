"""Secrets that nobody has, made anew in each run: none may stand in the repository."""

import base64
import json
import random
import string
import urllib.parse

ALNUM = string.ascii_letters + string.digits
URLSAFE = ALNUM + "-_"
UPPER = string.ascii_uppercase + string.digits


def signs(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choices(alphabet, k=count))


def b64url(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def luhn(rng: random.Random, start: str, size: int) -> str:
    digits = start + signs(rng, string.digits, size - 1 - len(start))
    total = sum(int(sign) if n % 2 else sum(divmod(int(sign) * 2, 10)) for n, sign in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def card(rng: random.Random) -> str:
    start, size = rng.choice([("4", 16), (f"5{rng.randint(1, 5)}", 16), ("34", 15), ("37", 15), ("6011", 16), (str(rng.randint(2221, 2720)), 16)])
    while len(set(number := luhn(rng, start, size))) < 4:
        pass
    mark = rng.choice(["", " ", "-"])
    cuts = (4, 8, 12, 16) if size == 16 else (4, 10, 15)
    return mark.join(number[low:high] for low, high in zip((0, *cuts), cuts, strict=False))


def iban(rng: random.Random) -> str:
    country, size, letters = rng.choice([("DE", 22, 0), ("GB", 22, 4), ("FR", 27, 0), ("NL", 18, 4), ("ES", 24, 0), ("CH", 21, 0), ("PL", 28, 0)])
    bank = signs(rng, string.ascii_uppercase, letters) + signs(rng, string.digits, size - 4 - letters)
    number = int("".join(str(int(sign, 36)) for sign in f"{bank}{country}00"))
    plain = f"{country}{98 - number % 97:02d}{bank}"
    return plain if rng.random() < 0.5 else " ".join(plain[n : n + 4] for n in range(0, size, 4))


def pem(rng: random.Random) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""])
    body = base64.b64encode(rng.randbytes(rng.randint(120, 1200))).decode()
    lines = [body[n : n + 64] for n in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"])


def password(rng: random.Random) -> tuple[str, str]:
    """One of random signs, and those that people make: words, with marks between them, with spaces in quotes, with brackets."""
    word = lambda: signs(rng, string.ascii_lowercase, rng.randint(5, 8))  # noqa: E731
    name = rng.choice(["password", "DB_PASSWORD", "passwd", "DB_PASS", "client_secret"])
    form = rng.randrange(8)
    if form == 0:
        return f"{word()}{rng.choice('-!+~')}{word()}", f"{name}={{}}"
    if form == 1:
        return f"{word()}{word()}{word()}", f"{name}={{}}"
    if form == 2:
        return f"{word()} {word()} {word()}", f"{name}='{{}}'"
    if form == 3:
        return f"{{{rng.randint(1, 9)}{signs(rng, ALNUM, 6)}!}}{signs(rng, ALNUM, 5)}", f"{name}={{}}"
    if form == 4:
        return f"T{rng.randint(0, 9)}{signs(rng, 'abcdef', 3)}{rng.randint(0, 9)}{signs(rng, 'uvwxyz', 3)}({rng.randint(0, 9)})", f"{name}={{}}"
    while True:
        made = signs(rng, ALNUM + "!@#$%^*-_+", rng.randint(8, 24))
        if any(map(str.isdigit, made)) and any(map(str.isalpha, made)) and made[0].isalnum() and made[-1].isalnum():
            return made, f"{name}={{}}"


def ssn(rng: random.Random) -> str:
    return f"{rng.choice([rng.randint(1, 665), rng.randint(667, 899)]):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def phone(rng: random.Random) -> str:
    area, office, line = rng.randint(201, 989), rng.randint(201, 999), rng.randint(0, 9999)
    return rng.choice(
        [
            f"({area}) {office}-{line:04d}",
            f"{area}-{office}-{line:04d}",
            f"{area}.{office}.{line:04d}",
            f"+1 {area} {office} {line:04d}",
            f"+1-{area}-{office}-{line:04d}",
            f"+49 {rng.randint(151, 179)} {rng.randint(1000000, 99999999)}",
            f"+44 20 {rng.randint(7000, 8999)} {line:04d}",
            f"+33 6 {area % 90 + 10} {office % 90 + 10} {line % 90 + 10} {area % 80 + 10}",
            f"+{rng.randint(30, 69)}{rng.randint(100000000, 9999999999)}",
        ]
    )


def ip(rng: random.Random) -> str:
    return f"{rng.randint(11, 126)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"


def jwt(rng: random.Random) -> str:
    head = b64url({"alg": rng.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"})
    body = b64url({"sub": signs(rng, string.digits, 10), "name": signs(rng, string.ascii_lowercase, 8), "iat": rng.randint(10**9, 2 * 10**9)})
    return f"{head}.{body}.{signs(rng, URLSAFE, 43)}"


def mixed(rng: random.Random, alphabet: str, count: int) -> str:
    while True:
        made = signs(rng, alphabet, count)
        if any(map(str.isdigit, made)) and any(map(str.isalpha, made)):
            return made


# kind -> (secret, text that it stands in as {}): what is to be gone is the secret.
KINDS = {
    "anthropic": lambda rng: (f"sk-ant-api03-{signs(rng, URLSAFE, 93)}AA", "{}"),
    "openai": lambda rng: (f"sk-{signs(rng, ALNUM, 20)}T3BlbkFJ{signs(rng, ALNUM, 20)}", "{}"),
    "openai-project": lambda rng: (f"sk-proj-{signs(rng, URLSAFE, 74)}T3BlbkFJ{signs(rng, URLSAFE, 74)}", "{}"),
    "aws-id": lambda rng: (rng.choice(["AKIA", "ASIA"]) + signs(rng, string.ascii_uppercase + "234567", 16), "{}"),
    # One of a thousand has no digit, and is not told from text where nothing around says what it is.
    "aws-secret": lambda rng: (mixed(rng, ALNUM + "+/", 40), "{}"),
    "github": lambda rng: (f"gh{rng.choice('pousr')}_{signs(rng, ALNUM, 36)}", "{}"),
    "github-fine": lambda rng: (f"github_pat_{signs(rng, ALNUM, 22)}_{signs(rng, ALNUM, 59)}", "{}"),
    "gitlab": lambda rng: (f"glpat-{signs(rng, URLSAFE, 20)}", "{}"),
    "slack": lambda rng: (f"xoxb-{signs(rng, string.digits, 12)}-{signs(rng, string.digits, 12)}-{signs(rng, ALNUM, 24)}", "{}"),
    "slack-hook": lambda rng: (f"https://hooks.slack.com/services/T{signs(rng, UPPER, 8)}/B{signs(rng, UPPER, 8)}/{signs(rng, ALNUM, 24)}", "{}"),
    "google": lambda rng: (f"AIza{signs(rng, URLSAFE, 35)}", "{}"),
    "stripe": lambda rng: (f"{rng.choice(['sk', 'rk'])}_{rng.choice(['live', 'test'])}_{signs(rng, ALNUM, rng.choice([24, 99]))}", "{}"),
    "npm": lambda rng: (f"npm_{signs(rng, ALNUM, 36)}", "{}"),
    "pypi": lambda rng: (f"pypi-AgEIcHlwaS5vcmc{signs(rng, URLSAFE, rng.randint(120, 170))}", "{}"),
    "huggingface": lambda rng: (f"hf_{signs(rng, string.ascii_letters, 34)}", "{}"),
    "jwt": lambda rng: (jwt(rng), "{}"),
    "pem": lambda rng: (pem(rng), "{}"),
    "age": lambda rng: (f"AGE-SECRET-KEY-1{signs(rng, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L', 58)}", "{}"),
    "url": lambda rng: (mixed(rng, ALNUM + "!$*-_", 14), f"{rng.choice(['https', 'postgres', 'ftp'])}://{signs(rng, 'abcdef', 6)}:{{}}@db.example.org/x"),
    "bearer": lambda rng: (mixed(rng, ALNUM + "-._~+/", 50).strip("-._~+/"), "Authorization: Bearer {}"),
    "password": password,
    "card": lambda rng: (card(rng), "{}"),
    "iban": lambda rng: (iban(rng), "{}"),
    "ssn": lambda rng: (ssn(rng), "{}"),
    "email": lambda rng: (f"{signs(rng, string.ascii_lowercase, 6)}.{signs(rng, string.ascii_lowercase, 5)}@{signs(rng, string.ascii_lowercase, 7)}.org", "{}"),
    "phone": lambda rng: (phone(rng), "{}"),
    "ip": lambda rng: (ip(rng), "{}"),
}  # fmt: skip


def ansi(rng: random.Random, text: str) -> str:
    for n in sorted(rng.sample(range(1, len(text)), 3), reverse=True):
        text = text[:n] + rng.choice(["\x1b[01;31m", "\x1b[0m", "\x1b[38;5;200m", "\x1b[K", "\x1b[01;31m\x1b[K", "\x1b[m"]) + text[n:]
    return text


def unseen(rng: random.Random, text: str) -> str:
    for n in sorted(rng.sample(range(1, len(text)), 3), reverse=True):
        text = text[:n] + rng.choice("\u200b\u200c\u200d\u2060\ufeff\u00ad") + text[n:]
    return text


def in_base64(rng: random.Random, text: str) -> str:
    whole = signs(rng, string.ascii_lowercase + " ", rng.randint(0, 12)) + " " + text + " " + signs(rng, string.ascii_lowercase, rng.randint(0, 9))
    encode = rng.choice([base64.b64encode, base64.urlsafe_b64encode])
    return f"data {encode(whole.encode()).decode()} end"


PLAIN = {
    "alone": lambda rng, text: text,
    "sentence": lambda rng, text: f"please use {text} for this, and nothing else",
    "quoted": lambda rng, text: f'config.set("{text}")',
    "assigned": lambda rng, text: f"export VALUE={text}",
    "yaml": lambda rng, text: f"  value: {text}",
    "log": lambda rng, text: f"2026-11-22T13:25:00.123Z INFO request 0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e value [{text}] done",
    "csv": lambda rng, text: f"17,{text},yes",
}
CODED = {
    "url": lambda rng, text: f"GET /x?a=1&value={urllib.parse.quote(text, safe='')}&b=2",
    "form": lambda rng, text: urllib.parse.urlencode({"a": 1, "value": text, "b": 2}),
    "json": lambda rng, text: json.dumps({"a": 1, "value": f'say "{text}"\n', "b": True}).replace("/", "\\/"),
    "ansi": ansi,
    "unseen": unseen,
}
BASE64 = {"base64": in_base64}
