"""What a cluster is to tests: a kubeconfig, kubectl, and a way to bring image archives into it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final

from tests.cluster.provider.direct import Direct, Missing, Unknown

KUBECTL_SECONDS: Final = 300
"""Longest wait for one kubectl call; `kubectl wait` in tests brings a shorter one of its own."""


DELETE_SECONDS: Final = 60.0


class ProviderError(Exception):
    """A cluster cannot be had or a call to it failed; the message says what to do."""


class KubectlError(ProviderError):
    """kubectl ended with an error; the message is what it wrote."""


class Cluster(ABC):
    """One cluster under test."""

    name: str
    """How the choice calls it, in messages."""
    node_address: str
    """Where a NodePort is reached from this host."""

    def __init__(self, kubeconfig: Path, kubectl: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._direct = Direct(kubeconfig)

    def command(self, *arguments: str) -> list[str]:
        """Return kubectl's words, for a call that goes on."""
        return [str(self._kubectl), *self._subcommand(), f"--kubeconfig={self.kubeconfig}", *arguments]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = KUBECTL_SECONDS) -> str:
        """Return what kubectl prints.

        Raises
        ------
        KubectlError
            It ended with an error, or took longer than `timeout` seconds.
        """
        try:
            done = subprocess.run(
                self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {' '.join(arguments)}: no answer in {timeout:.0f} s") from error
        if done.returncode:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def _subcommand(self) -> tuple[str, ...]:
        """Words between the program and kubectl's arguments, where kubectl is part of a larger program."""
        return ()

    def get(self, *arguments: str) -> Any:
        """Return the JSON of `kubectl get …`, without a process where that is possible.

        Raises
        ------
        KubectlError
            It is not there, or something else is wrong.
        """
        try:
            return self._direct.get(*arguments)
        except Missing as error:
            raise KubectlError(str(error)) from error
        except Unknown:
            return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def find(self, *arguments: str) -> Any | None:
        """Return the JSON of `kubectl get KIND NAME …`; none where there is no such object."""
        try:
            return self.get(*arguments)
        except KubectlError as error:
            if str(error).startswith("Error from server (NotFound)"):
                return None
            raise

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        """Apply objects on the server's side, as `kubectl apply` does; what is refused is told by kubectl.

        Raises
        ------
        KubectlError
            Something is wrong with one of them.
        """
        rest = list(objects)
        with contextlib.suppress(Unknown):
            while rest:
                self._direct.apply(rest[0], namespace)
                rest.pop(0)
        if rest:
            self._apply_by_kubectl(rest, namespace)

    def patch(
        self, kind: str, name: str, body: dict[str, Any], *, namespace: str | None = None, subresource: str = ""
    ) -> None:
        """Merge into an object or a subresource of it; what is refused is told by kubectl.

        Raises
        ------
        KubectlError
            Something is wrong with it.
        """
        try:
            self._direct.patch(kind, name, body, namespace, subresource)
        except Unknown:
            options = [f"--namespace={namespace}"] if namespace else []
            options += [f"--subresource={subresource}"] if subresource else []
            self.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps(body)}", *options)

    def delete(self, kind: str, *names: str, namespace: str | None = None, wait: bool = True) -> None:
        """Delete objects of which some may be gone already, and wait until all are.

        Raises
        ------
        KubectlError
            Something is wrong, or one of them is there after a minute.
        """
        where = [f"--namespace={namespace}"] if namespace else []
        for name in names:
            try:
                self._direct.delete(kind, name, namespace)
            except Missing:
                continue
            except Unknown:
                self.kubectl("delete", kind, name, *where, "--ignore-not-found", "--wait=false")
        deadline = time.monotonic() + DELETE_SECONDS
        for name in names if wait else ():
            while self.find(kind, name, *where) is not None:
                if time.monotonic() > deadline:
                    raise KubectlError(f"{kind} {name} is there {DELETE_SECONDS:.0f} s after it was deleted")
                time.sleep(0.1)

    def _apply_by_kubectl(self, objects: list[dict[str, Any]], namespace: str | None) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": objects}
        where = (f"--namespace={namespace}",) if namespace else ()
        self.kubectl("apply", "--server-side", "--filename=-", *where, stdin=json.dumps(document))

    def audit_log(self) -> Path | None:
        """Return the file in which the API server notes every write; none where tests cannot read it."""
        return None

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Bring a docker archive onto every node; an unchanged one is not brought twice."""
