"""The packets, most valuable first; within each its calls, lanes and jobs, most valuable first.

A machine is lent for 15 minutes, its start of half a minute to one included, and a call ends within 10. So the calls
of a packet take at most 13.5 minutes together. Guards and minutes are estimates from programs compiled for an H100
without one.
"""

from tools.gpu.jobs import Call, Job, Model, Packet, Phase

VIT_B, SWIN_T, SWIN_B = "vit_base_patch16_224", "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"
VIT_L, DEIT_TI = "vit_large_patch16_224", "deit_tiny_patch16_224"
CIFAR = ("stem=cifar", "num_classes=10")
PALLAS, XLA = "attn_implementation=pallas", "attn_implementation=xla"

MODELS = {
    "vit_base": Model(VIT_B, 256),
    "swin_tiny": Model(SWIN_T, 256),
    "swin_tiny_pallas": Model(SWIN_T, 256, (PALLAS,)),
    "resnet18_cifar": Model("resnet18", 2048, CIFAR, 32),
    "resnet50": Model("resnet50", 512),
    "deit_tiny": Model(DEIT_TI, 64),
    "vit_base_xla": Model(VIT_B, 256, (XLA,)),  # without it: cuDNN's flash attention
    "deit_tiny_xla": Model(DEIT_TI, 64, (XLA,)),
    "swin_base": Model(SWIN_B, 128),
    "swin_base_pallas": Model(SWIN_B, 128, (PALLAS,)),
    "convnext_tiny": Model("convnext_tiny", 256),
    "dinov3_small": Model("vit_small_patch16_dinov3", 256, size=256),
    "swinv2_tiny": Model("swinv2_tiny_window8_256", 128, size=256),
    "vit_base_scan": Model(VIT_B, 256, ("scan=True",)),
    # near the largest batch that fits 80 GB, along the line of results/bench/h200_largest_batch.json
    "vit_large_none": Model(VIT_L, 192, ("scan=True", "remat=none")),
    "vit_large_dots": Model(VIT_L, 576, ("scan=True", "remat=dots")),
    "vit_large_block": Model(VIT_L, 2816, ("scan=True", "remat=block")),
    "swin_base_none": Model(SWIN_B, 480, ("remat=none",)),
    "swin_base_dots": Model(SWIN_B, 1152, ("remat=dots",)),
    "swin_base_block": Model(SWIN_B, 2560, ("remat=block",)),
}
COMPARED = ("vit_base", "resnet50", "resnet18_cifar", "swin_tiny", "deit_tiny", "swin_base")
NEWER = ("convnext_tiny", "dinov3_small", "swinv2_tiny")
SPEED = ("vit_base", "resnet18_cifar", "swin_tiny", "swin_tiny_pallas", "resnet50", "deit_tiny", "vit_base_xla",
         "swin_base", "swin_base_pallas", "deit_tiny_xla")  # fmt: skip
PROFILED = ("vit_base", "swin_tiny_pallas", "resnet18_cifar", "deit_tiny", "swin_tiny")
TRAIN = ("--mode", "train")

# The schedule is a constant of the program, so noise is compiled with the same words as the images are trained with.
CNN = ("--config.data.val_fraction=0.02", "--config.eval_every_epochs=10")
SAM = "--config.optim.sam.rho=0.1"
SAM_LATE = (*CNN, SAM, "--config.optim.sam.start_fraction=0.5")  # its plain steps are those without SAM
# the same programs: one epoch of each, the first of them evaluated
SAM_SOON = (*CNN, SAM, "--config.optim.sam.start_fraction=0.005", "--config.eval_every_epochs=1")
VIT = ("--config.data.val_fraction=0.02", "--config.eval_every_epochs=20")
TAUGHT = (*VIT, "--config.distill.teacher=TEACHER", "--config.distill.model=resnet18")
MAE_OFF = (*VIT, "--config.pretrain.name=None")  # its second phase, whose program is compiled beside that of the first
DEIT = ("--config.dtype=bfloat16", f"--config.pretrained=WEIGHTS/{DEIT_TI}.safetensors")
DEIT_ALL = (*DEIT, "--config.data.val_fraction=0.02")
BF16 = "--config.dtype=bfloat16"
DETERMINISTIC = ("--config.deterministic=true", "--config.num_epochs=2")


