"""A stand-in for rknn-toolkit-lite2: the recorded API and nothing else (tests/npu_rknnlite_api.json), and one NPU.

It behaves as the real wheels were seen to behave under emulation (tests/test_rknn_emulated.py runs those): reasons only
in the log, shortened level names, return codes of `run` that nobody looks at, outputs of the run before when one fails.
Underneath, ONNX Runtime computes the bundle's own network on the picture in float16. The file is a JSON document; what
the NPU does is told by the file that NPU_DEVICE names.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.npu_contract import record

CODES: dict[int, str] = {code: name for name, code in record("rknnlite")["codes"].items() if isinstance(code, int)}
OK: dict[str, Any] = {"chip": "rk3588", "library": True, "codes": {}, "runs": 0}
logger = logging.getLogger("acuityLogger")


def device_file() -> Path:
    """See the module docstring."""
    return Path(os.environ["NPU_DEVICE"])


def tell(**what: Any) -> None:
    """What the NPU does from now on. codes: stage (init, mask, inputs, run, outputs, release) -> code of rknn_api.h."""
    device_file().write_text(json.dumps({**OK, **what}))


def told() -> dict[str, Any]:
    """What it was told last."""
    document: dict[str, Any] = json.loads(device_file().read_text())
    return document


def _code(stage: str) -> int:
    return int(told()["codes"].get(stage, 0))


class RKNNRuntime:
    """See the record."""

    def __init__(self, path: Path) -> None:
        code = _code("init")
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            document, code = {}, -6
        if not code and document["chip"] != told()["chip"]:
            code = -13
        if code:
            raise Exception(f"RKNN init failed. error code: {CODES[code]}")
        self._outputs = document["outputs"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path.with_name("encoder.onnx")), options, providers)
        self._picture: Any = None
        self._values: list[Any] = []

    def set_inputs(
        self, inputs: Any, data_type: Any, data_format: Any, inputs_pass_through: Any = None, eval_perf: bool = False
    ) -> int:
        (picture,) = inputs
        assert (data_type, data_format) == ("float32", "nhwc")
        assert (picture.shape, picture.dtype, picture.flags.c_contiguous) == ((1, 256, 256, 1), np.float32, True)
        if code := _code("inputs"):
            raise Exception(f"Set inputs failed. error code: {CODES[code]}")
        self._picture = picture
        return 0

    def run(self, get_frame_id: bool = False) -> Any:
        now = told()
        device_file().write_text(json.dumps({**now, "runs": now["runs"] + 1}))
        if now["runs"] >= now.get("after_runs", 0) and (code := _code("run")):
            return code
        x = self._picture.transpose(0, 3, 1, 2).astype(np.float16).astype(np.float32)
        self._values = self._session.run(self._outputs, {"image": x})
        return 0

    def get_outputs(self, get_frame_id: bool = False) -> list[Any]:
        if code := _code("outputs"):
            raise Exception(f"E Get outputs failed, error code: {CODES[code]}")
        return self._values


class RKNNLite:
    """See the record."""

    NPU_CORE_AUTO = 0
    NPU_CORE_0 = 1
    NPU_CORE_1 = 2
    NPU_CORE_2 = 4
    NPU_CORE_0_1 = 3
    NPU_CORE_0_1_2 = 7
    rknn_runtime: RKNNRuntime | None

    def __init__(self, verbose: bool = False, verbose_file: Any = None) -> None:
        for number, letter in ((logging.DEBUG, "D"), (logging.INFO, "I"), (logging.WARNING, "W"), (logging.ERROR, "E")):
            logging.addLevelName(number, letter)
        self.rknn_runtime = None
        self._path: Path | None = None

    def load_rknn(self, path: str) -> int:
        if not Path(path).exists():
            logger.error("Invalid RKNN model path: %s", path)
            return -1
        self._path = Path(path)
        return 0

    def init_runtime(
        self, target: Any = None, device_id: Any = None, async_mode: bool = False, core_mask: int = 0
    ) -> int:
        assert self._path is not None
        try:
            if not told()["library"]:
                raise Exception("Can not find dynamic library on RK3588!")
            self.rknn_runtime = RKNNRuntime(self._path)
        except Exception as error:
            logger.error("Catch exception when init runtime!")
            logger.error("Exception: %s", error)
            return -1
        if _code("mask"):
            logger.error("Catch exception when set npu core mode.")
            return -1
        device_file().with_suffix(".holder").write_text(str(core_mask))
        if told().get("old"):
            raise AttributeError("/usr/lib/librknnrt.so: undefined symbol: rknn_set_input_shapes")
        return 0

    def release(self) -> None:
        if self.rknn_runtime is not None:
            self.rknn_runtime = None
            device_file().with_suffix(".holder").unlink(missing_ok=True)
            if code := _code("release"):
                raise Exception(f"Release failed. error code: {CODES[code]}")


CLASSES = {"RKNNLite": RKNNLite, "RKNNRuntime": RKNNRuntime}


def install(folder: Path) -> Path:
    """The package below `folder`, to be put on the path of this process and its children."""
    (folder / "rknnlite").mkdir(parents=True)
    (folder / "rknnlite" / "__init__.py").write_text("")
    (folder / "rknnlite" / "api.py").write_text("from tests.npu_rknnlite import RKNNLite\n")
    return folder
