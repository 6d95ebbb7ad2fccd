"""What may be typed after `semcast`: a module each family of commands, named like the one in commands/ that obeys it.

A function each command, which adds its parser. Nothing here imports numpy or torch, so that `--help` answers at once.
"""
