"""The sound card, through PortAudio: play a signal into a radio, listen to one. Needs the extra `radio`."""

import queue
from collections.abc import Iterator
from logging import getLogger
from typing import Any

import numpy as np

from ..errors import InputError, require
from .audio import PEAK_DBFS, RATE_HZ, set_peak, to_int16
from .filters import resample, resample_blocks

BLOCK_S = 0.1
WAITING_MAX = 6000  # blocks, ten minutes: a listener may be busy with a picture for so long
SILENCE_S = 5.0  # without any samples the sound card is gone

notice = getLogger("semcast").warning


def devices() -> list[tuple[str, int, int]]:
    """Name, inputs and outputs of each sound card, in PortAudio's order."""
    return [(d["name"], d["max_input_channels"], d["max_output_channels"]) for d in _portaudio().query_devices()]


def check_card(device: str | None, kind: str) -> None:
    """Raise InputError unless there is a card for "input" or "output" of this name; call it before minutes of work."""
    _find(device, kind)


def play(samples: np.ndarray, device: str | None = None, peak_dbfs: float | None = PEAK_DBFS) -> None:
    """Play samples [N] at RATE_HZ to the end, at the card's own rate.

    Args:
        device: part of a name out of `devices`, default: the system's choice.
        peak_dbfs: as in `audio.write_audio`.
    Raises:
        InputError: there is no such card, or it refuses.
    """
    sd, (name, rate_hz) = _portaudio(), _find(device, "output")
    signal = to_int16(set_peak(resample(samples, RATE_HZ, rate_hz), peak_dbfs))
    try:
        with sd.OutputStream(samplerate=rate_hz, channels=1, dtype="int16", device=name, latency="high") as stream:
            if stream.write(signal[:, None]):
                notice("the sound card had to wait for samples, so there are gaps; is the computer busy?")
    except sd.PortAudioError as error:
        raise _refused(error) from None


def listen(seconds: float | None = None, device: str | None = None) -> Iterator[np.ndarray]:
    """What comes in, float32 [about BLOCK_S RATE_HZ] each, for so many seconds, or for ever.

    Samples wait while the caller is busy. If any are lost, a line in the log says so. Arguments and errors as in `play`.
    """
    _, rate_hz = _find(device, "input")
    left = None if seconds is None else round(seconds * RATE_HZ)
    for block in resample_blocks(_incoming(device), rate_hz, RATE_HZ):
        yield block if left is None else block[:left]
        if left is not None and (left := left - len(block)) <= 0:
            return


def _incoming(device: str | None) -> Iterator[np.ndarray]:
    """Blocks at the card's own rate, from a queue that its thread fills."""
    sd, (name, rate_hz) = _portaudio(), _find(device, "input")
    waiting: queue.Queue[np.ndarray] = queue.Queue(WAITING_MAX)
    lost = 0

    def arrived(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
        nonlocal lost
        try:
            lost += bool(status.input_overflow)
            waiting.put_nowait(data[:, 0].copy())
        except queue.Full:
            lost += 1

    told = 0
    try:
        with sd.InputStream(
            samplerate=rate_hz,
            blocksize=round(BLOCK_S * rate_hz),
            channels=1,
            dtype="float32",
            device=name,
            latency="high",
            callback=arrived,
        ):
            while True:
                yield waiting.get(timeout=SILENCE_S)
                if lost > told:
                    notice("the sound card lost samples; is the computer busy?")
                    told = lost
    except queue.Empty:
        raise InputError(f"no samples came from the sound card for {SILENCE_S:g} s; is it still connected?") from None
    except sd.PortAudioError as error:
        raise _refused(error) from None


def _find(device: str | None, kind: str) -> tuple[str | int, float]:
    """A card by part of its name, and its own rate. The first one that fits is taken, one with the full name before."""
    sd = _portaudio()
    cards = [card for card in sd.query_devices() if card[f"max_{kind}_channels"]]
    if not cards:
        raise InputError(f"this computer has no sound card with an {kind}; connect one, or use a file")
    if device is None:
        default = sd.default.device[kind]
        fitting = [card for card in cards if card["index"] == default] or cards
    else:
        same = [card for card in cards if card["name"].lower() == device.lower()]
        fitting = same or [card for card in cards if device.lower() in card["name"].lower()]
    if not fitting:
        names = ", ".join(card["name"] for card in cards)
        raise InputError(f"no sound card with an {kind} is called {device!r}; there are: {names}")
    return fitting[0]["index"], fitting[0]["default_samplerate"]


def _refused(error: Exception) -> InputError:
    return InputError(f"the sound card refuses: {error}; does another program use it?")


def _portaudio() -> Any:
    require("the sound card", "sounddevice")
    try:
        import sounddevice
    except OSError:  # the package is there, the library is not
        raise InputError(
            "the sound card needs PortAudio: sudo apt install libportaudio2, or what your system calls it"
        ) from None
    return sounddevice
