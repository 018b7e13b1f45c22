"""The database of radbox 0.1.0 (schema version 1), as that release made it."""

from __future__ import annotations

SCHEMA_1 = """
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
    last_instance_key INTEGER NOT NULL DEFAULT 0
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
    finished_unix_s REAL NOT NULL
) STRICT;
CREATE INDEX reading_by_study ON reading (study_key, reading_key);

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
