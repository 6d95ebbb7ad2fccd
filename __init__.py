"""For Python that was started in the folder above a clone: there `import semcast` finds the clone, not the package.

Without this file it would find a package without contents. With it, the package inside is taken.
"""

from pathlib import Path

_package = Path(__file__).parent / "semcast"
__path__ = [str(_package)]
exec(compile((_package / "__init__.py").read_text(), str(_package / "__init__.py"), "exec"))
