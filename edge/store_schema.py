"""The database's shape: tables, versions, and which state may follow which.

Every fact has one writer: the receiver writes studies, instances and the quarantine, the worker readings and the
states from `reading` on. Times called `monotonic_s` are CLOCK_MONOTONIC seconds and mean something only beside the
`boot_id` they were taken in. `*_age_s` are seconds that this box has run, all boots together: they only grow, and time
without power does not count. `arrived_unix_s` is the wall clock, shown to people and never compared.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 3

STATES: Final = ("receiving", "queued", "reading", "draft", "refused", "failed", "signed")

# (from, to): why. Nothing else may happen to a study.
TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    ("receiving", "queued"): "association ended and the quiet time passed",
    ("queued", "reading"): "a worker claimed it",
    ("queued", "receiving"): "more images before a worker claimed it",
    ("reading", "draft"): "the worker wrote a report",
    ("reading", "refused"): "no image of it may be read",
    ("reading", "failed"): "reading it broke and no attempt is left",
    ("reading", "queued"): "the worker died, or the step may be tried again",
    ("draft", "receiving"): "more images: a new reading follows, the report is superseded",
    ("refused", "receiving"): "more images: a new reading follows",
    ("failed", "receiving"): "more images: a new reading follows",
    ("draft", "signed"): "a person signed the report",
}

# Images that arrive in these states bring the study back to `receiving` at once. While a worker reads, they are
# noted in `study.late` (0 none, 1 arriving, 2 complete) and take effect when the reading ends. A signed study
# keeps its state: what was signed stays as it was signed, and an event reports the images.
REOPENING: Final = frozenset({"queued", "draft", "refused", "failed"})

EVENTS_KEPT: Final = 10_000  # a sender that repeats an error for days must not fill the disk
SAMPLES_KEPT: Final = 2016  # of each name: a week, one every five minutes
REQUESTS_KEPT: Final = 1000
MODALITIES_KEPT: Final = 200  # AE titles are the sender's choice

_SINCE_2: Final = """
CREATE TABLE signature (
    study_key INTEGER PRIMARY KEY REFERENCES study,
    attempt INTEGER NOT NULL,
    signer TEXT NOT NULL,
    report_json TEXT NOT NULL,
    report_sha256 TEXT NOT NULL,
    signed_age_s REAL NOT NULL,
    signed_unix_s REAL NOT NULL
) STRICT;

CREATE TABLE removal (
    path TEXT PRIMARY KEY
) STRICT;

CREATE TABLE box (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    age_s REAL NOT NULL,
    ticked_monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;
"""

_SINCE_3: Final = """
CREATE TABLE fact (
    name TEXT PRIMARY KEY,
    value_json TEXT NOT NULL,
    monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;

CREATE TABLE tally (
    name TEXT PRIMARY KEY,
    total INTEGER NOT NULL
) STRICT;

CREATE TABLE sample (
    sample_key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    age_s REAL NOT NULL,
    value REAL NOT NULL
) STRICT;
CREATE INDEX sample_by_name ON sample (name, sample_key);

CREATE TABLE modality (
    calling_ae TEXT PRIMARY KEY,
    images INTEGER NOT NULL,
    first_age_s REAL NOT NULL,
    last_age_s REAL NOT NULL,
    last_monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;

CREATE TABLE issue (
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    values_json TEXT NOT NULL,
    since_monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    since_age_s REAL NOT NULL,
    since_unix_s REAL NOT NULL,
    put_off_until_age_s REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (code, subject)
) STRICT;

CREATE TABLE request (
    request_key INTEGER PRIMARY KEY AUTOINCREMENT,
    action TEXT NOT NULL,
    values_json TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;
CREATE INDEX request_open ON request (request_key) WHERE code = '';

CREATE TABLE outbox (
    outbox_key INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
"""

SCHEMA: Final = (
    """
CREATE TABLE study (
    study_key INTEGER PRIMARY KEY AUTOINCREMENT,
    study_instance_uid TEXT NOT NULL UNIQUE,
    patient_id TEXT NOT NULL,
    patient_name TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_date TEXT NOT NULL,
    modality TEXT NOT NULL,
    study_description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('receiving', 'queued', 'reading', 'draft', 'refused', 'failed', 'signed')),
    late INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    last_instance_key INTEGER NOT NULL DEFAULT 0,
    urgency INTEGER NOT NULL DEFAULT 0,
    claimed_boot_id TEXT NOT NULL DEFAULT '',
    arrived_age_s REAL NOT NULL DEFAULT 0,
    exported_age_s REAL
) STRICT;
CREATE INDEX study_by_state ON study (state, last_instance_key);
CREATE INDEX study_by_arrival ON study (last_instance_key);

CREATE TABLE instance (
    instance_key INTEGER PRIMARY KEY AUTOINCREMENT,
    study_key INTEGER NOT NULL REFERENCES study,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    path TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    conflict INTEGER NOT NULL,
    received_monotonic_s REAL NOT NULL,
    receive_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    arrived_unix_s REAL NOT NULL,
    UNIQUE (sop_instance_uid, sha256)
) STRICT;
CREATE INDEX instance_by_study ON instance (study_key, instance_key);

CREATE TABLE reading (
    reading_key INTEGER PRIMARY KEY AUTOINCREMENT,
    study_key INTEGER NOT NULL REFERENCES study,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('draft', 'refused', 'failed')),
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    report_json TEXT NOT NULL,
    rendered TEXT NOT NULL,
    timings_json TEXT NOT NULL,
    superseded INTEGER NOT NULL DEFAULT 0,
    finished_unix_s REAL NOT NULL,
    content_sha256 TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX reading_by_study ON reading (study_key, reading_key);
CREATE UNIQUE INDEX one_current_reading ON reading (study_key) WHERE superseded = 0;

CREATE TABLE quarantine (
    quarantine_key INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    path TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,
    arrived_unix_s REAL NOT NULL,
    UNIQUE (sha256, code)
) STRICT;

CREATE TABLE service (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('ok', 'degraded', 'paused')),
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL
) STRICT;

CREATE TABLE event (
    event_key INTEGER PRIMARY KEY AUTOINCREMENT,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    study_key INTEGER REFERENCES study,
    monotonic_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    happened_unix_s REAL NOT NULL
) STRICT;
"""
    + _SINCE_2
    + _SINCE_3
)

# From the version named to the next one. A database that was made new and one that was migrated are alike (tested).
MIGRATIONS: Final = {
    1: """
ALTER TABLE study ADD COLUMN urgency INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN claimed_boot_id TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN arrived_age_s REAL NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN exported_age_s REAL;
ALTER TABLE reading ADD COLUMN content_sha256 TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX one_current_reading ON reading (study_key) WHERE superseded = 0;
"""
    + _SINCE_2,
    2: _SINCE_3
    + """
INSERT INTO modality
SELECT calling_ae, count(*), 0.0, 0.0, max(received_monotonic_s), '' FROM instance GROUP BY calling_ae;
""",
}
