"""Readers of GPUs, hosts and environments: real captures, old layouts, cut and retyped text."""

from __future__ import annotations

from pathlib import Path

import pytest
from diagnose.probes.nvidia_smi_q import QueryReader

from diagnose.document import Document
from diagnose.engine import triage
from diagnose.gather import Gathered, matching, read_document
from diagnose.models import Fact, Value

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[1].parent / "shared" / "captures" / "h100x2" / "env"


def read(text: str | Path) -> list[Fact]:
    data = text.read_bytes() if isinstance(text, Path) else text.encode()
    out = Gathered()
    read_document(Document.of("text", data), out)
    return out.facts


def value(facts: list[Fact], signal: str, **who: object) -> Value:
    """The value of the only reading of a signal; fails when there is none or they differ."""
    found = {f.value for f in facts if f.signal == signal and all(getattr(f.subject, k) == v for k, v in who.items())}
    assert len(found) == 1, (signal, who, found)
    return found.pop()


def labels(facts: list[Fact], signal: str) -> set[str | None]:
    return {f.subject.label for f in facts if f.signal == signal}


def test_table_of_a_new_driver() -> None:
    facts = read(DATA / "nvidia_smi/table-580.txt")
    assert value(facts, "version", label="driver") == "580.159.04"
    assert value(facts, "gpu.power.limit", gpu=1) == 700
    assert value(facts, "gpu.memory.used", gpu=0) == 0
    assert value(facts, "gpu.mig", gpu=0) == "Disabled"
    assert value(facts, "gpu.count") == 2
    assert not [f for f in facts if f.signal.startswith("gpu.process")]


def test_table_of_an_old_driver_with_processes() -> None:
    facts = read(
        "| NVIDIA-SMI 418.67       Driver Version: 418.67       CUDA Version: 10.1     |\n"
        "|   0  Tesla V100-SXM2...  On   | 00000000:1A:00.0 Off |                    2 |\n"
        "| N/A   45C    P0   152W / 300W |  15213MiB / 16130MiB |     98%      Default |\n"
        "|    0     41822      C   python                                      15201MiB |\n"
        "|    0      2231      G   /usr/lib/xorg/Xorg                              4MiB |\n"
    )
    assert value(facts, "gpu.util", gpu=0) == 0.98
    assert value(facts, "gpu.ecc.uncorrected", gpu=0) == 2
    assert value(facts, "gpu.process", label="41822 C") == "python"
    assert labels(facts, "gpu.process") == {"41822 C", "2231 G"}


def test_query_as_text_and_as_a_grep_of_it() -> None:
    facts = read(DATA / "nvidia_smi/q.txt")
    assert value(facts, "gpu.power.limit", gpu=0) == 700
    assert value(facts, "gpu.clock.sm.max", gpu=0) == 1980
    assert labels(facts, "gpu.throttle") == {"idle"}
    assert value(facts, "gpu.remap.pending", gpu=0, label="pending") == "No"
    cut = read("GPU Link Info\nPCIe Generation\nMax : 4\nCurrent : 1\nLink Width\nMax : 16x\nCurrent : 4x\n")
    assert (value(cut, "gpu.pcie.gen"), value(cut, "gpu.pcie.width"), value(cut, "gpu.pcie.width.max")) == (1, 4, 16)


def test_a_whole_query_is_left_to_those_that_know_it_and_no_fact_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DATA / "nvidia_smi/q.txt").read_text()
    names = [r.name for r in matching(Document.of("q", text.encode()))]
    assert len(names) <= 3 and "nvidia_smi_q" in names
    among = "\nnode0:1:1 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.\n"
    assert len(matching(Document.of("q", (text + among).encode()))) > 10, "something else stands there too"
    alone = read(text)
    monkeypatch.setattr(QueryReader, "owns", lambda self, doc: False)
    assert sorted(map(repr, read(text))) == sorted(map(repr, alone))


