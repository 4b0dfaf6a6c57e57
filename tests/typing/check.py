"""Type-check what users write, by mypy --strict and by pyright: user_program.py, the examples, the README's Python."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def readme_program() -> str:
    """Return the README's Python as one program: its blocks go on from each other; an excerpt of a class is left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.DOTALL | re.MULTILINE)
    programs = [textwrap.dedent(block) for _, block in blocks]
    return "\n".join(block for block in programs if not block.startswith("def "))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        readme = Path(folder, "readme.py")
        readme.write_text(readme_program(), encoding="utf-8")
        programs = [str(path) for path in (HERE / "user_program.py", *sorted((ROOT / "examples").glob("*.py")), readme)]
        commands = ["mypy", "--strict", *programs], ["pyright", "--pythonpath", sys.executable, *programs]
        return max(subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
