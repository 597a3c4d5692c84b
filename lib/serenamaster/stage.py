"""What every stage does the same way: options, messages, signals, and the one place that exits."""

import os
import signal
import sys

from . import __version__, again, damaged, stream
from .errors import CONFIG, IOERR, SOFTWARE, SOME, USAGE, Failure, tally


class Context:
    """One run of a stage: its name, how talkative it is, and the statuses of the failures so far (`codes`)."""

    def __init__(self, name: str):
        self.name = name
        self.quiet = self.verbose = self.began = self.drawn = False
        self.codes: list[int] = []

    def error(self, message: str, hint: str = "") -> None:
        """A failure, on stderr, always."""
        self.bar()
        stream.say(f"{self.name}: {message}")
        if hint:
            stream.say(f"hint: {hint}")

    def warn(self, message: str, hint: str = "") -> None:
        """What may surprise but is no failure; --quiet leaves it out."""
        if not self.quiet:
            self.bar()
            stream.say(f"{self.name}: warning: {message}")
            if hint:
                stream.say(f"hint: {hint}")

    def note(self, message: str) -> None:
        """What only --verbose tells."""
        if self.verbose:
            self.bar()
            stream.say(f"{self.name}: {message}")

    def bar(self, done: float = 0, size: int = 0, words: str = "") -> None:
        """Draws how far a long work is, on a terminal only; without a size it takes that away again, as any message does, and the end of the run."""
        if size and not self.quiet and (self.drawn or os.isatty(2)):
            self.drawn = True
            filled = "#" * int(30 * min(done, size) / size)
            _draw(f"\r{self.name}: [{filled:30}] {words or f'{done} of {size}'}\x1b[K")
        elif self.drawn and not size:
            self.drawn = False
            _draw("\r\x1b[K")

    def fail(self, failure: Failure) -> None:
        """Reports a failure that does not end the run; its status counts at the end."""
        self.error(failure.message, failure.hint)
        self.codes.append(failure.code)


def _draw(words: str) -> None:
    try:
        os.write(2, words.encode())
    except OSError:
        pass  # a terminal that is gone, or takes no more just now, is no reason to end the work


def run(main, options=None, *, doc: str, usage: str = "[FILE...]") -> None:
    """Runs a stage and exits with its status (ftai(7), EXIT STATUS).

    main(ctx, ITEMS=(), *, settings…): its second parameter, where there is one, takes the arguments that are no options;
    a dict of verb -> (main, options, usage) makes subcommands; that of the verb "" is what runs without one.
    options: a function of the click module that returns click.Option objects, whose defaults main's own must equal: where no argument
    begins with `-`, click is not even imported, which is four fifths of a plain start.
    doc: the stage's docstring; its first paragraph is the help text.
    """
    name = os.path.basename(os.path.realpath(sys.argv[0]))
    ctx = Context(name)
    _hold_places()
    stream.through = cleared  # type: ignore[assignment]
    # A stage is a filter first: it dies silently of SIGPIPE, as cat does (Python's default would be a traceback).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.umask(0o077)
    argv = sys.argv[1:]
    code = 0
    try:
        function, rest = main, argv
        if isinstance(main, dict) and argv != [""]:  # an empty shell variable asks for no verb, not for the one without a name
            function, rest = main.get(argv[0] if argv else "", (None,))[0], argv[1:]
        plain = callable(function) and not any(arg[:1] == "-" and arg != "-" for arg in rest)
        if plain and (not rest or function.__code__.co_argcount == 2) and f"_{name}_COMPLETE".replace("-", "_").upper() not in os.environ:
            function(ctx, tuple(rest)) if rest else function(ctx)
        else:
            code = _click(ctx, main, options, doc, usage, argv)
        stream.flush()
        ctx.bar()
        code = code or tally(ctx.codes)
    except Failure as bad:
        code = _last_words(ctx, bad)
    except KeyboardInterrupt:
        ctx.bar()
        die(signal.SIGINT)
    except Terminated as came:
        ctx.bar()
        die(came.args[0])
    except BrokenPipeError:
        die(signal.SIGPIPE)
    except Exception as bad:
        code = _broken(ctx, bad) if isinstance(bad, OSError) and bad.errno in stream.FULL else bug(ctx, bad)
    # Nothing is left to do that the interpreter's own shutdown would do, and it costs a fifth of a start.
    os._exit(code)


