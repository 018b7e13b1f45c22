"""`tools/test-vm`: the package in a virtual machine with real systemd, real devices of QEMU's, and real faults."""

from __future__ import annotations