def _measured(names: tuple[str, ...]) -> tuple[Job, ...]:
    return tuple(Job(name, "bench", name, 110) for name in names)


def _against_timm(names: tuple[str, ...]) -> tuple[Job, ...]:
    return tuple(Job(name, "bench", name, 150, words=TRAIN, timm=True) for name in names)


def _warmed(names: tuple[str, ...], *words: str) -> tuple[Job, ...]:
    return tuple(Job(f"warm_{name}", "warm", name, 200, words=words) for name in names)


def _timm(name: str) -> tuple[Job, ...]:
    return (Job(f"timm_{name}", "warm_timm", name, 235, words=("train",)),)


def _profiled(names: tuple[str, ...]) -> tuple[Job, ...]:
    return tuple(Job(f"profile_{name}", "profile", name, 90) for name in names)


def _fitted(names: tuple[str, ...]) -> tuple[Job, ...]:
    return tuple(Job(name, "bench", name, 150, words=TRAIN) for name in names)


def _study(name: str, of: str, data: str, rows: str, *words: str, **more) -> Job:
    return Job(name, "study", of, 540, data, ("--rows", rows, BF16, *words), **more)


def _rows(*names: str) -> str:
    return ",".join(names)


A = Packet("a", "Speed, MFU, the kernels' correctness, profiles", 15, (
    Call("a1", 560, (
        Phase(230, (  # side by side: compilations, which are the processors' work and take little memory of the GPU
            _warmed(("vit_base", "resnet18_cifar", "deit_tiny", "vit_base_xla")),
            _warmed(("swin_tiny", "resnet50", "deit_tiny_xla")),
            _warmed(("swin_tiny_pallas", "swin_base", "swin_base_pallas")),
            (Job("kernels", "kernels", guard=225, words=("--stages", "4")),),
        )),
        Phase(560, (_measured(SPEED),)),  # one after the other: rates are of a quiet machine
    )),
    Call("a2", 180, (Phase(180, ((*_profiled(PROFILED[:3]), *_measured(SPEED), *_profiled(PROFILED[3:])),)),)),
), "a2 runs what a1 had no time for")  # fmt: skip

V = Packet("v", "Training speed against compiled timm", 15, (
    Call("v1", 560, (
        # torch.compile takes a minute and more for a model that has the machine to itself
        Phase(240, (_warmed(COMPARED[:3], *TRAIN), _warmed(COMPARED[3:], *TRAIN), *map(_timm, COMPARED))),
        Phase(560, (_against_timm(COMPARED),)),
    )),
    Call("v2", 200, (Phase(200, (_against_timm(COMPARED),)),)),
), "v2 runs what v1 had no time for")  # fmt: skip

N = Packet("n", "The newer families: training speed against compiled timm", 10, (
    Call("n1", 480, (
        Phase(240, (*(_warmed((name,), *TRAIN) for name in NEWER), *map(_timm, NEWER))),
        Phase(480, (_against_timm(NEWER),)),
    )),
))  # fmt: skip

B = Packet("b", "ResNet-18 from scratch on CIFAR-100, 200 epochs: plain, and with SAM in the last half", 14, (
    Call("b1", 150, (Phase(150, (
        # one process: what its first program has learnt of the convolutions, the second need not time again
        (Job("warm_r18", "warm_train", "scratch_cnn_cifar", 146, "noise100", SAM_SOON, until=r"epoch 2/200 "),),
    )),), ("cifar100:1",)),
    Call("b2", 560, (Phase(560, (
        (Job("r18_200", "train", "scratch_cnn_cifar", 550, "cifar100", CNN, outlives=True),),
        (Job("r18_200_sam", "train", "scratch_cnn_cifar", 550, "cifar100", SAM_LATE, outlives=True),),
    )),), ("cifar100:2",)),
    Call("b3", 100, (Phase(100, (
        (Job("r18_200", "wait", "summary.json", 80),
         Job("teacher", "teacher", "r18_200", 30, env=(("JAX_PLATFORMS", "cpu"),))),
        (Job("r18_200_sam", "wait", "summary.json", 95),),
    )),)),
), "the two trainings share the GPU, so each takes longer than alone; like e, they outlive their call")  # fmt: skip

