"""From layers to what is sent, and back: modems with the same interface. The first layer is Z.

    modulate(layers, header, snr_db, size_bytes) -> Transmission    as x [1, k], or Z as the bytes of a packet
    demodulate(arrived, header) -> list of (z, noise)               [1, 16, h, w] each; noise 0: clean, 1: nothing known

modems.py    the modems by name
analog.py    two numbers of Z form one complex symbol; no channel code, so no cliff
ladder.py    which rungs of the layers to send, and one picture from several transmissions
reply.py     what a receiver answers: what arrived, how noisy, and whether it wishes the same again or more
digital.py   a packet of bytes over 5G LDPC and QAM; it arrives whole or is lost
mixed.py     the base as analog symbols, the picture itself as a packet behind it
avif.py      a picture as few bytes of AV1
packet.py    Z as bytes: transform, quantiser, entropy code
mcs.py       the choice of modulation and code rate for an SNR
ldpc.py      bytes as QAM symbols, with torch
capacity.py  theoretical limits
"""
