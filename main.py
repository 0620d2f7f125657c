"""The doorway: `python main.py --config configs/digits_vit.py --workdir runs/digits`; see `--help`."""

import sys

if __name__ == "__main__":
    try:
        from jaxvit.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(f"error: the package {error.name} is not installed: pip install -e . brings what jaxvit needs")
    sys.exit(main())
