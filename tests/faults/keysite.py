"""What the tests of keys share: a provider that takes some keys, a real HTTP server on loopback, and a home whose spec names it.

Run as a program it is ftai-keys, whose store removes the item before it puts the new one there, for the control: python keysite.py ARGUMENTS...
"""

import os
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
if str(ROOT / "lib") not in sys.path:
    sys.path.insert(0, str(ROOT / "lib"))


class Provider:
    """Answers a GET with 200 where its header `x-api-key` is one of `keys`, else 401.

    answers: {path: (status, headers)} of what is said whoever asks; `hang`: an Event that is waited for before any answer. asked: the
    (path, key) of all requests.
    """

    def __init__(self):
        self.keys: set[str] = set()
        self.answers: dict = {}
        self.asked: list[tuple[str, str]] = []
        self.hang = threading.Event()
        self.hang.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                key = self.headers.get("x-api-key", "")
                provider.asked.append((self.path, key))
                provider.hang.wait(60)
                status, headers = provider.answers.get(self.path, (200 if key in provider.keys else 401, {}))
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")
                except OSError:
                    pass  # who asked was killed

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


class Home:
    """A scratch home whose config spec has the key `trial`, checked with the provider at `url`, and consent to that."""

    def __init__(self, folder, url: str, **environment):
        self.path = Path(folder)
        config = self.path / "config"
        config.mkdir(mode=0o700, parents=True)
        self.path.chmod(0o700)
        entry = f'@key\n  name: "trial"\n  summary: "t"\n  check: "{url}/models"\n  header: "x-api-key: {{key}}"\n@end\n'
        agreed = '@consent\n  name: "trial"\n@end\n'
        spec = config / "serenamaster.config.ftai"
        spec.write_text(f"@ftai v2.0\n\n{entry}\n{agreed}")
        spec.chmod(0o600)
        kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = kept | {"PATH": path, "HOME": str(self.path), "FTAI_HOME": str(self.path), "LC_ALL": "C.UTF-8"} | environment

    def start(self, *words, given: str = "", program=None):
        """ftai-keys with these arguments, which reads `given`; its standard output is a pipe."""
        command = program or [sys.executable, str(ROOT / "bin" / "ftai-keys")]
        pipe = subprocess.PIPE
        child = subprocess.Popen([*command, *words], stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, text=True)
        child.stdin.write(given)
        child.stdin.close()
        child.stdin = None
        return child

    def run(self, *words, given: str = "") -> tuple[int, str, str]:
        """(status, standard output, standard error)."""
        child = self.start(*words, given=given)
        out, err = child.communicate(timeout=120)
        return child.returncode, out, err

    def value(self) -> str | None:
        """What `get` prints, None where there is no key."""
        status, out, _ = self.run("get", "trial")
        return out.removesuffix("\n") if status == 0 else None

    def states(self) -> list[tuple[str, str]]:
        """(state, value) of all that the store holds of the key."""
        names = ("FTAI_HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
        before = {name: os.environ.pop(name) for name in names if name in os.environ}
        os.environ |= {name: self.environment[name] for name in names if name in self.environment}
        try:
            from serenamaster import secret

            return [(each["state"], each["value"]) for each in (secret.item("trial") or {"values": ()})["values"]]
        finally:
            for name in names:
                os.environ.pop(name, None)
            os.environ |= before


def careless() -> None:
    """ftai-keys that takes the old value away first, and dawdles."""
    import time

    from serenamaster import secret

    kept = secret.replace

    def replace(name, item, **more):
        secret.remove(name)
        sys.stderr.write("gone\n")
        sys.stderr.flush()
        time.sleep(60)
        return kept(name, item, **more)

    secret.replace = replace
    sys.argv[0] = str(ROOT / "bin" / "ftai-keys")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    careless()
