# ruff: noqa: E501 (lines as tools print them)
"""Mechanisms of inference servers, as engines, load tools and clients print them."""

from __future__ import annotations

from .templates import Artifacts, Draw, mechanism


def _stats(
    d: Draw, running: int, waiting: int, usage: float, gen: float, prompt: float = 900.0, hit: float = 0.0
) -> str:
    return (
        f"INFO {d.pick('07-11', '03-02', '11-19')} {d.clock} [loggers.py:{d.num(100, 130)}] Engine 000: Avg prompt throughput: {prompt:.1f} tokens/s, Avg generation throughput: {gen:.1f} tokens/s, "
        f"Running: {running} reqs, Waiting: {waiting} reqs, GPU KV cache usage: {usage:.1f}%, Prefix cache hit rate: {hit:.1f}%"
    )


def _sglang(d: Draw, running: int, queue: int, usage: float, graph: bool, gen: float) -> str:
    return f"[2025-0{d.num(1, 9)}-1{d.num(0, 9)} {d.clock} TP0] Decode batch. #running-req: {running}, #token: {int(usage * 400000)}, token usage: {usage:.2f}, cuda graph: {graph}, gen throughput (token/s): {gen:.2f}, #queue-req: {queue}, "


@mechanism(
    "serving.queueing_saturation",
    "TTFT climbs to many seconds under load.",
    "压测时首 token 要等十几秒",
    also=("serving.kv_cache_exhausted", "serving.kv_capacity_low"),
)
def saturated(d: Draw) -> Artifacts:
    if d.sick:
        q = int(d.num(40, 90))
        log = [_stats(d, 256, q + i * int(d.num(20, 60)), d.num(70, 90, 1), d.num(5200, 5400, 1)) for i in range(4)]
        rows = [
            [c, f"{t:.1f} s", f"{d.num(5200, 5320)} tok/s"]
            for c, t in ((256, d.num(0.5, 0.9, 1)), (512, d.num(8, 12, 1)), (1024, d.num(25, 35, 1)))
        ]
    else:
        log = [_stats(d, int(d.num(10, 20)), 0, d.num(5, 12, 1), d.num(600, 700, 1)) for _ in range(4)]
        rows = [[c, f"{d.num(0.10, 0.14, 2)} s", f"{c * 40} tok/s"] for c in (4, 8, 16)]
    return [("vllm_log", "\n".join(log)), ("bench", d.table(["concurrency", "TTFT p50", "output throughput"], rows))]


@mechanism(
    "serving.max_num_seqs_low",
    "Requests queue although the GPU has plenty of KV cache left.",
    "KV cache 还很空，请求却一直在排队",
)
def admission(d: Draw) -> Artifacts:
    cap = int(d.pick(4, 8, 16))
    if d.pick(True, False):
        log = [
            _stats(
                d, cap if d.sick else 3, int(d.num(60, 200)) if d.sick else 0, d.num(2, 8, 1), cap * d.num(28, 33, 1)
            )
            for _ in range(3)
        ]
        return [
            ("vllm_log", "\n".join(log)),
            (
                "serving_args",
                f"vllm serve meta-llama/Llama-3.1-8B-Instruct --max-num-seqs {cap if d.sick else 256} --gpu-memory-utilization 0.9",
            ),
        ]
    log = [
        _sglang(
            d,
            cap if d.sick else 3,
            int(d.num(60, 200)) if d.sick else 0,
            d.num(0.02, 0.08, 2),
            True,
            cap * d.num(28, 33, 1),
        )
        for _ in range(3)
    ]
    return [
        ("sglang_log", "\n".join(log)),
        (
            "serving_args",
            f"python -m sglang.launch_server --model-path Qwen/Qwen2.5-7B-Instruct --max-running-requests {cap if d.sick else 512}",
        ),
    ]


