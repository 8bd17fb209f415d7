"""``make dist``: build the release in ``dist``, and check it as users will meet it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.examples import blocks
from release.pythons import PythonNotFound, supported_pythons

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
RUNTIME_EXTRAS = ("agentscope", "postgresql", "redis", "tablestore")
"""What users install with the package. ``agentscope-runtime`` cannot be installed beside ``agentscope``."""
PAGES = sorted(ROOT.glob("README*.md"))


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)


def tool(module: str, *arguments: str | Path) -> None:
    run(sys.executable, "-m", module, *arguments)


def build() -> Path:
    """Build the sdist, and the wheel from the sdist. :returns: the wheel."""
    for old in DIST.glob("session_history-*"):
        old.unlink()
    tool("build", "--outdir", DIST, ROOT)
    (wheel,) = DIST.glob("*.whl")
    tool("twine", "check", "--strict", wheel, *DIST.glob("*.tar.gz"))
    return wheel


def install(wheel: Path, python: Path, folder: Path, *extras: str) -> Path:
    """Install the wheel into a new environment that holds nothing else, not even pip. :returns: its interpreter."""
    run(python, "-m", "venv", "--without-pip", folder)
    interpreter = folder / "bin" / "python"
    requirement = f"{wheel}[{','.join(extras)}]" if extras else wheel
    tool("pip", "--python", interpreter, "--disable-pip-version-check", "install", "--quiet", requirement)
    return interpreter


def write_sbom(wheel: Path, interpreter: Path) -> None:
    """Write the package and all that it brings with its extras as a CycloneDX file."""
    name, version, *_ = wheel.name.split("-")
    project = interpreter.parent / "pyproject.toml"
    # The tool does not look a dynamic version up.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project.write_text(text.replace('dynamic = ["version"]', f'version = "{version}"'), encoding="utf-8")
    options: list[str | Path] = ["--pyproject", project, "--mc-type", "library", "--output-reproducible", "--validate"]
    tool("cyclonedx_py", "environment", *options, "--output-file", DIST / f"{name}-{version}.cdx.json", interpreter)


def run_examples(interpreter: Path) -> None:
    # -I: the examples find the wheel, not what the folder or PYTHONPATH holds.
    run(interpreter, "-I", ROOT / "tests" / "docs" / "examples.py", *PAGES)


def extras() -> list[str]:
    """Return the extras that the examples of the pages need."""
    code = [block for page in PAGES for block in blocks(page)]
    return ["agentscope"] if any("from agentscope" in block for block in code) else []


def main() -> int:
    try:
        pythons = supported_pythons(ROOT / "pyproject.toml")
        wheel = build()
        with tempfile.TemporaryDirectory() as folder:
            write_sbom(wheel, install(wheel, Path(sys.executable), Path(folder) / "sbom", *RUNTIME_EXTRAS))
            for version, python in pythons.items():
                run_examples(install(wheel, python, Path(folder) / version, *extras()))
                print(f"The examples of the README run from the wheel in Python {version}.", flush=True)
    except (PythonNotFound, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(*(f"{path.relative_to(ROOT)}" for path in sorted(DIST.glob("session_history-*"))), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