def test_query_as_xml_without_an_xml_parser() -> None:
    facts = read(
        "<!DOCTYPE nvidia_smi_log SYSTEM "
        '"nvsmi_device_v12.dtd">\n<nvidia_smi_log>\n<driver_version>535.54</driver_version>\n'
        '<gpu id="00000000:00:06.0">\n<pci>\n<pci_gpu_link_info>\n<link_widths>\n<max_link_width>16x</max_link_width>\n'
        "<current_link_width>8x</current_link_width>\n</link_widths>\n</pci_gpu_link_info>\n</pci>\n<clocks_throttle"
        "_reasons>\n"
        "<clocks_throttle_reason_hw_thermal_slowdown>Active</clocks_throttle_reason_hw_thermal_slowdown>\n"
    )
    assert value(facts, "gpu.pcie.width", gpu=0) == 8
    assert value(facts, "gpu.throttle", gpu=0, label="hw_thermal_slowdown") == "active"


@pytest.mark.skipif(not SHARED.exists(), reason="captures are not here")
def test_text_and_xml_of_one_machine_agree() -> None:
    def steady(path: Path) -> set[tuple[str, object, Value]]:
        keep = (
            "gpu.power.limit",
            "gpu.pcie.width",
            "gpu.pcie.gen.max",
            "gpu.clock.sm.max",
            "gpu.memory.total",
            "gpu.name",
        )
        return {(f.signal, f.subject.gpu, f.value) for f in read(path) if f.signal in keep}

    text, xml = steady(SHARED / "nvidia-smi-q.txt"), steady(SHARED / "nvidia-smi-q.xml")
    assert len(text) == 12 and text == xml