# What XLA may leave untried while it compiles; the logs tell where the rest of the time goes.
UNTUNED = {
    "": "",
    "_level_0": "--xla_gpu_autotune_level=0",
    "_no_triton": "--xla_gpu_enable_triton_gemm=false",
    "_no_fusions": "--xla_gpu_experimental_enable_fusion_autotuner=false",
}
TOLD = ("TF_CPP_MIN_LOG_LEVEL", "0"), ("TF_CPP_VMODULE", "autotuner=1,gpu_compiler=1,nvptx_compiler=1,cudnn=1")


def _compiled(name: str) -> tuple[Job, ...]:
    words = (*TRAIN, "--compile-times", "cold")
    return tuple(
        Job(f"compile_{name}{word}", "bench", name, 130, words=words, env=(("XLA_FLAGS", flags), *TOLD))
        for word, flags in UNTUNED.items()
    )


K = Packet("k", "What a compilation costs, and what is gained by the kernels that XLA tries out", 11, (
    Call("k1", 560, (Phase(560, ((*_compiled("resnet18_cifar"), *_compiled("vit_base")),)),)),
))  # fmt: skip

ERASED = ("--config.num_epochs=46", "--config.data.val_fraction=0.0", "--config.augment.random_erasing_prob=0.5")
F = Packet("f", "The CIFAR-10 speed run: five seeds, 95 % mean, all 50,000 images", 10, (
    Call("f1", 30, (), ("cifar10:1",)),  # nothing is compiled before: the first seed shows what a new user waits for
    Call("f2", 440, (Phase(440, (
        (Job("fast10_long", "seeds", "cifar10_fast_resnet18", 430, "cifar10",
             ("--seeds=5", "--target=0.95", "--mirrored", *ERASED)),
         Job("fast10", "seeds", "cifar10_fast_resnet18", 310, "cifar10", ("--seeds=4", "--target=0.95"))),
    )),), ("cifar10:2",)),
))  # fmt: skip

H = Packet("h", "The CIFAR-100 speed run: five seeds, 75 % mean", 8, (
    Call("h1", 30, (), ("cifar100:1",)),
    Call("h2", 400, (Phase(400, (
        (Job("fast100", "seeds", "cifar100_fast_resnet18", 390, "cifar100",
             ("--seeds=5", "--target=0.75", "--mirrored")),),
    )),), ("cifar100:2",)),
))  # fmt: skip

E = Packet("e", "A ViT of 9.5 M parameters from scratch on CIFAR-100, 300 epochs", 15, (
    Call("e1", 150, (Phase(150, (
        (Job("warm_vit", "warm_train", "scratch_vit_cifar", 146, "noise100", VIT, until=r"epoch 1/300 "),),
    )),), ("cifar100:1",)),
    Call("e2", 560, (Phase(560, (
        (Job("vit_300", "train", "scratch_vit_cifar", 550, "cifar100", VIT, outlives=True),),
    )),), ("cifar100:2",)),
    Call("e3", 100, (Phase(100, ((Job("vit_300", "wait", "summary.json", 95),),)),)),
), "the training outlives its call, and e3 fetches it; on an H200 it ends within e2")  # fmt: skip

T = Packet("t", "The ViT of packet e distilled from the ResNet-18 of packet b", 15, (
    Call("t1", 150, (Phase(150, (
        (Job("warm_taught", "warm_train", "scratch_vit_cifar", 146, "noise100", TAUGHT, until=r"epoch 1/300 "),),
    )),), ("cifar100:1", "teacher")),
    Call("t2", 560, (Phase(560, (
        (Job("vit_300_taught", "train", "scratch_vit_cifar", 550, "cifar100", TAUGHT, outlives=True),),
    )),), ("cifar100:2",)),
    Call("t3", 100, (Phase(100, ((Job("vit_300_taught", "wait", "summary.json", 95),),)),)),
), "after packet b, which trains the teacher; like e, it outlives its call")  # fmt: skip

