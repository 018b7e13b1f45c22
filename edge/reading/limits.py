"""How much one file may make the box decode."""

from __future__ import annotations

FRAME_LIMIT_PIXELS = 50_000_000  # rows x columns of a DICOM frame; the largest mammograms have 28 million
OBJECT_LIMIT_PIXELS = 2_000_000_000  # rows x columns x frames of a DICOM object, read or not
READ_LIMIT_PIXELS = 100_000_000  # pixels decoded from one file, over all frames read
FRAMES_READ = 16  # of a longer object, evenly spaced
