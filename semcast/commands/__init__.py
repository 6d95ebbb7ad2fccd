"""What the commands do: a module each family, a function each command, which calls the library and prints.

`args` are what cli.py parsed. A command first checks what it can, and only then imports what takes time.
"""
