r"""Runs a command on a pseudo-terminal of 24 lines and 80 columns, and talks to it.

    on_a_terminal.py CODE COMMAND [EXPECT [SEND EXPECT]...]

Waits for each EXPECT, types each SEND (\r, \x10 and the like are keys), then waits for the end. Fails when something
does not come within a minute, or when the exit code is not CODE."""

import sys

import pexpect  # type: ignore[import-untyped]


def main(code: str, command: str, *dialogue: str) -> int:
    """Answers 0 when all went as told."""
    child = pexpect.spawn("sh", ["-c", f"exec {command}"], encoding="utf-8", timeout=60, dimensions=(24, 80))
    child.logfile_read = sys.stdout
    for number, words in enumerate(dialogue):
        if number % 2 == 0:
            child.expect_exact(words)
        else:
            child.send(words.encode().decode("unicode_escape"))
    child.expect(pexpect.EOF)
    child.close()
    ended = child.exitstatus if child.signalstatus is None else 128 + child.signalstatus
    if ended != int(code):
        sys.stdout.write(f"\nexit code {ended}, not {code}: {command}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
