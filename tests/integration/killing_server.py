"""`ingle-server serve`, but SIGKILLed by itself before step number $KILL_BEFORE of the first pipeline it runs.

Every step's intent is in the journal by then and the step before it is complete: this is the instant between two steps,
hit exactly. One past the last step is the instant after the pipeline, before anyone is told."""

import os
import signal
import sys
from typing import Any

from ingle.api_server import pipeline
from ingle.api_server.main import main

run = pipeline.run


async def run_and_die(steps: Any, target: Any, journal: Any, announce: Any) -> None:
    before = int(os.environ["KILL_BEFORE"])
    begun = 0

    def counting(name: str, text: str) -> Any:
        nonlocal begun
        if begun == before:
            os.kill(os.getpid(), signal.SIGKILL)
        begun += 1
        return announce(name, text)

    await run(steps, target, journal, counting)
    assert begun == before, f"only {begun} steps"
    os.kill(os.getpid(), signal.SIGKILL)


pipeline.run = run_and_die
sys.exit(main(["serve", "--log-level", "debug", *sys.argv[1:]]))
