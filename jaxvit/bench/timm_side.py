"""timm's half of a comparison, run as a file by a Python that has torch and timm: JSON on stdin, JSON on stdout.

The request is one line: {"jobs": [{"name", "dtype", "mode", "batch_size", "image_size", "fields"}], "device",
"compile", "repeats", "seconds"} and, where nothing is to be measured eagerly, "eager": false. The end of stdin says
that whoever asked is gone: then this process ends too, with the workers of torch.compile, so stdin stays open until all
answers are there. It imports nothing of jaxvit. What is compared is what people use: channels-last, AdamW (fused where
there is a fused one), cross-entropy, autocast for training in bfloat16, TF32 allowed (as JAX does by default).
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import statistics
import sys
import threading
import time
from typing import Any


def main():
    """Answers each job with one line of JSON."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    answers, sys.stdout = sys.stdout, sys.stderr
    if os.environ.get("JAXVIT_TORCH_PRELOAD"):  # a module that makes torchvision importable with a bare torch
        importlib.import_module(os.environ["JAXVIT_TORCH_PRELOAD"])
    if not request["jobs"]:  # only asked whether they are there: importing them takes ten seconds
        for name in ("torch", "timm"):
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
        return
    import timm
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    device = torch.device(request["device"])
    kind = torch.cuda.get_device_name(0) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "timm": timm.__version__, "device": kind}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    kinds = [False] * request.get("eager", True) + [True] * request["compile"]  # compiled?
    for job in request["jobs"]:
        for compiled in kinds:
            row = {**job, "compiled": compiled}
            try:
                row |= measure(torch, timm, job, device, compiled, request)
            except Exception as error:
                first = (str(error).strip().splitlines() or ["?"])[0]
                row["error"] = f"{type(error).__name__}: {first[:200]}"
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if compiled:
                torch._dynamo.reset()
            print(json.dumps(row), file=answers, flush=True)


def leave_with_the_parent():
    """Waits for the end of stdin, which comes also where the parent was killed; then ends the whole group."""
    while os.read(0, 4096):  # not sys.stdin, whose lock the end of the interpreter would wait for
        pass
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def build(torch: Any, timm: Any, job: dict[str, Any]) -> Any:
    """The model by timm's name; `stem=cifar` as jaxvit's."""
    fields = dict(job["fields"])
    stem = fields.pop("stem", "imagenet")
    words = {"in_channels": "in_chans", "image_size": "img_size"}
    named: Any = {words.get(field, field): value for field, value in fields.items()}
    named.pop("img_size", None)
    try:
        model = timm.create_model(job["name"], img_size=tuple(job["image_size"]), **named)
    except TypeError:  # a network of convolutions takes any size
        model = timm.create_model(job["name"], **named)
    if stem == "cifar":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def measure(torch, timm, job, device, compiled, request):
    """Rates, compile time, memory and (for inference) latency of one job."""
    half = job["dtype"] == "bfloat16"
    model = build(torch, timm, job).to(device, memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in model.parameters())
    size, n = tuple(job["image_size"]), job["batch_size"]
    train = job["mode"] == "train"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if half and not train:
        model = model.bfloat16()
    model.train(train)
    run = torch.compile(model) if compiled else model

    def images(n):
        x = torch.randn(n, 3, *size, device=device, dtype=torch.bfloat16 if half and not train else torch.float32)
        return x.contiguous(memory_format=torch.channels_last)

    if train:
        options = {"fused": True} if device.type == "cuda" else {}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, **options)
        x, target = images(n), torch.randint(0, model.num_classes, (n,), device=device)
        autocast = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

        def call():
            with autocast:
                logits = run(x)
            loss = torch.nn.functional.cross_entropy(logits.float(), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        first, timing = clock(torch, call, device, request["repeats"], request["seconds"])
        row = {}
    else:
        with torch.inference_mode():
            x = images(n)
            first, timing = clock(torch, lambda: run(x), device, request["repeats"], request["seconds"])
            one = images(1)
            if compiled:  # its own program for the shape, as jaxvit has
                torch._dynamo.reset()
                run = torch.compile(model, dynamic=False)
            _, calls = clock(torch, lambda: run(one), device, 20, 0.0)
        row = {"latency_seconds": {"median": statistics.median(calls), "least": min(calls), "most": max(calls)}}
    median = statistics.median(timing)
    row |= {
        "images_per_second": {"median": n / median, "least": n / max(timing), "most": n / min(timing)},
        "step_seconds": median,
        "first_call_seconds": first,
        "parameters": parameters,
    }
    if device.type == "cuda":
        row["memory_peak_bytes"] = torch.cuda.max_memory_allocated()
    return row


def clock(torch, call, device, repeats, seconds):
    """(seconds of the first call, seconds per call of each repeat)."""

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    begun = time.perf_counter()
    call()
    wait()
    first = time.perf_counter() - begun
    for _ in range(2):
        call()
    wait()
    begun = time.perf_counter()
    call()
    wait()
    calls = max(1, round(seconds / repeats / (time.perf_counter() - begun)))
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        found.append((time.perf_counter() - begun) / calls)
    return first, found


if __name__ == "__main__":
    main()