@mechanism(
    "serving.kv_cache_exhausted",
    "Throughput drops and latency jumps once many long chats run.",
    "长对话一多吞吐就掉，延迟暴涨",
    also=("serving.kv_capacity_low",),
)
def preempted(d: Draw) -> Artifacts:
    n = int(d.num(200, 4000))
    if d.pick(True, False):
        text = [
            f'vllm:num_preemptions_total{{engine="0"}} {n if d.sick else 0}.0',
            f'vllm:kv_cache_usage_perc{{engine="0"}} {d.either((0.985, 0.999), (0.2, 0.4), 3)}',
            f'vllm:num_requests_running{{engine="0"}} {d.num(60, 90)}.0',
            f'vllm:num_requests_waiting{{engine="0"}} {d.num(30, 60) if d.sick else 0}.0',
        ]
        return [("metrics", "\n".join(text))]
    lines = [_stats(d, 61, 33 if d.sick else 0, d.either((99.0, 99.9), (30, 40), 1), d.num(900, 1100, 1))]
    if d.sick:
        lines.append(
            f"WARNING {d.clock} scheduler.py:1057] Sequence group {d.num(100, 999)} is preempted by PreemptionMode.RECOMPUTE mode because there is not enough KV cache space. This can affect the end-to-end performance. total_num_cumulative_preemption={n}"
        )
    return [("vllm_log", "\n".join(lines))]


@mechanism(
    "serving.kv_capacity_low",
    "The server warns at start and serves only a few users at once.",
    "服务启动后只能同时跑几个请求",
)
def few_blocks(d: Draw) -> Artifacts:
    length = int(d.pick(32768, 65536, 131072))
    tokens = int(length * (d.num(1.05, 2.2, 2) if d.sick else d.num(30, 60, 1)))
    log = [
        f"INFO {d.clock} [kv_cache_utils.py:864] GPU KV cache size: {tokens:,} tokens",
        f"INFO {d.clock} [kv_cache_utils.py:868] Maximum concurrency for {length:,} tokens per request: {tokens / length:.2f}x",
        _stats(
            d,
            2 if d.sick else 12,
            int(d.num(10, 40)) if d.sick else 0,
            d.either((93, 98), (20, 40), 1),
            d.num(60, 200, 1),
        ),
    ]
    return [
        ("vllm_log", "\n".join(log)),
        ("serving_args", f"--max-model-len {length} --gpu-memory-utilization {0.6 if d.sick else 0.92}"),
    ]


@mechanism(
    "serving.cuda_graphs_off",
    "Decode of a small model is several times slower than on another box.",
    "小模型 decode 特别慢",
    also=("train.launch_bound",),
)
def eager(d: Draw) -> Artifacts:
    ms = d.num(7, 9, 1)
    if d.pick(True, False):
        log = "\n".join(
            _sglang(d, int(d.num(1, 8)), 0, 0.03, not d.sick, d.either((40, 60), (160, 220), 2)) for _ in range(3)
        )
        return [("sglang_log", log)]
    rows = [
        ["--enforce-eager", f"{ms * d.either((3, 4), (1.01, 1.03), 2):.1f} ms"],
        ["default (CUDA graphs)", f"{ms} ms"],
    ]
    args = "vllm serve Qwen/Qwen2.5-1.5B-Instruct" + (" --enforce-eager" if d.sick else "")
    return [("serving_args", args), ("bench", d.table(["setting", "TPOT"], rows))]


@mechanism(
    "serving.prefix_cache_miss",
    "Every turn of a chat is as slow as the first although the prompt repeats.",
    "多轮对话每一轮首 token 都和第一轮一样慢",
)
def no_prefix(d: Draw) -> Artifacts:
    ttft = d.num(1.8, 4, 2)
    log = _stats(d, 4, 0, 12.0, 210.0, d.num(9000, 16000, 1), 0.0 if d.sick else d.num(82, 93, 1))
    rows = [
        [i, f"{d.num(11000, 11900)} tokens", f"{ttft * (d.num(0.98, 1.05, 2) if d.sick or i == 1 else 0.08):.2f} s"]
        for i in (1, 2, 3, 4)
    ]
    args = "--no-enable-prefix-caching" if d.sick else "--enable-prefix-caching"
    return [
        ("serving_args", f"vllm serve model {args}"),
        ("vllm_log", log),
        ("client", d.table(["turn", "prompt", "TTFT"], rows)),
    ]


@mechanism(
    "serving.spec_decode_low_acceptance",
    "Speculative decoding makes it slower than plain decoding.",
    "开了投机解码反而更慢",
)
def spec(d: Draw) -> Artifacts:
    k = int(d.pick(3, 4, 5))
    rate = d.either((6, 16), (78, 88), 1)
    line = f"INFO {d.clock} [metrics.py:86] SpecDecoding metrics: Mean acceptance length: {1 + k * rate / 100:.2f}, Accepted throughput: {d.num(10, 40, 2)} tokens/s, Drafted throughput: {d.num(300, 500, 2)} tokens/s, Avg Draft acceptance rate: {rate}%"
    plain = d.num(60, 90, 1)
    rows = [
        ["no speculation", f"{plain} tok/s"],
        [f"draft model, {k} tokens", f"{plain * d.either((0.55, 0.8), (1.9, 2.4), 2):.1f} tok/s"],
    ]
    return [("vllm_log", line), ("bench", d.table(["mode", "output"], rows))]


