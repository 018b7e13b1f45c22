"""`tools/make_image`: a bootable disk image with the radbox package in it."""

from __future__ import annotations
