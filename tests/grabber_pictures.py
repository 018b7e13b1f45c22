"""Pictures as an ultrasound machine shows them, computed; with and without a name in them. Also measures the finder.

python -m tests.grabber_pictures --pictures 300
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from edge.intake.grabber.text import find_writing

WIDTH, HEIGHT = 1280, 720
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_COMPLEX)
FIRST = ("ANNA", "Jose", "Li", "Maria", "OMAR", "Tove", "Ivan", "Grace", "NGUYEN", "Ada")
LAST = ("MUELLER", "Okafor", "Silva", "SMITH", "Tanaka", "Haddad", "Petrov", "Kim", "Andersson", "Diallo")


def speckle(chance: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3): a sector scan with Rayleigh speckle, log-compressed, some bright layers and shadows."""
    grain = chance.uniform(0.8, 2.5)
    field = [cv2.GaussianBlur(chance.standard_normal((height, width)), (0, 0), grain * 2.0, sigmaY=grain) for _ in "iq"]
    amplitude = np.hypot(*field)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    down, across = y / height, (x - width / 2) / width
    tissue = 0.35 + 0.65 * cv2.GaussianBlur(chance.random((height, width)).astype(np.float32), (0, 0), 40)
    for _ in range(chance.integers(1, 5)):
        depth, slope, bend = chance.uniform(0.1, 0.9), chance.uniform(-0.2, 0.2), chance.uniform(-0.8, 0.8)
        line = depth + slope * across + bend * across**2
        tissue += chance.uniform(1, 6) * np.exp(-(((down - line) / chance.uniform(0.003, 0.02)) ** 2))
    value = np.log1p(30 * amplitude / amplitude.mean() * tissue) / np.log(30)
    value *= np.exp(-chance.uniform(0.2, 1.2) * down)
    angle = np.abs(np.arctan2(across * width / height, down + 0.08))
    value[(angle > chance.uniform(0.4, 0.7)) | (np.hypot(across * width / height, down) > 0.97)] = 0
    grey = np.clip(value * chance.uniform(120, 200) - chance.uniform(0, 25), 0, 255).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def furniture(picture: np.ndarray, chance: np.random.Generator) -> None:
    """What a machine draws that is no writing: depth ticks, a grey wedge, a caliper cross, a focus mark."""
    height, width = picture.shape[:2]
    for tick in range(0, height, int(chance.integers(30, 60))):
        cv2.line(picture, (width - 40, tick), (width - 40 + (12 if tick % 5 else 20), tick), (200, 200, 200), 1)
    wedge = np.linspace(255, 0, height // 2).astype(np.uint8)
    picture[50 : 50 + len(wedge), 30:45] = wedge[:, None, None]
    for _ in range(2):
        x, y = int(chance.integers(300, width - 300)), int(chance.integers(100, height - 100))
        cv2.drawMarker(picture, (x, y), (0, 255, 255), cv2.MARKER_CROSS, 15, 1)
    cv2.drawContours(picture, [np.array([[width - 60, 300], [width - 50, 295], [width - 50, 305]])], 0, (0, 200, 0), -1)


def name(chance: np.random.Generator) -> str:
    """Such as a machine writes it, no real person's."""
    first, last = chance.choice(FIRST), chance.choice(LAST)
    forms = (f"{last}, {first}", f"{last}^{first}", f"{first} {last}", f"ID {chance.integers(10_000, 999_999)}", last)
    return str(chance.choice(forms))


def write(picture: np.ndarray, text: str, chance: np.random.Generator, *, over_image: bool | None = None) -> None:
    """Put a text somewhere: at the dark edge, or over the image itself; any font, 10 to 40 pixels, five colours."""
    height, width = picture.shape[:2]
    font, size = FONTS[chance.integers(len(FONTS))], int(chance.integers(10, 41))
    thickness = 1 if size < 22 else int(chance.integers(1, 4))
    scale = cv2.getFontScaleFromHeight(font, max(1, size - thickness), thickness)
    (wide, _), _ = cv2.getTextSize(text, font, scale, thickness)
    over = bool(chance.random() < 0.4) if over_image is None else over_image
    x = int(chance.integers(5, max(6, width - wide - 5)))
    y = int(chance.integers(height // 3, height - 50)) if over else int(chance.integers(size + 2, 60))
    colours = ((255, 255, 255), (200, 200, 200), (0, 255, 255), (0, 200, 0), (255, 200, 80))
    colour = colours[chance.integers(len(colours))]
    line = cv2.LINE_AA if chance.random() < 0.7 else cv2.LINE_8
    cv2.putText(picture, text, (x, y), font, scale, colour, thickness, line)


def as_video(picture: np.ndarray, quality: int) -> np.ndarray:
    """After a grabber's JPEG; 0: none."""
    if not quality:
        return picture
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def example(seed: int, *, named: bool) -> np.ndarray:
    """One picture."""
    chance = np.random.default_rng(seed)
    picture = speckle(chance)
    if seed % 2:
        furniture(picture, chance)
    if named:
        write(picture, name(chance), chance)
    return as_video(picture, (0, 95, 80)[seed % 3])


def measure(pictures: int, first_seed: int = 0) -> dict[str, float]:
    """Sensitivity and false alarms over so many pictures of each kind, and seconds for one."""
    seeds = range(first_seed, first_seed + pictures)
    start_s = time.monotonic()
    hits = sum(bool(find_writing(example(seed, named=True))) for seed in seeds)
    alarms = sum(bool(find_writing(example(seed, named=False))) for seed in seeds)
    seconds = (time.monotonic() - start_s) / 2 / pictures
    return {"pictures": pictures, "found": hits / pictures, "false_alarms": alarms / pictures, "seconds_each": seconds}


def measure_folder(folder: Path) -> dict[str, float]:
    """The same on real pictures, at twice their size: as they are, and with a name written into each."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    hits = alarms = 0
    for seed, path in enumerate(paths):
        small = cv2.imread(str(path), cv2.IMREAD_COLOR)
        picture = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        alarms += bool(find_writing(picture))
        chance = np.random.default_rng(seed)
        write(picture, name(chance), chance)
        hits += bool(find_writing(picture))
    return {"pictures": len(paths), "found": hits / len(paths), "false_alarms": alarms / len(paths)}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pictures", type=int, default=300, help="of each kind")
    arguments.add_argument("--first-seed", type=int, default=100_000, help="the thresholds were set on seeds below")
    arguments.add_argument("--folder", type=Path, help="real pictures instead")
    parsed = arguments.parse_args()
    measured = measure_folder(parsed.folder) if parsed.folder else measure(parsed.pictures, parsed.first_seed)
    print(json.dumps(measured, indent=1))
