"""What the console and the interviewer say, English and Chinese; figures and names enter through slots."""

from __future__ import annotations

_SAID: dict[str, tuple[str, str]] = {
    "help": (
        "Ask for output in words, by command or by probe name; each costs its seconds.\n"
        "  probes            what can be asked for, and its cost\n"
        "  more, grep WORD   next page; lines with a word in what you have seen\n"
        "  save E2 FILE      write a capture to a file\n"
        "  causes WORD       ids of causes with a word in them\n"
        "  hypothesis CAUSE P, because TEXT, evidence E2:14 (or a quote), fix TEXT\n"
        "  hint, status, answer CAUSE P, give up, quit (you can go on later)",
        "用自然语言、命令或 probe 名字要输出；每次都花掉它的秒数。\n"
        "  probes            能要什么，各花多少秒\n"
        "  more, grep 词     上一份输出的下一页；在看过的输出里找词\n"
        "  save E2 文件      把一份输出写成文件\n"
        "  causes 词         名字里带这个词的 cause id\n"
        "  hypothesis CAUSE P, because 理由, evidence E2:14（或原文）, fix 修复\n"
        "  hint, status, answer CAUSE P, give up, quit（以后可以接着做）",
    ),
    "start": (
        "{title}\n\nWhat you are told: {symptom}\nYou have {limit:g} seconds of probe time. `help` lists the commands.",
        "{title}\n\n你听到的：{symptom}\n你有 {limit:g} 秒的探测时间。输入 help 看命令。",
    ),
    "resumed": (
        "Going on where you left: {n} steps done, {left:g} s left. (`--restart` begins anew.)",
        "接着上次：已做 {n} 步，还剩 {left:g} 秒。（--restart 从头开始。）",
    ),
    "left": ("{left:g} s left", "还剩 {left:g} 秒"),
    "shown": ("E{n}  {name}{part}  {lines} lines", "E{n}  {name}{part}  共 {lines} 行"),
    "ran": ("[{probe}, {seconds:g} s; {left:g} s left]", "[{probe}，{seconds:g} 秒；还剩 {left:g} 秒]"),
    "again": ("You have {probe} already: {ids}.", "{probe} 已经看过了：{ids}。"),
    "more": (
        "… {n} more lines: `more`, `grep WORD`, or `save E{e} FILE` for all of it",
        "…… 还有 {n} 行：more、grep 词，或 save E{e} 文件 存下全文",
    ),
    "more_hits": ("… {n} more lines with it: grep something rarer", "…… 还有 {n} 行，换个更少见的词再找"),
    "turn": ("-- Enter for the rest --", "-- 回车看下面 --"),
    "others": ("also captured: {names}; `more` goes through them", "还有：{names}；用 more 往下看"),
    "no_more": ("Nothing more to show.", "没有更多了。"),
    "saved": ("wrote {file}", "已写入 {file}"),
    "not_saved": ("{file}: {why}", "{file}：{why}"),
    "missing": ("{probe}: {why}. That cost nothing.", "{probe}：{why}。这一步不计时。"),
    "open": ("That could be {names}. Which one?", "可能是 {names}，要哪一个？"),
    "unknown": (
        "I do not know what output that is. Name a probe, a command, or say what you want to see; `probes` lists them.",
        "听不懂要哪份输出。请说 probe 名、命令，或你想看什么；probes 列出全部。",
    ),
    "no_grep": ("no line with {word!r} in what you have seen", "看过的输出里没有带 {word!r} 的行"),
    "hint": ("Hint {n} of {of} ({seconds:g} s): {text}", "提示 {n}/{of}（{seconds:g} 秒）：{text}"),
    "no_hint": ("No more hints.", "没有更多提示了。"),
    "no_cause": (
        "No cause by that name{near}. `causes WORD` looks ids up.",
        "没有这个名字的 cause{near}。用 causes 词 查 id。",
    ),
    "near": (": {names}?", "：是不是 {names}？"),
    "no_p": ("How sure are you? Add a number from 0 to 1.", "有多大把握？请加一个 0 到 1 的数。"),
    "noted": ("Noted: {cause} at {p:.2f}.", "记下了：{cause}，{p:.2f}。"),
    "mind": (
        "What would change your mind? (because …: name the output you would want, and what it would have to read)",
        "看到什么你会改变主意？（because ……：说出要哪份输出、读数要是多少）",
    ),
    "which_line": (
        "{p:.2f} is a lot. Which line says so? Cite it with `evidence`.",
        "{p:.2f} 很高了。哪一行能证明？用 evidence 引出来。",
    ),
    "moved": (
        "You were at {old:.2f} before. What did you read that moved you?",
        "刚才你说 {old:.2f}。读到什么让你改了？",
    ),
    "dropped": (
        "You had {old} at {p:.2f}. Is it out, and by which line?",
        "你先前认为是 {old}（{p:.2f}）。排除了吗，凭哪一行？",
    ),
    "good_mind": (
        "{about} would confirm {cause} or fail to. What would speak for something else?",
        "{about} 能证实 {cause} 或证实不了。那看到什么才说明是别的原因？",
    ),
    "rival_mind": (
        "Good: {about} tells it apart, it would speak for {rival} instead.",
        "好：{about} 能把它们分开，它会指向 {rival}。",
    ),
    "against_mind": ("Good: {about} can speak against {cause}.", "好：{about} 能反驳 {cause}。"),
    "poor_mind": (
        "That would not move {cause} either way. What reads {signals}?",
        "这个对 {cause} 没有影响。什么能读到 {signals}？",
    ),
    "vague_mind": (
        "Which output, and what would it have to say? A feeling is no experiment.",
        "要哪份输出，上面得写什么？感觉不算实验。",
    ),
    "no_lead": ("You have no hypothesis yet.", "你还没有假设。"),
    "cited": ("Kept: E{e}:{line}  {text}", "记下：E{e}:{line}  {text}"),
    "not_cited": (
        "That stands in nothing you were shown. Quote it as printed, or say E2:14.",
        "看过的输出里没有这句。请照原文引，或写 E2:14。",
    ),
    "short_quote": ("Too short to prove anything: quote at least {n} characters.", "太短了：至少引 {n} 个字符。"),
    "most_cited": ("{n} lines are enough. Choose the ones that matter.", "{n} 行够了，请挑关键的。"),
    "fix_kept": (
        "Kept. How do you roll it back, and what shows that it worked? (`fix TEXT` adds to it)",
        "记下了。怎么回滚，怎么验证有效？（再用 fix 补充）",
    ),
    "ask_mind": (
        "One more thing: what would change your mind? Name an output and what it would have to read. (or `done`)",
        "还有一个问题：看到什么你会改变主意？说出哪份输出、读数要是多少。（或 done）",
    ),
    "ask_fix": (
        "Before we close: what do you change, how do you undo it, what shows that it worked? (one line, or `done`)",
        "最后：改什么，怎么回滚，怎么验证有效？（一行，或 done）",
    ),
    "herring": ("Interviewer: {text}", "面试官：{text}"),
    "time_up": (
        "Stop: the {limit:g} seconds are over. Your last hypothesis stands as your answer.",
        "停：{limit:g} 秒到了。你最后的假设算作答案。",
    ),
    "paused": (
        "Kept. Go on with the same command; `--restart` begins anew.",
        "已保存。用同一条命令接着做；--restart 从头开始。",
    ),
    "memory": (
        "Nothing can be kept here ({why}): this session is forgotten when it ends.",
        "这里无法保存（{why}）：结束后本次记录就没有了。",
    ),
    "status": (
        "{spent:g} of {limit:g} s spent; seen: {seen}; hypotheses: {hypotheses}; evidence: {cited}",
        "已用 {spent:g}/{limit:g} 秒；看过：{seen}；假设：{hypotheses}；证据：{cited}",
    ),
    "nothing": ("nothing", "无"),
    # ---- debrief
    "d_title": ("Debrief", "复盘"),
    "d_was": ("It was: {title} ({cause}).", "真正的原因：{title}（{cause}）。"),
    "d_healthy": ("Nothing was wrong here ({cause}).", "这台机器没有问题（{cause}）。"),
    "d_engine": (
        "There is no answer key for this recording: you are held against what the engine reads in all of it.",
        "这份录制没有标准答案：以引擎读完全部数据的结论为准。",
    ),
    "d_you": ("You said: {answer}.", "你的答案：{answer}。"),
    "d_none": ("no cause", "没有给出"),
    "d_score": ("Score", "得分"),
    "d_yours": ("you", "你"),
    "d_planner": ("planner", "规划器"),
    "cause": ("cause", "原因"),
    "evidence": ("evidence", "证据"),
    "path": ("path", "路径"),
    "cost": ("cost", "代价"),
    "calibration": ("calibration", "把握"),
    "total": ("total", "总分"),
    "d_path": ("Your path: {steps}", "你的路径：{steps}"),
    "d_plan": ("Planner's path: {steps}", "规划器的路径：{steps}"),
    "d_hints": ("; {n} hint(s)", "；{n} 次提示"),
    "d_skipped": (
        "The step you skipped: {probe} ({seconds:g} s). It says:",
        "你跳过的一步：{probe}（{seconds:g} 秒）。它写着：",
    ),
    "d_uncited": ("Seen and not cited:", "看到了却没有引用："),
    "d_all_seen": ("You saw every line that decides this.", "定案的每一行你都看到了。"),
    "d_herring": ("Red herring: {because}", "误导线索：{because}"),
    "d_fix": ("Your fix: {fix}", "你的修复：{fix}"),
    "d_fix_parts": (
        "  change {change:.0%}, rollback {rollback:.0%}, check {check:.0%}",
        "  改动 {change:.0%}，回滚 {rollback:.0%}，验证 {check:.0%}",
    ),
    "d_fix_wrong": ("  no part of this fix: {names}", "  与这个修复无关：{names}"),
    "d_fix_none": ("You proposed no fix.", "你没有提出修复。"),
    "d_fix_needless": ("There was nothing to fix.", "这里没有要修的东西。"),
    "fix": ("fix", "修复"),
    "doubt": ("doubt", "反证"),
    "d_fix_book": ("By the book: {fix} Rollback: {rollback}", "标准做法：{fix}回滚：{rollback}"),
    "d_mechanism": ("Why: {text}", "机理：{text}"),
    "d_mind": (
        "Asked what would change your mind about {cause}, your reply was worth {value:.0%}.",
        "被问到看到什么会放弃 {cause} 时，你的回答得 {value:.0%}。",
    ),
    "d_read": ("Read on: {commands}", "接着看：{commands}"),
    # ---- a drill from a recording of the user's
    "own_layer": ("Look for it in this layer: {layer}.", "往这一层找：{layer}。"),
    "own_open": (
        "The recording may not hold a fault at all. What would a healthy one read?",
        "这份录制里不一定有故障。正常时读数该是多少？",
    ),
    "own_path": ("These outputs decide it: {probes}.", "能定案的输出：{probes}。"),
    "own_line": ("In {probe}: {fact}.", "看 {probe}：{fact}。"),
    "own_calm": ("No line of it decides for a fault.", "没有哪一行能坐实故障。"),
    "own_odd": ("Look at this: {fact}. Isn't that it?", "看这个：{fact}。是不是它？"),
    "own_rival": ("I would bet on “{title}”. What do you say?", "我赌是“{title}”。你怎么看？"),
    "own_against": ("this reading speaks against it: {fact}.", "有读数反驳它：{fact}。"),
    "own_nothing": ("nothing in the recording speaks for it.", "录制里没有任何一行支持它。"),
    # ---- interview
    "i_start": (
        "Questions: {n}, each up to three deep. Answer in your own words, on one line. `skip` leaves a question, "
        "`model` shows a model answer, `quit` ends.",
        "{n} 道题，每题最多追问三层。用自己的话，一行作答。skip 跳过，model 看参考答案，quit 结束。",
    ),
    "i_question": ("Question {n} of {of} ({track}, {level})", "第 {n}/{of} 题（{track}，{level}）"),
    "i_follow": ("Going deeper, {depth} of 3:", "追问 {depth}/3："),
    "i_score": ("{score:.0%}", "{score:.0%}"),
    "i_listed": ("That was a list of terms. Say it in a sentence.", "你列的是名词。请用一句话说清楚。"),
    "i_echo": ("That is my question back. What is the answer?", "这是把问题又说了一遍。答案呢？"),
    "i_wrong": ("That is the common answer, and it does not hold: {because}", "这是常见的说法，但站不住：{because}"),
    "i_scattered": ("You talked around it. Which one sentence is the answer?", "绕开了。哪一句才是答案？"),
    "i_long": ("Too long to follow. What would you keep?", "太长了。只留哪几句？"),
    "i_definition": ("You did not say what it is.", "没有说它是什么。"),
    "i_mechanism": ("How does that come about, step by step?", "它是怎么一步步发生的？"),
    "i_tradeoff": ("What does it cost you?", "代价是什么？"),
    "i_debug": ("How would you see it on a machine?", "在机器上怎么看出来？"),
    "i_honesty": ("Where does that stop being true?", "在哪里就不成立了？"),
    "i_fine": ("Good. Nothing to add.", "好，没有要补充的。"),
    "i_moving": ("Let us move on.", "我们换一题。"),
    "i_model": ("A model answer: {text}", "参考答案：{text}"),
    "i_end": ("Result", "结果"),
    "i_examiner": ("Think on: {text}", "再想一步：{text}"),
    "i_row": ("{concept}: {score:.0%} (answers: {answers})", "{concept}：{score:.0%}（{answers} 次回答）"),
    "i_weak": ("Weak: {names}. They come first next time.", "薄弱：{names}。下次先问这些。"),
    "i_dimensions": ("By kind: {rows}", "分项：{rows}"),
    "definition": ("definition", "定义"),
    "mechanism": ("mechanism", "机理"),
    "tradeoff": ("trade-off", "取舍"),
    "debug": ("how to measure", "怎么测"),
    "honesty": ("limits", "边界"),
    "i_none": ("Nothing was answered.", "没有作答。"),
    # ---- list
    "l_head": ("Drills (diagnose practice drill --drill NAME):", "演练（diagnose practice drill --drill 名字）："),
    "l_open": ("left half way", "做了一半"),
}


def say(lang: str, what: str, **slots: object) -> str:
    """One sentence in one language."""
    return _SAID[what][1 if lang == "zh" else 0].format(**slots)
