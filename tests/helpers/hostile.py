"""Names of files that a console, a page or a figure must survive."""

import os

HOSTILE = (
    rb"$\frac$", b"$x^2$", b"[red]x[bold]", b"<script>alert(1)<", b"a|b`c`", b"=1+1", b"\x1b[31mred", b"new\nline",
    "right\u202eleft\u200f".encode(), "\U0001fae8\U0001f9ff".encode(), b"caf\xe9", b"_under", "猫".encode(),
    ("long " * 40).strip().encode(), b"-5+2", b":smile: &lt;",
)  # fmt: skip
NAMES = [os.fsdecode(name) for name in HOSTILE]
