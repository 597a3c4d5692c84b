"""Runs what the documents show: in a scratch home, in a folder with a few files, with bin/ on the PATH."""

import os
import shutil
import subprocess

from surface import ROOT

FILES = os.path.join(ROOT, "tests", "docs", "files")


class Place:
    """A scratch home and a folder of sample files. A script runs in bash with pipefail, as the pages tell people to."""

    def __init__(self, folder, *, ftai_home=False):
        self.home, self.work = os.path.join(folder, "home"), os.path.join(folder, "work")
        os.makedirs(self.home, mode=0o700)
        shutil.copytree(FILES, self.work)
        kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE") if name in os.environ}
        path = f"{ROOT}/bin:{ROOT}/.venv/bin:{os.environ['PATH']}"
        self.environment = kept | {"PATH": path, "HOME": self.home, "TZ": "Europe/Zurich", "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}
        if ftai_home:
            self.environment["FTAI_HOME"] = os.path.join(self.home, "ftai")

    def run(self, script: str, *, errexit=False, cwd=None):
        """The finished process of a script: returncode, stdout, stderr (text). Nothing waits longer than three minutes, on a busy machine."""
        shell = ["bash", *(["-e"] if errexit else []), "-o", "pipefail", "-c", script]
        return subprocess.run(
            shell,
            cwd=cwd or self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            check=False,
        )
