"""The protocols of the six reports, written as grids of rows."""

from jaxvit.studies import study as studies


def configs(name):
    """Row name -> config of the first seed."""
    study, file = studies.load(name)
    return {row.name: studies.row_config(study, file, row, 0, studies.Options()) for row in study.rows}


def test_protocol_of_vit_against_swin():
    rows = configs("cifar10_vit_vs_swin")
    for config in rows.values():
        assert (config.batch_size, config.num_epochs, config.optim.grad_clip_norm) == (32, 50, 1.0)
        assert (config.early_stopping.patience, config.early_stopping.min_delta) == (5, 0.001)
        assert config.data.mean == (0.4914, 0.4822, 0.4465) and config.data.std == (0.2470, 0.2435, 0.2616)
        assert config.data.val_fraction > 0
    vit, swin = rows["vit"].optim, rows["swin"].optim
    assert (vit.name, vit.learning_rate, vit.weight_decay, vit.schedule.name) == ("adamw", 5e-5, 0.01, "cosine")
    assert (swin.name, swin.learning_rate, swin.weight_decay, swin.schedule.name) == ("adamw", 1e-4, 0.001, "plateau")
    assert rows["swin"].loss.label_smoothing == 0.1 and rows["swin"].model.drop_rate == 0.2


def test_protocol_of_asam():
    study, _ = studies.load("cifar100_asam")
    rows = configs("cifar100_asam")
    assert len(study.seeds) == 3
    for name in ("vit_asam", "swin_asam"):
        config = rows[name]
        assert (config.optim.learning_rate, config.optim.momentum, config.batch_size, config.num_epochs) == (
            1e-2, 0.9, 32, 5,
        )  # fmt: skip
        assert dict(config.optim.schedule).items() >= {
            "name": "step", "step_size": 100, "gamma": 0.95, "unit": "steps",
        }.items()  # fmt: skip
        assert config.optim.sam.adaptive and config.optim.sam.rho > 0
    assert rows["swin_asam"].optim.freeze == "head_only" and rows["vit_asam_cosine"].optim.schedule.name == "cosine"


def test_protocol_of_transfer_and_distillation():
    rows = configs("cifar10_transfer_learning")
    assert {rows[f"alexnet_{p}"].data.fraction for p in (10, 20, 50)} == {0.1, 0.2, 0.5}
    assert rows["alexnet_10"].pretrained and rows["alexnet_10_scratch"].pretrained is None
    words = [rows[f"resnet18_freeze_{w}"].optim.freeze for w in ("none", "early", "middle", "last")]
    assert words == ["none", "early", "middle", "head_only"]
    assert all(config.batch_size == 64 and config.num_epochs == 10 for config in rows.values())
    assert all(c.data.per_class == 1000 for n, c in configs("cifar10_vit_distillation").items() if n != "small")


def test_protocol_of_the_backbones():
    study, _ = studies.load("cifar100_backbones")
    rows = configs("cifar100_backbones")
    assert len(rows) == 12 and len({row.subject for row in study.rows}) == 6
    same = ("seed", "num_epochs", "batch_size", "data", "augment", "loss")
    assert len({str([rows[name][word] for word in same]) for name in rows}) == 1
    for part in ("Linear probe", "Fine-tuned"):  # one rule for all rows of a method
        of = [rows[row.name] for row in study.rows if row.part == part]
        assert len({str(config.optim) for config in of}) == 1 and len(of) == 6
        assert {config.model.image_size for config in of} == {224}
        assert of[0].optim.freeze == ("head_only" if part == "Linear probe" else "none")
    assert [bool(row.neighbours) for row in study.rows] == [row.part == "Linear probe" for row in study.rows]
