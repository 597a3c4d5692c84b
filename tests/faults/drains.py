"""What the fault tests of the queue share: a home with tasks, and the look at what became of them.

Run as a program it is ftai-queue with something taken out of it or dying somewhere: python drains.py HOW[,HOW...] ARGUMENTS. HOW: `no-outbox`
(what came of a task is journaled, and then its end committed), `no-fence` (whoever had a lease may end the task), `die-before-commit`,
`die-after-commit`, `die-after-journal`.
"""

import os
import subprocess
import sys
from collections import Counter

import writers
from serenamaster import journal, record, state, waiting

SPEC = """@ftai v2.0
@program
  name: "mark"
  run: ["sh", "-c", "echo \\"$1\\" >>marks; sleep 0.03; echo \\"$1\\"", "sh", "{what}"]
  timeout: 60
  output: 1000
  summary: "leaves a line"
@end
@program
  name: "gate"
  run: ["sh", "-c", "mkdir first 2>/dev/null || exit 0; until [ -e go ]; do sleep 0.02; done", "sh", "{what}"]
  timeout: 60
  output: 1000
  summary: "the first waits until it may go on, all others end at once"
@end
"""


class Home(writers.Home):
    """A scratch home with a queue."""

    def __init__(self, folder):
        super().__init__(folder)
        (self.path / "config").mkdir(mode=0o700)
        (self.path / "config" / "serenamaster.commands.ftai").write_text(SPEC)
        (self.path / "state").mkdir(mode=0o700)
        self.db = str(self.path / "state" / "state.db")
        self.routes: list[str] = []

    def put(self, count: int, target: str = "cmd:mark") -> None:
        for _ in range(count):
            command = record.make("command", "ftai-listen", body="mark")
            slots = {"@tag": "slots", "what": str(len(self.routes))}
            route = record.make("route", "ftai-route", parent=command, target=target, blocks=[slots])
            lines = record.encode(route), record.encode(command)
            assert waiting.put(waiting.Item(route["id"], route["thread"], target, lines=lines), self.db)
            self.routes.append(route["id"])

    def drain(self, out, *options, how: str = ""):
        """A drain that writes to the file `out`."""
        command = [sys.executable, __file__, how, "drain"] if how else ["ftai-queue", "drain"]
        with open(out, "wb") as stdout, open(f"{out}.err", "wb") as stderr:
            return subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self.environment)

    def watch(self) -> None:
        """Has each lease that is broken counted in the table `broken`."""
        db = state.connect(self.db)
        db.execute("CREATE TABLE broken (route)")
        change = "AFTER UPDATE OF lost ON queue WHEN new.lost > old.lost"
        db.execute(f"CREATE TRIGGER breaking {change} BEGIN INSERT INTO broken VALUES (new.route); END")
        db.close()

    def count(self, question: str) -> int:
        db = state.connect(self.db)
        try:
            return db.execute(f"SELECT count(*) FROM {question}").fetchone()[0]
        finally:
            db.close()

    def results(self) -> Counter:
        """{route: results in the journal}"""
        return Counter(rec["parent"] for _, rec in journal.read(str(self.journal)) if rec["@tag"] == "result")

    def doubled(self) -> list[str]:
        """Routes with more than one result, and ids that the journal holds twice."""
        ids = Counter(rec.get("id") for _, rec in journal.read(str(self.journal)))
        return [own for own, count in [*self.results().items(), *ids.items()] if own and count > 1]


def main(how: list[str], arguments: list[str]) -> None:
    import runpy

    finish, append = waiting.Drain.finish, journal.append

    def die() -> None:
        os.kill(os.getpid(), 9)

    def finished(self, item, lines=(), **settings):
        if "die-before-commit" in how:
            die()
        if "no-outbox" in how:
            from serenamaster import paths

            append(paths.journal(), [record.decode(line) for line in lines], stage="ftai-queue", covered=True)
            lines = ()
            if "die-after-journal" in how:
                die()
        if "no-fence" in how:
            self.db.execute("UPDATE queue SET holder = ?, token = ? WHERE route = ?", (self.name, item.token, item.route))
            if not self.db.execute("SELECT 1 FROM queue WHERE route = ?", (item.route,)).fetchone():
                waiting.put(item, self.path)
                self.db.execute("UPDATE queue SET holder = ?, token = ? WHERE route = ?", (self.name, item.token, item.route))
        done = finish(self, item, lines, **settings)
        if "die-after-commit" in how:
            die()
        return done

    def appended(*args, **settings):
        outcomes = append(*args, **settings)
        if "die-after-journal" in how and settings.get("covered"):
            die()
        return outcomes

    waiting.Drain.finish = finished  # type: ignore[method-assign]
    journal.append = appended
    sys.argv = ["ftai-queue", *arguments]
    runpy.run_path(str(writers.ROOT / "bin" / "ftai-queue"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
