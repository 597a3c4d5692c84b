"""Prints a command and its route: pair.py TARGET [SLOT=VALUE...]"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "lib"))
from serenamaster import record

target, *given = sys.argv[1:]
slots = dict(slot.split("=", 1) for slot in given)
asked = record.make("command", "ftai-listen", body=" ".join([target, *slots.values()]), via="text", tz="UTC")
routed = record.make("route", "ftai-route", parent=asked, target=target, rule="test", blocks=[{"@tag": "slots", **slots}] if slots else None)
sys.stdout.buffer.write(record.encode(asked) + record.encode(routed))
