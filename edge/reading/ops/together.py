"""Several sequences in one pass over the weights: a queue of images, or the beams of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.errors import BackendError
from edge.reading.ops.arrays import BAD_ARGUMENT, F32
from edge.reading.ops.automaton import Automaton, Said
from edge.reading.ops.native import NativeKernels
from edge.reading.ops.native_session import GREATEST_BATCH, NativeSession


def generate_together(
    kernels: NativeKernels, session: NativeSession, automaton: Automaton, token: int, images: Sequence[int]
) -> list[Said]:
    """What `session.generate` says of each image (begun; at most eight), token for token; sequence i is on images[i].

    Each reads the weights once per token for all of them, which is what a decoder waits for where memory is slow. No
    attention maps. Raises BackendError as `generate` does; a sequence that the positions end before the grammar is not
    `ended`.
    """
    if not 1 <= len(images) <= GREATEST_BATCH:
        raise BackendError(f"expected 1 to {GREATEST_BATCH} images, got {len(images)}", code=BAD_ARGUMENT)
    allowed = automaton.allowed.astype(np.bool_)
    for sequence, image in enumerate(images):
        session.start_sequence(sequence, image)
    said: list[list[int]] = [[] for _ in images]
    logs: list[list[float]] = [[] for _ in images]
    states = [automaton.start] * len(images)
    for _ in range(session.positions):
        going = [sequence for sequence, state in enumerate(states) if state != automaton.final]
        if not going:
            break
        fed = [said[sequence][-1] if said[sequence] else token for sequence in going]
        for sequence, logits in zip(going, session.step_batch(fed, going), strict=True):
            chosen, log_probability = kernels.masked_argmax_f32(logits, allowed[states[sequence]])
            said[sequence].append(chosen)
            logs[sequence].append(log_probability)
            states[sequence] = int(automaton.next[states[sequence], chosen])
    nothing: F32 = np.empty((0, 0, 0), np.float32)
    return [
        Said(np.array(tokens, np.int32), np.array(log, np.float32), nothing, state == automaton.final)
        for tokens, log, state in zip(said, logs, states, strict=True)
    ]