@mechanism(
    "serving.client_or_proxy",
    "Through the gateway the stream arrives in one lump; the engine itself is quick.",
    "经过网关后流式输出一次性到达",
    also=(),
)
def buffering(d: Draw) -> Artifacts:
    direct = d.num(0.2, 0.5, 2)
    rows = [
        ["direct to the pod", f"{direct} s"],
        ["through nginx", f"{direct * d.num(20, 40) if d.sick else direct + 0.01:.2f} s"],
    ]
    conf = (
        "location /v1/ {\n    proxy_pass http://vllm:8000;\n    proxy_http_version 1.1;\n"
        + ("    proxy_buffering on;\n    proxy_buffers 16 64k;\n" if d.sick else "    proxy_buffering off;\n")
        + "}"
    )
    return [("client", d.table(["path", "TTFT"], rows)), ("nginx_conf", conf)]


@mechanism(
    "serving.cold_start_compile",
    "Only the first request after a restart is terribly slow.",
    "重启后第一个请求特别慢",
    also=(),
)
def cold(d: Draw) -> Artifacts:
    warm = d.num(0.2, 0.6, 2)
    rows = [
        [i, f"{(d.num(25, 60, 1) if i == 1 and d.sick else warm * d.num(0.97, 1.04, 2)):.2f} s"] for i in range(1, 7)
    ]
    log = (
        f"INFO {d.clock} [backends.py:181] Compiling a graph for general shape takes {d.num(20, 50, 2)} s"
        if d.sick
        else f"INFO {d.clock} [backends.py:145] Directly load the compiled graph for general shape from the cache"
    )
    return [("client", d.table(["request", "latency"], rows)), ("vllm_log", log)]


@mechanism(
    "serving.long_prompt_prefill",
    "First token takes seconds for our documents, short questions are instant.",
    "长文档首 token 要好几秒，短问题很快",
    also=("serving.batched_tokens_low",),
)
def long_prompt(d: Draw) -> Artifacts:
    lengths = (500, 4000, 16000, 32000, 64000) if d.sick else (100, 200, 400, 500, 600)
    per = d.num(0.16, 0.3, 3) if d.sick else 0.02
    rows = [[f"{n:,}", f"{0.05 + per * n / 1000:.2f} s", f"{d.num(15, 16, 1)} ms"] for n in lengths]
    return [
        ("bench", d.table(["prompt tokens", "TTFT", "TPOT"], rows)),
        ("vllm_log", _stats(d, 1, 0, 4.0, 55.0, 5200.0)),
    ]


@mechanism(
    "serving.prefill_decode_interference",
    "Token stream freezes for moments when somebody sends a long prompt.",
    "别人发长 prompt 时我的输出会卡一下",
)
def interference(d: Draw) -> Artifacts:
    base = d.num(18, 25, 1)
    rows = [
        ["decode only", f"{base} ms", f"{base * 1.2:.1f} ms"],
        [
            "with 16k-token prompts arriving",
            f"{base * 1.3:.1f} ms",
            f"{base * d.either((15, 30), (1.3, 1.4), 2):.1f} ms",
        ],
    ]
    return [
        ("bench", d.table(["load", "ITL p50", "ITL p99"], rows)),
        (
            "serving_args",
            "--no-enable-chunked-prefill --max-num-batched-tokens 32768"
            if d.sick
            else "--enable-chunked-prefill --max-num-batched-tokens 2048",
        ),
    ]


@mechanism(
    "serving.structured_output_overhead",
    "JSON-schema requests take far longer to begin than plain ones.",
    "带 JSON schema 的请求首 token 特别慢",
    also=("serving.cold_start_compile",),
)
def schema(d: Draw) -> Artifacts:
    plain = d.num(0.1, 0.3, 2)
    rows = [
        ["plain text", f"{plain} s", "14.1 ms"],
        ["guided_json (new schema)", f"{plain + (d.num(5, 30, 1) if d.sick else 0.01):.2f} s", "14.4 ms"],
    ]
    return [
        ("bench", d.table(["request", "TTFT", "TPOT"], rows)),
        ("serving_args", "--guided-decoding-backend " + d.pick("outlines", "xgrammar")),
    ]


