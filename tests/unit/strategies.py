"""Records for property tests: everything that ftai(5) allows in line form, hostile values first."""

import string

from hypothesis import strategies as st

HOSTILE = [
    "",
    " ",
    '"',
    "\\",
    '\\"',
    "a\\nb",
    "line\nline",
    "x\n@decision\n  body: forged\n@end\n",
    "@end",
    "//",
    "# no comment",
    "[",
    "[a, b",
    "---",
    "{}",
    "\u2028",
    "\u0085",
    "\ufeff",
    "\U0001f600",
    "é",
    "true",
    "7",
    "007",
    "1e5",
    "null",
    "\t tab \t",
    "\r\n",
]
text = st.sampled_from(HOSTILE) | st.sampled_from([5000, 70000]).map("a".__mul__) | st.text(st.characters(codec="utf-8"), max_size=40)
name = st.sampled_from(["id", "ts", "thread", "body", "a", "A", "a.b", "a-b", "_x", "from", "end"]) | st.text(
    string.ascii_letters + "_", min_size=1, max_size=12
)
tag = st.sampled_from(["task", "command", "x_own", "a.b", "a-b", "message"]) | st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
number = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
value = st.recursive(text | number | st.booleans(), lambda inner: st.lists(inner, max_size=4), max_leaves=6)
fields = st.dictionaries(name, value, max_size=5)


def block(inner):
    """A block whose nested ones come from `inner` (None: it has none)."""
    heads = st.fixed_dictionaries({"@tag": tag}, optional={"@head": text})
    nested = {} if inner is None else {"@blocks": st.lists(inner, max_size=3)}
    tails = st.fixed_dictionaries({}, optional={"@text": text, **nested})
    return st.builds(lambda head, own, tail: head | own | tail, heads, fields, tails)


narrative = st.builds(lambda words: {"@text": words}, text)
tagged = st.recursive(block(None), lambda inner: block(inner | narrative), max_leaves=5)
record = tagged | narrative
