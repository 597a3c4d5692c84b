"""Reading a key: from the age file, the environment, a command and a real keychain, where gnome-keyring and dbus-run-session are there.

Prints rows: name, value, unit, yardstick, ratio, with tabs between them.
"""

import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))
from serenamaster import secret, specs  # noqa: E402

RUNS = 21
NEEDED = ("dbus-run-session", "gnome-keyring-daemon")
SESSION = """
gnome-keyring-daemon --foreground --unlock --components=secrets >/dev/null 2>&1 <"$1" &
keyring=$!
shift
until dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets 2>&1 |
    grep -q true; do sleep 0.05; done
"$@"
kill $keyring
"""


def ms(run) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000


def against(name: str, ours, bare, runs: int = RUNS) -> None:
    """The medians, turn by turn, so that a busy machine slows both."""
    ours()
    mine, yardstick = [], []
    for _ in range(runs):
        yardstick.append(ms(bare))
        mine.append(ms(ours))
    value, other = statistics.median(mine), statistics.median(yardstick)
    print(f"{name}\t{value:,.2f}\tms\t{other:,.2f}\t{value / other:.2f}", flush=True)


def start() -> None:
    subprocess.run(["python", "-c", "pass"], check=True)


def read(entry: dict, source: str):
    def run() -> None:
        found = secret.read("vendor", reader="", log=lambda *row: None, entry=entry)
        assert found[1] == source, found[1]

    return run


def without_keychain(folder: str) -> None:
    import pyrage

    os.environ["VENDOR_KEY"] = secrets.token_urlsafe(60)
    against("key read: environment / python -c pass", read({"env": ["VENDOR_KEY"]}, "environment"), start)
    del os.environ["VENDOR_KEY"]
    with open(f"{folder}/key", "w") as file:
        file.write(secrets.token_urlsafe(60))
    against("key read: command / python -c pass", read({"cmd": ["cat", f"{folder}/key"]}, "command"), start)
    secret.write("vendor", secrets.token_urlsafe(60))
    with open(f"{folder}/ftai/state/keys/keys.age", "rb") as age:
        data = age.read()
    own = pyrage.x25519.Identity.from_str(secret.identity())
    against("key read: file, identity / bare decrypt", read({}, "file"), lambda: pyrage.decrypt(data, [own]))
    shutil.rmtree(f"{folder}/ftai")
    phrase = secrets.token_urlsafe(20)
    secret.write("vendor", secrets.token_urlsafe(60), ask=lambda: phrase)
    with open(f"{folder}/ftai/state/keys/keys.age", "rb") as age:
        data = age.read()
    against("key read: file, passphrase / bare decrypt", read({}, "file"), lambda: pyrage.passphrase.decrypt(data, phrase), 3)


def with_keychain(folder: str) -> None:
    """Runs this file again in a session of its own."""
    if gone := [name for name in NEEDED if shutil.which(name) is None]:
        print(f"keys: no row for the keychain: {' '.join(gone)} missing", file=sys.stderr)
        return
    os.mkdir(f"{folder}/runtime", 0o700)
    with open(f"{folder}/password", "w") as file:
        file.write("the password of the keychain")
    env = os.environ | {"XDG_RUNTIME_DIR": f"{folder}/runtime", "FTAI_HOME": f"{folder}/session"}
    command = ["dbus-run-session", "--", "sh", "-c", SESSION, "sh", f"{folder}/password", sys.executable, __file__, "keychain"]
    subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    if sys.argv[1:] == ["keychain"]:
        if secret.write("vendor", secrets.token_urlsafe(60)) == "keychain":
            against("key read: keychain / python -c pass", read({}, "keychain"), start)
        return
    with tempfile.TemporaryDirectory(prefix="ftai-bench-") as folder:
        os.environ.update({"HOME": folder, "FTAI_HOME": f"{folder}/ftai", "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"})
        os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
        specs.forget()
        without_keychain(folder)
        with_keychain(folder)


main()
