"""Start a VM that was put back."""

from ingle.api_server.steps.target import Restoring


class BeginRestored:
    """With this it is complete, in the store and the journal: it has a pipeline of its own, undone by itself."""

    name = "begin-restored"
    text = "starting it"

    def needed(self, target: Restoring) -> bool:
        """Whether it is to run."""
        return target.begin is not None

    async def run(self, target: Restoring) -> None:
        assert target.begin is not None
        await target.begin()
