"""Prompts of a wanted length, random from a seed, in words that most vocabularies hold as one token each."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from .records import Load, Sample
from .target import Collector, Target
from .wire import Client, WireError

_PLAIN = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face level office door health person art war history party result change morning reason research "
    "girl guy moment air teacher force education foot boy age policy music market sense nation plan college interest "
    "death experience effect use class control field development role effort rate heart drug show leader light voice "
    "wife police mind price report decision son view relationship town road arm difference value building action "
    "season society tax director position player record paper space ground form event official matter center couple "
    "site project activity star table need court oil situation cost industry figure street image phone data picture "
    "practice piece land product doctor wall patient worker news test movie north love step south rock window trade "
    "model green "
)
WORDS = _PLAIN.split()
FILLERS = (" a", " I", ",", " -", " 1")  # one of them is a token of its own in nearly every vocabulary
TRIES = 6
CHECKED = 400  # prompts whose length is asked from the server; the rest follow the fit


@dataclass
class Sizer:
    """Words to tokens: ``tokens = fixed + per_word * words``, and where that comes from."""

    method: str = "assumed"
    per_word: float = 1.0
    fixed: float = 0.0
    route: str = ""  # key of the request that counts tokens, where the server has one
    filler: str = ""  # a text that adds exactly one token each time it is appended

    def words(self, tokens: int) -> int:
        """How many words make about so many tokens."""
        return max(1, round((tokens - self.fixed) / self.per_word))

    @property
    def text(self) -> str:
        """For the report."""
        what = {
            "tokenize": "exact, counted by the server's /tokenize",
            "usage": "fitted on the prompt tokens that the server reported",
            "assumed": "assumed: the server neither counts nor reports tokens",
        }[self.method]
        return f"{what} ({self.per_word:.3f} tokens a word + {self.fixed:.0f})"


async def calibrate(client: Client, target: Target, timeout: float) -> Sizer:
    """Learn how many tokens a word makes: from /tokenize, else from the usage of two short requests."""
    rng = random.Random("calibration")  # noqa: S311 (prompts, no secrets)
    few, many = (" ".join(rng.choices(WORDS, k=k)) for k in (16, 144))
    for route in ("prompt", "content", "inputs"):
        a, b = await _count(client, target, route, few), await _count(client, target, route, many)
        if a is not None and b is not None and b > a:
            found = _fit("tokenize", a, b, route)
            for text in FILLERS:
                if await _count(client, target, route, many + text * 24) == b + 24:
                    found.filler = text
                    break
            return found
    if target.usage:
        seen = []
        for text in (few, many):
            sample = Sample(-1)
            collect = Collector(sample)
            try:
                collect.close(await client.post(target.path, target.body(text, 1), timeout, collect))
            except WireError:
                return Sizer()
            seen.append(sample.prompt_tokens)
        if seen[0] is not None and seen[1] is not None and seen[1] > seen[0]:
            return _fit("usage", seen[0], seen[1], "")
    return Sizer()


def _fit(method: str, few: int, many: int, route: str) -> Sizer:
    per_word = (many - few) / 128
    return Sizer(method, per_word, few - 16 * per_word, route)


async def _count(client: Client, target: Target, route: str, text: str) -> int | None:
    """Tokens of a prompt as this server counts them; `route` is the name under which it takes the text."""
    body: dict[str, Any] = {"model": target.model, route: text}
    if target.api == "chat" and route == "prompt":
        body = {"model": target.model, "messages": [{"role": "user", "content": text}]}
    try:
        response = await client.post("/tokenize", body, 30.0)
    except WireError:
        return None
    data = response.json() if response.status == 200 else None
    if isinstance(data, dict):
        if isinstance(data.get("count"), int):
            return int(data["count"])
        data = data.get("tokens")
    return len(data) if isinstance(data, list) else None


def words_of(load: Load, index: int, prefix: int, total: int) -> list[str]:
    """The words of one prompt: those that all share, then its own."""
    shared = random.Random(f"{load.seed}/{load.salt}/prefix").choices(WORDS, k=prefix)  # noqa: S311
    own = random.Random(f"{load.seed}/{load.salt}/{load.name}/{index}")  # noqa: S311
    return shared + own.choices(WORDS, k=max(0, total - prefix))


async def prompts(client: Client, target: Target, sizer: Sizer, load: Load, count: int) -> tuple[list[str], int]:
    """`count` prompts of `load.input` tokens; and how many of them the server counted as exactly that long."""
    total = sizer.words(load.input)
    prefix = min(total, sizer.words(load.prefix)) if load.prefix else 0
    texts = [words_of(load, i, prefix, total) for i in range(count)]
    if sizer.method != "tokenize":
        return [" ".join(t) for t in texts], 0
    gate = asyncio.Semaphore(8)

    async def exact(index: int) -> bool:
        words, rng = texts[index], random.Random(f"{load.seed}/{load.salt}/fill/{index}")  # noqa: S311
        for _ in range(TRIES):
            async with gate:
                seen = await _count(client, target, sizer.route, " ".join(words) + sizer.filler * tails[index])
            if seen is None or seen == load.input:
                return seen is not None
            missing = load.input - seen
            step = round(missing / sizer.per_word)
            if missing > 0 and sizer.filler and missing <= 4 * sizer.per_word:
                tails[index] += missing
            elif missing > 0:
                words.extend(rng.choices(WORDS, k=max(1, step)))
            elif tails[index] >= -missing:
                tails[index] += missing
            else:  # one word more than the excess holds: fillers make up for it exactly
                del words[max(1, len(words) + step - 1) :]
        return False

    tails = [0] * count
    done = await asyncio.gather(*(exact(i) for i in range(min(count, CHECKED))))
    return [" ".join(t) + sizer.filler * n for t, n in zip(texts, tails, strict=True)], sum(done)
