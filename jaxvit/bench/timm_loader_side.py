"""timm's loader, run as a file by a Python that has torch and timm: one line of JSON on stdin, one on stdout.

The request is {"folder", "image_size", "batch_size", "workers", "seconds", "least"}; an epoch repeats the photos until
it has `least`. The training transform crops and flips; its colour jitter is off, which jaxvit computes on the device.
This file imports nothing of jaxvit.
"""

import importlib
import json
import os
import sys
import time
from typing import Any


def main():
    """Answers {"versions", "by_workers": {workers: photos/s}}."""
    request = json.loads(sys.stdin.readline())
    answers, sys.stdout = sys.stdout, sys.stderr
    if os.environ.get("JAXVIT_TORCH_PRELOAD"):  # a module that makes torchvision importable with a bare torch
        importlib.import_module(os.environ["JAXVIT_TORCH_PRELOAD"])
    import PIL
    import timm
    import torch
    from timm.data.dataset import ImageDataset
    from timm.data.loader import fast_collate
    from timm.data.transforms_factory import create_transform

    torch.set_num_threads(1)
    words: Any = {"is_training": True, "use_prefetcher": True, "color_jitter": None, "interpolation": "random"}
    transform = create_transform(tuple(request["image_size"]), **words)
    found = {}
    for workers in request["workers"]:
        photos = ImageDataset(request["folder"], transform=transform)
        repeated = [photos] * -(-request["least"] // len(photos))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.ConcatDataset(repeated),
            batch_size=request["batch_size"],
            shuffle=True,
            num_workers=workers,
            collate_fn=fast_collate,
            drop_last=True,
            persistent_workers=workers > 0,
        )
        done, begun = 0, None
        while begun is None or time.perf_counter() - begun < request["seconds"]:
            for images, _ in loader:
                if begun is None:  # the workers have started
                    begun = time.perf_counter()
                    continue
                done += len(images)
                if time.perf_counter() - begun > request["seconds"]:
                    break
        found[workers] = done / (time.perf_counter() - begun)
        del loader
    versions = {"torch": torch.__version__, "timm": timm.__version__, "pillow": PIL.__version__}
    print(json.dumps({"versions": versions, "by_workers": found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
