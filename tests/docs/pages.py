"""Reads the man pages: their sections, options, statuses, references and examples. The source tells what is marked up, HTML what a reader sees."""

import html
import os
import re
import subprocess

from surface import ROOT

MACRO = re.compile(r"[A-Z][a-z]\Z")


def names() -> list[str]:
    """The file names of all pages, "ftai-log.1"."""
    return sorted(name for name in os.listdir(os.path.join(ROOT, "man")) if name.startswith("ftai"))


def sections(name: str) -> dict[str, list[str]]:
    """{section: its lines} of a page's source, without comments, in order."""
    found: dict[str, list[str]] = {}
    with open(os.path.join(ROOT, "man", name)) as page:
        for line in page.read().splitlines():
            if line.startswith(".Sh "):
                current = found.setdefault(line[4:].strip('"'), [])
            elif found and not line.startswith('.\\"'):
                current.append(line)
    return found


def flags(lines: list[str]) -> set[str]:
    """The options that mdoc lines name: `.Fl q`, `.Fl -quiet`, `.Fl Fl quiet`."""
    found = set()
    for line in lines:
        words = line[1:].split() if line.startswith(".") else []
        at = 0
        while at < len(words):
            if words[at] == "Fl":
                dashes = "-"
                at += 1
                while at < len(words) and words[at] == "Fl":
                    dashes += "-"
                    at += 1
                while at < len(words) and not MACRO.match(words[at]):
                    word = words[at].replace("\\-", "-").replace("\\&", "").split("=")[0].rstrip(",|.;:)")
                    if re.match(r"-?[A-Za-z]", word):
                        found.add(dashes + word)
                    at += 1
            else:
                at += 1
    return found


def statuses(lines: list[str]) -> set[int]:
    """The exit statuses that a section lists: `.It 65`, `.It 73 , 74`."""
    return {int(number) for line in lines if line.startswith(".It ") for number in re.findall(r"\b\d{1,3}\b", line)}


def references(name: str) -> set[tuple[str, str]]:
    """(page, section) of every `.Xr`."""
    with open(os.path.join(ROOT, "man", name)) as page:
        return set(re.findall(r"\bXr ([A-Za-z0-9_.-]+) ([0-9])", page.read()))


def displays(name: str, section: str) -> list[str]:
    """What the literal displays and `.Dl` lines of a section say, as a reader sees it."""
    page = os.path.join(ROOT, "man", name)
    shown = subprocess.run(["mandoc", "-T", "html", "-O", "fragment", page], capture_output=True, text=True, check=False).stdout
    part = re.search(rf'id="{section.replace(" ", "_")}".*?(?=<section class="Sh">|\Z)', shown, re.S)
    found = []
    for block, line in re.findall(r'<pre>(.*?)</pre>|<div class="Bd[^"]*"><code class="Li">(.*?)</code>', part[0] if part else "", re.S):
        text = re.sub(r"<[^>]*>", "", block or re.sub(r"\s+", " ", line))
        found.append(html.unescape(text).strip("\n"))
    return found
