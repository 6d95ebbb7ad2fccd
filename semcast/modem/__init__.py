"""An OFDM modem for SSB radios: symbols of a picture as audio, and audio as symbols again.

`transmit.modulate` makes the samples of one transmission; `receive.find` finds all transmissions in a recording, of any
length, and hands back y, h and noise_var of every symbol, as the channels do (`channels/base.py`).

    symbols x -> layout.py (places), code.py (the header) -> transmit.py (OFDM, clip, filter) -> samples
    samples -> baseband.py (4 kHz, without tones) -> detect.py (preambles, postambles) -> receive.py (what belongs
        together) -> hearing.py: demodulate.py (clock, carrier, paths), estimate.py (h, noise_var)
        -> reception.py (the order of x, a report)
"""
