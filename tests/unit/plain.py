"""A plain run of each stage: what it is given in its everyday use. Stages that are not named get one record on standard input."""

ID = "0199c2f4-7d1e-7a31-9c1b-2f0a5b6c7d8e"
RECORD = b'{"@tag":"message","id":"%s","ts":"2026-11-22T13:25:00.041Z","thread":"%s","body":"hello"}\n' % (ID.encode(), ID.encode())
COMMAND = RECORD.replace(b"message", b"command").replace(b"hello", b"remember to send the invoice tomorrow")

ARGUMENTS = {
    "ftai-archive": ["stats"],
    "ftai-doctor": [],
    "ftai-keys": ["list"],
    "ftai-listen": ["remember to send the invoice tomorrow"],
    "ftai-queue": ["list"],
    "ftai-recall": ["invoice"],
    "ftai-report": ["cost"],
    "ftai-rotate": [],
    "ftai-why": [ID],
    "ftai-run": ["remember to send the invoice tomorrow"],
}


def run_of(stage: str) -> tuple[list[str], bytes]:
    """(arguments, standard input) of a plain run."""
    if stage in ARGUMENTS:
        return ARGUMENTS[stage], b""
    return [], COMMAND if stage == "ftai-route" else RECORD
