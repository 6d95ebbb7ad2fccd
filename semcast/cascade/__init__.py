"""The cascade of SC-SIC (arXiv 2507.17416): encoder, Stage B (latent diffusion), Stage A (pixels)."""
