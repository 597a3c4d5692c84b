"""Man pages against the stages: options, statuses, sections, references; every page is clean mdoc."""

import os
import re
import shutil
import subprocess

import pages
import pytest
import surface
from serenamaster import errors

STAGES = surface.stages()
ORDER = ["NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO", "CAVEATS"]
# Pages of other programs that ours may point to.
OTHERS = {"awk 1", "cron 8", "crontab 5", "fdatasync 2", "flock 2", "fsync 2", "git 1", "githooks 5", "grep 1", "jq 1", "launchd 8", "less 1"}
OTHERS |= {"age 1", "age-keygen 1", "openssl 1", "sh 1", "sha256sum 1", "signal 7", "sqlite3 1", "sysexits 3", "tail 1", "tee 1", "zstd 1"}

needs_mandoc = pytest.mark.skipif(not shutil.which("mandoc"), reason="MANDOC IS MISSING: the man pages are not checked")


def page_of(stage: str) -> str:
    return f"{stage}.1"


@pytest.mark.parametrize("stage", STAGES)
def test_has_a_page_and_completions(stage):
    for path in (f"man/{stage}.1", f"completions/bash/{stage}", f"completions/zsh/_{stage}", f"completions/fish/{stage}.fish"):
        assert os.path.isfile(os.path.join(surface.ROOT, path)), path


def test_no_page_or_completion_without_a_stage():
    assert {name[:-2] for name in pages.names() if name.endswith(".1")} <= set(STAGES)
    for shell, form in (("bash", "{}"), ("zsh", "_{}"), ("fish", "{}.fish")):
        assert set(os.listdir(os.path.join(surface.ROOT, "completions", shell))) <= {form.format(stage) for stage in STAGES}


@needs_mandoc
@pytest.mark.parametrize("name", pages.names())
def test_is_clean_mdoc(name):
    ran = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", os.path.join(surface.ROOT, "man", name)], capture_output=True, text=True, check=False)
    assert ran.stdout == ""


def spellings(seen) -> tuple[set[str], list[set[str]]]:
    """All options of a stage and its verbs, and the own ones, each with its spellings."""
    parts = [seen, *seen.verbs.values()]
    own = [set(option.names) for part in parts for option in part.options if not set(option.names) & set(surface.COMMON)]
    return {name for part in parts for option in part.options for name in option.names}, own


@pytest.mark.parametrize("stage", STAGES)
def test_options_are_those_of_the_page(stage):
    known, own = spellings(surface.surface(stage))
    found = pages.sections(page_of(stage))
    listed = pages.flags([line for section, lines in found.items() if section != "SYNOPSIS" for line in lines if line.startswith(".It ")])
    missing = set().union(*own) - listed
    assert not missing, f"not in an .It line of {stage}(1): {sorted(missing)}"
    assert listed <= known, f"in {stage}(1) and not an option: {sorted(listed - known)}"
    # The four that all stages have are in ftai(7): a page lists all of them, or says where they are.
    common = {"--quiet", "--verbose", "--help", "--version"} - listed
    assert not common or ("ftai", "7") in pages.references(page_of(stage)), f"{stage}(1) neither lists {sorted(common)} nor refers to ftai(7)"


@pytest.mark.parametrize("stage", STAGES)
def test_synopsis_names_every_option(stage):
    known, own = spellings(surface.surface(stage))
    shown = pages.flags(pages.sections(page_of(stage))["SYNOPSIS"])
    assert shown <= known, f"in the synopsis and not an option: {sorted(shown - known)}"
    assert not [sorted(names) for names in own if not names & shown], "not in the synopsis"


