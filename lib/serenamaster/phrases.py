"""Sentence templates: read once, made into one automaton of plain lists, matched word by word without a regular expression.

The syntax is hassil's (https://github.com/home-assistant/hassil): `[optional]`, `(one|other)`, `{slot}`, `{list}`, `{list:slot}`, `<rule>`,
`\\` before a sign that is meant as it stands. `{name}` without a list of that name takes one word or more, `{word:name}` just one,
`{file:name}` one that looks like the name of a file, `{textfile:name}` one that can hardly be anything else.
In the values of lists `#` stands for one digit.
"""

from .errors import Failure

DEPTH = 50  # brackets, lists and rules in one another
LENGTH = 4_000  # characters of one template
STATES = 20_000  # of one automaton: templates that need more are refused
GLUED = 1_000  # spellings of one word with brackets in it

ONE = ("word", "file", "textfile")  # lists that are not declared: any one word, one with a `.` or `/` in it, one that _textfile() takes
# What a note is written to has one of these; acme.org, 3.5 and and/or have none.
TEXT = (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".tex", ".log", ".csv", ".tsv", ".ftai", ".json", ".yaml", ".yml", ".toml", ".ini", ".conf")
MARKS = ".,;:!?…\"'“”‘’„«»()[]¿¡\u200b\ufeff"
ENDS = ".,;:!?… \t\r\n"
FOLD = {ord(digit): "#" for digit in "0123456789"}


def words(text: str) -> list[str]:
    """The words of a sentence as they are compared: case folded, straight apostrophes, no marks at either end."""
    text = text.casefold()
    if not text.isascii():
        import unicodedata

        text = unicodedata.normalize("NFC", text).replace("’", "'")
    return [word.strip(MARKS) for word in text.split()]


# --- templates

# A parsed template is a list of (glued, node); glued: no white space before it (in brackets: none after the bracket).
# Nodes: ("word", text), ("slot", list, slot), ("rule", name), ("one of", [parsed, …]).


def parse(template: str) -> list:
    """The parsed form of one template. Raises Failure (78) saying what was expected and at which character."""
    if len(template) > LENGTH:
        raise Failure(f"a template of {len(template)} characters, expected at most {LENGTH}", 78)
    branches, end = _branches(template, 0, "", 0)
    if end < len(template):
        raise Failure(f"template '{template}': '{template[end]}' at character {end + 1} closes nothing", 78)
    return branches[0] if len(branches) == 1 else [(False, ("one of", branches))]


def _branches(template, at, closer, depth):
    if depth > DEPTH:
        raise Failure(f"template '{template[:40]}…': more than {DEPTH} brackets in one another", 78)
    branches: list = [[]]
    glued, opened = True, at
    while at < len(template):
        char = template[at]
        if char in ")]":
            if char != closer:
                break
            if not glued:
                branches[-1].append((False, ("word", "")))
            return branches, at + 1
        if char.isspace():
            glued, at = False, at + 1
            continue
        if char == "|":
            if not glued:
                branches[-1].append((False, ("word", "")))
            branches.append([])
            glued, at = True, at + 1
            continue
        if char in "[(":
            inner, at = _branches(template, at + 1, "]" if char == "[" else ")", depth + 1)
            node: tuple = ("one of", inner + [[]] if char == "[" else inner)
        elif char in "{<":
            end = template.find("}" if char == "{" else ">", at)
            name = template[at + 1 : end] if end > 0 else ""
            first, _, second = name.partition(":")
            if not first.replace("_", "a").isalnum() or (":" in name and not (char == "{" and second.replace("_", "a").isalnum())):
                raise Failure(f"template '{template}': expected a name within the '{char}' at character {at + 1}", 78)
            node = ("slot", first, second or first) if char == "{" else ("rule", first)
            at = end + 1
        elif char in "}>;":
            wanted = "; permutations are not supported" if char == ";" else " closes nothing"
            raise Failure(f"template '{template}': '{char}' at character {at + 1}{wanted}", 78)
        else:
            text = ""
            while at < len(template) and template[at] not in "[]()|{}<>;" and not template[at].isspace():
                at += template[at] == "\\"
                text += template[at : at + 1]
                at += 1
            node = ("word", text)
        branches[-1].append((glued, node))
        glued = True
    if closer and at >= len(template):
        raise Failure(f"template '{template}': the bracket at character {opened} is never closed", 78)
    return branches, at


