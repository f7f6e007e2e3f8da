"""Run storms, seed by seed; ``--trace`` runs one and prints its whole story."""

from __future__ import annotations

from tests.storms.clock import bend_time

bend_time()

import argparse  # noqa: E402 - time is bent before anybody takes hold of it
import gc  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402


def main() -> int:
    """Run the seeds; return how many of them went wrong, 1 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.storms", description=__doc__)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 8), metavar=("FIRST", "END"))
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    parser.add_argument("--trace", type=int, metavar="SEED", help="run one, and print all that happened")
    parser.add_argument("--broken", metavar="NAME", help="break the product first: a name of breakages.py")
    arguments = parser.parse_args()
    # So that what it has started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    home = tempfile.mkdtemp(prefix="storms-")
    try:
        from tests.storms.seeds import run_seeds, warm_up

        warm_up(Path(home))
        if arguments.broken:
            from tests.storms.breakages import BREAKAGES

            BREAKAGES[arguments.broken]()
        gc.collect()
        gc.freeze()
        seeds = [arguments.trace] if arguments.trace is not None else range(*arguments.seeds)
        started = time.perf_counter()
        wrong = run_seeds(seeds, Path(home), arguments.jobs, trace=arguments.trace is not None)
        print(
            f"{len(seeds)} seeds in {time.perf_counter() - started:.0f} s, {wrong} of them wrong", flush=True
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
