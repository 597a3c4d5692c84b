"""What ftai-exec, ftai-run and ftai-queue act with: one execution.Runner, and all that it needs of the floor below.

It stands above that floor, as it strings the others together, each imported where it is first used.
"""

from . import execution, state
from .errors import IOERR, Failure


def append(records: list, warn=None, stage: str = "") -> None:
    """Puts records into the journal, synced. Raises Failure where one of them is not in it then."""
    from . import journal, paths

    for kind, _, reason in journal.append(paths.journal(), records, stage=stage, warn=warn):
        if kind not in ("written", "repeat"):
            raise Failure(f"cannot write the journal: {reason or kind}", IOERR)


def view(warn):
    """The module archive, whose records come opened."""
    from . import archive

    def opened(rec):
        from . import seal, secret

        return seal.opened(rec, secret.identity, warn)

    archive.opened_by(opened)
    return archive


def consent(target: str, rec) -> str:
    """"" where a target may get a record as far as consent goes, else the reason why not."""
    from . import specs

    return state.consent(target, rec, specs.load("config")["consent"])


def runner(ctx, *, stage: str, stop, claims, journal: str = "", **more) -> execution.Runner:
    """The Runner of a stage (see there for `more`). stage: who makes the records; journal: who stamps what is journaled."""

    def skill(name):
        from . import skills

        view(ctx.warn)
        return skills.named(name)

    def program(name):
        from . import tools

        return tools.named(name)

    def model(name):
        return _models(ctx).named(name)

    def default():
        from . import specs

        return specs.setting("privacy", "local")

    def later(job, end):
        return _later(job, end, ctx.warn)

    past = execution.Past(lambda: view(ctx.warn).connect(wait=1.0), lambda db, ids: view(ctx.warn).get(db, ids), ctx.warn)
    return execution.Runner(
        stage, claims=claims, append=lambda records: append(records, ctx.warn, journal), find=past.find, ended=past.ended,
        kinds={"skill": skill, "cmd": program, "model": model}, fail=ctx.fail, bug=lambda bad: ctx.codes.append(_bug(ctx, bad)),
        consent=consent, default=default, stop=stop, queue=later, **more,
    )  # fmt: skip


def _bug(ctx, bad) -> int:
    from . import stage

    return stage.bug(ctx, bad)


def _models(ctx):
    from . import models

    def key(name, tell):
        from . import secret

        return secret.read(name, reader=ctx.name, log=tell)[0]

    def thread(own):
        archive = view(ctx.warn)
        try:
            # First what is part of it: an update that is not would change what is.
            return archive.fold(models.conversation(archive.ask(lambda db: archive.thread(db, own)), own))
        except Failure as bad:
            ctx.warn(f"{bad.message}; the conversation so far is not told")
            return []

    def clear(texts):
        from . import redact

        return [redact.text(text, ctx.warn) for text in texts]

    return models.Models(key, thread, clear)


def _later(job, end, warn) -> str:
    """Keeps a job in the queue, as the journal would keep its texts: redacted, and sealed where the config says so. Returns when it is tried next."""
    from . import canonical, record, redact, seal, waiting

    lines = tuple(record.encode(rec) for rec in seal.cover(canonical.cleared([job.route, job.command], warn)))
    # What is sealed in its record is not to stand beside it.
    error = end.kind if any(b'"[sealed:' in line for line in lines) else redact.text(end.body, warn)
    priority, until = job.command.get("priority"), end.fields.get("not_before")
    waiting.put(waiting.Item(
        job.route["id"], job.route.get("thread"), job.target, job.privacy, priority if type(priority) is int else 0, job.route.get("deadline"),
        until, job.route["id"], error=error, lines=lines,
    ))  # fmt: skip
    return f"from {until} on" if until else "with the next drain"
