"""Write the bundle: one calibration of ranges, TFLite int8 and QDQ symmetric int8 ONNX (and its form for TensorRT).

    python -m models.export CACHE_DIR RUN_DIR BUNDLE_DIR

Calibration of probabilities and every threshold come from the validation part, read by the exported int8 encoder.
`offered` and the measured accuracy are written afterwards by `models.evaluate --write`, from the test part.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save_file

from edge.bundle import MANIFEST_SCHEMA, DecoderSpec, FindingSpec, GateSpec, Golden, Manifest
from edge.reading.backends import OUTPUTS
from edge.report.grammar import FINDINGS
from edge.report.graph import load_graph
from models.calibrate import choose_thresholds, platt
from models.data import load
from models.export_tensorrt import int8_half, outputs_of
from models.findings import POPULATIONS, VOCABULARY
from models.model import CHANNELS, GRID, Decoder, Encoder
from models.quantisers import quantised_inputs_only
from models.sign import write_manifest

BUNDLE_ID, VERSION = "chest-xray-pyramid", "0.1.1"
FLOOR = 0.65
CALIBRATION_IMAGES = {"nih": 64, "kermany": 32, "masks": 16, "phantom": 32}  # chests: what is refused may saturate
CHEST_ACCEPTED = 0.995  # share of real validation chest images whose chest logit must lie above the threshold
GOLDEN_PHANTOMS, GOLDEN_OTHERS = 3, 2
GOLDEN_TOLERANCE = 0.1  # of an output's spread: another runtime's or processor's rounding of the same file
LICENCES = (
    "Weights: Apache-2.0, trained by this project",
    "NIH ChestX-ray14 (Wang et al., CVPR 2017): no restriction on use, citation asked",
    "Kermany et al., Cell 2018: CC BY 4.0",
    "Lung masks: CC BY 4.0; their images under permissive licences, per row",
    "Lung ultrasound (as non-chest images): CC BY 2.0/4.0, per row",
    "BUSI breast ultrasound (as non-chest images), Al-Dhabyani et al. 2020: CC BY by the paper, not stated in the copy",
    "ImageNet MobileNetV2 start: Apache-2.0",
)


FLOAT_OPERATIONS = ("DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "OUTPUT")
POPULATION_TOLERANCE = 0.2  # the golden pictures hardly differ in it: 0.06 of a logit


class Flat(torch.nn.Module):
    """The encoder with its outputs as a plain tuple, for the converters."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.encoder(x))


def calibration_images(cache: Path) -> np.ndarray:
    """(M, 256, 256) uint8 training images of every source."""
    rng = np.random.default_rng(0)
    parts = []
    for name, count in CALIBRATION_IMAGES.items():
        images = load(cache, name).part("train").images
        parts.append(images[rng.choice(len(images), min(count, len(images)), replace=False)])
    return np.concatenate(parts)


def signed(image: np.ndarray) -> np.ndarray:
    """(256, 256) uint8 -> (1, 1, 256, 256) float32 in [-1, 1]."""
    return (image.astype(np.float32) / 127.5 - 1.0)[None, None]


def export_tflite(encoder: Encoder, images: np.ndarray, path: Path) -> None:
    """Convolutions int8, but for the depthwise ones; those, additions, means and the tiny linear heads stay float.

    Depthwise weights are 2 % of the network and spread too far for one scale of activations: with them in int8 the
    mean validation AUROC fell by 0.012, without by 0.001.
    """
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import AlgorithmName

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float.tflite"
        litert_torch.convert(Flat(encoder).eval(), (torch.zeros(1, 1, 256, 256),)).export(str(plain))
        q = quantizer.Quantizer(str(plain))
        q.load_quantization_recipe(recipe.static_wi8_ai8())
        for operation in FLOAT_OPERATIONS:
            q.update_quantization_recipe(".*", TFLOperationName[operation], algorithm_key=AlgorithmName.NO_QUANTIZE)
        data = {"serving_default": [{"args_0": signed(i)} for i in images]}
        q.quantize(q.calibrate(data)).export_model(str(path), overwrite=True)


def export_onnx(encoder: Encoder, images: np.ndarray, path: Path) -> None:
    """QDQ int8 as TensorRT wants it: symmetric, per channel, zero points 0, bias left float, opset 19.

    Quantisers behind the convolutions go: they cost accuracy, and what they rounded to differed between runtimes.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rows, None)
            return None if image is None else {"image": signed(image)}

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        torch.onnx.export(
            Flat(encoder).eval(), (torch.zeros(1, 1, 256, 256),), str(plain), input_names=["image"],
            output_names=list(OUTPUTS), opset_version=19, dynamo=False,
        )  # fmt: skip
        quant_pre_process(str(plain), str(prepared))
        quantize_static(
            str(prepared), str(path), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv"], nodes_to_exclude=_depthwise(prepared),
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )  # fmt: skip
        onnx.save(quantised_inputs_only(onnx.load(str(path))), str(path))


def _depthwise(path: Path) -> list[str]:
    """Names of the depthwise convolutions of an ONNX file."""

    groups = {n.name: [a.i for a in n.attribute if a.name == "group"] for n in onnx.load(str(path)).graph.node}
    return [name for name, values in groups.items() if values and values[0] > 1]


def run_tflite(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of the exported file, through the device's own backend code."""
    from ai_edge_litert.interpreter import Interpreter

    from edge.reading.backends.tflite import TfliteEncoder

    interpreter = Interpreter(model_path=str(path), num_threads=2)
    interpreter.allocate_tensors()
    encoder = TfliteEncoder(interpreter)
    rows = [encoder.run(signed(i)) for i in images]
    return {k: np.concatenate([r[k] for r in rows]) for k in OUTPUTS}


