"""What code in a kernel pod finds: no rights, no secrets, nothing of the supervisor, and limits that it survives."""

from __future__ import annotations

import json

from tests.cluster.product.desk import Desk

LOOK = r"""
import glob, json, os, re
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
def refused(path, mode):
    try:
        with open(path, mode) as file:
            if "r" in mode: file.read(1)
        return False
    except OSError: return True
SOCKETS = ("/var/run/docker.sock", "/run/containerd/containerd.sock", "/dev/kvm")
environments = []
for path in glob.glob("/proc/[0-9]*/environ"):
    try: environments.append(open(path, "rb").read().decode(errors="replace"))
    except OSError: pass
secret = re.compile(r"(?i)(password|passwd|secret|api_?key|token|private|database_url|aws_)[^=\0]*=[^\0]+")
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")],
    "no_new_privs": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "root_read_only": refused("/carrel-probe", "w") and refused("/usr/carrel-probe", "w"),
    "service_account": os.path.exists("/var/run/secrets/kubernetes.io"),
    "sockets": [path for path in SOCKETS if os.path.exists(path)],
    "secrets": sorted({found.group(0).split("=")[0] for text in environments for found in secret.finditer(text)}),
    "supervisor_memory_refused": refused("/proc/1/mem", "rb") and refused("/proc/1/environ", "rb"),
    "workspace_writable": not refused("/workspace/carrel-probe", "w"),
}))
"""


def test_code_in_a_kernel_has_no_rights_and_finds_no_secrets(desk: Desk) -> None:
    found = json.loads(desk.stdout(LOOK))
    uid = found.pop("uid")
    gid = found.pop("gid")
    assert uid != 0
    assert gid != 0
    assert found == {
        "capabilities": [0, 0, 0, 0],
        "no_new_privs": "1",
        "seccomp": "2",
        "root_read_only": True,
        "service_account": False,
        "sockets": [],
        "secrets": [],
        "supervisor_memory_refused": True,
        "workspace_writable": True,
    }


def test_a_cell_that_allocates_without_end_is_an_outcome_and_the_session_lives(desk: Desk) -> None:
    cell = desk.execute("hoard = []\nwhile True: hoard.append(bytearray(16 * 1024 * 1024))")
    assert cell["status"] in {"out_of_memory", "kernel_died"}, cell
    assert cell["message"], "the outcome says why"
    assert desk.stdout("print('usable')").strip() == "usable"
