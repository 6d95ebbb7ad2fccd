"""Sender and receiver of a system in two processes, which share nothing but what the harness carries between them.

The harness talks to each over its pipes. A message is eight bytes of length, then an npz archive (no pickle) with
arrays and, under "head", JSON. A system cannot hand its receiver a variable, a file object or a seed: only symbols and
side information.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from ..cascade.device import keep_freed_memory
from ..channels.base import Received
from ..errors import InputError
from .cost import spent_s


class Ends:
    """The two processes. They serve all systems, one after the other.

    The first call of a system loads networks and packages. It is made once more, and only the second counts. Encodings
    are remembered, and charged at the price of the first time (cost.py), so that this takes a codec hardly any longer.

    >>> with Ends() as ends:
    ...     sent, side, cost_ms = ends.send("downscale", pixels, uses=1152, snr_db=10)
    """

    def __init__(self, device: str = "cpu"):
        command = [sys.executable, "-m", "semcast.bench.ends", device]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # figures do not depend on the machine's cores
        self.processes = {
            role: subprocess.Popen([*command, role], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=one_thread)
            for role in ("sender", "receiver")
        }
        self.warm: set[tuple[str, str]] = set()  # (role, system) that have worked before

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def send(
        self,
        system: str,
        pixels: np.ndarray,
        uses: int,
        snr_db: float,
        truth: np.ndarray | None = None,
        segmenter: Path | None = None,
    ) -> tuple[np.ndarray | bytes, dict, float]:
        """uint8 [H, W, 3] -> (x [1, k] complex64, or a payload, side information, cost in ms).

        Args:
            truth, segmenter: for a system that is told it: the classes of the pixels, uint8 [H, W]; a segmenter's file.
        """
        head = {"system": system, "uses": uses, "snr_db": snr_db} | ({"segmenter": str(segmenter)} if segmenter else {})
        maps = {} if truth is None else {"truth": truth}
        head, arrays = self.ask("sender", head, image=pixels, **maps)
        sent = arrays["x"][None] if "x" in arrays else arrays["payload"].tobytes()
        return sent, head["side"], head["ms"]

    def receive(self, system: str, received: Received | bytes, side: dict) -> tuple[np.ndarray | None, float]:
        """What arrived -> (uint8 [H, W, 3], or None if the receiver reports a lost picture; cost in ms)."""
        if isinstance(received, bytes):
            arrays = {"payload": np.frombuffer(received, np.uint8)}
        else:
            arrays = received._asdict()
        head, arrays = self.ask("receiver", {"system": system, "side": side}, **arrays)
        return arrays.get("image"), head["ms"]

    def ask(self, role: str, head: dict, **arrays) -> tuple[dict, dict]:
        if (role, head["system"]) not in self.warm:
            self.warm.add((role, head["system"]))
            self.ask(role, head, **arrays)
        process = self.processes[role]
        try:
            write(process.stdin, head, arrays)
            answer = read(process.stdout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise InputError(f"the {role} of {head['system']!r} died; it may need more memory")
        if error := answer[0].get("error"):
            raise InputError(f"the {role} of {head['system']!r} failed: {error}")
        return answer


def write(stream, head: dict, arrays: dict) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    stream.write(len(buffer.getbuffer()).to_bytes(8, "little") + buffer.getbuffer())
    stream.flush()


def read(stream) -> tuple[dict, dict] | None:
    """Read (head, arrays); None when the other process is gone."""
    length = stream.read(8)
    if len(length) < 8:
        return None
    with np.load(io.BytesIO(stream.read(int.from_bytes(length, "little"))), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop("head").tobytes()), arrays


def serve(device: str, role: str) -> None:
    """Answer until the harness is gone, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps what a library prints out of the answers
    answer = {"sender": answer_send, "receiver": answer_receive}[role]
    while (request := read(sys.stdin.buffer)) is not None:
        try:
            start = spent_s(device)
            head, arrays = answer(device, *request)
            write(out, head | {"ms": 1000 * (spent_s(device) - start)}, arrays)
        except InputError as error:
            write(out, {"error": str(error)}, {})
        except Exception as error:  # raised by a system; the harness adds its name
            write(out, {"error": f"{type(error).__name__}: {error}"}, {})


def answer_send(device: str, head: dict, arrays: dict) -> tuple[dict, dict]:
    from .systems import find_system

    told = {name: part[name] for part in (head, arrays) for name in ("truth", "segmenter") if name in part}
    sent, side = find_system(head["system"], device).send(arrays["image"], head["uses"], head["snr_db"], **told)
    if isinstance(sent, bytes):
        return {"side": side}, {"payload": np.frombuffer(sent, np.uint8)}
    return {"side": side}, {"x": sent.reshape(-1).astype(np.complex64)}


def answer_receive(device: str, head: dict, arrays: dict) -> tuple[dict, dict]:
    from .systems import find_system

    if "payload" in arrays:
        received = arrays["payload"].tobytes()
    else:
        received = Received(*(arrays[name] for name in Received._fields))
    image = find_system(head["system"], device).receive(received, head["side"])
    return {}, {} if image is None else {"image": np.ascontiguousarray(image, np.uint8)}


if __name__ == "__main__":
    try:
        serve(*sys.argv[1:])
    except (KeyboardInterrupt, BrokenPipeError):
        pass
