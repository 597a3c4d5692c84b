"""Where things are: the XDG places, or everything under $FTAI_HOME. Folders are made 0700 when first asked for."""

import os
import stat

from .errors import CANTCREAT, CONFIG, NOPERM, Failure

# name: (variable of the XDG base directory specification, default below the home folder)
BASES = {
    "config": ("XDG_CONFIG_HOME", ".config"),
    "state": ("XDG_STATE_HOME", ".local/state"),
    "cache": ("XDG_CACHE_HOME", ".cache"),
    "data": ("XDG_DATA_HOME", ".local/share"),
}


def home() -> str:
    """The user's home folder; cron and `env -i` may have left no HOME. Raises Failure 78 where there is none."""
    folder = os.environ.get("HOME", "")
    if not folder.startswith("/"):
        import pwd

        try:
            folder = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            raise Failure(f"no home folder for user {os.getuid()}", CONFIG, "set FTAI_HOME to a folder of your own") from None
    return folder


def where(kind: str) -> str:
    """The folder for `kind` ("config", "state", "cache", "data"), made or not."""
    own = os.environ.get("FTAI_HOME")
    if own:
        return os.path.join(os.path.abspath(own), kind)
    variable, default = BASES[kind]
    base = os.environ.get(variable, "")
    # The XDG specification: a relative path is invalid and is to be ignored.
    return os.path.join(base if base.startswith("/") else os.path.join(home(), default), "ftai")


def make(folder: str) -> str:
    """`folder`, made 0700 if it was missing. Raises Failure where it can't be (73), or where others could write into it (77).

    What we write below a folder of `BASES` must stand there: a link is refused (77). Those folders themselves may be links, to another disk say.
    """
    top = [base for base in map(where, BASES) if folder.startswith(f"{base}/")] if os.path.islink(folder) else ()
    if top:
        unlinked(folder)
    own, above = os.path.abspath(os.environ.get("FTAI_HOME") or "/"), None
    try:
        if folder.startswith(f"{own}/"):
            os.makedirs(own, mode=0o700, exist_ok=True)
            above = os.stat(own)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        seen = os.stat(folder)
        own = os.path.abspath(os.environ.get("FTAI_HOME") or "/")
        above = os.stat(own) if folder.startswith(f"{own}/") else None
    except OSError as bad:
        raise Failure(f"cannot make folder '{folder}': {bad.strerror}", CANTCREAT) from None
    if not stat.S_ISDIR(seen.st_mode):
        raise Failure(f"'{folder}' is no folder", CANTCREAT)
    guard(folder, seen)
    # Who may write there could put another folder in its place; not so where only the owner of a name may rename it, as in /tmp.
    if above and not above.st_mode & stat.S_ISVTX:
        guard(own, above)
    return folder


def guard(path: str, seen: os.stat_result) -> None:
    """Refuses (Failure 77) what belongs to somebody else than this user or root, or what others may write to. seen: of stat(2)."""
    if seen.st_uid not in (os.getuid(), 0):
        raise Failure(f"'{path}' belongs to {_user(seen.st_uid)}", NOPERM, f"look at what is in it, then chown {os.getuid()} '{path}'")
    if seen.st_mode & 0o022:
        mode = "700" if stat.S_ISDIR(seen.st_mode) else "600"
        hint = f"chmod {mode} '{path}'" if seen.st_uid == os.getuid() else f"it belongs to {_user(seen.st_uid)}, who may chmod go-w '{path}'"
        raise Failure(f"'{path}' is writable by others", NOPERM, hint)


def unlinked(path: str) -> str:
    """`path`, which need not exist. Raises Failure 77 where it is a symbolic link: SQLite would follow it, and write where it leads."""
    if os.path.islink(path):
        raise Failure(f"'{path}' is a link", NOPERM, f"look where it leads, then rm '{path}'")
    return path


def _user(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def config() -> str:
    """Where the owner's own specs stand; not made. Raises Failure 77 where others own that folder or may write into it: specs name programs."""
    folder = where("config")
    try:
        seen = os.stat(folder)
    except OSError:
        return folder
    guard(folder, seen)
    return folder


def state() -> str:
    """Journal, archive and state.db."""
    return make(where("state"))


def cache() -> str:
    """What can be made again."""
    return make(where("cache"))


def data() -> str:
    """Notes and documents that the skills write."""
    return make(where("data"))


def journal() -> str:
    """The folder of the journal's segments."""
    return make(os.path.join(state(), "journal"))


def archive_db() -> str:
    """The archive, a view of the journal."""
    return os.path.join(state(), "archive.db")


def state_db() -> str:
    """Claims, queue, breakers, limits, budgets."""
    return os.path.join(state(), "state.db")
