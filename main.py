"""The doorway: `python main.py --config configs/digits_vit.py --workdir runs/digits`; see `--help`."""

import sys

from jaxvit.cli import main

if __name__ == "__main__":
    sys.exit(main())
