"""For all pytest tests: a home of their own, an environment that hides nothing, and the scale of property tests."""

import atexit
import os
import shutil
import signal
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings

SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
settings.register_profile("scaled", max_examples=100 * SCALE, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
settings.load_profile("scaled")

HIDING = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "FORCE_COLOR")
for name in list(os.environ):
    if name.startswith(("FTAI_", "XDG_")) and name not in ("FTAI_TEST_SCALE", "FTAI_ACCEPT") or name in HIDING:
        del os.environ[name]
home = tempfile.mkdtemp(prefix="ftai-tests-")
atexit.register(shutil.rmtree, home, ignore_errors=True)
os.environ |= {"FTAI_HOME": f"{home}/ftai", "HOME": home, "NO_COLOR": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
# Who runs the tests in the background of a shell has it ignored, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def closed():
    """The journals of a test are closed with it: a process has room for few files, and how many tests one runs is chance."""
    yield
    if journal := sys.modules.get("serenamaster.journal"):
        journal._live.clear()
