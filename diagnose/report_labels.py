"""What the report page calls its parts, in English and Chinese."""

from __future__ import annotations

from types import SimpleNamespace

EN = SimpleNamespace(
    colon=":", cause="CAUSE FOUND", healthy="HEALTHY", inconclusive="NOT DECIDED", confidence="confidence",
    skip="Skip to the report", contents="Contents", inferred="inferred from the evidence",
    findings="Findings", more="More evidence",
    against="Against it", fix="Fix", risk="Risk", undo="Undo", check="Check", open="Still open",
    question="from the question's words alone", checked="Checked", next="Next step", about="about",
    separates="separates", settles="for or against", copy="Copy", copied="Copied",
    limits="Measured beside its limit", what="What",
    measured="Measured", limit="Limit", ratio="Share", evidence="Evidence", stages="Where the time goes", stage="Stage",
    time="Time", share="Share", floor="Floor", drawings="Drawings",
    chain="How it gets there", symptom="the symptom", advice="What a change would buy",
    ruled="Ruled out", herring="Looks bad, is not", checks="Checks", drift="Changed since the baseline",
    nothing="Nothing.", say="Say it", short="In 30 seconds", long="In 90 seconds", asked="What they ask next",
    path="How it was decided", unavailable="Not available", cited="Everything cited", captures="Captures",
    line="line", inputs="Inputs", name="Name", format="Read as", table="As a table", simulated="simulated",
    confirmed="confirmed by an experiment", withdrawn="withdrawn after an experiment",
    passed="passed", finding="finding", unknown="unknown", not_applicable="not applicable",
    severity={"high": "high", "medium": "medium", "low": "low", "info": "for information"},
    footprint={"read": "reads only", "light": "light load", "load": "loads the machine"},
    worst="WORST FINDING: {}", clean="NO FINDING",
    whole="The report as JSON is part of this page.",
    cut="The JSON in this page holds only the evidence that is cited.",
    none="The JSON is left out to keep this page small.",
)  # fmt: skip

ZH = SimpleNamespace(
    colon="：", cause="已找到原因", healthy="正常", inconclusive="尚无结论", confidence="置信度", skip="跳到正文",
    contents="目录", inferred="由证据推断", findings="发现", more="更多证据",
    against="反面证据", fix="修复", risk="风险", undo="回退", check="验证", open="仍待区分",
    question="仅来自问题的措辞", checked="已检查", next="下一步", about="约",
    separates="可区分", settles="可证实或推翻", copy="复制", copied="已复制", limits="实测与上限", what="项目",
    measured="实测", limit="上限", ratio="占比", evidence="证据", stages="时间花在哪里", stage="阶段",
    time="耗时", share="占比", floor="下限", drawings="图",
    chain="传导路径", symptom="所反映的现象", advice="改动能换来什么",
    ruled="已排除", herring="看着可疑，其实正常", checks="检查项", drift="相对基线的变化",
    nothing="没有变化。", say="口头回答", short="30 秒版", long="90 秒版", asked="接下来会被问到",
    path="判断过程", unavailable="不可用", cited="全部引用的证据", captures="原始采集",
    line="行", inputs="输入", name="名称", format="识别为", table="表格形式", simulated="模拟数据",
    confirmed="已由实验证实", withdrawn="经实验后撤回",
    passed="通过", finding="有问题", unknown="未知", not_applicable="不适用",
    severity={"high": "严重", "medium": "中等", "low": "轻微", "info": "提示"},
    footprint={"read": "只读", "light": "轻微负载", "load": "会给机器加负载"},
    worst="最严重的发现：{}", clean="没有发现问题",
    whole="完整的 JSON 报告已嵌入本页。", cut="本页嵌入的 JSON 只保留被引用的证据。",
    none="为控制页面大小，未嵌入 JSON。",
)  # fmt: skip


def labels(lang: str) -> SimpleNamespace:
    """Labels of a language."""
    return ZH if lang == "zh" else EN
