"""What each stage offers on its command line, read from its click options: the one place where options are declared."""

import os
import re
import runpy
import sys
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "lib"))

# names: every spelling ("-q", "--quiet"). takes: "" (a switch), "word", "file", "folder" or a list of choices. again: may be given more than once.
Option = namedtuple("Option", "names takes help again")
# takes: what the arguments are, as Option.takes. words: what is typed as it stands in front of them ("trust" of "[trust DIR]").
# verbs: {name: Surface} of a tool with subcommands.
Surface = namedtuple("Surface", "name help options takes words verbs")

COMMON = ("-q", "--quiet", "-v", "--verbose", "-h", "--help", "--version")


def stages() -> list[str]:
    """The names of all stages: the files of bin/."""
    return sorted(name for name in os.listdir(os.path.join(ROOT, "bin")) if name.startswith("ftai-"))


def _takes(option) -> str | list[str]:
    import click

    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return [str(choice) for choice in option.type.choices]
    shown = (option.metavar or "").upper()
    if isinstance(option.type, (click.Path, click.File)) or "FILE" in shown or "PATH" in shown:
        return "file"
    return "folder" if "DIR" in shown or "FOLDER" in shown else "word"


def _of(made, usage) -> Surface:
    import click

    options = [
        Option((*param.opts, *param.secondary_opts), _takes(param), " ".join((param.help or "").split()).rstrip("."), param.multiple)
        for param in made.params
        if isinstance(param, click.Option) and not param.hidden
    ]
    options.append(Option(("-h", "--help"), "", "Show this message and exit", False))
    verbs = {}
    if isinstance(made, click.Group):
        verbs = {name: _of(verb, next((p.metavar for p in verb.params if isinstance(p, click.Argument)), "")) for name, verb in made.commands.items()}
    words = (usage or "").upper()
    takes = "file" if "FILE" in words or "PATH" in words else "folder" if "DIR" in words or "FOLDER" in words else "word" if words else ""
    literal = re.findall(r"(?<![\w-])[a-z]{2,}(?![\w-])", usage or "")
    return Surface(made.name, made.get_short_help_str(200).rstrip("."), options, takes, literal, verbs)


def surface(name: str) -> Surface:
    """The surface of one stage. The stage's file is run up to `stage.run`, which is caught."""
    from serenamaster import stage

    caught = {}

    def catch(main, options=None, *, doc, usage="[FILE...]"):
        caught.update(main=main, options=options, doc=doc, usage=usage)

    kept, stage.run = stage.run, catch
    try:
        runpy.run_path(os.path.join(ROOT, "bin", name), run_name="__main__")
    finally:
        stage.run = kept
    made = stage.command(name, caught["main"], caught["options"], caught["doc"], caught["usage"])
    takes_arguments = not isinstance(caught["main"], dict) and caught["main"].__code__.co_argcount == 2
    return _of(made, caught["usage"] if takes_arguments else "")
