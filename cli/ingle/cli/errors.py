"""Failures as a person, a script and a shell see them: text on stderr, JSON on stderr, an exit code.

Exit codes: a guest command's own; for ingle's own failures the table below, which is that of docker, env and timeout.
"""

from dataclasses import dataclass, replace

from ingle.cli.printable import indented, one_line

EXIT_FAILED = 1
EXIT_USAGE = 2  # typer's own
EXIT_TIMED_OUT = 124
EXIT_INGLE_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL = 128  # plus the signal's number

SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
SERVER_FAILED_TO_START = "SERVER_FAILED_TO_START"
OUTPUT_FAILED = "OUTPUT_FAILED"
"""Reasons that arise on this side of the socket; all others are names of ingle.v1.ErrorReason."""

_WHEN_RUNNING_A_COMMAND = {
    "COMMAND_NOT_FOUND": EXIT_NOT_FOUND,
    "COMMAND_NOT_EXECUTABLE": EXIT_NOT_EXECUTABLE,
    "GUEST_USER_NOT_FOUND": EXIT_NOT_EXECUTABLE,
    "GUEST_GROUP_NOT_FOUND": EXIT_NOT_EXECUTABLE,
    "RESOURCE_LIMIT_REFUSED": EXIT_NOT_EXECUTABLE,
    "COMMAND_TIMED_OUT": EXIT_TIMED_OUT,
    "GUEST_DIRECTORY_NOT_FOUND": EXIT_NOT_EXECUTABLE,
}


@dataclass(frozen=True)
class Failure:
    """`message`: what failed and why. `remedy`: what to type to get further, may be empty. `op_id`: what to look for in
    the server's log, empty when no server was asked. `subject`: which of several things it is about."""

    reason: str
    message: str
    remedy: str = ""
    op_id: str = ""
    subject: str = ""

    def as_text(self) -> str:
        """A few lines for a person."""
        about = f"{one_line(self.subject)}: " if self.subject else ""
        lines = [f"ingle: {about}{indented(self.message)}"]
        if self.remedy:
            lines.append(f"  remedy: {indented(self.remedy)}")
        if self.op_id:
            lines.append(f"  op_id:  {one_line(self.op_id)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, dict[str, str]]:
        """{"error": {reason, message, remedy, op_id, subject}}, every key always there."""
        return {
            "error": {
                "reason": self.reason,
                "message": self.message,
                "remedy": self.remedy,
                "op_id": self.op_id,
                "subject": self.subject,
            }
        }


class CliError(Exception):
    """Ends the command: the failures are told on stderr, and `exit_code` is the process's."""

    def __init__(self, *failures: Failure, exit_code: int = EXIT_FAILED) -> None:
        super().__init__("; ".join(failure.message for failure in failures))
        self.failures = failures
        self.exit_code = exit_code

    def while_running_a_command(self) -> "CliError":
        """The same, with the exit code that sets it apart from the guest command's own."""
        code = _WHEN_RUNNING_A_COMMAND.get(self.failures[0].reason, EXIT_INGLE_FAILED)
        return CliError(*self.failures, exit_code=code)

    def about(self, subject: str) -> Failure:
        """The first failure, told as that of one among several things."""
        return replace(self.failures[0], subject=subject)


def failed(reason: str, message: str, remedy: str = "") -> CliError:
    """A failure found on this side."""
    return CliError(Failure(reason, message, remedy))


def refused_by_the_system(error: OSError) -> CliError:
    """What this machine did not let us do: where no file is named, it was our own output, say to a full disk."""
    return failed(OUTPUT_FAILED, f"{error.filename or 'writing the output'}: {error.strerror}")
