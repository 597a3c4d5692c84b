"""Sealed files: MB of plain bytes a second, sealed and opened both ways, of a journal and of bytes that can't be packed.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them. The yardsticks are what others need for the same bytes: for the method age
`zstd -3 | age -r` and `age -d | zstd -d`, for aes256 raw AES-GCM over the whole of it in memory. Both write a file and sync it, as sealing does.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
HOME = tempfile.mkdtemp()
os.environ["FTAI_HOME"] = HOME
from serenamaster import chain, journal, paths, record, seal, sealed  # noqa: E402

ROUNDS = 5
SIZE = 64_000_000
WORDS = [f"{a}{b}{c}" for a in ("bor", "kel", "mur", "tan", "vis", "zul") for b in ("a", "e", "i", "o", "u") for c in range(100)]


def written(words: bool) -> str:
    """A file of SIZE bytes: of a journal, again and again, or random ones."""
    import random

    path = os.path.join(HOME, "words" if words else "random")
    data = b""
    if words:
        chance, folder = random.Random(1), paths.journal()
        made = [record.make("note", "ftai-bench", body=" ".join(chance.choices(WORDS, k=20))) for _ in range(20_000)]
        journal.append(folder, made, stage="ftai-bench")
        with open(os.path.join(folder, chain.LIVE), "rb") as file:
            data = file.read()
    with open(path, "wb") as file:
        while file.tell() < SIZE:
            file.write((data or os.urandom(1 << 20))[: SIZE - file.tell()])
    return path


def sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def rate(*works) -> list[float]:
    """MB a second of each of some ways to do the same, in turns: the median."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for took, work in zip(spent, works, strict=True):
            begun = time.perf_counter()
            work()
            took.append(time.perf_counter() - begun)
    return [SIZE / 1e6 / statistics.median(took) for took in spent]


def row(name: str, value: float, yardstick: float) -> None:
    print(f"{name}\t{value:,.0f}\tMB/s\t{yardstick:,.0f}\t{value / yardstick:.2f}", flush=True)


def main() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    public, own = seal.recipient(), os.path.join(HOME, "state", "keys", "identity")
    cipher, nonce = AESGCM(AESGCM.generate_key(256)), os.urandom(12)
    for kind in ("a journal", "random bytes"):
        source = written(kind == "a journal")

        def ours(method, source=source):
            os.environ["FTAI_SEAL"] = method
            with open(source, "rb") as file:
                return sealed.write(file.fileno(), f"{HOME}/{method}", {})

        def open_(method):
            os.close(sealed.open_(f"{HOME}/{method}{sealed.SUFFIX[method]}")[1])

        def shell(script, source=source):
            subprocess.run(["sh", "-c", script, "sh", source, public, own], check=True, cwd=HOME)

        def raw(source=source):
            with open(source, "rb") as file, open(f"{HOME}/raw", "wb") as out:
                out.write(cipher.encrypt(nonce, file.read(), None))
            sync(f"{HOME}/raw")

        def back():
            with open(f"{HOME}/raw", "rb") as file, open(f"{HOME}/plain", "wb") as out:
                out.write(cipher.decrypt(nonce, file.read(), None))

        age, gcm, other, bare = rate(
            lambda: ours("age"),
            lambda: ours("aes256"),
            lambda: shell('zstd -q -3 -c "$1" | age -r "$2" -o its && sync its'),
            raw,
        )
        row(f"sealed by age, {kind}, over zstd | age", age, other)
        row(f"sealed by aes256, {kind}, over raw AES-GCM", gcm, bare)
        row("the same, over zstd | age", gcm, other)
        age, gcm, other, bare = rate(lambda: open_("age"), lambda: open_("aes256"), lambda: shell('age -d -i "$3" its | zstd -qdc >plain'), back)
        row(f"opened by age, {kind}, over age | zstd", age, other)
        row(f"opened by aes256, {kind}, over raw AES-GCM", gcm, bare)
        row("the same, over age | zstd", gcm, other)


main()