def slots(parsed: list, rules: dict) -> set[str]:
    """The names of the slots in a parsed template and in the rules that it uses."""
    found: set[str] = set()
    todo, seen = [parsed], set()
    while todo:
        for _, node in todo.pop():
            if node[0] == "slot":
                found.add(node[2])
            elif node[0] == "one of":
                todo.extend(node[1])
            elif node[0] == "rule" and node[1] not in seen:
                seen.add(node[1])
                todo.extend(rules.get(node[1], ()))
    return found


# --- the automaton


class Builder:
    """Makes templates into one automaton: first with empty moves between states, then without.

    lists: name -> parsed values; rules: name -> parsed templates; short: contraction -> its words.
    """

    def __init__(self, lists: dict, rules: dict, short: dict):
        self.lists, self.rules, self.short = lists, rules, short
        self.empty: list[list[int]] = []  # state -> states reached without a word
        self.moves: list[list] = []  # state -> (label, state); a label is a word, or (list or "", slot)
        self.done: dict[int, list[int]] = {}  # state -> numbers of the templates that end there
        self.inline = False  # within a list: lists are written out, and every word is open to `#`

    def state(self) -> int:
        """A new state. Raises Failure (78) where there are too many."""
        if len(self.empty) >= STATES:
            raise Failure(f"the template needs more than {STATES} steps, expected a '{{slot}}' in place of so many words", 78)
        self.empty.append([])
        self.moves.append([])
        return len(self.empty) - 1

    def add(self, start: int, number: int, parsed: list) -> None:
        """Adds one template to the automaton that begins at `start`."""
        end = self._sequence(parsed, start, ())
        self.done.setdefault(end, []).append(number)

    def _sequence(self, parsed, at, within):
        index = 0
        while index < len(parsed):
            stop = index + 1
            while stop < len(parsed) and parsed[stop][0]:
                stop += 1
            if stop - index == 1:
                at = self._node(parsed[index][1], at, within)
            else:
                spellings = self._spell(parsed[index:stop], within)
                at = self._either([[(False, ("word", word)) for word in text.split()] for text in spellings], at, within)
            index = stop
        return at

    def _node(self, node, at, within):
        kind = node[0]
        if kind == "word":
            for word in words(node[1]):
                for part in self.short.get(word, (word,)):
                    if part:
                        at = self._move(at, part)
            return at
        if kind == "one of":
            return self._either(node[1], at, within)
        name = node[1]
        if len(within) > DEPTH or (kind, name) in within:
            raise Failure(f"'{name}' is used within itself", 78)
        if kind == "rule":
            if name not in self.rules:
                raise Failure(f"there is no expansion '<{name}>'", 78)
            return self._either(self.rules[name], at, (*within, (kind, name)))
        if self.inline:
            if name not in self.lists:
                raise Failure(f"there is no list '{name}', and a list can hold no free words", 78)
            return self._either(self.lists[name], at, (*within, (kind, name)))
        if node[2] != name and name not in self.lists and name not in ONE:
            raise Failure(f"there is no list '{name}'", 78)
        return self._move(at, (name if name in self.lists or name in ONE else "", node[2]))

    def _move(self, at, label):
        following = self.state()
        self.moves[at].append((label, following))
        return following

    def _either(self, branches, at, within):
        end = self.state()
        for branch in branches:
            self.empty[self._sequence(branch, at, within)].append(end)
        return end

    def _spell(self, parsed, within) -> list[str]:
        """All spellings of words with brackets in them, as in `task[s]`."""
        texts = [""]
        for glued, node in parsed:
            if node[0] == "word":
                ways = [node[1]]
            elif node[0] == "one of":
                ways = [text for branch in node[1] for text in self._spell(branch, within)]
            elif node[0] == "rule" and (node not in within) and len(within) < DEPTH:
                ways = [text for branch in self.rules.get(node[1], ()) for text in self._spell(branch, (*within, node))]
            else:
                raise Failure(f"'{{{node[1]}}}' touches a word, expected a space between them", 78)
            if len(texts) * len(ways) > GLUED:
                raise Failure(f"a word with more than {GLUED} spellings", 78)
            texts = [text + ("" if glued else " ") + way for text in texts for way in ways]
        return texts

    def _closure(self, states):
        seen, todo = set(states), list(states)
        while todo:
            for following in self.empty[todo.pop()]:
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return frozenset(seen)

    def table(self, start: int) -> list:
        """The automaton from `start` without empty moves, as plain lists: one [words, listed, free, done] for each state.

        words: word -> state; listed: [list, slot, state]; free: [slot, state]; done: numbers of templates. Raises Failure (78) if it is too big.
        """
        first = self._closure([start])
        numbers, order, table = {first: 0}, [first], []
        for states in order:
            reached: dict = {}
            for state in states:
                for label, following in self.moves[state]:
                    reached.setdefault(label, []).append(following)
            if self.inline:
                for label, following in reached.items():
                    # The word `2` also takes the way of `#`, so that looking up the word first loses nothing.
                    if (open_ := label.translate(FOLD)) != label:
                        following.extend(reached.get(open_, ()))
            entry: list = [{}, [], [], sorted({number for state in states for number in self.done.get(state, ())})]
            for label, following in reached.items():
                target = self._closure(following)
                if target not in numbers:
                    if len(order) >= STATES:
                        raise Failure(f"the templates together need more than {STATES} states", 78)
                    numbers[target] = len(order)
                    order.append(target)
                number = numbers[target]
                if type(label) is str:
                    entry[0][label] = number
                elif label[0]:
                    entry[1].append([*label, number])
                else:
                    entry[2].append([label[1], number])
            table.append(entry)
        return _smallest(table)


