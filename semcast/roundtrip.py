"""One picture over the whole link, timed and described: what `semcast run` does with every picture."""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from . import packet
from .channel import channel_uses
from .errors import Lost
from .link import Link, move
from .transmitter import SIDE_BITS, Header


class RoundTrip(NamedTuple):
    image: Tensor  # [1, 3, H, W] in [0, 1], received; of a lost packet, the mean colour
    header: Header
    payload_uses: int  # symbols sent, without pilots
    payload: bytes | None  # of a packet; None also where the channel carries none
    lost: bool
    digital: bool
    snr_db: float
    seed: int
    steps: int
    encode_ms: float  # picture -> symbols
    decode_ms: float  # received symbols -> picture


def round_trip(
    link: Link,
    image: Tensor,
    snr_db: float,
    seed: int,
    digital: bool = False,
    factor: float | None = None,
    steps: int | None = None,
    device: str = "cpu",
    bar: AbstractContextManager | None = None,
) -> RoundTrip:
    """Send a picture, as analog symbols or as a packet, through the link's channel, and receive it.

    Args:
        image: [1, 3, H, W] in [0, 1], on the CPU.
        device: where sender and receiver compute; the channel is on the CPU.
        bar: shows the receiver's steps; entered, it gives `Link.receive` its `progress`.
    """
    start = time.perf_counter()
    x, header = link.send(image.to(device), factor, seed)
    payload, lost = None, False
    uses, sent = 0, None
    try:
        if digital:
            payload, header = packet.prepare(x, header, link.basis, snr_db=snr_db)
            x = packet.on_air(payload, header)
        uses, sent = x.shape[1], time.perf_counter()
        received = link.transmit(x, snr_db, seed)
        arrived = time.perf_counter()
        received = move(link.unpack(received, header), device)
        with bar or nullcontext() as tick:
            result = link.receive(received, header, steps, tick).cpu()
    except Lost:
        lost, result = True, packet.mean_colour(image)
    end = time.perf_counter()
    if not uses:  # no packet could be made: the sender found that out, and the receiver had nothing to do
        sent = arrived = end
    return RoundTrip(
        image=result,
        header=header,
        payload_uses=uses,
        payload=payload,
        lost=lost,
        digital=digital,
        snr_db=snr_db,
        seed=seed,
        steps=steps or link.cascade.config.steps,
        encode_ms=(sent - start) * 1e3,
        decode_ms=(end - arrived) * 1e3,
    )


def describe(trip: RoundTrip, link: Link, path: Path, quality: dict[str, float | None]) -> dict:
    """The row of `semcast run`: what was sent at what cost, and how good it came back (`metrics.measure`)."""
    header = trip.header
    uses = channel_uses(link.channel.name, trip.payload_uses, **link.options)
    return {
        "image": str(path),
        "width": header.width,
        "height": header.height,
        "channel_uses": uses,
        "payload_uses": trip.payload_uses,
        "bandwidth_ratio": uses / (3 * header.height * header.width),
        "element_ratio": 2 * uses / (3 * header.height * header.width),
        "side_bits": SIDE_BITS + (packet.SIDE_BITS if trip.digital else 0),
        "mode": "digital" if trip.digital else "analog",
        "scheme": str(packet.find_scheme(header)) if trip.payload else None,
        "payload_bytes": len(trip.payload) if trip.payload else None,
        "lost": trip.lost,
        "channel": link.channel.name,
        "channel_options": link.options,
        "snr_db": trip.snr_db,
        "seed": trip.seed,
        **quality,
        "encode_ms": trip.encode_ms,
        "decode_ms": trip.decode_ms,
        "model": link.cascade.config.name,
        "factor": header.factor,
        "steps": trip.steps,
    }