@pytest.mark.parametrize("stage", STAGES)
def test_help_tells_the_same(stage):
    """What `--help` prints is what the surface says, so that comparing with the surface is comparing with the help."""
    seen = surface.surface(stage)
    for verb, part in [("", seen), *seen.verbs.items()]:
        command = [os.path.join(surface.ROOT, "bin", stage), *([verb] if verb else []), "--help"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr
        spelled = [line[: line.find("  ", 6)] for line in ran.stdout.splitlines() if re.match(r" +-", line)]
        told = {name for line in spelled for name in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", line)}
        assert {name for option in part.options for name in option.names} == told


@pytest.mark.parametrize("stage", STAGES)
def test_sections_are_there_in_order(stage):
    found = [section for section in pages.sections(page_of(stage)) if section in ORDER]
    assert found == ORDER


@pytest.mark.parametrize("stage", STAGES)
def test_says_whether_it_streams_or_buffers(stage):
    with open(os.path.join(surface.ROOT, "man", page_of(stage))) as page:
        assert re.search(r"\b(streams?|buffers?)\b", page.read(), re.I)


def table() -> set[int]:
    return pages.statuses(pages.sections("ftai.7")["EXIT STATUS"])


@pytest.mark.parametrize("stage", STAGES)
def test_statuses_are_in_the_table(stage):
    listed = pages.statuses(pages.sections(page_of(stage))["EXIT STATUS"])
    assert listed
    assert listed <= table(), f"not in ftai(7): {sorted(listed - table())}"


def test_the_table_has_every_status():
    codes = {value for name, value in vars(errors).items() if name.isupper() and type(value) is int}
    assert codes <= table()


@pytest.mark.parametrize("name", pages.names())
def test_references_exist(name):
    for page, section in pages.references(name):
        ours = os.path.isfile(os.path.join(surface.ROOT, "man", f"{page}.{section}"))
        assert ours if page.startswith("ftai") else f"{page} {section}" in OTHERS, f"{page}({section})"


def test_overview_has_every_stage_and_no_other():
    lines = pages.sections("ftai.7")["COMMANDS"]
    assert sorted(line.split()[2] for line in lines if line.startswith(".It Xr ftai-")) == STAGES


def test_format_page_has_the_vocabulary():
    """ftai(5) lists the tags and the classes of errors that the code knows."""
    from serenamaster import rules, specs

    lines = pages.sections("ftai.5")["VOCABULARY"]
    starts = [at for at, line in enumerate(lines) if line.startswith(".Bd")]
    published, own = (set(" ".join(lines[at + 1 : lines.index(".Ed", at)]).partition(",")[0].split()) for at in starts)
    assert published == rules.CORE
    assert own == rules.OWN - {tag for tags in specs.TAGS.values() for tag in tags}
    classes = re.search(r"\.Li class\n\.Pq (network[a-z, ]*)", "\n".join(pages.sections("ftai.5")["RECORDS"]))
    assert classes and set(classes[1].rstrip(" ,").split(", ")) == rules.CLASSES


def entries() -> dict:
    """{stage: its entry} of the system spec."""
    from serenamaster.text import read

    with open(os.path.join(surface.ROOT, "specs", "serenamaster.system.ftai"), "rb") as spec:
        records, _ = read(spec.read())
    nested = [*records, *(block for rec in records for block in rec.get("@blocks", ()))]
    return {rec.get("name"): rec for rec in nested if rec.get("@tag") == "stage"}


@pytest.mark.parametrize("stage", STAGES)
def test_has_a_spec_entry_with_the_statuses_of_the_page(stage):
    entry = entries().get(stage)
    assert entry, f"no @stage of that name in serenamaster.system.ftai: {sorted(entries())}"
    assert entry.get("summary") and "reads" in entry and "writes" in entry
    assert {int(code) for code in entry["statuses"]} == pages.statuses(pages.sections(page_of(stage))["EXIT STATUS"])


def test_no_spec_entry_without_a_stage():
    assert set(entries()) <= set(STAGES)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (".It Fl q , Fl -quiet", {"-q", "--quiet"}),
        (".It Fl Fl quiet", {"--quiet"}),
        (".It Fl n Ar N , Fl -limit Ar N", {"-n", "--limit"}),
        (".Op Fl -sync Ns = Ns Cm batch | each", {"--sync"}),
        (".Op Fl -continue | Fl -thread Ar ID", {"--continue", "--thread"}),
        (".Fl", set()),
        ("Fl -not-a-macro", set()),
    ],
)
def test_options_are_read_from_mdoc(line, options):
    """A control: what reads nothing finds nothing wrong."""
    assert pages.flags([line]) == options