@mechanism(
    "serving.benchmark_artifact",
    "Benchmark reports flat latency at a load the server cannot carry.",
    "压测结果好得不真实",
    also=(),
)
def semaphore(d: Draw) -> Artifacts:
    cap = int(d.pick(8, 16, 32))
    limit = f" --max-concurrency {cap}" if d.sick else ""
    asked = int(d.num(60, 120)) if d.sick else int(d.num(2, 3))
    got = d.num(3, 4, 2) if d.sick else asked - 0.05
    out = f"============ Serving Benchmark Result ============\nSuccessful requests:                     1000\nBenchmark duration (s):                  {1000 / got:.2f}\nRequest throughput (req/s):              {got}\nMedian TTFT (ms):                        {d.num(60, 90, 2)}\nMedian TPOT (ms):                        {d.num(10, 14, 2)}"
    return [
        ("command", f"vllm bench serve --dataset-name random --num-prompts 1000 --request-rate {asked}{limit}"),
        ("vllm_bench", out),
    ]


@mechanism(
    "serving.engine_regression",
    "Slower since we upgraded the engine, nothing else changed.",
    "升级之后变慢了，其他都没动",
)
def regression(d: Draw) -> Artifacts:
    old, new = d.pick(("0.8.5", "0.9.0"), ("0.10.1", "0.11.0"), ("0.6.3", "0.6.4"))
    base = d.num(2000, 4000)
    rows = [
        [f"vLLM {old}", f"{base:.0f} tok/s", f"{d.num(20, 21, 1)} ms"],
        [
            f"vLLM {new}",
            f"{base * d.either((0.5, 0.7), (1.01, 1.06), 2):.0f} tok/s",
            f"{d.either((31, 38), (19, 20), 1)} ms",
        ],
    ]
    return [
        ("bench", d.table(["version", "output throughput", "TPOT"], rows)),
        ("other", "same model, same GPU, same command line, three runs each"),
    ]


@mechanism(
    "serving.api_server_cpu_bound",
    "GPU idles while one Python process sits at 100%.",
    "GPU 空闲，API 进程 CPU 打满",
    also=("serving.tokenizer_bound",),
)
def api_cpu(d: Draw) -> Artifacts:
    cpu = d.either((99, 101), (12, 20), 1)
    top = f"    PID USER      PR  NI    VIRT    RES    SHR S  %CPU  %MEM     TIME+ COMMAND\n   {d.num(1000, 9999)} root      20   0   21.4g   2.1g 310m {'R' if d.sick else 'S'}  {cpu}   0.4  88:12.10 vllm serve (APIServer)\n   {d.num(1000, 9999)} root      20   0   91.2g   6.0g 1.2g S  {d.num(20, 35, 1)}   1.2  41:40.22 VLLM::EngineCore"
    spy = f"GIL: {d.either((93, 99), (8, 14), 2)}%, Active: {d.either((98, 100), (12, 20), 2)}%, Threads: 12, Process {d.num(1000, 9999)}: vllm serve\n  %Own   %Total  OwnTime  TotalTime  Function (filename)\n {d.either((38, 55), (2, 4), 2)}%  {d.either((60, 80), (4, 6), 2)}%   31.2s     55.1s   _process_outputs (vllm/v1/engine/output_processor.py)\n  9.00%  12.00%    6.1s      8.3s   stream_response (vllm/entrypoints/openai/serving_chat.py)"
    dmon = "utilization.gpu [%]\n" + "\n".join(f"{d.either((18, 30), (94, 99))} %" for _ in range(4))
    return [("top", top), ("py_spy", spy), ("nvidia_smi", dmon)]


@mechanism("serving.quant_kernel_slow", "The 4-bit model is slower than the 16-bit one.", "量化之后反而更慢", also=())
def quant(d: Draw) -> Artifacts:
    base = d.num(40, 60, 1)
    rows = [["bf16", f"{base} tok/s"], ["AWQ 4-bit", f"{base * d.either((0.2, 0.5), (1.9, 2.3), 2):.1f} tok/s"]]
    line = (
        "INFO awq_marlin.py:115] Detected that the model can run with awq_marlin, however you specified quantization=awq explicitly, so forcing awq. Use quantization=awq_marlin for faster inference"
        if d.sick
        else "INFO awq_marlin.py:113] The model is convertible to awq_marlin during runtime. Using awq_marlin kernel."
    )
    return [("vllm_log", line), ("bench", d.table(["weights", "decode"], rows))]
