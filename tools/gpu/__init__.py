"""GPU measurements in packets that fit a quarter of an hour; `python3 tools/gpu --help`, and README.md beside this."""
