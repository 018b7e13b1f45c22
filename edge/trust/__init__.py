"""Who may change this box's model: signed update metadata as pure functions on bytes; no file, no clock, no network.

The data model is that of The Update Framework (TUF specification 1.0: roles, thresholds, root chain, version counters),
read through `tuf.api.metadata`. Dates are left out on purpose: a box without a clock must never refuse an honest
update, so `expires` is parsed and never compared (TUF 1.0, section 5.3 step 10 and its like are not followed).
"""

from __future__ import annotations

from edge.trust.document import LARGEST_METADATA_BYTES, MOST_ROOTS
from edge.trust.offer import (
    LARGEST_FILE_BYTES,
    LARGEST_OFFER_BYTES,
    MOST_FILES,
    Budget,
    FileEntry,
    Offer,
    SnapshotFacts,
    verify_snapshot,
    verify_targets,
)
from edge.trust.policy import Trusted, after_roots, decide
from edge.trust.root import factory_root, root_version, verify_roots

__all__ = [
    "LARGEST_FILE_BYTES",
    "LARGEST_METADATA_BYTES",
    "LARGEST_OFFER_BYTES",
    "MOST_FILES",
    "MOST_ROOTS",
    "Budget",
    "FileEntry",
    "Offer",
    "SnapshotFacts",
    "Trusted",
    "after_roots",
    "decide",
    "factory_root",
    "root_version",
    "verify_roots",
    "verify_snapshot",
    "verify_targets",
]
