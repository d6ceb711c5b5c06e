"""Settings: flag, then environment, then ./diagnose.toml, then the user's file.

The file in the working folder may set presentation only (language, format): a checkout that
somebody else wrote must not choose endpoints, consent, plugins or a model.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError

PRESENTATION = ("lang", "format")
LOCAL = "diagnose.toml"
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Settings:
    """What is in force."""

    lang: str = "en"
    format: str = "text"


def user_file() -> Path:
    """The user's own settings file."""
    from platformdirs import user_config_path

    return user_config_path("diagnose") / "config.toml"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise UsageError(f"{path.name}: {err}", "fix or remove the settings file") from err


def table(name: str) -> dict[str, Any]:
    """A table of the user's own settings file, such as ``[llm]``; the file in the working folder has none.

    Raises:
        UsageError: the file is malformed.
    """
    found = _read(user_file()).get(name, {})
    return found if isinstance(found, dict) else {}


def load(flags: Mapping[str, str], question: str = "") -> Settings:
    """Merge the four sources.

    A question in Chinese asks for Chinese where none of them names a language. JSON has both languages then: a program
    that reads ``answer.en`` must not lose it because of who asked.

    Raises:
        UsageError: a settings file is malformed, or the local one sets more than presentation.
    """
    local = _read(Path(LOCAL))
    extra = sorted(set(local) - set(PRESENTATION))
    if extra:
        raise UsageError(f"{LOCAL} sets {', '.join(extra)}", "only lang and format may be set in the working folder")
    user = _read(user_file())
    got: dict[str, str] = {}
    for name in PRESENTATION:
        value = flags.get(name) or os.environ.get(f"DIAGNOSE_{name.upper()}") or local.get(name) or user.get(name)
        if value:
            got[name] = str(value)
    if "lang" not in got and _HAN.search(question):
        got["lang"] = "both" if got.get("format") == "json" else "zh"
    return Settings(**got)
