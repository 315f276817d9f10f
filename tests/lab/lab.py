"""One lab and its tests, whatever becomes of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from lab.disk import Say
from lab.machine import LabDiedError, LabError
from lab.run import Run

Begin = Callable[[Sequence[str]], Run]
"""Has the tests with these node ids run in a lab of their own."""


class Lab:
    """Tests that run in one lab, from when this is made. Their reports wait until they are asked for.

    A lab that dies is replaced, once: an emulated kernel breaks now and then by itself, a test that breaks it does so
    again. After that, or when there is no lab for another reason, the first test says why and the rest is not run.
    """

    def __init__(self, node_ids: Sequence[str], begin: Begin, pool: Executor, say: Say) -> None:
        self._node_ids = list(node_ids)
        self._begin = begin
        self._pool = pool
        self._say = say
        self._replaced = False
        self._failure = ""
        self._run: Future[Run] = pool.submit(begin, self._node_ids)

    def reports(self, node_id: str) -> list[dict[str, Any]]:
        """All that pytest reports about the next test, `node_id`. Raises LabError, and what making a lab raises."""
        if self._failure:
            raise LabError(f"not run: {self._failure}")
        try:
            return list(self._run.result().reports(node_id))
        except Exception as error:
            if isinstance(error, LabDiedError) and not self._replaced:
                self._say(f"{error}\nanother one goes on from {node_id}")
                self._replace(node_id)
                return self.reports(node_id)
            self._failure = str(error).splitlines()[0]
            raise
        finally:
            if self._failure or node_id == self._node_ids[-1]:
                self.close()

    def close(self) -> None:
        """End the lab; nothing happens when it has ended."""
        if not self._run.cancel() and self._run.exception() is None:
            self._run.result().close()

    def _replace(self, node_id: str) -> None:
        self._replaced = True
        self.close()
        self._run = self._pool.submit(self._begin, self._node_ids[self._node_ids.index(node_id) :])
