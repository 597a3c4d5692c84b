#!/usr/bin/env python3
"""Writes the completions of every stage for bash, zsh and fish from the stages' own options.

python tests/docs/completions.py           writes completions/{bash,zsh,fish}/
python tests/docs/completions.py --check   says which files differ from what would be written, and ends with 1 if one does
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import surface

NOTE = "made from the options of bin/{} by `make completions`: do not edit"


def quoted(text: str) -> str:
    """`text` in single quotes for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def flat(seen) -> list:
    """(verb or "", surface) of the tool itself and each of its verbs."""
    return [("", seen), *seen.verbs.items()]


def bash(seen) -> str:
    """A function that needs nothing of the bash-completion package and runs in bash 3.2, which macOS has."""
    name = seen.name
    out = [f"# bash completion for {name}; {NOTE.format(name)}", f"_{name.replace('-', '_')}() {{"]
    out += ["    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} IFS=$'\\n'", "    COMPREPLY=()"]
    # `--option=value` comes in as three words, as `=` breaks words.
    out += ['    if [ "$cur" = = ]; then cur=""; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi']
    if seen.verbs:
        out += ["    local verb= word", '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do']
        out += ["        case $word in -*) ;; *) verb=$word; break ;; esac", "    done", "    case $verb in"]
    for verb, part in flat(seen):
        pad = "    "
        if seen.verbs:
            out += [f"    {verb or chr(39) * 2})"]
            pad = "        "
        valued = [option for option in part.options if option.takes]
        if valued:
            out += [f"{pad}case $prev in"]
            for option in valued:
                out += [f"{pad}{'|'.join(option.names)})", f"{pad}    {_bash_values(option.takes)}", f"{pad}    return ;;"]
            out += [f"{pad}esac"]
        names = "\\n".join(name for option in part.options for name in option.names)
        out += [f"{pad}case $cur in", f"{pad}-*) COMPREPLY=($(compgen -W $'{names}' -- \"$cur\")) ;;"]
        rest = _bash_values(list(seen.verbs)) if seen.verbs and not verb else _bash_values(part.takes, part.words)
        out += [f"{pad}*) {rest} ;;", f"{pad}esac"]
        if seen.verbs:
            out += [f"{pad};;"]
    out += ["    esac"] if seen.verbs else []
    return "\n".join([*out, "}", f"complete -F _{name.replace('-', '_')} {name}", ""])


def _bash_values(takes, words=()) -> str:
    if takes in ("file", "folder"):
        listed = "-W $'" + "\\n".join(words) + "' " if words else ""
        return f"compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen {listed}-{'f' if takes == 'file' else 'd'} -- \"$cur\"))"
    if isinstance(takes, list) or words:
        listed = "\\n".join(takes if isinstance(takes, list) else words)
        return f"COMPREPLY=($(compgen -W $'{listed}' -- \"$cur\"))"
    return ":"


def zsh(seen) -> str:
    name = seen.name
    out = [f"#compdef {name}", f"# zsh completion for {name}; {NOTE.format(name)}", ""]
    if not seen.verbs:
        return "\n".join([*out, *_zsh_arguments(seen, ""), ""])
    out += ["local state line", "typeset -A opt_args"]
    listed = " ".join(f"{verb}\\:{quoted(_zsh_text(part.help))}" for verb, part in seen.verbs.items())
    out += _zsh_arguments(seen, "", ["-C"], [quoted(f"1:verb:(({listed}))"), "'*::argument:->rest'"]) + ["", "case $state in", "rest)", "    case $words[1] in"]
    for verb, part in seen.verbs.items():
        out += [f"    {verb})", *_zsh_arguments(part, "        "), "        ;;"]
    return "\n".join([*out, "    esac", "    ;;", "esac", ""])


def _zsh_text(text: str) -> str:
    for special in "\\:[]":
        text = text.replace(special, "\\" + special)
    return text


def _zsh_arguments(part, pad, flags=(), rest=None) -> list[str]:
    specs = []
    for option in part.options:
        if isinstance(option.takes, list):
            values = f":value:({' '.join(option.takes)})"
        else:
            values = {"": "", "word": ":value: ", "file": ":file:_files", "folder": ":folder:_files -/"}[option.takes]
        for name in option.names:
            others = "" if option.again else f"({' '.join(option.names)})" if len(option.names) > 1 else ""
            equals = "=" if option.takes and name.startswith("--") else "+" if option.takes else ""
            specs.append(quoted(f"{'*' if option.again else ''}{others}{name}{equals}[{_zsh_text(option.help)}]{values}"))
    if part.words and rest is None:
        specs.append(quoted(f"1:word:({' '.join(part.words)})"))
    specs += rest if rest is not None else {"file": ["'*:file:_files'"], "folder": ["'*:folder:_files -/'"], "word": ["'*:word: '"], "": []}[part.takes]
    return [f"{pad}_arguments {' '.join([*flags, '-s', '-S'])} \\", *(f"{pad}    {spec} \\" for spec in specs[:-1]), f"{pad}    {specs[-1]}"]


def fish(seen) -> str:
    name = seen.name
    out = [f"# fish completion for {name}; {NOTE.format(name)}"]
    if all(part.takes != "file" for _, part in flat(seen)) or seen.verbs:
        out += [f"complete -c {name} -f"]
    for verb, part in flat(seen):
        when = f" -n '__fish_seen_subcommand_from {verb}'" if verb else " -n __fish_use_subcommand" if seen.verbs else ""
        for option in part.options:
            spelled = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            if isinstance(option.takes, list):
                values = f" -x -a {_fish(' '.join(option.takes))}"
            else:
                values = {"": "", "word": " -x", "file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'"}[option.takes]
            out += [f"complete -c {name}{when} {spelled}{values} -d {_fish(option.help)}"]
        if part.words:
            out += [f"complete -c {name}{when if verb else ' -n __fish_use_subcommand'} -a {_fish(' '.join(part.words))}"]
        if part.takes == "folder":
            after = f"__fish_seen_subcommand_from {' '.join(part.words)}" if part.words else "true"
            out += [f"complete -c {name} -n {_fish(after)} -a '(__fish_complete_directories)'"]
        if verb and part.takes == "file":
            out += [f"complete -c {name}{when} -F"]
    out += [f"complete -c {name} -n __fish_use_subcommand -a {verb} -d {_fish(part.help)}" for verb, part in seen.verbs.items()]
    return "\n".join([*out, ""])


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def files(name: str) -> dict[str, str]:
    """{path below the root: content} of one stage's completions."""
    seen = surface.surface(name)
    return {f"completions/bash/{name}": bash(seen), f"completions/zsh/_{name}": zsh(seen), f"completions/fish/{name}.fish": fish(seen)}


def main() -> int:
    check = "--check" in sys.argv
    names = [word for word in sys.argv[1:] if not word.startswith("-")] or surface.stages()
    stale = 0
    for name in names:
        for path, content in files(name).items():
            full = os.path.join(surface.ROOT, path)
            if os.path.exists(full):
                with open(full) as file:
                    if file.read() == content:
                        continue
            stale += 1
            if check:
                print(f"{path} is not what the options of bin/{name} make: run `make completions`", file=sys.stderr)
            else:
                os.makedirs(os.path.dirname(full), exist_ok=True)
                with open(full, "w") as out:
                    out.write(content)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
