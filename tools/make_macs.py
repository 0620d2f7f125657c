"""Writes docs/macs.json: the multiply-accumulates of every name for one image of its own size, for the pages of models.

    python tools/make_macs.py            # names that the file has are kept; nothing is allocated

Each is counted from the traced model as in every run's summary (`jaxvit/models/macs.py`).
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from jaxvit.models import registry  # noqa: E402
from jaxvit.models.macs import count_macs  # noqa: E402

TARGET = Path(__file__).parents[1] / "docs" / "macs.json"


def main() -> None:
    """Counts what the file lacks, and drops names that are gone."""
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    names = registry.list_models()
    known = {name: known[name] for name in names if name in known}
    for name in names:
        if name not in known:
            data = registry.data_config(name)
            model = registry.create_model(name)
            known[name] = count_macs(model, (*data["image_size"], data["in_channels"]))
            TARGET.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
    print(f"{TARGET}: {len(known)} names")


if __name__ == "__main__":
    import quiet

    quiet.run(main)
