"""The error tree. Every error carries a stable code; only a border (DICOM status, HTTP, CLI) translates it.

Codes are `area.what-happened`, never renamed once released. Messages are plain sentences of the form
"expected X, got Y" and hold no patient data: file names that a patient's name could be part of, DICOM
attribute values and pixel content stay out of them.
"""

from __future__ import annotations


class RadboxError(Exception):
    """Base of every error radbox raises on purpose.

    `code` is stable and machine-readable, `message` is one plain sentence for a person.
    """

    default_code = "radbox.error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class ConfigError(RadboxError):
    """A board file that must not start the box: unknown key, wrong type, out of bounds."""

    default_code = "config.invalid"


class StorageError(RadboxError):
    """A write that could not be made durable."""

    default_code = "storage.failed"


class StorageFullError(StorageError):
    """No room, or a size limit: refused before anything breaks (DICOM 0xA700, HTTP 507)."""

    default_code = "storage.full"


class StoreError(RadboxError):
    """The database refused: a state transition that the table does not allow, or damage."""

    default_code = "store.failed"


class DicomError(RadboxError):
    """Bytes that are not the DICOM object they claim to be (PS3.10, PS3.5)."""

    default_code = "dicom.malformed"


class DecodeError(DicomError):
    """Pixel data that no decoder could turn into an image."""

    default_code = "dicom.pixels-unreadable"


class BundleError(RadboxError):
    """A model bundle that must not run: hash, shape, schema or signature."""

    default_code = "bundle.invalid"


class BackendError(RadboxError):
    """A runtime or delegate that is absent, failed to load, or failed its golden case."""

    default_code = "backend.failed"


class ReportError(RadboxError):
    """A report or graph document that does not follow its schema."""

    default_code = "report.invalid"


class UpdateError(RadboxError):
    """An update that must not be installed, or could not be."""

    default_code = "update.failed"


class BackupError(RadboxError):
    """A backup that could not be written, or must not be restored."""

    default_code = "backup.failed"
