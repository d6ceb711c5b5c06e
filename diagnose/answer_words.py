"""Sentence frames of the answer, English and Chinese; figures enter only through slots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """One language. Attribute names say what each sentence is for."""

    verdict: str
    bare: str
    shown: str
    seen: str
    beside: str
    limit: str
    no_limit: str
    ruled: str
    change: str
    fix: str
    none: str
    doubt: str
    chain: str
    also: str
    proved: str
    withdrawn: str
    symptom: str
    rivals: str
    against: str
    next: str
    nothing_open: str
    healthy: str
    because: str
    odd: str
    keep: str
    healthy_mind: str
    healthy_validate: str
    open: str
    open_empty: str
    open_no_gpu: str
    open_server: str
    leading: str
    no_guess: str
    read: str
    read_nothing: str
    simulated: str
    cut: str
    refused: str
    gap: str
    no_ceiling: str
    q_how: str
    q_mind: str
    q_next: str
    q_missing: str
    q_guess: str
    l_fix: str
    l_risk: str
    l_undo: str
    l_check: str
    l_next: str
    l_say: str
    l_boundary: str
    l_checked: str
    l_limits: str
    l_stages: str
    l_advice: str
    l_targets: str
    l_open: str
    l_ruled: str
    l_herring: str
    l_inputs: str
    l_inferred: str
    l_separates: str
    join: str
    space: str

    def glue(self, *parts: str) -> str:
        """Sentences in a row, empty ones left out."""
        return self.space.join(p.strip() for p in parts if p and p.strip())


EN = Words(
    verdict="{title}: {key} (confidence {p}).",
    bare="{title}.",
    shown="The evidence: {facts}.",
    seen="What the input does say: {facts}.",
    beside="Beside its limit: {lines}.",
    limit="{what}: {measured} of {limit} {unit} ({ratio})",
    no_limit="{what}: {measured} {unit}, no ceiling to hold it against ({why})",
    ruled="Ruled out: {items}.",
    change="What I would change: {text}.",
    fix="Fix: {text}. Risk: {risk}. To undo: {rollback}.",
    none="none worth naming",
    doubt="I would confirm this before changing production: one independent reading is still missing.",
    chain="How it gets to you: {steps}.",
    also="Also at work: {names}.",
    proved="Proved: {change} it went from {before} to {after} {unit}, {predicted} predicted ({error} off).",
    withdrawn="Put to the test and withdrawn: {change} it went from {before} to {after} {unit}, {predicted} predicted.",
    symptom="the symptom you report",
    rivals="Next in line are {names}.",
    against="Speaking against it already: {ids}.",
    next="The cheapest next step: `{command}`; it separates {separates}.",
    nothing_open="Nothing here is left open that another reading of these inputs would settle.",
    healthy="Nothing is wrong here (confidence {p}).",
    because="{reasons}.",
    odd="What looks alarming and is not: {items}.",
    keep="Keep this run as the baseline, so that the next complaint is a comparison and not a guess.",
    healthy_mind="The same measurement out of its band under the load you really run, or a second run that disagrees.",
    healthy_validate="Repeat the measurement under the real load and compare it with this one.",
    open="Not decided: these inputs do not separate the causes that remain.",
    open_empty="Not decided: there is nothing here to reason from yet.",
    open_no_gpu="Not decided: this machine shows no GPU, so it cannot answer this; run it where the problem is, "
    "or give that machine's output with --evidence.",
    open_server="Not decided, because of the server that was named: {reason}.",
    leading="Still in question: {names}.",
    no_guess="No. A guess with a number on it is how the wrong part gets replaced; the next step is cheaper than that.",
    read="This rests on {n} input(s) alone: {names}.",
    read_nothing="Nothing was read: no evidence was given and this machine was not probed.",
    simulated="Part of it is simulated, and so is every figure that comes from it.",
    cut="Incomplete: {names}.",
    refused="Not read: {names}.",
    gap="{probe} is not available: {reason}.",
    no_ceiling="Where the hardware is not known there is no ceiling, so the figure stands alone.",
    q_how="How do you know?",
    q_mind="What would change your mind?",
    q_next="What would you run next?",
    q_missing="What is missing?",
    q_guess="If you had to guess?",
    l_fix="Fix",
    l_risk="Risk",
    l_undo="Undo",
    l_check="Check",
    l_next="Next step",
    l_say="Say it",
    l_boundary="Boundary",
    l_checked="Checked",
    l_limits="Measured / limit",
    l_stages="Where the time goes",
    l_advice="What a change would buy",
    l_targets="Targets",
    l_open="Still open",
    l_ruled="Ruled out",
    l_herring="Looks bad, is not",
    l_inputs="Inputs",
    l_inferred="inferred from the evidence",
    l_separates="{probe}, {footprint}, about {seconds} s; separates {causes}",
    join="; ",
    space=" ",
)

ZH = Words(
    verdict="{title}:{key}(置信度 {p})。",
    bare="{title}。",
    shown="依据:{facts}。",
    seen="输入里能看到的是:{facts}。",
    beside="与上限对照:{lines}。",
    limit="{what}:实测 {measured},上限 {limit} {unit}({ratio})",
    no_limit="{what}:实测 {measured} {unit},没有可对照的上限({why})",
    ruled="已排除:{items}。",
    change="我会这样改:{text}。",
    fix="修复:{text}。风险:{risk}。回退:{rollback}。",
    none="无需特别说明",
    doubt="动生产环境之前我会先确认:还缺一个独立的读数。",
    chain="传导路径:{steps}。",
    also="同时存在:{names}。",
    proved="实验证实:{change},由 {before} 变为 {after} {unit},预测为 {predicted}(偏差 {error})。",
    withdrawn="经实验检验后撤回:{change},由 {before} 变为 {after} {unit},预测为 {predicted}。",
    symptom="您反映的现象",
    rivals="其次可能的是 {names}。",
    against="已有的反面证据:{ids}。",
    next="下一步最省事的做法:`{command}`,它能区分 {separates}。",
    nothing_open="就这些输入而言,没有再读一遍就能定论的疑点了。",
    healthy="这里没有问题(置信度 {p})。",
    because="{reasons}。",
    odd="看着吓人其实正常的:{items}。",
    keep="把这次结果留作基线,下次再有人报慢,就是对比而不是猜测。",
    healthy_mind="在真实负载下同一指标跌出正常区间,或者复测结果与这次不一致。",
    healthy_validate="在真实负载下重测一次,与本次结果对比。",
    open="尚无结论:现有输入分不开剩下的几种原因。",
    open_empty="尚无结论:目前还没有可供推理的数据。",
    open_no_gpu="尚无结论:这台机器上看不到 GPU,回答不了这个问题;"
    "请在出问题的机器上运行,或用 --evidence 给出那台机器的输出。",
    open_server="尚无结论,原因在所给的服务端:{reason}。",
    leading="仍待区分:{names}。",
    no_guess="不猜。带着数字的猜测正是换错零件的原因,下一步的成本比这低得多。",
    read="结论只依据 {n} 份输入:{names}。",
    read_nothing="没有读取任何数据:既没有提供证据,也没有探测本机。",
    simulated="其中一部分是模拟数据,由它得出的数字同样是模拟的。",
    cut="不完整的输入:{names}。",
    refused="未读取:{names}。",
    gap="{probe} 不可用:{reason}。",
    no_ceiling="硬件型号未知时没有上限可比,数字只能单独看。",
    q_how="你怎么确定的?",
    q_mind="什么会让你改变看法?",
    q_next="接下来你会跑什么?",
    q_missing="还缺什么?",
    q_guess="如果非要猜呢?",
    l_fix="修复",
    l_risk="风险",
    l_undo="回退",
    l_check="验证",
    l_next="下一步",
    l_say="口头回答",
    l_boundary="边界",
    l_checked="已检查",
    l_limits="实测 / 上限",
    l_stages="时间花在哪里",
    l_advice="改动能换来什么",
    l_targets="目标",
    l_open="仍待区分",
    l_ruled="已排除",
    l_herring="看着可疑,其实正常",
    l_inputs="输入",
    l_inferred="由证据推断",
    l_separates="{probe},{footprint},约 {seconds} 秒;可区分 {causes}",
    join=";",
    space="",
)
