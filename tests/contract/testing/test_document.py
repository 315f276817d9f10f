"""The tests in docs/clients.md, as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

_DOCUMENT = Path(__file__).parents[3] / "docs/clients.md"


def test_the_examples_pass(tmp_path: Path) -> None:
    _, _, section = _DOCUMENT.read_text().partition("\n## Testing against ingle\n")
    code = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "test_it.py").write_text(code)
    pytest = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", "test_it.py"]
    ran = subprocess.run(pytest, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
