"""Runs a command as a person at a terminal, a slow writer or a signal would: what bash can't do by itself.

drive.py tty-in COMMAND...        with a terminal on standard input, on which nothing is ever typed
drive.py tty-out COMMAND...       with a terminal on standard output; prints the bytes that came there
drive.py signal NAME COMMAND...   feeds it what is on standard input, keeps its input open, and sends the signal once all was read
drive.py prompt COMMAND...        feeds it line by line, waits for output after each before the next; ends with 1 if none comes in 30 s

Ends with the status of the command as a shell gives it (128 + signal).
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty


def status(child) -> int:
    code = child.wait(60)
    return code if code >= 0 else 128 - code


def tty_in(command):
    master, slave = pty.openpty()
    child = subprocess.Popen(command, stdin=slave)
    os.close(slave)
    return status(child)


def tty_out(command):
    master, slave = pty.openpty()
    tty.setraw(slave)
    child = subprocess.Popen(command, stdout=slave)
    os.close(slave)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # Linux says EIO where the last writer has gone
            break
        if not data:
            break
        os.write(1, data)
    return status(child)


def read_whole(fd, child) -> bool:
    """Waits until the child has read what was written into this pipe; False if it ends before, or takes more than 30 s."""
    for _ in range(3000):
        if child.poll() is not None:
            return False
        if struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0] == 0:
            return True
        time.sleep(0.01)
    return False


def send(name, command):
    reader, writer = os.pipe()
    child = subprocess.Popen(command, stdin=reader)
    os.write(writer, sys.stdin.buffer.read())
    if not read_whole(reader, child):
        child.kill()
    child.send_signal(getattr(signal, "SIG" + name))
    # What ignores the signal ends at the end of its input.
    for _ in range(100):
        if child.poll() is not None:
            break
        time.sleep(0.02)
    os.close(writer)
    return status(child)


def prompt(command):
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in sys.stdin.buffer.readlines():
        child.stdin.write(line)
        child.stdin.flush()
        if not select.select([child.stdout], [], [], 30)[0]:
            child.kill()
            return 1
        os.write(1, os.read(child.stdout.fileno(), 65536))
    child.stdin.close()
    os.write(1, child.stdout.read())
    return status(child)


# Who runs the tests in the background of a shell has it ignored, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
kind, *rest = sys.argv[1:]
sys.exit(send(rest[0], rest[1:]) if kind == "signal" else {"tty-in": tty_in, "tty-out": tty_out, "prompt": prompt}[kind](rest))
