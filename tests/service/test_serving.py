"""One process or several, put together."""

import subprocess
import sys
from pathlib import Path

from contract.bundle import GOLDEN
from tests.service.process import PATIENCE_S, ServiceProcess, children
from tests.service.toy_bundle import publish_toy


def test_what_was_loaded_is_in_memory_once(workers: ServiceProcess) -> None:
    """A worker's pages are the supervisor's, but for what it has written to."""
    for child in children(workers):
        text = Path(f"/proc/{child}/smaps_rollup").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        assert sizes["Pss"] < 0.7 * sizes["Rss"]


def test_workers_that_cannot_load_their_bundle_end_the_service_with_the_reason(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    (tmp_path / "toy" / GOLDEN).write_bytes(b"{}")
    for threads in ("1", "2"):  # loaded before the workers, and by each
        options = ("--workers", "2", "--port", "0", "--intra-op-threads", threads)
        command = [sys.executable, "-m", "service", str(tmp_path / "toy"), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 1
        assert "golden.json: size or SHA-256 differs from the manifest" in done.stderr
        assert "Traceback" not in done.stderr


def test_workers_do_not_share_a_port_with_another_service(workers: ServiceProcess, toy: Path) -> None:
    command = [sys.executable, "-m", "service", str(toy), "--workers", "2", "--port", str(workers.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1 and "Address already in use" in done.stderr
