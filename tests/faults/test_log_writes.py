"""Writes that fall short, that fail, and syncs that fail: real ones, with a shim before libc's write and with strace."""

import os
import re
import shutil
import signal
import subprocess

import pytest
import writers
from serenamaster import chain, journal, record, verification

# libc's write, which for the live segment writes a part of what it is given, and may then kill the process. Says in a file what it did.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static ssize_t (*real)(int, const void *, size_t);
static int calls;
ssize_t write(int fd, const void *data, size_t size) {
    char name[64], path[4096];
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    if (size < 2 || !strstr(path, "/current.ftai")) return real(fd, data, size);
    ssize_t done = real(fd, data, size / 2);
    int log = open(getenv("SHIM_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    real(log, "short\n", 6);
    close(log);
    const char *last = getenv("SHIM_KILL");
    if (last && ++calls >= atoi(last)) raise(SIGKILL);
    return done;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None or not os.path.isdir("/proc/self/fd"):
        pytest.skip("NO C COMPILER, OR NOT LINUX: short writes are not tried")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([gcc, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return str(folder / "shim.so")


@pytest.fixture
def home(tmp_path):
    return writers.Home(tmp_path / "home")


def fired(log) -> int:
    return log.read_text().count("short") if log.exists() else 0


@pytest.mark.parametrize("options", [[], ["--sync", "each"]], ids=["batch", "each"])
def test_short_writes_are_finished(home, shim, tmp_path, options):
    log = tmp_path / "log"
    given = writers.supply(tmp_path / "given", 200)
    code, acknowledged, said = home.run(given, options=options, LD_PRELOAD=shim, SHIM_LOG=str(log))
    assert (code, len(acknowledged)) == (0, 200), said
    assert fired(log) > 5, "no write fell short"
    assert not home.lost(acknowledged) and not home.troubles()


def test_control_that_takes_a_short_write_for_a_whole_one(home, shim, tmp_path):
    log = tmp_path / "log"
    one = writers.supply(tmp_path / "one", 1)
    code, acknowledged, said = home.run(one, without="short", LD_PRELOAD=shim, SHIM_LOG=str(log))
    assert fired(log) and acknowledged, (code, said)
    assert home.lost(acknowledged)


def test_killed_in_the_middle_of_a_write(home, shim, tmp_path):
    acknowledged = []
    for turn in range(10 * writers.SCALE):
        log = tmp_path / f"log{turn}"
        given = writers.supply(tmp_path / "given", 30, name=str(turn))
        code, more, said = home.run(given, options=["--sync", "each"], LD_PRELOAD=shim, SHIM_LOG=str(log), SHIM_KILL=str(turn % 7 * 5 + 1))
        assert code == -signal.SIGKILL and fired(log), said
        acknowledged += more
        assert home.troubles(), "the record was not torn"
    code, last, said = home.run(writers.supply(tmp_path / "one", 1))
    assert code == 0 and "cut off" in said
    assert not home.lost(acknowledged + last) and not home.troubles()
    assert (home.journal / ".torn").read_bytes().count(b"// ") == 10 * writers.SCALE


def test_control_that_leaves_the_torn_record(home, shim, tmp_path):
    given = writers.supply(tmp_path / "given", 3)
    assert home.run(given, LD_PRELOAD=shim, SHIM_LOG=str(tmp_path / "log"), SHIM_KILL="4")[0] == -signal.SIGKILL
    one = writers.supply(tmp_path / "one", 1)
    acknowledged = home.run(one, without="repair")[1] + home.run(one, without="repair")[1]
    assert acknowledged and home.lost(acknowledged)


# ---- strace ----


@pytest.fixture
def strace(tmp_path):
    program = shutil.which("strace")
    if program is None or subprocess.run([program, "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("STRACE IS MISSING, OR MAY NOT TRACE: errors of write and fsync are not tried")

    def inject(home, call, what):
        return [program, "-f", "-o", str(tmp_path / "trace"), "-P", str(home.current), "-e", f"inject={call}:{what}"]

    return inject


def injected(tmp_path) -> int:
    return len(re.findall(r"\(INJECTED\)", (tmp_path / "trace").read_text()))


def test_an_error_of_fsync(home, strace, tmp_path):
    before = home.run(writers.supply(tmp_path / "one", 1))[1]
    given = writers.supply(tmp_path / "given", 20)
    code, acknowledged, said = home.run(given, options=["--sync", "each"], prefix=strace(home, "fdatasync", "error=EIO:when=4"))
    assert injected(tmp_path) == 1, "fdatasync never failed"
    assert (code, len(acknowledged)) == (74, 3) and "Input/output error" in said
    assert (home.journal / ".suspect").read_text() == "4 1\n"
    # What nobody was told is written is not read, and its seq is free for the next.
    assert len(home.held()) == 4 and home.troubles()
    code, more, said = home.run(given)
    assert (code, len(more)) == (0, 20) and "closed segment 1 behind seq 4" in said
    assert not (home.journal / ".suspect").exists()
    assert not home.lost(before + acknowledged + more)
    tags = [rec["@tag"] for _, rec in journal.read(str(home.journal))]
    assert tags == ["note"] * 4 + ["checkpoint"] + ["note"] * 20
    found = home.troubles()
    assert len(found) == 1 and found[0].path.endswith("000001.ftai") and "damage behind seq 4" in found[0].message
    assert verification.accept(str(home.journal)) == found and not home.troubles()


def test_an_error_of_fsync_in_the_first_batch_of_all(home, strace, tmp_path):
    given = writers.supply(tmp_path / "given", 3)
    code, acknowledged, said = home.run(given, prefix=strace(home, "fdatasync", "error=EIO:when=1"))
    assert injected(tmp_path) == 1 and (code, acknowledged) == (74, []), said
    code, more, said = home.run(given)
    assert (code, len(more)) == (0, 3), said
    assert not home.lost(more) and len(home.held()) == 4
    assert [seq for seq, _ in journal.read(str(home.journal))] == [1, 2, 3, 4]


def test_an_error_of_fsync_that_can_not_be_marked(home, strace, tmp_path):
    before = home.run(writers.supply(tmp_path / "one", 3))[1]
    (home.journal / ".suspect").symlink_to("nowhere")  # cannot be written, as on a full disk
    given = writers.supply(tmp_path / "given", 2)
    code, acknowledged, said = home.run(given, prefix=strace(home, "fdatasync", "error=ENOSPC:when=1"))
    assert injected(tmp_path) == 1 and (code, acknowledged) == (74, []), said
    assert home.held().keys() == {rec["id"] for rec in before} and not home.troubles()
    (home.journal / ".suspect").unlink()
    code, more, said = home.run(given)
    assert (code, len(more)) == (0, 2), said
    assert not home.lost(before + more) and len(home.held()) == 5 and not home.troubles()


def test_a_write_that_fails(home, strace, tmp_path):
    before = home.run(writers.supply(tmp_path / "one", 1))[1]
    size = home.current.stat().st_size
    given = writers.supply(tmp_path / "given", 20)
    code, acknowledged, said = home.run(given, prefix=strace(home, "write", "error=ENOSPC:when=1"))
    assert injected(tmp_path) == 1, "write never failed"
    assert (code, acknowledged) == (74, []) and "No space left on device" in said
    assert home.current.stat().st_size == size and not home.troubles()
    code, more, said = home.run(given)
    assert (code, len(more)) == (0, 20)
    assert not home.lost(before + more) and not home.troubles() and not chain.closed(str(home.journal))


def test_a_write_that_fails_half_way_is_cut_back(home, strace, shim, tmp_path):
    before = home.run(writers.supply(tmp_path / "one", 1))[1]
    size = home.current.stat().st_size
    given = writers.supply(tmp_path / "given", 20)
    prefix = [*strace(home, "write", "error=ENOSPC:when=2"), "-E", f"LD_PRELOAD={shim}", "-E", f"SHIM_LOG={tmp_path / 'log'}"]
    code, acknowledged, said = home.run(given, prefix=prefix)
    assert injected(tmp_path) == 1 and fired(tmp_path / "log"), "the write did not fail half way"
    assert (code, acknowledged) == (74, []), said
    assert home.current.stat().st_size == size and not home.troubles()
    # Where even the cutting fails, the next writer does it.
    both = [*prefix[:6], "-e", "inject=ftruncate:error=EIO", *prefix[6:]]
    code, acknowledged, said = home.run(given, prefix=both)
    assert injected(tmp_path) >= 2 and (code, acknowledged) == (74, []), said
    assert home.current.stat().st_size > size and home.troubles()
    code, more, said = home.run(given)
    assert code == 0 and "cut off" in said
    assert not home.lost(before + more) and not home.troubles()


@pytest.mark.parametrize("call", ["link", "linkat", "rename", "unlink"])
def test_killed_while_a_segment_is_closed(home, tmp_path, call):
    """The system calls of a closing, each interrupted by a kill: the next writer finishes it."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("STRACE IS MISSING: a closing is not interrupted")
    one = writers.supply(tmp_path / "one", 1)
    before = home.run(one)[1] + home.run(one)[1]
    number = chain.head(home.current.read_bytes()).number
    (home.journal / ".suspect").write_text(f"{journal.position(str(home.journal))} {number}\n")
    watched = [str(home.current), str(home.journal / ".new"), str(home.journal / ".suspect")]
    prefix = [program, "-f", "-o", str(tmp_path / "trace"), *[word for path in watched for word in ("-P", path)], "-e", f"inject={call}:signal=KILL:when=1"]
    code, acknowledged, _ = home.run(one, prefix=prefix)
    if "killed by SIGKILL" not in (tmp_path / "trace").read_text():
        assert call in ("link", "linkat"), "nothing was killed"
        pytest.skip(f"the C library has no {call} here: its twin is tried")
    assert code in (-signal.SIGKILL, 128 + signal.SIGKILL) and not acknowledged
    code, more, said = home.run(one)
    assert (code, len(more)) == (0, 1), said
    assert not home.lost(before + more) and not home.troubles()
    assert len(chain.closed(str(home.journal))) == 1


def synced(tmp_path, home) -> list[str]:
    """What a traced writer has synced of the journal: `folder` and `live`, in their order."""
    names = {f"<{home.journal}>": "folder", f"<{home.current}>": "live"}
    return [names[name] for name in re.findall(r"f(?:data)?sync\(\d+(<[^>]*>)\) += 0", (tmp_path / "trace").read_text()) if name in names]


def watching(tmp_path) -> list[str]:
    return [str(shutil.which("strace")), "-f", "-y", "-o", str(tmp_path / "trace"), "-e", "trace=fsync,fdatasync"]


def test_what_a_killed_writer_did_not_sync_is_synced_before_it_is_called_held(home, strace, tmp_path):
    given = writers.supply(tmp_path / "given", 1)
    before = home.run(given)[1]
    again = tmp_path / "again"
    again.write_bytes(b"".join(record.encode(rec | {"id": record.new_id()}) for rec in before))
    code, acknowledged, _ = home.run(again, prefix=strace(home, "fdatasync", "signal=KILL:when=1"))
    assert code in (-signal.SIGKILL, 128 + signal.SIGKILL) and not acknowledged
    assert len(home.held()) == 2, "it was killed before it wrote"
    code, acknowledged, said = home.run(again, prefix=watching(tmp_path))
    assert (code, len(acknowledged)) == (0, 1), said
    assert len(home.held()) == 2 and "live" in synced(tmp_path, home)


def test_the_name_of_a_segment_is_on_the_disk_before_what_is_in_it(home, strace, tmp_path):
    given = writers.supply(tmp_path / "given", 1)
    before = home.run(writers.supply(tmp_path / "three", 3))[1]
    number = chain.head(home.current.read_bytes()).number
    (home.journal / ".suspect").write_text(f"3 {number}\n")
    prefix = [word if word != str(home.current) else str(home.journal) for word in strace(home, "fsync", "signal=KILL:when=2")]
    code, acknowledged, _ = home.run(given, prefix=prefix)
    assert code in (-signal.SIGKILL, 128 + signal.SIGKILL) and not acknowledged
    assert chain.head(home.current.read_bytes()).number == number + 1, "it was killed before the new segment had its name"
    code, acknowledged, said = home.run(given, prefix=watching(tmp_path))
    assert (code, len(acknowledged)) == (0, 1), said
    assert synced(tmp_path, home)[:2] == ["folder", "live"]
    assert not home.lost(before + acknowledged) and not home.troubles()
