"""Runs every example of every man page, in order, one scratch home a page.

What counts as an example: each literal display of EXAMPLES. It must end with 0, and leave no "command not found", traceback or bug behind.
A crontab line is run without its times; a transcript (`$ command`) must print what it shows; a document is read by ftai-parse.
"""

import re
import shutil

import pages
import pytest
import surface
from running import Place

# What an example ends with where that is not 0: (page, how the example begins).
STATUS: dict[tuple[str, str], int] = {}
# Examples that need a network, a terminal or another repository. This list may only shrink.
NOT_RUN: set[tuple[str, str]] = set()

CRON = re.compile(r"(?:@\w+|(?:[\d*/,-]+\s+){4}[\d*/,-]+)\s+(.*)")
# Programs of others that examples use: where one is missing the example is not run.
FOREIGN = ("jq", "sqlite3", "git", "pre-commit")
EXAMPLES = {name: pages.displays(name, "EXAMPLES") for name in pages.names()}
BROKEN = re.compile(r"command not found|Traceback|a bug in the program|syntax error|No such option|no such option|not found$", re.M)


def listed(table, name, example):
    """The key of `table` that this example has there, or None."""
    return next((key for key in table if key[0] == name and example.startswith(key[1])), None)


def script_of(example: str) -> str | None:
    """What to run of an example; None for a document."""
    lines = example.splitlines()
    if example.startswith(("@", "{")):
        return None
    if any(line.startswith("$ ") for line in lines):
        return "\n".join(line[2:] for line in lines if line.startswith("$ "))
    crons = [CRON.match(line) for line in lines]
    if all(crons):
        return "\n".join(cron[1].replace("\\%", "%") for cron in crons if cron)
    return example


def unnumbered(text: str) -> list[str]:
    """The lines of `text` without blanks at their ends; the line of a spec, which moves with each phrase that is added before it, is left out."""
    return [re.sub(r"\.ftai:\d+", ".ftai:N", line.rstrip()) for line in text.strip().splitlines()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, tmp_path):
    """All of a page, in order: one may build on those before it."""
    place, missing = Place(tmp_path), set()
    seeded = place.run('ftai-run "remember to send the invoice tomorrow" && ftai-run "what time is it"')
    assert seeded.returncode == 0, seeded.stderr
    for example in EXAMPLES[name]:
        lacking = [program for program in FOREIGN if re.search(rf"(?m)(^|[|(;&]\s*){program} ", example) and not shutil.which(program)]
        if lacking or listed(NOT_RUN, name, example):
            missing.update(lacking or ["what it needs"])
            continue
        script = script_of(example)
        if script is None:
            script = f"ftai-parse <<'END-OF-EXAMPLE'\n{'' if example.startswith(('@ftai', '{')) else '@ftai v2.0' + chr(10)}{example}\nEND-OF-EXAMPLE\n"
        ran = place.run(script)
        seen = f"{script}\n--- stdout\n{ran.stdout[-2000:]}\n--- stderr\n{ran.stderr[-2000:]}"
        expected = STATUS.get(listed(STATUS, name, example) or ("", ""), 0)
        assert ran.returncode == expected, f"status {ran.returncode}, expected {expected}\n{seen}"
        assert not BROKEN.search(ran.stderr), seen
        if example.startswith("$ "):
            shown = "\n".join(line for line in example.splitlines() if not line.startswith("$ "))
            assert unnumbered(ran.stdout) == unnumbered(shown), seen
    if missing:
        pytest.skip(f"{' '.join(sorted(missing)).upper()} MISSING: some examples of {name} are not run")


@pytest.mark.parametrize("stage", surface.stages())
def test_has_two_pipes(stage):
    assert sum(" | " in " ".join(example.split()) for example in EXAMPLES.get(f"{stage}.1", [])) >= 2


def test_no_exception_is_left_over():
    for name, start in [*STATUS, *NOT_RUN]:
        assert any(example.startswith(start) for example in EXAMPLES[name]), f"no example of {name} begins with '{start}' any more"


def test_no_quotes_are_lost():
    """`.Dl` is a macro line: mdoc eats the double quotes on it, and readers copy a command that means something else."""
    for name in pages.names():
        for lines in pages.sections(name).values():
            assert not [line for line in lines if line.startswith((".Dl ", ".D1 ")) and '"' in line], f"{name}: use .Bd -literal"