def _smallest(table: list) -> list:
    """The same automaton with equal states made one. No way through it comes back, so states can be compared from their ends on."""
    order, todo, seen = [], [(0, False)], set()
    while todo:
        number, left = todo.pop()
        if left:
            order.append(number)
        elif number not in seen:
            seen.add(number)
            todo.append((number, True))
            moves, listed, free, _ = table[number]
            todo.extend((following, False) for following in (*moves.values(), *(way[-1] for way in (*listed, *free))))
    same: dict[tuple, int] = {}
    made: dict[int, int] = {}
    for number in order:
        moves, listed, free, done = table[number]
        moves = {word: made[following] for word, following in moves.items()}
        listed, free = ([[*way[:-1], made[way[-1]]] for way in ways] for ways in (listed, free))
        sign = (*moves.items(), *map(tuple, listed), *map(tuple, free), tuple(done))
        if sign not in same:
            same[sign] = len(same)
        made[number] = same[sign]
        table[number] = [moves, listed, free, done]
    # Numbered from the start on, as match() begins at 0.
    last = len(same) - 1
    small: list = [None] * len(same)
    for number, place in made.items():
        moves, listed, free, done = table[number]
        moves = {word: last - following for word, following in moves.items()}
        small[last - place] = [moves, [[*way[:-1], last - way[-1]] for way in listed], [[*way[:-1], last - way[-1]] for way in free], done]
    return small


class Language:
    """What templates may use: lists and rules (expansions), parsed, by name; manners: see manners()."""

    def __init__(self, lists: dict, rules: dict, polite: dict):
        self.lists, self.rules, self.manners = lists, rules, polite
        self.made: dict[str, list] = {}

    def listed(self, name: str) -> list:
        """The automaton of a list, made once. Raises Failure (78)."""
        if name not in self.made:
            builder = Builder(self.lists, self.rules, self.manners["short"])
            builder.inline = True
            start = builder.state()
            for parsed in self.lists[name]:
                builder.add(start, 0, parsed)
            table = builder.table(start)
            if table[0][3]:
                raise Failure(f"list '{name}' has a value without words", 78)
            self.made[name] = [[state[0], bool(state[3])] for state in table]
        return self.made[name]


