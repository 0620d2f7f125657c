"""What is still to be measured: results/WANTED.md, and the list on the screen.

python3 tools/gpu list [--write]
"""

import argparse
import re
import sys
from pathlib import Path

from tools.gpu import packets, records
from tools.gpu.jobs import ROOT, Packet

FILE = "results/WANTED.md"
BEGIN, END = "<!-- packets -->", "<!-- end of packets -->"
BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.S)


def missing(packet: Packet, root: Path) -> list[str]:
    """The jobs of a packet that have no result yet, or a part of one."""
    found = {name: records.load(root, packet.name, name) for name in packet.jobs()}
    return [name for name, record in found.items() if record is None or "stopped" in record["state"]]


def section(packet: Packet, root: Path) -> str:
    """A packet: its calls as they are typed."""
    lacking, jobs = missing(packet, root), packet.jobs()
    more = " --teacher OUT_OF_B" if any("teacher" in call.brings for call in packet.calls) else ""
    data = " --data DATA" if any(call.brings for call in packet.calls) else ""
    remark = f"; {packet.remark}" if packet.remark else ""
    lines = [f"## {packet.name}: {packet.title}", "", f"{packet.minutes} minutes{remark}.", ""]
    lines += ["```", f"python3 tools/gpu prepare {packet.name}{data}{more}"]
    for call in packet.calls:
        lines.append(
            f"python3 tools/gpu run {call.name} --out OUT    # brings .gpu/{call.name}; within {call.seconds} s"
        )
    lines += ["python3 tools/gpu merge OUT", "```"]
    if lacking != list(jobs):
        lines += ["", f"Still to be measured: {', '.join(lacking)} (`--only NAME,NAME` of `run`)."]
    return "\n".join(lines)


def render(root: Path) -> str:
    """All packets that have something to measure."""
    open_ = [packet for packet in packets.PACKETS.values() if missing(packet, root)]
    return "\n\n".join(section(packet, root) for packet in open_) or "Nothing: every packet is measured."


def check(root: Path) -> None:
    """Raises Damaged where results/WANTED.md has no place for the packets."""
    count = len(BETWEEN.findall((root / FILE).read_text(encoding="utf-8")))
    if count != 1:
        raise records.Damaged(f"{FILE} has {count} times {BEGIN!r}; expected 1")


def redraw(root: Path) -> bool:
    """Writes the packets into results/WANTED.md; returns whether that changed it."""
    check(root)
    text = (root / FILE).read_text(encoding="utf-8")
    drawn = BETWEEN.sub(lambda _: f"{BEGIN}\n{render(root)}\n{END}", text)
    if drawn != text:
        (root / FILE).write_text(drawn, encoding="utf-8")
    return drawn != text


def main(argv: list[str]) -> int:
    """Prints each packet with what it still lacks."""
    parser = argparse.ArgumentParser(
        prog="gpu list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="draw results/WANTED.md and all tables anew")
    args = parser.parse_args(argv)
    for packet in packets.PACKETS.values():
        lacking = missing(packet, ROOT)
        state = f"{len(packet.jobs()) - len(lacking)} of {len(packet.jobs())} measured"
        calls = ", ".join(f"{call.name} {call.seconds} s" for call in packet.calls)
        print(f"{packet.name:<4}{packet.minutes:>3} min  {state:<18}{packet.title}  ({calls})")
    if args.write:
        from tools.gpu import tables

        try:
            changed = [*tables.redraw(ROOT), *([FILE] if redraw(ROOT) else [])]
        except records.Damaged as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"drawn anew: {', '.join(changed) or 'nothing to change'}")
    return 0
