"""Pass a recording at complex baseband through GNU Radio's channel model: noise, a carrier offset, a clock offset, an echo.

    semcast send photo.jpg -o photo.sigmf-meta
    /usr/bin/python3 gnuradio_channel.py photo.sigmf-data air.cfile --noise 0.02 --offset 40 --clock 30
    semcast receive air.cfile -o received.png

Reads and writes complex float32, as in a .cfile and in SigMF's cf32_le. Needs GNU Radio (Debian: gnuradio), whose Python
modules belong to the system's Python.
"""

import argparse

from gnuradio import blocks, channels, gr


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("source", help=".cfile or .sigmf-data of cf32_le")
    p.add_argument("target", help=".cfile")
    p.add_argument("--rate", type=float, default=8000, help="samples a second, default: %(default)s")
    p.add_argument("--noise", type=float, default=0.0, help="standard deviation of the noise, full scale is 1")
    p.add_argument("--offset", type=float, default=0.0, help="of the carrier, Hz")
    p.add_argument("--clock", type=float, default=0.0, help="of the sampling clock, ppm")
    p.add_argument("--echo", type=float, default=0.0, help="amplitude of an echo after 1 ms")
    args = p.parse_args()
    taps = [1.0] + [0.0] * (round(args.rate / 1000) - 1) + [args.echo]
    flow = gr.top_block()
    model = channels.channel_model(
        noise_voltage=args.noise,
        frequency_offset=args.offset / args.rate,
        epsilon=1 + args.clock * 1e-6,
        taps=taps,
        noise_seed=1,
    )
    source = blocks.file_source(gr.sizeof_gr_complex, args.source, False)
    sink = blocks.file_sink(gr.sizeof_gr_complex, args.target)
    flow.connect(source, model, sink)
    flow.run()


if __name__ == "__main__":
    main()