M = Packet("m", "The ViT of packet e pretrained as an MAE for 200 epochs, then trained with labels for 200", 15, (
    Call("m1", 150, (Phase(150, (
        (Job("warm_mae", "warm_train", "cifar100_vit_mae", 146, "noise100", VIT, until=r"pretraining epoch 1/200 "),),
        (Job("warm_mae_off", "warm_train", "cifar100_vit_mae", 146, "noise100", MAE_OFF, until=r"epoch 1/200 "),),
    )),), ("cifar100:1",)),
    Call("m2", 560, (Phase(560, (
        (Job("vit_mae", "train", "cifar100_vit_mae", 550, "cifar100", VIT, outlives=True),),
    )),), ("cifar100:2",)),
    Call("m3", 100, (Phase(100, ((Job("vit_mae", "wait", "summary.json", 95),),)),)),
), "like e, it outlives its call; it costs as much as 258 of e's 300 epochs")  # fmt: skip

C1 = Packet("c1", "DeiT-Ti pretrained, CIFAR-10 at 224 px: fine-tuned, data fractions and freezing, distillation", 12, (
    Call("c1a", 30, (), ("cifar10:1",)),
    Call("c1b", 560, (Phase(560, (
        (Job("c10_deit", "train", "cifar10_deit_tiny", 200, "cifar10", DEIT_ALL),
         _study("fractions", "cifar10_transfer_learning", "cifar10",
                _rows("deit_ti_100", "deit_ti_50", "deit_ti_20", "deit_ti_10"))),
        (_study("freezing", "cifar10_transfer_learning", "cifar10",
                _rows("deit_ti_50_freeze_early", "deit_ti_50_freeze_middle", "deit_ti_50_freeze_last")),),
        (_study("distillation", "cifar10_vit_distillation", "cifar10",
                _rows("deit_ti", "small_distilled", "small_scratch"), "--seeds=3"),),
    )),), ("cifar10:2", "weights")),
), "three lanes share the GPU, so only accuracies count")  # fmt: skip

C2 = Packet("c2", "DeiT-Ti pretrained, CIFAR-100 at 224 px: fine-tuned; ASAM against AdamW and SGD, three seeds", 12, (
    Call("c2a", 30, (), ("cifar100:1",)),
    Call("c2b", 560, (Phase(560, (
        (Job("c100_deit", "train", "cifar100_deit_tiny", 200, "cifar100", DEIT_ALL),
         _study("adamw", "cifar100_asam", "cifar100", "deit_ti_adamw", "--seeds=3")),
        (_study("asam", "cifar100_asam", "cifar100", "deit_ti_asam", "--seeds=3"),),
        (_study("sgd", "cifar100_asam", "cifar100", "deit_ti_sgd", "--seeds=3"),),
    )),), ("cifar100:2", "weights")),
), "three lanes share the GPU, so only accuracies count")  # fmt: skip

C3 = Packet("c3", "Packet c2 at equal time: SAM, and AdamW and SGD for twice the epochs, three seeds", 12, (
    Call("c3a", 30, (), ("cifar100:1",)),
    Call("c3b", 560, (Phase(560, (
        (_study("sam", "cifar100_asam", "cifar100", "deit_ti_sam", "--seeds=3"),),
        (_study("adamw_2x", "cifar100_asam", "cifar100", "deit_ti_adamw_2x", "--seeds=3"),),
        (_study("sgd_2x", "cifar100_asam", "cifar100", "deit_ti_sgd_2x", "--seeds=3"),),
    )),), ("cifar100:2", "weights")),
), "after c2; three lanes share the GPU, so only accuracies count")  # fmt: skip

