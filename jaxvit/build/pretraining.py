"""The first phase of a run where `pretrain.name` is set: its config, its model, its blueprint."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvit.build import parts
from jaxvit.build.blueprint import Blueprint, draw
from jaxvit.build.facts import Facts
from jaxvit.build.resolve import complete
from jaxvit.config.default import Config, default
from jaxvit.errors import UserError
from jaxvit.models.layers import to_pair
from jaxvit.models.macs import count_macs
from jaxvit.models.mae import MaskedAutoencoder, can_encode, encoder_of, num_visible, sine_cosine_positions
from jaxvit.step import steps
from jaxvit.step.reconstruction import make_objective

BASE_RATE, BASE_BATCH = 1.5e-4, 256  # the paper's learning rate, and the batch that it is for
SECOND_MOMENT = 0.95  # AdamW's decay in the paper
HEAD_WIDTH = 32  # of the decoder's attention, as in the paper
KEPT = ("flip", "crop_ratio", "crop_from", "train_interpolation")  # of the run's augmentation
POSITIONS = "^encoder/pos_embed$"  # fixed while the encoder is pretrained, as in the paper


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """What the first phase of a run is."""

    blueprint: Blueprint  # of the autoencoder, whose parameters are {"encoder": the ViT's own, "decoder"}
    vit: Any  # the model of the run
    num_patches: int
    visible: int  # patches that the encoder sees
    norm_pix: bool

    def describe(self) -> str:
        """One line for the header."""
        b, mae = self.blueprint, self.blueprint.model
        return (
            f"mae: {b.batches.num_epochs} epochs of {b.batches.steps_per_epoch} steps, batch {b.batches.size}, "
            f"without labels; the encoder sees {self.visible} of {self.num_patches} patches, "
            f"decoder of {mae.decoder_depth} x {mae.decoder_embed_dim}"
        )

    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of encoder and decoder on an image."""
        return count_macs(self.blueprint.model, self.blueprint.image_shape)


def outline(
    given: Config,
    facts: Facts,
    *,
    devices: Sequence[Any] | None = None,
    model: Any = None,
) -> Pretraining:
    """Draws the first phase of a run; `model` is the one that weights brought along, None: the config's.

    Raises:
      UserError: the model is no ViT of patches with positions, or an option does not fit it.
    """
    config = complete(given, facts)
    vit: Any = parts.make_model(config) if model is None else model
    mae = make_autoencoder(config, vit)
    phase = phase_config(config)
    image_size = tuple(phase.data.image_size)
    shapes = parts.variable_shapes(mae, image_size, phase.model.in_channels)
    if config.dtype == "float64":
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64), shapes)
    patch_size, norm_pix = to_pair(vit.patch_size), config.pretrain.norm_pix_loss
    task = steps.Task(
        num_classes=phase.model.num_classes,
        several=facts.several,
        labelled=False,
        objective=make_objective(patch_size, norm_pix=norm_pix),
    )
    blueprint = draw(phase, facts, devices=devices, model=mae, variables=shapes, task=task)
    patches = math.prod(vit.grid_size)
    return Pretraining(blueprint, vit, patches, num_visible(patches, mae.mask_ratio), norm_pix)


def make_autoencoder(config: Config, vit: Any) -> MaskedAutoencoder:
    """The autoencoder around a ViT, as the config's section `pretrain` says. Raises UserError."""
    p, name = config.pretrain, config.model.name
    if not can_encode(vit):
        raise UserError(
            f"pretrain.name={p.name} needs a VisionTransformer, such as vit_tiny_patch16_224; "
            f"{name} is a {type(vit).__name__}"
        )
    if vit.pos_embed == "none":
        raise UserError(f"pretrain.name={p.name} needs model.pos_embed=learn: without positions no patch has a place")
    if vit.embed_dim % 4:
        raise UserError(f"model.embed_dim is {vit.embed_dim}; with pretrain.name={p.name} expected a multiple of 4")
    patches = math.prod(vit.grid_size)
    visible = num_visible(patches, p.mask_ratio)
    if patches == 1:
        raise UserError(f"pretrain.name={p.name} needs several patches; an image is a single patch of {name}")
    if not 0 < visible < patches:
        which, bound = ("visible", f"at most {1 - 1 / patches:.4g}") if visible == 0 else ("masked", "more")
        raise UserError(
            f"pretrain.mask_ratio is {p.mask_ratio}; of the {patches} patches of an image it leaves none {which}; "
            f"expected {bound}"
        )
    width = p.decoder_embed_dim
    heads = p.decoder_num_heads or max(width // HEAD_WIDTH, 1)
    if width % 4 or width % heads:
        raise UserError(
            f"pretrain.decoder_embed_dim is {width}; expected a multiple of 4 that {heads} heads divide "
            "(pretrain.decoder_num_heads)"
        )
    return MaskedAutoencoder(
        encoder=encoder_of(vit),
        mask_ratio=p.mask_ratio,
        decoder_depth=p.decoder_depth,
        decoder_embed_dim=width,
        decoder_num_heads=heads,
        attn_implementation=vit.attn_implementation,
    )


def phase_config(config: Config) -> Config:
    """Returns the config of the first phase, of a complete config: the paper's AdamW, cosine, random crops and flips.

    Seed, data, type, devices, checkpoints and how a batch is divided are the run's; so is whether images are flipped.
    """
    p, usual, given = config.pretrain, default(), config
    config = copy.deepcopy(config)
    size = p.batch_size or config.batch_size
    optim, augment = usual.optim, usual.augment
    optim.name, optim.b2, optim.weight_decay = "adamw", SECOND_MOMENT, p.weight_decay
    optim.learning_rate = p.learning_rate or BASE_RATE * size / BASE_BATCH
    optim.schedule.warmup_epochs = p.warmup_epochs
    optim.accum_steps, optim.freeze = given.optim.accum_steps, POSITIONS
    for word in KEPT:
        augment[word] = given.augment[word]
    augment.random_resized_crop = None if p.min_crop == 1 else (p.min_crop, 1.0)
    with config.unlocked(), config.ignore_type():
        config.num_epochs, config.batch_size = p.num_epochs, size
        config.optim, config.augment = optim, augment
        for section in ("ema", "distill", "pretrain", "early_stopping"):
            config[section] = usual[section]
        config.pretrained, config.data.sampling, config.data.train_sizes = None, None, ()
    return config


def start(pretraining: Pretraining, drawn: Any, known: Any = None) -> Any:
    """Variables of the autoencoder to begin with, of those that were `drawn`: fixed positions, and `known` weights.

    `known` are variables of the run's ViT that it starts from, or None.
    """
    vit, params = pretraining.vit, drawn["params"]
    encoder = dict(params["encoder"])
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    waves = jnp.asarray(sine_cosine_positions(vit.grid_size, vit.embed_dim), encoder["pos_embed"].dtype)
    encoder["pos_embed"] = jnp.concatenate([jnp.zeros((prefix, vit.embed_dim), waves.dtype), waves])[None]
    if known is not None:
        encoder |= {name: value for name, value in known["params"].items() if name in encoder}
    return {**drawn, "params": {**params, "encoder": encoder}}


def pretrained_variables(drawn: Any, encoder: Any) -> Any:
    """Variables of a ViT as they were `drawn`, with all that the pretrained `encoder` has in common with it."""
    shared = {name: value for name, value in encoder.items() if name in drawn["params"]}
    return {**drawn, "params": {**drawn["params"], **shared}}