def build(templates: list, language: Language) -> dict:
    """The automaton of `templates` (parsed, numbered by their place) as plain data: {"states": …, "lists": {name: states}}.

    Raises Failure (78) for templates that match no words at all, use what does not exist, or are too big.
    """
    lists = language.lists
    builder = Builder(lists, language.rules, language.manners["short"])
    start = builder.state()
    for number, parsed in enumerate(templates):
        builder.add(start, number, parsed)
    states = builder.table(start)
    if states[0][3]:
        raise Failure("the template matches no words at all", 78)
    used = sorted({name for state in states for name, _, _ in state[1] if name in lists})
    return {"states": states, "lists": {name: language.listed(name) for name in used}}


# --- matching


def _reach(states: list, said: list[str], at: int, stop: int) -> list[int]:
    """Where a value of the list can end that begins at word `at`, nearest first."""
    ends = []
    number = 0
    while at < stop:
        moves = states[number][0]
        found = moves.get(said[at])
        if found is None:
            if said[at].isalpha():
                break
            found = moves.get(said[at].translate(FOLD))
            if found is None:
                break
        number = found
        at += 1
        if states[number][1]:
            ends.append(at)
    return ends


def _textfile(word: str) -> bool:
    """True for a path from / or ~, and for a name that ends as those of text files do; not for an address on the web."""
    return (word.startswith(("/", "~/")) or word.endswith(TEXT)) and "://" not in word


def match(automaton: dict, said: list[str], at: int, stop: int) -> dict:
    """The templates that the words said[at:stop] are, as number -> ((slot, first word, word behind the last), …).

    Among several ways through one template: words before lists, long values of lists before short ones, and free slots as short as can be.
    Takes time in proportion to the words: no state is tried twice at one word.
    """
    states, lists = automaton["states"], automaton["lists"]
    found: dict[int, tuple] = {}
    width = stop + 1
    seen = set()
    tried: dict = {}  # (state, slot) -> the first word at which its free slot was tried: behind it everything was
    todo: list[tuple] = [(0, at, ())]
    while todo:
        number, at, taken = todo.pop()
        while True:
            key = number * width + at
            if key in seen:
                break
            seen.add(key)
            moves, listed, free, done = states[number]
            if at == stop:
                for template in done:
                    found.setdefault(template, taken)
                break
            word = said[at]
            # A word of the template goes first: it is followed at once, and what else is possible here waits.
            if free:
                _free(states, lists, said, number, at, stop, taken, free, tried, todo)
            for name, slot, following in listed:
                if name in lists:
                    ends = _reach(lists[name], said, at, stop)
                elif name == "word" or (_textfile(word) if name == "textfile" else "." in word or "/" in word):
                    ends = [at + 1]
                else:
                    continue
                for end in ends:
                    todo.append((following, end, (*taken, (slot, at, end))))
            number = moves.get(word)
            if number is None:
                break
            at += 1
    return found


def _free(states, lists, said, number, at, stop, taken, free, tried, todo) -> None:
    """Puts the ways on through free slots that begin at word `at` into `todo`, the shortest slot on top."""
    for slot, following in free:
        last = tried.get((number, slot), stop + 1)
        if at >= last:
            continue
        tried[number, slot] = at
        moves, listed, more, done = states[following]
        if done and last > stop:
            todo.append((following, stop, (*taken, (slot, at, stop))))
        if not (moves or listed or more):
            continue
        heads = [lists[name][0][0] if name in lists else None for name, _, _ in listed]
        for end in range(min(last, stop - 1), at, -1):
            word = said[end]
            if word in moves or more or (heads and (not word.isalpha() or any(head is None or word in head for head in heads))):
                todo.append((following, end, (*taken, (slot, at, end))))


