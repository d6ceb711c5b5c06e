"""Every error the tool raises on purpose.

DiagnoseError
 |-- UsageError          wrong words on the command line (exit 3)
 |-- InputError          a piece of evidence cannot be opened or is refused
 |-- CatalogueError      a YAML file of playbooks/ is wrong; names file and field
 |-- ProbeError          a probe could not run
 |    |-- ToolMissing, PermissionDenied, ProbeTimeout
 |    +-- ParseError     raised by a reader, with tool and line
 +-- ReportError         a report file cannot be read or verified

Each carries one clear line, a hint that says what to do next, and the exit status.
"""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_FINDING = 1
EXIT_INCONCLUSIVE = 2
EXIT_ERROR = 3
EXIT_INTERRUPTED = 130


class DiagnoseError(Exception):
    """Base of every deliberate error: `message` for the user, `hint` for the next step."""

    exit_code = EXIT_ERROR

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """As it is: pickle would call the class with the message alone, and a worker's error would hang its pool."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[DiagnoseError], args: tuple[Any, ...], said: dict[str, Any]) -> DiagnoseError:
    made = kind.__new__(kind, *args)
    made.__dict__.update(said)
    return made


class UsageError(DiagnoseError):
    """The words on the command line do not make sense together."""


class InputError(DiagnoseError):
    """A file, folder, archive or stream given as evidence cannot be read safely."""


class CatalogueError(DiagnoseError):
    """A playbook, signal, mark or cause file breaks its contract."""

    def __init__(self, file: str, where: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{file}: {where}: {problem}", hint)
        self.file, self.where, self.problem = file, where, problem


class ProbeError(DiagnoseError):
    """A probe could not do its work."""


class ToolMissing(ProbeError):
    """The program a probe needs is not installed."""


class PermissionDenied(ProbeError):
    """The program ran and was refused."""


class ProbeTimeout(ProbeError):
    """The program did not end in time and was killed with its process group."""


class ParseError(ProbeError):
    """A reader met text that claims to be its format and is not.

    Args:
        tool: name of the reader, e.g. ``nccl_tests``.
        problem: what is wrong.
        line: 1-based line number, if known.
    """

    def __init__(self, tool: str, problem: str, line: int | None = None) -> None:
        where = f" at line {line}" if line is not None else ""
        super().__init__(f"{tool}: {problem}{where}")
        self.tool, self.problem, self.line = tool, problem, line


class ReportError(DiagnoseError):
    """A report file is missing, malformed, or does not verify."""