def test_csv_with_units_without_units_and_without_header() -> None:
    facts = read(DATA / "nvidia_smi/query-gpu.csv")
    assert value(facts, "gpu.clock.sm", gpu=1) == 345
    assert labels(facts, "gpu.throttle") == {"gpu_idle"}
    bare = read(
        "$ nvidia-smi --query-gpu=index,pcie.link.width.current,clocks_throttle_reasons.active --format=csv,noheader\n"
        "0, 8, 0x00000000000000C8\n"
    )
    assert value(bare, "gpu.pcie.width", gpu=0) == 8
    assert labels(bare, "gpu.throttle") == {"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}


def test_samples_keep_the_row_under_load_and_the_lowest_clock() -> None:
    facts = read(
        "timestamp, index, utilization.gpu [%], clocks.current.sm [MHz]\n"
        "10:00:00, 0, 3 %, 1980 MHz\n10:00:01, 0, 100 %, 1410 MHz\n10:00:02, 0, 99 %, 705 MHz\n"
    )
    assert value(facts, "gpu.clock.sm", label=None) == 1410
    assert value(facts, "gpu.clock.sm", label="lowest under load") == 705


def test_dmon_and_pmon() -> None:
    assert value(read(DATA / "nvidia_smi/dmon.txt"), "gpu.throttle.thermal_violation", gpu=0) == 0
    facts = read(
        "# gpu         pid  type    sm   mem   enc   dec   command\n# Idx           #   C/G     %     %     %     % "
        "  name\n"
        "    0      41822     C    38    22     -     -   python\n    0      90417     C    57    41     -     -   "
        "tritonserver\n"
    )
    assert value(facts, "gpu.process.sm", label="90417 C") == 0.57


_PMON = """# gpu         pid   type     sm    mem    enc    dec    jpg    ofa    command
# Idx           #    C/G      %      %      %      %      %      %    name
    0       1723     C     98     83      -      -      -      -    VLLM::EngineCor
    0       2227     C      {}      -      -      -      -      -    VLLM::EngineCor
"""
_HELD = """gpu_uuid, pid, process_name, used_gpu_memory [MiB]
GPU-a8de2970-e61f-9fb5-b504-bd6ae710083e, 1723, VLLM::EngineCore, 45018 MiB
GPU-a8de2970-e61f-9fb5-b504-bd6ae710083e, 2227, VLLM::EngineCore, 43978 MiB
"""
_BUSY = "index, utilization.gpu [%], clocks.current.sm [MHz]\n0, 100 %, 1980 MHz\n"


@pytest.mark.parametrize(("share", "blamed"), [("-", False), ("0", False), ("41", True)])
def test_who_holds_memory_and_rests_takes_no_time(share: str, blamed: bool) -> None:
    docs = [Document.of(str(n), t.encode()) for n, t in enumerate((_PMON.format(share), _HELD, _BUSY))]
    assert ("gpu.contention" in [b.cause.id for b in triage("TPOT is bad", docs).assessment.accepted]) == blamed
    if not blamed:  # where nobody sampled it, two that hold memory on a full card are suspect as ever
        assert triage("TPOT is bad", docs[1:]).assessment.beliefs["gpu.contention"].p > 0.5


def test_links_in_prose_tables_and_monitors() -> None:
    assert value(read("Device 1 [GeForce GTX 1080 Ti] PCIe GEN 1@16x\n"), "gpu.pcie.gen", gpu=1) == 1
    facts = read("GPU 0: NVIDIA GeForce RTX 3090 | driver 610.43.02\n  Power: limit=250.00 W (default=370.00 W, "
                 "max=390.00 W)\n"
                 "  PCIe: x4 lanes negotiated (GPU max x16, Gen up to 4)\n")  # fmt: skip
    assert (value(facts, "gpu.power.limit", gpu=0), value(facts, "gpu.power.default", gpu=0)) == (250, 370)
    assert (value(facts, "gpu.pcie.width", gpu=0), value(facts, "gpu.pcie.width.max", gpu=0)) == (4, 16)
    boards = read("              board A        board B\nGPU 1 PCIe    Gen 2 x4       PCIe 3.0 x16\n")
    assert value(boards, "gpu.pcie.width", gpu=1, label="board A") == 4
    assert value(boards, "gpu.pcie.gen", gpu=1, label="board B") == 3


def test_topology_with_nics_and_cut_rows() -> None:
    facts = read(
        "        GPU0    GPU1    NIC0    NIC1    CPU Affinity    NUMA Affinity\n"
        "GPU0     X      NV12    PXB     SYS     0-31,64-95      0\nGPU1    NV12     X      SYS     PXB     32-63   "
        "        1\n"
        "[...]\nNIC Legend:\n\n  NIC0: mlx5_0\n  NIC1: mlx5_3\n"
    )
    assert value(facts, "topo.gpu_nic", gpu=1, nic="mlx5_3") == "PXB"
    assert value(facts, "gpu.numa", gpu=1) == 1
    assert value(facts, "topo.cpu_affinity", gpu=0) == "0-31,64-95"
    assert value(read(DATA / "nvidia_smi/topo-m.txt"), "topo.link", gpu=0, peer=1) == "NV18"
    assert value(read(DATA / "nvidia_smi/topo-p2p-r.txt"), "topo.p2p", gpu=0, peer=1) == "OK"


def test_nvlink_counts_rates_and_names_what_is_down() -> None:
    assert value(read(DATA / "nvidia_smi/nvlink-s.txt"), "nvlink.links", gpu=0) == 18
    facts = read(
        "GPU 0: NVIDIA A100 (UUID: GPU-0)\n\t Link 0: 25 GB/s\n\t Link 1: <inactive>\n\t Link 2: CRC Errors: 4012\n"
    )
    assert value(facts, "nvlink.inactive", gpu=0) == "inactive"
    assert value(facts, "nvlink.errors", gpu=0) == 4012


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=python, GPU has fallen off the bus.", "79", "hardware"),
        ("NVRM: Xid (PCI:0000:3b:00): 31, pid=9, Ch 00000010, MMU Fault: ENGINE GRAPHICS", "31", "application"),
        ("NVRM: Xid (PCI:...): 145, RLW_RXPIPE Nonfatal XC0 i0 Link 11", "145", "nvlink"),
        ("health.go:159] XidCriticalError: Xid=48 on Device=GPU-1", "48", "hardware"),
        ('DCGM_FI_DEV_XID_ERRORS{gpu="3",UUID="GPU-1"} 119', "119", "driver"),
    ],
)
def test_xids_in_every_wording(line: str, code: str, kind: str) -> None:
    facts = read(line + "\n")
    assert labels(facts, "gpu.xid") == {code}
    assert labels(facts, f"gpu.xid.{kind}") == {code}


def test_kernel_lines_without_trouble_say_nothing() -> None:
    facts = read("nvidia 0000:17:00.0: enabling device\nNVRM: loading NVIDIA UNIX x86_64 Kernel Module  "
                 "580.159.04\nno Xid errors\n"
                 'DCGM_FI_DEV_XID_ERRORS{gpu="3"} 0\n')  # fmt: skip
    assert {f.signal for f in facts} == {"version"}