class Sentence:
    """What was said, ready to be matched: its words as compared, and the way back to the text as it was.

    said: words; back[i]: which word of the text said[i] belongs to (None: the same number). First and last: without the polite words around it.
    """

    def __init__(self, body: str, manners: dict):
        self.body = body
        self.at: list[tuple[int, int]] = []
        self.raw = body.split()
        said = words(body)
        back = None
        if '"' in body or "“" in body:
            self._quoted()
            said = [" ".join(words(word)) for word in self.raw]
        if len(said) != len(self.raw):
            said = ["".join(words(word)) for word in self.raw]
        short = manners["short"]
        if "" in said or not short.keys().isdisjoint(said):
            back, full = [], []
            for index, word in enumerate(said):
                for part in short.get(word, (word,)) if word or self._sign(index) else ():
                    full.append(part or self.raw[index])
                    back.append(index)
            said = full
        self.said, self.back = said, back
        self.first, self.last, self.full = 0, len(said), len(said)
        if said:
            self._manners(manners)

    def _sign(self, index: int) -> bool:
        """True for a sign that is a word of its own (`-`, `&`), not the end of a sentence with a space before it."""
        return bool(self.raw[index].strip(ENDS))

    def _quoted(self) -> None:
        """Puts the words between a pair of double quotes together, unless they are the whole sentence."""
        raw, merged, index = self.raw, [], 0
        closed = max((i for i, word in enumerate(raw) if word.rstrip(ENDS)[-1:] in ('"', "”")), default=-1)
        while index < len(raw):
            end = index
            if raw[index][0] in '"“' and index <= closed:
                while end < closed and (len(raw[end].rstrip(ENDS)) < 2 or raw[end].rstrip(ENDS)[-1] not in '"”'):
                    end += 1
            merged.append((index, end + 1))
            index = end + 1
        if len(merged) > 1:
            places, self.at = self.places(), []
            self.raw = [self.body[places[a][0] : places[b - 1][1]] for a, b in merged]

    def _manners(self, manners: dict) -> None:
        said, first, last = self.said, 0, len(self.said)
        before, after = manners["before"], manners["after"]
        while said[first] in before and first < last:
            size = next((len(way) for way in before[said[first]] if said[first : first + len(way)] == way), 0)
            if not size or first + size >= last:
                break
            first += size
        while said[last - 1] in after:
            size = next((len(way) for way in after[said[last - 1]] if said[max(last - len(way), first) : last] == way), 0)
            if not size or last - size <= first:
                break
            last -= size
        self.first, self.last = first, last

    def places(self) -> list[tuple[int, int]]:
        """Where each word of the text begins and ends in it."""
        if not self.at:
            at, find = 0, self.body.index
            for word in self.raw:
                start = find(word, at)
                at = start + len(word)
                self.at.append((start, at))
        return self.at

    def apart(self) -> bool:
        """True where a comma stands before the polite words at the end: then they belong to no slot."""
        index = self.last - 1
        return self.raw[self.back[index] if self.back else index].endswith(",")

    def text(self, first: int, stop: int, verbatim: bool) -> str:
        """The words first … stop - 1 as they stood in the text; without the marks behind them and quotes around them unless `verbatim`."""
        if self.back is None:
            start, end = first, stop
        else:
            back = self.back
            start, end = back[first], back[stop - 1] + 1
            if first and back[first - 1] == start and start + 1 < end:
                start += 1  # the slot begins within a contraction whose first part was a word of the template
        places = self.places()
        text = whole = self.body[places[start][0] : places[end - 1][1]]
        if verbatim:
            return whole
        text = text.rstrip(ENDS)
        if len(text) > 2 and text[0] + text[-1] in ('""', "“”") and not any(mark in text[1:-1] for mark in '"“”'):
            text = text[1:-1].strip()
        return text or whole


def manners(sets: list) -> dict:
    """The `@words` of the commands spec as Sentence wants them: before and after as first (last) word -> ways, longest first; short."""
    made: dict = {"before": {}, "after": {}, "short": {}}
    for kind, values in sets:
        for value in values:
            said = words(value)
            if kind == "short":
                made["short"][said[0]] = said[1:]
            else:
                made[kind].setdefault(said[0 if kind == "before" else -1], []).append(said)
    for kind in ("before", "after"):
        for ways in made[kind].values():
            ways.sort(key=len, reverse=True)
    return made


def matches(automaton: dict, sentence: Sentence, verbatim) -> dict:
    """As match(), for a sentence with its polite words: number -> (slots, …).

    What is said politely at the end belongs to no slot, except in the templates of the set `verbatim`, which lose no word.
    """
    found = match(automaton, sentence.said, sentence.first, sentence.last)
    if sentence.last < sentence.full and (not found or not sentence.apart()):
        whole = match(automaton, sentence.said, sentence.first, sentence.full)
        found = whole | found | {number: whole[number] for number in whole if number in verbatim}
    if not found and sentence.first:
        found = match(automaton, sentence.said, 0, sentence.full)
    return found
