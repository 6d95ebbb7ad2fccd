"""The loss of each phase of `config.PHASES`."""

from .enhancement import enhancement_loss
from .losses import autoencoder_loss, denoise_loss, fewstep_loss, joint_loss, linear_loss
from .restorer import restorer_loss

LOSSES = {
    "autoencoder": autoencoder_loss,
    "encoder": linear_loss,
    "joint": joint_loss,
    "decode": joint_loss,
    "fewstep": fewstep_loss,
    "denoise": denoise_loss,
    "enhancement": enhancement_loss,
    "restorer": restorer_loss,
}
