"""The bench measures systems side by side on the same pictures, channel and channel uses. PROTOCOL.md explains how.

base.py        what a system is: a sender and a receiver
systems.py     all systems by name
ours.py        semcast as a system
stage_a.py     the system `stage-a`
coded.py       codecs over a digital link as systems
deepjscc.py    the network of the system `deepjscc`
codecs.py      JPEG 2000, HEVC, VVC and AVIF within a budget of bytes
downscale.py   the system `downscale`, the simplest analog rival
linear.py      the system `linear`
peers/         four learned rivals
ends.py        sender and receiver in separate processes
pictures.py    the pictures of a run
named.py       data sets by name
harness.py     a run: the plan of its work and the files it keeps
workers.py     the work in processes of this machine or on a Ray cluster
progress.py    how long a run still takes
unit.py        one picture and one family of systems: channel, counting, measuring
measures.py    all metrics of a row
versions.py    what the figures of a row depend on
experiments.py the runs behind the published tables, as data
records.py     the JSON record of an experiment
summary.py     rows -> averages with intervals -> tables
report.py      the HTML page: plots, tables, pictures
"""