def test_lspci_links_and_acs() -> None:
    facts = read(
        "41:00.0 3D controller: NVIDIA Corporation GA100 (rev a1)\n\t\tLnkCap: Port #0, Speed 16GT/s, Width x16, "
        "ASPM not supported\n"
        "\t\tLnkSta: Speed 2.5GT/s (downgraded), Width x16 (ok)\n\t\tACSCtl: SrcValid+ TransBlk- ReqRedir+ "
        "CmpltRedir+\n"
    )
    assert value(facts, "pci.link.width") == 16 and value(facts, "pci.acs") == "on"
    assert not [f for f in facts if f.signal == "pci.link.limited"], "a low speed at rest is no fault"


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.15 GiB of which 1.02 GiB is free. Including "
         "non-PyTorch memory, "
         "this process has 78.11 GiB memory in use. Of the allocated memory 58.40 GiB is allocated by PyTorch, and "
         "512.00 MiB is reserved "
         "by PyTorch but unallocated.", {"requested": 2, "free": 1.02, "own": 78.11, "reserved_unallocated": 0.5,
         "total": 79.15}),
        ("CUDA out of memory. Tried to allocate 1.50 GiB (GPU 0; 23.70 GiB total capacity; 11.92 GiB already "
         "allocated; 843.00 MiB free; "
         "21.10 GiB reserved in total by PyTorch)", {"requested": 1.5, "allocated": 11.92, "reserved": 21.1,
         "free": 843 / 1024}),
        ("CUDA out of memory. Tried to allocate 392.00 MiB (GPU 0; 10.76 GiB total capacity; 9.71 GiB already "
         "allocated; 120.00 MiB free; "
         "88.00 MiB cached)", {"requested": 392 / 1024, "reserved": 88 / 1024, "allocated": 9.71}),
    ],
)  # fmt: skip
def test_out_of_memory_of_every_generation(text: str, figures: dict[str, float]) -> None:
    facts = read(text + "\n")
    for name, want in figures.items():
        assert value(facts, f"gpu.oom.{name}") == pytest.approx(want)


def test_out_of_memory_over_several_lines_with_another_process() -> None:
    facts = read("Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 45.88 MiB is free.\n"
                 "Process 18232 has 62.74 GiB memory in use.\nOf the allocated memory 15.71 GiB is allocated by "
                 "PyTorch,\n")  # fmt: skip
    assert value(facts, "gpu.oom.other") == 62.74 and value(facts, "gpu.oom.allocated") == 15.71


def test_host_inventory() -> None:
    assert value(read(DATA / "host/lscpu.txt"), "host.cpu.count") == 32
    assert value(read(DATA / "host/numactl-H.txt"), "host.numa.nodes") == 1
    assert value(read(DATA / "host/free.txt"), "host.memory.available") == 251
    assert value(read(DATA / "host/df-shm.txt"), "host.shm.size") == 256
    assert value(read(DATA / "host/ulimit.txt"), "host.limit.memlock") == "unlimited"
    assert value(read("$ ulimit -l\n64\n"), "host.limit.memlock") == "64"
    assert value(read("$ cat /sys/fs/cgroup/cpu.max\n400000 100000\n"), "host.cpu.quota") == 4
    assert value(read("pid 7's current affinity list: 0-3,8\n"), "host.cpu.allowed_count") == 5


def test_throttling_is_a_share_of_periods() -> None:
    facts = read("nr_periods 1000\nnr_throttled 730\nthrottled_usec 41892\n")
    assert value(facts, "host.cpu.throttled") == 0.73
    assert next(f for f in facts if f.signal == "host.cpu.throttled").kind == "derived"


