"""A language model as the interviewer: it asks one question back. The score is the rubric's alone.

What it asks has to stand up to `llm_check` against the question and its model answer, as every text of a model does;
what does not is not said, and neither is what comes too late.
"""

from __future__ import annotations

import threading

from . import llm_prompts as prompts
from .llm import Options
from .llm_check import Checker
from .llm_client import Budget, Client, LlmError, OpenAiClient, parsed

LONGEST = 300  # characters of a question
# The words of asking, which no model answer has.
_ASKING = "What about this? Why does that happen? How would you know? When would which of them, with your, from there?"


class Examiner:
    """Asks back, if the model has something to ask."""

    def __init__(self, chosen: Options, client: Client | None = None) -> None:
        self.chosen = chosen
        self._client = client or OpenAiClient(chosen.endpoint)

    def ask(self, question: str, wanted: str, said: str, lang: str) -> str:
        """One question back to what was said, or nothing."""
        body = prompts.interview(question, wanted, said, lang, self.chosen.endpoint.model, prompts.Veil())
        budget, got = Budget(calls=1, seconds=self.chosen.seconds), list[str]()

        def work() -> None:
            try:
                got.append(str(parsed(self._client.complete(body, budget)).get("question") or ""))
            except LlmError:
                return

        thread = threading.Thread(target=work, daemon=True, name="interviewer")
        thread.start()
        thread.join(self.chosen.seconds)
        budget.stopped.set()
        text = " ".join(got[0].split()) if got else ""
        good, bad = Checker(f"{question} {wanted} {_ASKING}", ()).keep(text)
        fine = good and not bad and len(text) <= LONGEST and text != question and text[-1] in "?？"
        return text if fine else ""
