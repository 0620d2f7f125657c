"""The layouts in which weights of EVA and its relatives are found, in addition to timm's."""

from jaxvit.models.layouts import Layout

LAYOUTS: tuple[Layout, ...] = ()