D = Packet("d", "Study 1, the four smaller rows: ResNet-18 and ViTs from scratch on CIFAR-100", 12, (
    Call("d1", 30, (), ("cifar100:1",)),
    Call("d2", 560, (Phase(560, (
        (_study("cnn_and_small", "cifar100_resnet_vs_vit", "cifar100", _rows("resnet18", "vit_2l_2h_128"),
                "--config.eval_every_epochs=10", outlives=True),),
        (_study("middle", "cifar100_resnet_vs_vit", "cifar100", _rows("vit_4l_4h_256", "vit_6l_8h_384"),
                "--config.eval_every_epochs=10", outlives=True),),
    )),), ("cifar100:2",)),
    Call("d3", 100, (Phase(100, (
        (Job("cnn_and_small", "wait", "report/index.html", 95),),
        (Job("middle", "wait", "report/index.html", 95),),
    )),)),
), "two lanes share the GPU, so only accuracies count; d3 fetches what d2 had no time for")  # fmt: skip

D8 = Packet("d8", "Study 1, its largest row: ViT 8L-8H-512 from scratch on CIFAR-100", 14, (
    Call("d8a", 30, (), ("cifar100:1",)),
    Call("d8b", 560, (Phase(560, (
        (_study("large", "cifar100_resnet_vs_vit", "cifar100", "vit_8l_8h_512", "--config.eval_every_epochs=10",
                outlives=True),),
    )),), ("cifar100:2",)),
    Call("d8c", 150, (Phase(150, ((Job("large", "wait", "report/index.html", 145),),)),)),
), "like e, it outlives its call")  # fmt: skip

STEPS_R18, STEPS_DEIT = (("--dtype=bfloat16", f"--batch-size={n}") for n in (512, 64))
LARGEST = ("vit_large_none", "vit_large_dots", "vit_large_block", "swin_base_none", "swin_base_dots", "swin_base_block")
G = Packet("g", "The same bits twice, start-up, loop, the cost of SAM, the largest batches with remat", 15, (
    Call("g1", 560, (
        Phase(200, (
            (Job("bits_1", "train", "cifar10_resnet18", 120, "noise10", DETERMINISTIC),),
            (Job("bits_2", "train", "cifar10_resnet18", 120, "noise10", DETERMINISTIC,
                 env=(("JAX_ENABLE_COMPILATION_CACHE", "false"),)),),  # compiled anew, and still the same bits
            (Job("warm_steps_r18", "warm_steps", "resnet18", 120, words=(*STEPS_R18, "--repeats=1")),
             Job("warm_steps_deit", "warm_steps", DEIT_TI, 120, words=(*STEPS_DEIT, "--repeats=1"))),
            _warmed(LARGEST[:3], *TRAIN),
            *(_warmed((name,), *TRAIN) for name in LARGEST[3:]),  # a Swin-B compiles for two minutes
        )),
        Phase(560, ((
            Job("startup", "bench", "vit_base", 110, words=(*TRAIN, "--compile-times", "both")),
            Job("startup_scan", "bench", "vit_base_scan", 90, words=(*TRAIN, "--compile-times", "both")),
            Job("loop", "bench", "resnet18_cifar", 90, words=("--mode", "none", "--loop")),
            Job("steps_resnet18", "step_ratios", "resnet18", 80, words=STEPS_R18),
            Job("steps_deit_tiny", "step_ratios", DEIT_TI, 80, words=STEPS_DEIT),
            *_fitted(LARGEST),
        ),)),
    )),
    Call("g2", 200, (Phase(200, (_fitted(LARGEST),)),)),
), "g2 runs what g1 had no time for")  # fmt: skip

PACKETS = {packet.name: packet for packet in (B, K, F, E, V, C1, C2, A, D, T, G, M, N, H, C3, D8)}
CALLS = {call.name: (packet, call) for packet in PACKETS.values() for call in packet.calls}
NOISE = {"noise100": (50_000, 10_000, 100), "noise10": (50_000, 10_000, 10)}  # images of training and test, classes
