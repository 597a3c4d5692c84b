"""Failures with their exit status, and findings with their place.

Exit statuses follow sysexits(3) where it has a word for the case; the whole table is in ftai(7).
"""

from collections import namedtuple

OK, SOME, USAGE = 0, 1, 2
DATAERR, NOINPUT, UNAVAILABLE, SOFTWARE = 65, 66, 69, 70
CANTCREAT, IOERR, TEMPFAIL, NOPERM, CONFIG = 73, 74, 75, 77, 78


class Failure(Exception):
    """An expected failure: one line for the user, one exit status, at most one hint.

    `message` says what failed first, with the subject in single quotes, then the reason; lower case, no full stop.
    `code` is the exit status, `hint` the exact thing to type (or "").
    """

    def __init__(self, message: str, code: int = SOME, hint: str = ""):
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint


class Finding(namedtuple("Finding", "line column level rule message refused", defaults=(False,))):
    """One remark about a place in a document.

    line, column: from 1 (0: the file as a whole); column counts characters. level: "error" or "warning".
    rule: a stable kebab-case name of what was broken ("stray-end"). message: what is wrong and what was expected.
    refused: True where a record (or a part that would have been one) is missing from the output because of it.
    """

    __slots__ = ()


def tally(codes) -> int:
    """The exit status for a run whose failures had these statuses (ftai(7), EXIT STATUS).

    None: 0. 70, 73 and 74 win over all; failures of one kind give their own status, mixed ones 1.
    """
    seen = set(codes)
    for code in (SOFTWARE, CANTCREAT, IOERR):
        if code in seen:
            return code
    return seen.pop() if len(seen) == 1 else SOME if seen else OK
