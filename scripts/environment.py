"""What a measurement was made on and with, without which its numbers mean nothing."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def print_environment(packages):
    """Machine, commit and versions, without which the numbers mean nothing."""
    def output(*run):
        try:
            return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return "unknown"

    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        cpu = next((l.split(":", 1)[1].strip() for l in text.splitlines() if l.startswith("model name")), cpu)
        flags = next((l.split() for l in text.splitlines() if l.startswith("flags")), [])
        cpu += "".join(f", {isa}" for isa in ("avx2", "avx512bw", "avx512vbmi", "avx512_vbmi2") if isa in flags)
    dirty = "+" if output("git", "status", "--porcelain", "--untracked-files=no") else ""
    print(f"- machine: {cpu}; {os.cpu_count()} CPUs; load {os.getloadavg()[0]:.1f} at the start")
    print(f"- commit: {output('git', 'rev-parse', '--short', 'HEAD')}{dirty}; {output('rustc', '--version')}")
    print(f"- peers: {', '.join(f'{p} {importlib.metadata.version(p)}' for p in packages)}; "
          f"Python {platform.python_version()}")
