"""Who is next in the memory engine: by priority, and within a queue one workspace after another."""

from collections import deque
from collections.abc import Sequence
from uuid import UUID

from mailyard.queue.engines.memory_job import MemoryJob

_PRIORITIES = 10


class MemoryLines:
    """The ids of jobs that are ready. Suspects, whose worker has died, stand in lines apart."""

    def __init__(self) -> None:
        # By queue, priority, workspace (the turns have them in order) and whether suspect.
        self._lines: dict[tuple[str, int, UUID | None, bool], deque[int]] = {}
        self._turns: dict[tuple[str, int, bool], deque[UUID | None]] = {}

    def add(self, job: MemoryJob) -> None:
        """To the end of its line."""
        new, suspect = job.new, job.crashes > 0
        job.state = "ready"
        line = (new.queue, new.priority, new.workspace_id, suspect)
        self._lines.setdefault(line, deque()).append(job.id)
        turns = self._turns.setdefault((new.queue, new.priority, suspect), deque())
        if new.workspace_id not in turns:
            turns.append(new.workspace_id)

    def take(self, queues: Sequence[str], limit: int, suspects: bool) -> list[int]:
        """Up to `limit` of these queues, who are in no line from now on."""
        taken: list[int] = []
        for priority in range(_PRIORITIES):
            for queue in queues:
                turns = self._turns.get((queue, priority, suspects), deque())
                while turns and len(taken) < limit:
                    workspace_id = turns.popleft()
                    line = self._lines[(queue, priority, workspace_id, suspects)]
                    taken.append(line.popleft())
                    if line:
                        turns.append(workspace_id)
        return taken
