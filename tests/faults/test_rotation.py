"""kill -9 in the middle of a rotation: the old or the new key is current, and works, never neither."""

import os
import random
import secrets
import signal
import sys
import time

import keysite
import pytest
from test_secret_service import GONE, session

SCALE = int(os.environ.get("FTAI_TEST_SCALE", "1"))
KILLS = 20 * SCALE


@pytest.fixture
def provider():
    made = keysite.Provider()
    yield made
    made.close()


def fresh(provider) -> str:
    key = "trial-" + secrets.token_urlsafe(30)
    provider.keys.add(key)
    return key


def works(provider, key) -> bool:
    """True where the provider takes the key, asked over the network."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(f"{provider.url}/models", headers={"x-api-key": key}), timeout=30) as answer:
            return answer.status == 200
    except HTTPError:
        return False


def took(home, key, *options) -> float:
    """Seconds from the first record of a rotation to its end."""
    child = home.start("rotate", "trial", *options, given=key)
    child.stdout.readline()
    start = time.monotonic()
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return time.monotonic() - start


@pytest.mark.parametrize(("options", "share"), [(["--check"], 0.8), ([], 0.2)], ids=["checked", "plain"])
def test_one_of_both_keys_works(tmp_path, provider, options, share):
    storm(keysite.Home(tmp_path / "home", provider.url), provider, options, share)


@pytest.mark.skipif(bool(GONE), reason=f"{' '.join(GONE).upper()} MISSING: no real keychain is tried")
def test_one_of_both_keys_works_in_a_keychain(tmp_path, provider):
    with session(tmp_path) as environment:
        named = ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR")
        home = keysite.Home(tmp_path / "home", provider.url, **{name: environment[name] for name in named})
        storm(home, provider, ["--check"], 0.3)
        assert '"source":"keychain"' in home.run("list")[1]


def storm(home, provider, options, share):
    """Kills rotations at random moments between their intent and their end, and looks each time at what is left."""
    key = fresh(provider)
    assert home.run("set", "trial", given=key)[0] == 0
    kills, seen, half = 0, set(), 0
    dice = random.Random(7)
    whole = None
    # So often, and until one came in the middle: where that is depends on what else the machine does.
    while kills < max(4, KILLS * share) or (kills < 10 * KILLS and not (half or seen == {False, True})):
        # Measured again now and then, as the machine may be busier than it was.
        if kills % 20 == 0 or whole is None:
            key = fresh(provider)
            whole = took(home, key, *options)
            assert home.value() == key
        new = fresh(provider)
        child = home.start("rotate", "trial", *options, given=new)
        child.stdout.readline()  # the intent: what comes now is the rotation itself
        time.sleep(dice.random() * whole)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kills += child.returncode == -signal.SIGKILL
        found = home.value()
        assert found in (key, new), "neither the old nor the new key is there"
        assert works(provider, found)
        seen.add(found == new)
        half += any(state == "next" for state, _ in home.states())
        key = found
        if kills % 5 == 0:
            # The next rotation ends what this one left.
            key = fresh(provider)
            code, _, err = home.run("rotate", "trial", *options, given=key)
            assert code == 0, err
            assert home.value() == key
            states = [state for state, _ in home.states()]
            assert states.count("current") == 1 and "next" not in states
    assert seen == {False, True} or half, "no kill came in the middle: the moments are wrong"


def test_a_rotation_that_was_killed_is_finished_when_it_is_due(tmp_path, provider):
    home = keysite.Home(tmp_path / "home", provider.url)
    old, new = fresh(provider), fresh(provider)
    assert home.run("set", "trial", given=old)[0] == 0
    provider.hang.clear()
    child = home.start("rotate", "trial", "--check", given=new)
    while not provider.asked:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    provider.hang.set()
    assert home.value() == old
    assert home.states() == [("current", old), ("next", new)]
    code, _, err = home.run("rotate", "--due")
    assert code == 0, err
    assert home.states() == [("current", new), ("old", old)]


def test_control_a_store_that_removes_first_loses_both(tmp_path, provider):
    home = keysite.Home(tmp_path / "home", provider.url)
    assert home.run("set", "trial", given=fresh(provider))[0] == 0
    child = home.start("rotate", "trial", "--check", given=fresh(provider), program=[sys.executable, keysite.__file__])
    assert child.stderr.readline() == "gone\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert home.value() is None, "the key survived a store that loses it: the test above proves nothing"
