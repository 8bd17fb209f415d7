"""Self-signed certificates."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from conftest import missing


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for the loopback address, and return its file and the file of its key."""
    if shutil.which("openssl") is None:
        missing("the program openssl is missing, which makes certificates")
    file, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    return file, key
