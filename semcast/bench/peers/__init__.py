"""Four learned rivals of the paper, rebuilt small on equal data and equal minutes, as published and repaired.

    img2img.py       Img2Img-SC: a latent, and a diffusion prior that repairs it
    gesco.py         GESCO: the classes of the pixels, and a diffusion model that paints them
    noisy_latent.py  DIFFSC and CASC: a latent trained through the channel, and a diffusion model that takes out the noise

They share semcast's Stage A (`pictures.py`), autoencoders behind it (`autoencoder.py`), one U-Net (`unet.py`,
`blocks.py`), the samplers (`diffusion.py`) and the files of weights (`parts.py`); `systems.py` hands them to the bench.
`training.py` and `latents.py` make the weights, `benchmarks/train_peers.py` is the command. PROTOCOL.md says of each
rival what was left out or repaired.
"""
