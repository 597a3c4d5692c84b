"""Puts the command and the route that stand on standard input (see pair.py) into the queue; prints the route's id: put.py [FIELD=VALUE...]"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "lib"))
from serenamaster import canonical, record, seal, waiting

given: dict = dict(word.split("=", 1) for word in sys.argv[1:])
if "priority" in given:
    given["priority"] = int(given["priority"])
command, route = (record.decode(line) for line in sys.stdin.buffer)
lines = [record.encode(rec) for rec in seal.cover(canonical.cleared([route, command]))]
privacy = route.get("privacy") or command.get("privacy")
waiting.put(waiting.Item(route["id"], route["thread"], route["target"], privacy, lines=lines, **given))
print(route["id"])
