"""Names and addresses of a recording: masked where they are names, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diagnose.masking import Mapper


def mapper() -> Mapper:
    return Mapper(hosts=["gpu-node-7", "vm"], user="alice")


def test_hosts_and_users_in_the_positions_that_name_them() -> None:
    text = "gpu-node-7:12:34 [0] NCCL INFO x\nalice@gpu-node-7: ls /home/alice/run\nhostname: other1\n"
    got = mapper().mask(text)
    assert "alice" not in got and "gpu-node" not in got and "other1" not in got
    assert got.splitlines()[0].startswith("host1:12:34 [0] NCCL")


def test_a_host_called_vm_does_not_eat_kvm() -> None:
    assert mapper().mask("kvm and vm and vmstat") == "kvm and vm and vmstat"


@pytest.mark.parametrize(
    "text",
    [
        "nvidia-cudnn-cu12 9.1.0.70", "cuDNN 8.9.7.29", "version 10.3.2.106", "0000:17:00.0", "17:00.0 3D controller",
        "127.0.0.1:8000", "0.0.0.0:8000", "255.255.255.0", "::1", "ff02::1", "13:45:07", "2001-01-01 10:20:30",
        "506b:4b03:00cb:c25e", "aa:bb:cc:dd:ee:ff", "/home/root/x",
    ],
)  # fmt: skip
def test_versions_pci_ids_and_public_constants_stay(text: str) -> None:
    assert mapper().mask(text) == text


def test_addresses_keep_class_and_subnet() -> None:
    got = (
        mapper()
        .mask("10.1.2.3 10.1.2.4 10.9.9.9 192.168.7.7 http://8.8.8.8:53 169.254.9.1 fe80::5 <8.8.4.4<0>")
        .split()
    )
    net = [a.rpartition(".")[0] for a in got[:3]]
    assert net[0] == net[1] != net[2]
    assert all(a.startswith("10.") for a in got[:3]) and got[0] != got[1]
    assert got[3].startswith("192.168.") and "8.8.8.8" not in got[4] and got[5].startswith("169.254.")
    assert got[6].startswith("fe80::")


@settings(deadline=None)
@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=8))
def test_equal_stays_equal_and_unequal_unequal(addresses: list[object]) -> None:
    text = " ".join(f"addr {a}," for a in addresses)
    got = [word.rstrip(",") for word in mapper().mask(text).split()[1::2]]
    assert len(got) == len(addresses)
    for a, x in zip(addresses, got, strict=True):
        for b, y in zip(addresses, got, strict=True):
            assert (a == b) == (x == y)


def test_of_a_kernel_command_line_only_what_can_slow_a_machine_is_kept() -> None:
    text = "/proc/cmdline:ro root=UUID=1-2 iommu=pt init=/opt/x isolcpus=2-5\nKernel command line: quiet\nok\n"
    assert Mapper(hosts=[], user="").mask(text) == (
        "/proc/cmdline:iommu=pt isolcpus=2-5 [masked]\nKernel command line: [masked]\nok\n"
    )
