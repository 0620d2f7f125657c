"""The doorway: `python main.py --config configs/digits_vit.py --workdir runs/digits`; see `--help`."""

import os
import signal
import sys

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # within an import an exception may be lost, or abort the process
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))
    try:
        from jaxvit.cli import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: the package {error.name} is not installed: pip install -e . brings what jaxvit needs")
    sys.exit(main())