def cleared(text: str) -> str:
    """`text` redacted, for stderr and for tracebacks; nothing of it where that can't be done."""
    try:
        from . import redact

        return redact.text(text)
    except Exception as bad:
        return f"a message that could not be redacted, and is not shown: {type(bad).__name__}"


def _hold_places() -> None:
    """Keeps 0, 1 and 2 from being given to the next file that is opened, where the caller closed them (`>&-`).

    The stand-ins are open the wrong way round, so that a read or write still fails with EBADF.
    """
    for fd, way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, way)


def _last_words(ctx: Context, bad: Failure) -> int:
    ctx.error(bad.message, bad.hint)
    if bad.code != IOERR:
        try:
            stream.flush()
        except (Failure, OSError):
            return IOERR
    return tally([bad.code, *ctx.codes]) if bad.code != USAGE else USAGE


def _broken(ctx: Context, bad: OSError) -> int:
    """A disk that is full or dying, wherever it showed itself first, is no bug."""
    try:
        stream.flush()  # the good records before it
    except (Failure, OSError):
        pass
    what = f"use '{bad.filename}'" if bad.filename else "read or write"
    return _last_words(ctx, Failure(f"cannot {what}: {bad.strerror}", IOERR))


class Terminated(BaseException):
    """Ctrl-C or SIGTERM came, or SIGHUP as the terminal went away; the signal is its argument."""


def tidy() -> None:
    """Lets the first of those signals be raised as Terminated, so that what was begun in plain is taken away before the end. nohup stays what it is."""
    taken = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]

    def came(number, _):
        # A terminal that goes away says so twice, itself and by its shell: what takes away is not to be ended in turn.
        for one in taken:
            signal.signal(one, signal.SIG_IGN)
        raise Terminated(number)

    for number in taken:
        signal.signal(number, came)


