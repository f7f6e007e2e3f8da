"""A Redis of its own for the tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
import redis

from demo.processes import ManagedProcess, clean_environment, free_ports
from demo.waiting import wait_for


class Redis(ManagedProcess):
    """A server that keeps nothing on disk: ready inside the `with` block, and gone after it.

    Args:
        directory: For its log.
        port: To listen on; 0 for a free one.
        password: That it asks for; empty for none.
    """

    def __init__(self, directory: Path, *, port: int = 0, password: str = "") -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("the program redis-server is missing (Debian package redis-server)")
        [free] = free_ports(1)
        self.port = port or free
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://{f':{password}@' * bool(password)}{self.address}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "requirepass": password}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        log_file = Path(tempfile.mkdtemp(dir=directory)) / "redis.log"
        super().__init__([program, *arguments], env=clean_environment(), log_file=log_file)

    def __enter__(self) -> Redis:
        wait_for(self._is_ready, timeout=30, what=f"Redis, see {self.log_file}", every=0.05)
        return self

    def _is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def stop(self, patience: float = 30.0) -> None:
        self.client.close()
        super().stop(patience)
