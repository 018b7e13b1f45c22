"""May this image be read at all? Every refusal has a stable code and a plain sentence; nothing is guessed past one.

The pipeline's order: `check_blank`, `check_header`, the learned checks (`check_learned`, `check_geometry`), then
`check_exposure`, so that a hand is told "not a chest" rather than "too small".
"""

from __future__ import annotations

import re

import cv2
import numpy as np

from edge.reading.image import prepare
from edge.reading.radiograph import F32, Radiograph, Refusal

ONLY_CHEST = "This reader reads frontal chest X-rays only."

# OT and SC may carry anything, among it radiographs: what they show is for the learned check to say.
XRAY_MODALITIES = frozenset(("CR", "DX", "RG", "DR", "XR", "OT", "SC"))
# PS3.3 C.7.3.1.1.1 "Modality", in words.
_MODALITY_WORDS = {
    "US": "an ultrasound image",
    "IVUS": "an ultrasound image",
    "CT": "a CT image",
    "MR": "an MR image",
    "NM": "a nuclear medicine image",
    "PT": "a PET image",
    "MG": "a mammogram",
    "XA": "an angiogram",
    "RF": "a fluoroscopy image",
    "IO": "a dental X-ray",
    "PX": "a dental X-ray",
    "BMD": "a bone density image",
    "ES": "an endoscopy image",
    "OP": "a photograph of an eye",
    "OPT": "an eye scan",
    "XC": "a photograph",
    "DMS": "a photograph of skin",
    "GM": "a microscope image",
    "SM": "a microscope image",
    "ECG": "an electrocardiogram",
    "SR": "a report, not an image",
    "DOC": "a document, not an image",
    "PR": "a presentation state, not an image",
}
# PS3.16 Annex L and what devices write: matched as parts of the text with everything but letters taken out ...
_CHEST_WORDS = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB", "HEART")
_OTHER_WORDS = (
    *("ABDOM", "ANKLE", "BLADDER", "BRAIN", "BREAST", "CALCAN", "CLAVIC", "COCCYX", "DENTAL", "ELBOW", "EXTREMITY"),
    *("FACIAL", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HUMERUS", "KIDNEY", "KNEE", "LIVER", "MANDIB"),
    *("NASAL", "NECK", "ORBIT", "PATELLA", "PELVI", "RADIUS", "SACR", "SCAPULA", "SHOULDER", "SINUS", "SKULL"),
    *("SPINE", "TEETH", "THIGH", "THUMB", "TIBIA", "ULNA", "UTERUS", "WRIST"),
)
# ... and as whole words, being parts of others.
_OTHER_SHORT_WORDS = frozenset(("ARM", "CSP", "EAR", "EYE", "FEET", "HIP", "HIPS", "JAW", "KUB", "LEG", "LEGS", "TOE"))

# Measured on one half of the patients (by hash) of NIH ChestX-ray14 (611 images) and Kermany (2526), 512 px copies
# without border; the extremes met were:
LOWEST_SIDE_PIXELS = 180  # 224
BLANK_RANGE = 0.01  # 99.5th less 0.5th percentile: the 99th less the 1st is 0.33
LOWEST_CONTRAST = 0.12  # 95th less 5th percentile: 0.267, 0.1st percentile of the images 0.28
DARKEST_WHITE = 0.25  # 95th percentile: 0.463
BRIGHTEST_BLACK = 0.85  # 5th percentile: 0.698
MOST_BLACK_SHARE = 0.60  # of pixels at or under BLACK: 0.367, collimated images
MOST_WHITE_SHARE = 0.45  # of pixels at or over WHITE: 0.082 (0.147 on the other half)
BLACK, WHITE = 0.02, 0.98
# Variance of the Laplacian over the variance of the image, at SHARPNESS_SIDE. Real images 0.0050 to 0.27 (0.38 on
# the other half); blurred with sigma 4 pixels of 256 at most 0.0005, sigma 3 0.0010, sigma 2 0.0045; white noise 14.
SHARPNESS_FLOOR = 0.001
NOISE_CEILING = 0.8
SHARPNESS_SIDE = 224  # pixels of the shorter side: the smallest real images, so that none is enlarged
_STATISTICS_SIDE = 512

# Lung masks drawn by annotators (69 images): one lung 0.096 to 0.264 of the image, both 0.21 to 0.50; the centres
# 0.33 to 0.53 of the width apart and at most 0.13 of the height.
MASK_PROBABILITY = 0.5
LEAST_LUNG_SHARE = 0.03  # one lung may be white (pneumonectomy, massive effusion); then the other must be found
LEAST_SINGLE_LUNG_SHARE = 0.05
MOST_LUNGS_SHARE = 0.85
LEAST_LUNG_DISTANCE = 0.12  # of the width, from the centre of the right lung to that of the left
MOST_LUNG_TILT = 0.35  # of the height


def check_blank(radiograph: Radiograph) -> Refusal | None:
    """`gate.blank`: an image without content, whatever its header says."""
    low, high = np.percentile(_thinned(radiograph.pixels), (0.5, 99.5))
    if high - low < BLANK_RANGE:
        return Refusal("gate.blank", "The image is blank: it has one and the same brightness everywhere.")
    return None


def check_header(radiograph: Radiograph) -> Refusal | None:
    """What the object says of itself.

    `gate.modality`, `gate.body-part`, `gate.view`, `gate.multi-frame`, `gate.colour`. What it does not say is no
    reason to refuse.
    """
    modality = radiograph.modality
    if modality and modality not in XRAY_MODALITIES:
        shown = _MODALITY_WORDS.get(modality, f"an object of modality {re.sub(r'[^A-Z0-9]', '', modality)[:16]}")
        return Refusal("gate.modality", f"This is {shown}. {ONLY_CHEST}")
    if _other_body_part(radiograph.body_part or ""):
        return Refusal(
            "gate.body-part", f"The image is marked as another part of the body than the chest. {ONLY_CHEST}"
        )
    if radiograph.view == "LATERAL":
        return Refusal("gate.view", f"This is a lateral view. {ONLY_CHEST}")
    if radiograph.frames > 1:
        return Refusal("gate.multi-frame", f"This is a series of {radiograph.frames} frames. {ONLY_CHEST}")
    if radiograph.colour:
        return Refusal("gate.colour", f"This is a colour picture, not a radiograph. {ONLY_CHEST}")
    return None


def check_exposure(radiograph: Radiograph) -> Refusal | None:
    """Whether there is enough in the image.

    `gate.blank`, `gate.resolution`, `gate.exposure`, `gate.sharpness`, `gate.noise`. Borders are left
    out of account, as in `image.prepare`.
    """
    blank = check_blank(radiograph)
    if blank:
        return blank
    side = min(radiograph.pixels.shape)
    if side < LOWEST_SIDE_PIXELS:
        return Refusal(
            "gate.resolution",
            f"The image is too small: its shorter side has {side} pixels, at least {LOWEST_SIDE_PIXELS} are needed.",
        )
    inside = _without_border(radiograph.pixels)
    return _exposure(inside) or _sharpness(inside)


def check_learned(chest_score: float, threshold: float) -> Refusal | None:
    """`gate.not-a-chest-radiograph` where the encoder's score, higher for a frontal chest X-ray, is under threshold.

    A score that is not a number is refused.
    """
    if chest_score >= threshold:
        return None
    return Refusal("gate.not-a-chest-radiograph", f"The image does not look like a chest X-ray. {ONLY_CHEST}")


def check_geometry(masks: F32) -> Refusal | None:
    """`gate.lungs-not-found` where the masks show no lung, or two that do not lie side by side.

    masks: (3, H, W) float32 probabilities: the patient's right lung (on the left of the image), left lung,
    mediastinum. One missing lung is accepted: it may be white.
    """
    found = masks[:2] >= MASK_PROBABILITY
    right, left = (float(share) for share in found.mean(axis=(1, 2)))
    missing = min(right, left) < LEAST_LUNG_SHARE
    plausible = right + left <= MOST_LUNGS_SHARE
    if missing:
        plausible = plausible and max(right, left) >= LEAST_SINGLE_LUNG_SHARE
    else:
        (right_x, right_y), (left_x, left_y) = _centre(found[0]), _centre(found[1])
        plausible = plausible and left_x - right_x >= LEAST_LUNG_DISTANCE and abs(left_y - right_y) <= MOST_LUNG_TILT
    if plausible:
        return None
    return Refusal("gate.lungs-not-found", f"No pair of lungs was found in the image. {ONLY_CHEST}")


def _other_body_part(text: str) -> bool:
    words = re.findall(r"[A-Z]+", text.upper())
    letters = "".join(words)
    if any(chest in letters for chest in _CHEST_WORDS):
        return False
    return any(other in letters for other in _OTHER_WORDS) or not _OTHER_SHORT_WORDS.isdisjoint(words)


def _exposure(inside: F32) -> Refusal | None:
    black, white = np.percentile(inside, (5, 95))
    if white < DARKEST_WHITE or float((inside <= BLACK).mean()) > MOST_BLACK_SHARE:
        return Refusal("gate.exposure", "The image is too dark to be read: most of it is black.")
    if black > BRIGHTEST_BLACK or float((inside >= WHITE).mean()) > MOST_WHITE_SHARE:
        return Refusal("gate.exposure", "The image is too bright to be read: most of it is white.")
    if white - black < LOWEST_CONTRAST:
        return Refusal("gate.exposure", "The image has too little contrast to be read.")
    return None


def _sharpness(inside: F32) -> Refusal | None:
    """Variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) over the variance, so that contrast does not count."""
    scale = SHARPNESS_SIDE / min(inside.shape)
    small = _resized(inside, scale) if scale < 1 else inside
    measure = float(cv2.Laplacian(small, cv2.CV_32F).var()) / max(float(small.var()), 1e-9)
    if measure < SHARPNESS_FLOOR:
        return Refusal("gate.sharpness", "The image is too blurred to be read.")
    if measure > NOISE_CEILING:
        return Refusal("gate.noise", "The image is too noisy to be read.")
    return None


def _without_border(pixels: F32) -> F32:
    scale = _STATISTICS_SIDE / min(pixels.shape)
    small = _resized(pixels, scale) if scale < 1 else pixels
    extent = prepare(Radiograph(pixels=small)).extent
    height, width = small.shape
    return small[
        round(extent.y0 * height) : round(extent.y1 * height), round(extent.x0 * width) : round(extent.x1 * width)
    ]


def _resized(pixels: F32, scale: float) -> F32:
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _thinned(pixels: F32) -> F32:
    step = max(1, min(pixels.shape) // _STATISTICS_SIDE)
    return pixels[::step, ::step]


def _centre(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[float, float]:
    """x and y of the centre of a mask that is not empty, as fractions of its width and height."""
    y, x = np.nonzero(mask)
    return float((x.mean() + 0.5) / mask.shape[1]), float((y.mean() + 0.5) / mask.shape[0])