def test_load_tools() -> None:
    top = read(
        "top - 14:02 up 1 day, load average: 187.22, 180, 164\n%Cpu(s): 92.1 us,  6.8 sy,  0.0 ni,  0.4 id,  0.0 "
        "wa,  0.0 hi,  0.7 si, 12.0 st\n"
    )
    assert value(top, "host.load") == 187.22 and value(top, "host.cpu.steal") == pytest.approx(0.12)
    spy = read(
        "GIL: 8.00%, Active: 100.00%, Threads: 4, Processes 1\n 88.00%  88.00%   61.00s    61.44s   apply_penalties "
        "(utils.py)\n"
    )
    assert value(spy, "host.pyspy.gil") == 0.08 and value(spy, "host.pyspy.function") == 0.88
    disk = read(
        "Device            r/s     rkB/s   r_await rareq-sz  %util\nsda            212.00  54212.00    141.20   "
        "255.71  100.00\n"
    )
    assert value(disk, "host.disk.util", label="sda") == 1 and value(disk, "host.disk.await", label="sda") == 141.2


@pytest.mark.parametrize(
    "text",
    [
        "NCCL_IB_DISABLE=1 python train.py", "export NCCL_IB_DISABLE=1", "docker run -e NCCL_IB_DISABLE=1 image",
        "- name: NCCL_IB_DISABLE\n  value: \"1\"", "  NCCL_IB_DISABLE: \"1\"", "os.environ['NCCL_IB_DISABLE'] = '1'",
        "mpirun -x NCCL_IB_DISABLE=1 -np 8 a.out", "NCCL INFO NCCL_IB_DISABLE set by environment to 1.",
        "ENV NCCL_IB_DISABLE 1",
        '{"NCCL_IB_DISABLE": "1"}' .replace("{", "").replace("}", ""), "$env:NCCL_IB_DISABLE = '1'",
    ],
)  # fmt: skip
def test_variables_however_they_are_set(text: str) -> None:
    assert value(read(text + "\n"), "env.var", label="NCCL_IB_DISABLE") == "1"


@pytest.mark.parametrize(
    "text",
    ["try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid", "# export NCCL_P2P_DISABLE=1",
        "OMP_NUM_THREADS: unset",
     "HF_TOKEN=hf_abcdefgh", "VLLM_API_KEY=secret", "NCCL_X=$FOO"],
)  # fmt: skip
def test_advice_comments_and_secrets_are_no_settings(text: str) -> None:
    assert not [f for f in read(text + "\n") if f.signal == "env.var"]


def test_versions_of_collect_env_and_pip() -> None:
    facts = read(DATA / "env/collect_env.txt")
    assert value(facts, "version", label="torch-cuda") == "13.0"
    assert value(facts, "version", label="driver") == "580.159.04"
    assert (
        value(read("Package    Version\n---------- -------\ntorch      2.5.1\n"), "version", label="torch") == "2.5.1"
    )


def test_containers_and_batch_jobs() -> None:
    facts = read("docker run --rm \\\n  --shm-size=64m --cpus 4 --ulimit memlock=65536 \\\n  --ipc private image\n")
    assert value(facts, "container.shm_size") == 0.0625 and value(facts, "host.cpu.quota") == 4
    assert value(facts, "host.limit.memlock") == "65536" and value(facts, "container.flag", label="ipc") == "private"
    pod = read("resources:\n  limits:\n    cpu: 3500m\n    nvidia.com/gpu: 2\n  requests:\n    cpu: 64\n")
    assert value(pod, "host.cpu.quota") == 3.5 and value(pod, "container.gpus") == "2"
    assert value(read("#SBATCH --cpus-per-task=1\n"), "slurm.option", label="cpus-per-task") == "1"


@pytest.mark.parametrize(
    ("listed", "foreign"),
    [
        ("Process 1234 has 77.7 GiB memory in use. ", False),  # the failing one by its number on the host
        ("Process 1234 has 42.1 GiB memory in use. Process 99 has 35.6 GiB memory in use. ", True),
        ("Process 99 has 35.6 GiB memory in use. ", True),
    ],
)
def test_which_process_of_an_allocation_that_failed_is_another(listed: str, foreign: bool) -> None:
    own = (
        "60.10 GiB is allocated by PyTorch, and 15.20 GiB"
        if not foreign
        else "39.80 GiB is allocated by PyTorch, and 1.10 GiB"
    )
    text = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 "
        f"GiB of which 1.30 GiB is free. {listed}Of the allocated memory {own} is reserved by PyTorch but unallocated."
    )
    belief = triage("training dies with out of memory", [Document.of("log", text.encode())]).assessment.beliefs
    assert (belief["gpu.contention"].p > 0.5) == foreign
