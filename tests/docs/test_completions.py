"""Completions against the options they are made from, and tried in the shells they are made for."""

import os
import shutil
import subprocess

import pytest
import surface

import completions

STAGES = surface.stages()
WHERE = os.path.join(surface.ROOT, "completions")


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell.upper()} IS MISSING: its completions are not tried")


def bash(words: list[str], cwd=None) -> list[str]:
    """What bash offers for the last of these words."""
    script = 'source "$1/bash/$2"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_${1//-/_}" "$1"; printf "%s\\n" "${COMPREPLY[@]}"'
    ran = subprocess.run(["bash", "--norc", "-c", script, "-", WHERE, *words], capture_output=True, text=True, cwd=cwd, check=True)
    assert ran.stderr == ""
    return ran.stdout.split("\n")[:-1] if ran.stdout.strip() else []


def zsh(line: str, tmp_path, cwd=None) -> list[str]:
    script = os.path.join(surface.ROOT, "tests", "docs", "complete.zsh")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(["zsh", "-f", script, f"{WHERE}/zsh", line], capture_output=True, text=True, timeout=60, env=environment, cwd=cwd, check=False)
    return ran.stdout.splitlines()


def fish(line: str, tmp_path, cwd=None) -> list[str]:
    script = f"source {WHERE}/fish/{line.split()[0]}.fish; complete -C {completions._fish(line)}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(["fish", "-N", "-c", script], capture_output=True, text=True, env=environment, cwd=cwd, check=True)
    return [offer.partition("\t")[0] for offer in ran.stdout.splitlines()]


def long(part) -> set[str]:
    return {name for option in part.options for name in option.names if name.startswith("--")}


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_what_the_options_make(stage):
    for path, content in completions.files(stage).items():
        with open(os.path.join(surface.ROOT, path)) as file:
            assert file.read() == content, f"{path}: run `make completions`"


@pytest.mark.parametrize("stage", STAGES)
@needs("bash")
def test_bash_offers(stage, tmp_path):
    seen = surface.surface(stage)
    (tmp_path / "a file.ftai").touch()
    assert set(bash([stage, "--"])) == long(seen)
    if seen.verbs or seen.words:
        assert set(bash([stage, ""], cwd=tmp_path)) == {*seen.verbs, *seen.words}
    for verb, part in [("", seen)] if not seen.verbs else seen.verbs.items():
        words = [stage, verb] if verb else [stage]
        assert set(bash([*words, "--"])) == long(part)
        assert (bash([*words, "a"], cwd=tmp_path) == ["a file.ftai"]) == (part.takes == "file")
        for option in part.options:
            if isinstance(option.takes, list):
                assert bash([*words, option.names[0], ""]) == option.takes
                start = option.takes[0][:2]
                assert bash([*words, option.names[-1], "=", start]) == [choice for choice in option.takes if choice.startswith(start)]
            elif option.takes == "file":
                assert bash([*words, option.names[0], "a f"], cwd=tmp_path) == ["a file.ftai"]


@pytest.mark.parametrize("stage", STAGES)
@needs("fish")
def test_fish_offers(stage, tmp_path):
    seen = surface.surface(stage)
    (tmp_path / "zz.ftai").touch()
    assert set(fish(f"{stage} --", tmp_path)) == long(seen)
    for verb, part in [("", seen)] if not seen.verbs else seen.verbs.items():
        line = f"{stage} {verb}".strip()
        assert set(fish(f"{line} --", tmp_path)) == long(part)
        assert ("zz.ftai" in fish(f"{line} z", tmp_path, cwd=tmp_path)) == (part.takes == "file")
        for option in part.options:
            if isinstance(option.takes, list):
                assert sorted(fish(f"{line} {option.names[0]} ", tmp_path)) == sorted(option.takes)
    if seen.verbs or seen.words:
        assert set(fish(f"{stage} ", tmp_path)) == {*seen.verbs, *seen.words}
    if seen.words and seen.takes == "folder":
        (tmp_path / "project").mkdir()
        assert "project/" in fish(f"{stage} {seen.words[0]} ", tmp_path, cwd=tmp_path)


@pytest.mark.parametrize("stage", STAGES)
@needs("zsh")
def test_zsh_offers(stage, tmp_path):
    seen = surface.surface(stage)
    if seen.verbs or seen.words:
        assert set(zsh(f"{stage} ", tmp_path, cwd=tmp_path)) == {*seen.verbs, *seen.words}
    for verb, part in [("", seen)] if not seen.verbs else seen.verbs.items():
        line = f"{stage} {verb}".strip()
        assert set(zsh(f"{line} --", tmp_path)) == long(part)
        chosen = next((option for option in part.options if isinstance(option.takes, list)), None)
        if chosen:
            assert set(zsh(f"{line} {chosen.names[-1]} ", tmp_path)) == set(chosen.takes)
