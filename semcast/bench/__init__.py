"""The bench: systems side by side on the same pictures, channel and channel uses. PROTOCOL.md says how and why.

systems.py    what is measured: a sender and a receiver each
deepjscc.py   the network of that rival
codecs.py     JPEG 2000, HEVC, VVC and AVIF as payloads of an exact size
ends.py       sender and receiver in processes of their own
pictures.py   what is sent
harness.py    what a run has to measure, what of it is done; its files
workers.py    where that is done: processes of this machine, or a Ray cluster
unit.py       one picture, systems of one family: channel, counting, measuring
measures.py   all metrics of a row
classifier.py labels and features of pictures, distances of sets of them
segmenter.py  classes of the pixels of street scenes
report.py     rows -> tables, plots, pictures
"""