def run_onnx(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The same for the ONNX file."""
    import onnxruntime

    from edge.reading.backends.onnxruntime import OnnxEncoder

    encoder = OnnxEncoder(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
    rows = [encoder.run(signed(i)) for i in images]
    return {k: np.concatenate([r[k] for r in rows]) for k in OUTPUTS}


def finding_specs(cache: Path, tflite: Path) -> dict[str, dict[str, FindingSpec]]:
    """Platt scaling and thresholds from the validation part, per finding and population."""
    nih, kermany = (load(cache, n).part("val") for n in ("nih", "kermany"))
    adults = nih.child == 0
    adult_logits = run_tflite(tflite, nih.images[adults])["findings"]
    child_logits = run_tflite(tflite, kermany.images)["findings"]
    specs = {}
    for i, code in enumerate(FINDINGS):
        labels = nih.labels[adults, i]
        adult = _spec(adult_logits[:, i], labels)
        child = _spec(child_logits[:, i], kermany.labels[:, i]) if code == "pneumonia" else adult
        specs[code] = {"adult": adult, "child": child}
    return specs


def _spec(logits: np.ndarray, labels: np.ndarray) -> FindingSpec:
    slope, intercept = platt(logits, labels)
    possible, present = choose_thresholds(1 / (1 + np.exp(-(slope * logits + intercept))), labels)
    return FindingSpec(slope, intercept, possible, present, False, ())


def gate_spec(cache: Path, tflite: Path) -> GateSpec:
    """The chest threshold: 0, or lower where 0 would refuse too many real validation chest images."""
    chest = np.concatenate(
        [run_tflite(tflite, load(cache, n).part("val").images)["chest"][:, 0] for n in ("nih", "kermany", "masks")]
    )
    threshold = min(float(np.quantile(chest, 1 - CHEST_ACCEPTED)), 0.0)
    for name in ("ultrasound", "other", "phantom"):
        logits = run_tflite(tflite, load(cache, name).part("val").images)["chest"][:, 0]
        print(f"gate: {name} accepted {int((logits >= threshold).sum())} of {len(logits)}, threshold {threshold:.2f}")
    return GateSpec(chest=threshold, child=0.0)


def golden_case(cache: Path, bundle: Path) -> dict[str, float]:
    """Phantoms and drawn pictures (no patient): uint8 inputs, and what each exported file says of them here."""
    parts = (("phantom", GOLDEN_PHANTOMS), ("other", GOLDEN_OTHERS))
    images = np.concatenate([load(cache, name).part("val").images[:n] for name, n in parts])
    emissions = {
        "tflite": run_tflite(bundle / "encoder.tflite", images),
        "onnx": run_onnx(bundle / "encoder.onnx", images),
        "int8": outputs_of(bundle / "encoder.int8.onnx", images[:, None]),
    }
    expected = {f"{file}.{name}": outputs[name] for file, outputs in emissions.items() for name in OUTPUTS}
    save_file({"input": images[:, None], **expected}, bundle / "golden.safetensors")
    return dict.fromkeys(OUTPUTS, GOLDEN_TOLERANCE) | {"population": POPULATION_TOLERANCE}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cache", "run", "bundle"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    export(options.cache, options.run, options.bundle)


def export(cache: Path, run: Path, bundle: Path) -> None:
    """See the module docstring."""
    bundle.mkdir(parents=True, exist_ok=True)
    encoder, decoder = Encoder(), Decoder()
    encoder.load_state_dict(torch.load(run / "encoder.pt", weights_only=True))
    decoder.load_state_dict(torch.load(run / "decoder.pt", weights_only=True))
    encoder.eval()
    images = calibration_images(cache)
    export_tflite(encoder, images, bundle / "encoder.tflite")
    export_onnx(encoder, images, bundle / "encoder.onnx")
    onnx.save(int8_half(onnx.load(str(bundle / "encoder.onnx"))), str(bundle / "encoder.int8.onnx"))
    save_file({k: v.numpy().copy() for k, v in decoder.state_dict().items()}, bundle / "decoder.safetensors")
    tolerance = golden_case(cache, bundle)
    manifest = Manifest(
        schema=MANIFEST_SCHEMA, id=BUNDLE_ID, version=VERSION, files={}, graph_sha256=load_graph().sha256,
        input_size=256, grid=GRID, channels=CHANNELS, findings=finding_specs(cache, bundle / "encoder.tflite"),
        decoder=DecoderSpec(
            VOCABULARY, Decoder.WIDTH, Decoder.LAYERS, Decoder.HEADS, Decoder.FFN, Decoder.POSITIONS,
            Decoder.BIAS_SIGMA, Decoder.BIAS_STRENGTH,
        ),
        gate=gate_spec(cache, bundle / "encoder.tflite"), floor=FLOOR,
        golden=Golden(GOLDEN_PHANTOMS + GOLDEN_OTHERS, tolerance), licences=LICENCES,
    )  # fmt: skip
    assert set(POPULATIONS) == {"adult", "child"}
    write_manifest(manifest, bundle)


if __name__ == "__main__":
    main()
