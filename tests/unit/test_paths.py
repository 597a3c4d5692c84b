"""Where things are."""

import os

import pytest
from serenamaster import paths
from serenamaster.errors import CANTCREAT, CONFIG, NOPERM, Failure


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("XDG_")] + ["FTAI_HOME"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


KINDS = {"config": ".config/ftai", "state": ".local/state/ftai", "cache": ".cache/ftai", "data": ".local/share/ftai"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_xdg_places_below_home(kind, tmp_path):
    assert paths.where(kind) == f"{tmp_path}/{KINDS[kind]}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_xdg_variables_count_if_they_are_absolute(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", "/else")
    assert paths.where(kind) == "/else/ftai"
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", "relative")
    assert paths.where(kind) == f"{tmp_path}/{KINDS[kind]}"
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", "")
    assert paths.where(kind) == f"{tmp_path}/{KINDS[kind]}"


@pytest.mark.parametrize("kind", KINDS)
def test_ftai_home_moves_everything(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/else")
    monkeypatch.setenv("FTAI_HOME", str(tmp_path / "own"))
    assert paths.where(kind) == f"{tmp_path}/own/{kind}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTAI_HOME", "own")
    assert paths.where(kind) == f"{tmp_path}/own/{kind}"


@pytest.mark.parametrize("home", ["", "relative", None])
def test_without_a_home_the_password_file_tells(home, monkeypatch):
    import pwd

    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    assert paths.home() == pwd.getpwuid(os.getuid()).pw_dir


def test_a_user_without_any_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(Failure) as bad:
        paths.home()
    assert bad.value.code == CONFIG
    assert "FTAI_HOME" in bad.value.hint


def test_nothing_is_made_by_asking_where(tmp_path):
    paths.where("state")
    paths.config()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folders_are_the_users_alone_under_any_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        made = [paths.state(), paths.cache(), paths.data(), paths.journal()]
    finally:
        os.umask(before)
    assert [oct(os.stat(folder).st_mode & 0o777) for folder in made] == ["0o700"] * 4
    assert made[3] == made[0] + "/journal"
    assert (paths.archive_db(), paths.state_db()) == (made[0] + "/archive.db", made[0] + "/state.db")


def test_a_folder_that_others_can_write_into_is_refused(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Failure) as bad:
        paths.make(str(folder))
    assert bad.value.code == NOPERM
    assert "chmod 700" in bad.value.hint


@pytest.mark.parametrize(("mode", "fine"), [(0o755, True), (0o1777, True), (0o775, False), (0o777, False)])
def test_a_folder_of_ours_within_one_that_others_can_write_into_is_refused(tmp_path, monkeypatch, mode, fine):
    """They could put another one in its place."""
    own = tmp_path / "own"
    monkeypatch.setenv("FTAI_HOME", str(own))
    paths.state()
    own.chmod(mode)
    if fine:
        assert paths.journal()
        return
    with pytest.raises(Failure) as bad:
        paths.state()
    assert (bad.value.code, bad.value.hint) == (NOPERM, f"chmod 700 '{own}'")


@pytest.mark.parametrize("name", ["journal", "keys", "bugs", "cursors", "runs", "specs"])
def test_a_link_below_the_state_folder_is_refused(name, tmp_path):
    (tmp_path / "else").mkdir(0o700)
    os.symlink(tmp_path / "else", os.path.join(paths.state(), name))
    with pytest.raises(Failure) as bad:
        paths.make(os.path.join(paths.state(), name))
    assert (bad.value.code, "is a link" in bad.value.message) == (NOPERM, True)


@pytest.mark.parametrize("place", [".local/state/ftai", ".local/state", "own/state", "own"])
def test_the_folders_themselves_may_be_on_another_disk(place, tmp_path, monkeypatch):
    if place.startswith("own"):
        monkeypatch.setenv("FTAI_HOME", str(tmp_path / "own"))
    (tmp_path / "disk").mkdir(0o700)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to(tmp_path / "disk")
    assert os.path.isdir(paths.journal()) and list((tmp_path / "disk").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that belongs to another")
def test_a_folder_that_belongs_to_another_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, 12345, -1)
    with pytest.raises(Failure) as bad:
        paths.make(str(folder))
    assert bad.value.code == NOPERM


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_config_folder_that_others_can_write_into_is_refused(tmp_path, mode):
    folder = tmp_path / ".config" / "ftai"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert paths.config() == str(folder)
    folder.chmod(mode)
    with pytest.raises(Failure) as bad:
        paths.config()
    assert (bad.value.code, bad.value.hint) == (NOPERM, f"chmod 700 '{folder}'")


def test_of_what_belongs_to_another_is_said_whose_it_is(tmp_path, monkeypatch):
    folder = tmp_path / ".config" / "ftai"
    folder.mkdir(parents=True, mode=0o700)
    owner = folder.stat().st_uid
    monkeypatch.setattr("os.getuid", lambda: owner + 12345)
    if owner == 0:
        os.chown(folder, 54321, -1)
        owner = 54321
    with pytest.raises(Failure) as bad:
        paths.config()
    assert bad.value.code == NOPERM
    assert str(folder) in bad.value.message
    assert "belongs to user " in bad.value.message
    assert "chmod" not in bad.value.hint


def test_what_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(Failure) as bad:
            paths.make(str(tmp_path / place))
        assert bad.value.code == CANTCREAT
        assert place in bad.value.message