def die(number: int) -> None:
    """Ends the process by this signal, as the shell expects it (130, 141, 143)."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def command(name: str, main, options, doc: str, usage: str):
    """The click command of a stage or of one of its verbs; the tests compare it with man page and completions."""
    import click

    def quiet(context, _parameter, value):
        context.obj.quiet = context.obj.quiet or value

    def verbose(context, _parameter, value):
        context.obj.verbose = context.obj.verbose or value

    common = [
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=quiet, help="No warnings."),
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=verbose, help="Tell more on stderr."),
    ]
    text = doc.strip().partition("\n\n")[0]
    if isinstance(main, dict):
        bare, bare_options, _ = main.get("", (None, None, ""))
        alone = list(bare_options(click)) if bare_options else []

        def without(**settings):
            context = click.get_current_context()
            if context.invoked_subcommand is None:
                context.obj.began = True
                return bare(context.obj, **settings)
            for option in alone:
                # `--dry-run VERB` is no dry run of it.
                if context.get_parameter_source(option.name) is click.core.ParameterSource.COMMANDLINE:
                    raise click.UsageError(f"'{option.opts[-1]}' is no option of '{context.invoked_subcommand}' where it stands before it")
            return None

        group = click.Group(
            name,
            params=[*alone, *common],
            help=text,
            no_args_is_help=False,
            invoke_without_command=bare is not None,
            callback=without if bare else None,
            subcommand_metavar="[COMMAND] [ARGS]..." if bare else None,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        for verb, (function, verb_options, verb_usage) in main.items():
            if verb:
                group.add_command(command(verb, function, verb_options, function.__doc__ or "", verb_usage))
        group.params.append(_version(click))
        return group
    own = list(options(click)) if options else []
    code = main.__code__
    if code.co_argcount == 2:
        own.append(click.Argument([code.co_varnames[1]], nargs=-1, metavar=usage))

    def callback(**settings):
        ctx = click.get_current_context().obj
        ctx.began = True
        return main(ctx, **settings)

    made = click.Command(name, params=[*own, *common], callback=callback, help=text, context_settings={"help_option_names": ["-h", "--help"]})
    if name.startswith("ftai-"):
        made.params.append(_version(click))
    return made


def _version(click):
    def show(context, _parameter, value):
        if value:
            click.echo(f"{context.find_root().info_name} {__version__}")
            context.exit()

    return click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version.")


def _click(ctx, main, options, doc, usage, argv) -> int:
    try:
        import click
    except ImportError as missing:
        again(missing)
    try:
        made = command(ctx.name, main, options, doc, usage)
        outcome = made.main(argv, prog_name=ctx.name, standalone_mode=False, obj=ctx)
        return outcome if type(outcome) is int else 0
    except click.UsageError as bad:
        raise Failure(bad.format_message()[:1].lower() + bad.format_message()[1:].rstrip("."), USAGE, f"{ctx.name} --help") from None
    except click.ClickException as bad:
        raise Failure(bad.format_message(), SOME) from None
    except click.Abort as bad:
        raise bad.__cause__ if isinstance(bad.__cause__, EOFError) else KeyboardInterrupt from None
    except OSError as bad:
        # click writes help and version itself.
        if ctx.began:
            raise
        raise Failure(f"cannot write to standard output: {bad.strerror}", IOERR) from None


def bug(ctx: Context, bad: BaseException) -> int:
    """Writes the traceback to a file and names it: it may hold what records hold, so it is redacted, 0600 and not on the screen.

    A package that is missing is no bug, and is told as again() does.
    What the exception itself says is left out where a record was in hand of which only the fact is to be kept, and outside the state folder.
    """
    import tempfile
    import traceback

    try:
        stream.flush()  # the good records before it
    except (Failure, OSError):
        pass
    if isinstance(bad, ModuleNotFoundError) and bad.name and bad.name.partition(".")[0] != __package__:
        ctx.error(f"the package '{bad.name}' is missing", "make run")
        return CONFIG
    if path := damaged(bad):
        ctx.error(f"the byte code in '{path}' was damaged, and is removed", "run it again")
        return IOERR
    wordless = _holds_fact([frame.f_locals for frame, _ in traceback.walk_tb(bad.__traceback__)])
    try:
        from . import paths

        folder = paths.make(os.path.join(paths.state(), "bugs"))
    except (Failure, OSError):
        # Nobody would look for it there to purge it.
        folder, wordless = tempfile.gettempdir(), True
    said = [f"{type(bad).__name__}\n", *traceback.format_tb(bad.__traceback__)] if wordless else traceback.format_exception(bad)
    place = "nowhere (it could not be written)"
    try:
        fd, place = tempfile.mkstemp(prefix=f"{ctx.name}-", suffix=".txt", dir=folder)
        with os.fdopen(fd, "w", errors="backslashreplace") as out:
            out.write(f"{ctx.name} {__version__}, Python {sys.version}\n{cleared(''.join(said))}\n")
    except OSError:
        pass
    ctx.error(f"a bug in the program: {type(bad).__name__}", f"the traceback is in '{place}'")
    return SOFTWARE


def _holds_fact(values, depth: int = 4) -> bool:
    """True if a record with `log: "fact"` is among these values, or in those that they hold."""
    for value in values:
        if isinstance(value, dict) and value.get("log") == "fact":
            return True
        if depth and isinstance(value, (dict, list, tuple)) and _holds_fact(value.values() if isinstance(value, dict) else value, depth - 1):
            return True
    return False
