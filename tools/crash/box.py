"""What must hold in any data folder, whatever happened to it: looked at through the store and past it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import cv2
import numpy as np

from edge.report.serial import from_json
from edge.store import Store, StudyDetail
from edge.store_paths import DATABASE

ENDED = ("draft", "refused", "failed", "signed")


def studies(store: Store, newest: int = 100_000) -> list[StudyDetail]:
    """Studies, whole, the newest first."""
    return [one for row in store.studies(limit=newest) if (one := store.study(row.study_key)) is not None]


def database_faults(data_dir: Path) -> list[str]:
    """What SQLite itself says, and studies without their one current reading."""
    with closing(apsw.Connection(str(data_dir / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        database.set_busy_timeout(10_000)
        wrong = [f"integrity: {row[0]}" for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
        wrong += ["a foreign key points nowhere" for _ in database.execute("PRAGMA foreign_key_check")]
        twice = "SELECT count(*) FROM reading WHERE superseded = 0 GROUP BY study_key HAVING count(*) > 1"
        wrong += ["a study has two current readings" for _ in database.execute(twice)]
        repeated = "SELECT count(*) FROM reading WHERE outcome = 'draft' GROUP BY study_key, content_sha256 "
        wrong += ["the same images have two drafts" for _ in database.execute(f"{repeated} HAVING count(*) > 1")]
        loose = "SELECT 1 FROM study WHERE state IN ('draft', 'signed', 'refused', 'failed') AND study_key NOT IN "
        loose += "(SELECT study_key FROM reading WHERE superseded = 0)"
        wrong += ["an ended study has no current reading" for _ in database.execute(loose)]
    return wrong


def half_report(data_dir: Path, study: StudyDetail, unread: tuple[str, ...] = ()) -> list[str]:
    """What of a study's current report cannot be shown. unread: texts that stand for a report in a test."""
    if study.state not in ENDED:
        return []
    wrong = []
    if study.state in ("draft", "signed") and study.report_json not in unread:
        try:
            from_json(study.report_json)
        except Exception as error:  # whatever it is, the report cannot be shown
            wrong.append(f"a report that cannot be read: {type(error).__name__}")
    if study.rendered:
        path = data_dir / study.rendered / "image.png"
        content = path.read_bytes() if path.exists() else b""
        if not content or cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            wrong.append(f"a report whose image {'is half there' if content else 'is missing'}")
    return wrong
