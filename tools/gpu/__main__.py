"""GPU measurements in packets: prepare here, run there, merge here.

    python3 tools/gpu list                        the packets, and what is still to be measured
    python3 tools/gpu prepare PACKET --data DIR   fills .gpu/ with what the packet's calls bring along
    python3 tools/gpu run CALL --out OUT          on the machine, once a call: it brings .gpu/CALL
    python3 tools/gpu merge OUT                   results/, the tables of the documents, results/WANTED.md
    python3 tools/gpu rehearse                    every packet, tiny, in the machine's environment made anew

Each has --help. README.md beside this file says how it works.
"""

import importlib
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)  # the checkout, and not this folder

COMMANDS = {"list": "wanted", "prepare": "prepare", "run": "runner", "merge": "merge", "rehearse": "rehearse"}


def main(argv: list[str]) -> int:
    """Runs the command that is named first."""
    if not argv or argv[0] in ("-h", "--help"):
        print(str(__doc__).strip())
        return 0
    if argv[0] not in COMMANDS:
        print(f"error: no command {argv[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"tools.gpu.{COMMANDS[argv[0]]}").main(argv[1:])


if __name__ == "__main__":
    from tools import quiet

    quiet.run(lambda: main(sys.argv[1:]))
