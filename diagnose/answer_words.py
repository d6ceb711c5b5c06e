"""Sentence frames of the answer, English and Chinese; figures enter only through slots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """One language. Attribute names say what each sentence is for."""

    verdict: str
    verdict_sign: str
    bare: str
    seen: str
    setting: str
    line: str
    reading: str
    figure: str
    compared: str
    derived: str
    computed: str
    absent: str
    release: str
    beside: str
    limit: str
    beside_floor: str
    floor: str
    no_limit: str
    ruled: str
    ruled_next: str
    ruled_sign: str
    ruled_same: str
    ruled_bare: str
    change: str
    fix: str
    risk: str
    undo: str
    undo_other: str
    check: str
    check_act: str
    check_must: str
    surest: str
    gain: str
    doubt: str
    doubt_alone: str
    chain: str
    leads: str
    also: str
    proved: str
    withdrawn: str
    rivals: str
    against: str
    falls: str
    falls_step: str
    next: str
    next_said: str
    separates: str
    nothing_open: str
    healthy: str
    healthy_bare: str
    healthy_also: str
    healthy_unknown: str
    odd: str
    odd_item: str
    keep: str
    healthy_mind: str
    healthy_validate: str
    open: str
    open_empty: str
    open_no_gpu: str
    open_server: str
    open_where: str
    open_why: str
    leading: str
    no_guess: str
    why: str
    read: str
    more_read: str
    read_nothing: str
    simulated: str
    cut: str
    refused: str
    gap: str
    unseen: str
    offline: str
    no_ceiling: str
    q_how: str
    q_how_healthy: str
    q_mind: str
    q_mind_healthy: str
    q_next: str
    q_missing: str
    q_guess: str
    l_why: str
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
    l_by_question: str
    l_advice: str
    l_targets: str
    l_open: str
    l_ruled: str
    l_herring: str
    l_inputs: str
    l_inferred: str
    l_separates: str
    l_settles: str
    l_other: str
    l_model: str
    l_longer: str
    join: str
    space: str

    def glue(self, *parts: str) -> str:
        """Sentences in a row, empty ones left out."""
        return self.space.join(p.strip() for p in parts if p and p.strip())


EN = Words(
    verdict="{title}: {key} ({id}, confidence {p}).",
    verdict_sign="{title}: {sign} ({key}; {id}, confidence {p}).",
    bare="{title} (confidence {p}).",
    seen="What the input does say: {facts}.",
    beside="Against the ceiling: {lines}.",
    limit="{what}: {measured} of {limit} {unit} ({ratio})",
    beside_floor="Against the floor: {lines}.",
    floor="{what}: {measured} {unit}, floor {limit} {unit} ({times} times)",
    no_limit="{what}: {measured} {unit}, no ceiling to hold it against ({why})",
    ruled="It is not “{name}”: {why}.",
    ruled_next="Nor “{name}”: {why}.",
    ruled_sign="its sign is missing ({because}); instead {fact}",
    ruled_same="the same line says so [{id}]",
    change="{text}.",
    fix="{text}.",
    doubt="I put this at {p}: “{rival}” is still open, so I want one more reading before production is touched.",
    chain="One brings about the other: {steps}.",
    leads=", so ",
    also="Also at work: {names}.",
    proved="Proved: {change} it went from {before} to {after} {unit}, {predicted} predicted ({error} off).",
    withdrawn="Put to the test and withdrawn: {change} it went from {before} to {after} {unit}, {predicted} predicted.",
    rivals="Next in line: {names}.",
    against="Speaking against it already: {ids}.",
    next="Cheapest next step, to see {what}: `{command}`.",
    nothing_open="No reading I could ask for would settle more.",
    healthy="Nothing is wrong here: {reason} (confidence {p}).",
    odd="What looks alarming and is not: {items}.",
    odd_item="{what} ({why})",
    surest="above {p}",
    keep="Keep this run as the baseline, so that the next complaint is a comparison and not a guess.",
    healthy_mind="The same measurement out of its band under the load you really run, or a second run that disagrees.",
    healthy_validate="Repeat the measurement under the real load and compare it with this one.",
    open="Not decided: these inputs do not separate the causes that remain.",
    open_empty="Not decided: there is nothing here to reason from yet.",
    open_no_gpu="Not decided: this machine shows no GPU, so it cannot answer this; run it where the problem is, "
    "or give that machine's output with --evidence.",
    open_server="Not decided, because of the server that was named: {reason}.",
    open_where="The cause is not decided, but the place is: {fact} [{id}].",
    leading="Still in question: {names}.",
    no_guess="No. A guess with a number on it is how the wrong part gets replaced; the next step is cheaper than that.",
    why="{because} [{refs}].",
    read="I have read {names}, and nothing else.",
    more_read="{names} and {n} more inputs",
    read_nothing="Nothing was read: no evidence was given and this machine was not probed.",
    simulated="Part of that is simulated, and so is every figure taken from it.",
    cut="Incomplete: {names}.",
    refused="Not read: {names}.",
    gap="Not read ({what}): {reason}.",
    unseen="What I have not seen: {names}.",
    no_ceiling="Where the hardware is not known there is no ceiling, so the figure stands alone.",
    q_how="What makes you say “{title}”?",
    q_mind="What would make you drop “{title}”?",
    q_next="What would you run next?",
    q_missing="What is missing?",
    q_guess="If you had to guess?",
    l_why="Because",
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
    l_by_question="the question alone suggests it",
    l_advice="What a change would buy",
    l_targets="Targets",
    l_open="Still open",
    l_ruled="Ruled out",
    l_herring="Looks bad, is not",
    l_inputs="Inputs",
    l_inferred="inferred from the evidence",
    l_separates="{probe}, {footprint}, about {seconds} s; separates {causes}",
    l_settles="{probe}, {footprint}, about {seconds} s; for or against {causes}",
    join="; ",
    space=" ",
    setting="It is set: {facts}.",
    line="Word for word: {facts}.",
    reading="The reading: {facts}.",
    figure="Measured: {facts}.",
    compared="Side by side: {facts}.",
    derived="Worked out as well: {facts}.",
    computed="Worked out from the figures: {facts}.",
    absent="What ought to be there is not: {facts}.",
    release="A default changed on the way: {facts}.",
    ruled_bare="Nor is it “{name}”.",
    risk="The risk: {risk}.",
    undo="To undo it, {rollback}.",
    undo_other="To undo it: {rollback}.",
    check="It is fixed when {text}.",
    check_act="To check it, {text}.",
    check_must="Before I call it fixed, {text}.",
    gain="By these figures, this change ({change}) would give: {predicted}.",
    falls="The test: {check}; if the fix is in and the symptom stays, I was wrong{step}.",
    falls_step="; before I change anything I would run this, to see {what}: `{command}`",
    separates="It tells {names} apart.",
    offline="I looked at the given evidence only",
    l_other="中文理解",
    doubt_alone="It stands on {ids} alone at {p}, so get a second reading before you touch production.",
    next_said="Cheapest next step: see {what}.",
    healthy_bare="Nothing is wrong here (confidence {p}).",
    healthy_also="On top of that, {reasons}.",
    healthy_unknown="Not settled by this input: {what}.",
    q_how_healthy="How do you know that it is healthy?",
    q_mind_healthy="What would make you call it sick after all?",
    open_why="Naming {name} now would rest on a sign that other faults leave too.",
    l_longer="at length",
    l_model="In the model's words, checked",
)

ZH = Words(
    verdict="{title}：{key}（{id}，置信度 {p}）。",
    verdict_sign="{title}：{sign}（{key}，{id}，置信度 {p}）。",
    bare="{title}（置信度 {p}）。",
    seen="输入里能看到的是：{facts}。",
    beside="对照上限：{lines}。",
    limit="{what}：实测 {measured}，上限 {limit} {unit}（{ratio}）",
    beside_floor="对照下限：{lines}。",
    floor="{what}：实测 {measured} {unit}，下限 {limit} {unit}（{times} 倍）",
    no_limit="{what}：实测 {measured} {unit}，没有可对照的上限（{why}）",
    ruled="“{name}”可以排除：{why}。",
    ruled_same="同一行就能说明 [{id}]",
    ruled_next="“{name}”也可以排除：{why}。",
    ruled_sign="{fact}",
    change="{text}。",
    fix="{text}。",
    doubt="把握只有 {p}，“{rival}”还没排掉，动线上之前再取一个读数。",
    chain="传导路径：{steps}。",
    leads="，于是",
    also="同时存在：{names}。",
    proved="实验证实：{change}，由 {before} 变为 {after} {unit}，预测为 {predicted}（偏差 {error}）。",
    withdrawn="经实验检验后撤回：{change}，由 {before} 变为 {after} {unit}，预测为 {predicted}。",
    rivals="排在后面的是{names}。",
    against="已有的反面证据：{ids}。",
    next="最省事的下一步，看{what}：`{command}`。",
    nothing_open="手头没有哪个读数能再多定一点了。",
    healthy="这里没有问题：{reason}（置信度 {p}）。",
    odd="看着吓人其实正常的：{items}。",
    odd_item="{what}（{why}）",
    surest="{p} 以上",
    keep="把这次结果留作基线，下次再有人报慢，就是对比而不是猜测。",
    healthy_mind="在真实负载下同一指标跌出正常区间，或者复测结果与这次不一致。",
    healthy_validate="在真实负载下重测一次，与本次结果对比。",
    open="尚无结论：现有输入分不开剩下的几种原因。",
    open_empty="尚无结论：目前还没有可供推理的数据。",
    open_no_gpu="尚无结论：这台机器上看不到 GPU，回答不了这个问题；"
    "请在出问题的机器上运行，或用 --evidence 给出那台机器的输出。",
    open_server="尚无结论，原因在所给的服务端：{reason}。",
    open_where="原因尚无结论，但慢在哪里看得到：{fact} [{id}]。",
    leading="仍待区分：{names}。",
    no_guess="不猜。带着数字的猜测正是换错零件的原因，下一步的成本比这低得多。",
    why="{because} [{refs}]。",
    read="我只读了 {names}，别的没看。",
    more_read="{names} 等 {n} 份输入",
    read_nothing="没有读取任何数据：既没有提供证据，也没有探测本机。",
    simulated="其中一部分是模拟数据，由它得出的数字同样是模拟的。",
    cut="不完整的输入：{names}。",
    refused="未读取：{names}。",
    gap="没有读到的（{what}）：{reason}。",
    unseen="没看到的还有：{names}。",
    no_ceiling="硬件型号未知时没有上限可比，数字只能单独看。",
    q_how="凭什么说“{title}”？",
    q_mind="看到什么你会放弃“{title}”？",
    q_next="接下来你会跑什么？",
    q_missing="还缺什么？",
    q_guess="如果非要猜呢？",
    l_why="依据",
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
    l_by_question="只是问题本身提示，没有证据",
    l_advice="改动能换来什么",
    l_targets="目标",
    l_open="仍待区分",
    l_ruled="已排除",
    l_herring="看着可疑，其实正常",
    l_inputs="输入",
    l_inferred="由证据推断",
    l_separates="{probe}，{footprint}，约 {seconds} 秒；可区分 {causes}",
    l_settles="{probe}，{footprint}，约 {seconds} 秒；可证实或推翻 {causes}",
    join="；",
    space="",
    setting="配置里写着：{facts}。",
    line="原文：{facts}。",
    reading="读数：{facts}。",
    figure="实测：{facts}。",
    compared="两相对照：{facts}。",
    derived="换算下来也对得上：{facts}。",
    computed="换算下来：{facts}。",
    absent="该有的没有：{facts}。",
    release="升级还改了默认行为：{facts}。",
    ruled_bare="“{name}”同样可以排除。",
    risk="风险：{risk}。",
    undo="要撤回的话：{rollback}。",
    undo_other="要撤回的话：{rollback}。",
    check="改完再验证：{text}。",
    check_act="改完再验证：{text}。",
    check_must="改完之后，{text}。",
    gain="按这份数据估算，{change}之后：{predicted}。",
    falls="检验办法：{check}；修复已经生效、现象却还在，就说明我判断错了{step}。",
    falls_step="；动手之前先看{what}：`{command}`",
    separates="它能把{names}分开。",
    offline="只看了给出的证据",
    l_other="English",
    doubt_alone="只有 {ids} 一处依据，把握 {p}，动线上之前再取一个读数。",
    next_said="最省事的下一步：看{what}。",
    healthy_bare="这里没有问题（置信度 {p}）。",
    healthy_also="另外，{reasons}。",
    healthy_unknown="这份数据定不了的：{what}。",
    q_how_healthy="凭什么说它健康？",
    q_mind_healthy="看到什么你会改口说有问题？",
    open_why="现在就说是“{name}”，靠的只是别的故障也会留下的痕迹。",
    l_longer="详细版",
    l_model="模型转述（已核对）",
)
