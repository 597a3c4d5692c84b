"""Puts the stages where scripts go and each man page into its section: hatchling's settings know whole folders and single files alone."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Layout(BuildHookInterface):
    def initialize(self, version, build_data):
        for name in sorted(os.listdir(os.path.join(self.root, "bin"))):
            if name.startswith("ftai-"):
                build_data["shared_scripts"][os.path.join(self.root, "bin", name)] = name
        for page in sorted(os.listdir(os.path.join(self.root, "man"))):
            build_data["shared_data"][os.path.join(self.root, "man", page)] = f"share/man/man{page[-1]}/{page}"
