"""`fullfunnel key`."""

from pathlib import Path

import pytest

from cli.main import main
from service.api.keys import Keys


def test_it_prints_the_key_once_and_keeps_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    assert main(["key", "shop", "--file", str(file)]) == 0
    assert main(["key", "nightly", "--file", str(file), "--scopes", "predict", "batch"]) == 0
    said = capsys.readouterr()
    shop, nightly = said.out.split()
    assert shop not in file.read_text() and "Keep it" in said.err and shop not in said.err
    keys = Keys(file)
    assert keys.admits(f"Bearer {shop}".encode(), "predict") and not keys.admits(f"Bearer {shop}".encode(), "batch")
    assert keys.admits(f"Bearer {nightly}".encode(), "batch")
    assert main(["key", "shop", "--file", str(file)]) == 1
    assert "there is a key of this name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["key", "other", "--file", str(file), "--scopes", "everything"])
