"""Gives every claim of the default StorageClass `local` a folder: the least that a local-path provisioner does.

    python -m tests.cluster.bare.volumes KUBECONFIG FOLDER        runs until it is stopped

Works for non-root pods, subPath, restarts and deletion; capacity is not enforced. Test clusters only.
"""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from tests.cluster.bare.layout import NODE

PROVISIONER: Final = "hostcluster.local/folder"
STORAGE_CLASS: Final = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "provisioner": PROVISIONER,
    "volumeBindingMode": "WaitForFirstConsumer",
    "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
}
PAUSE_SECONDS: Final = 0.3
RETRY_SECONDS: Final = 1.0


class Api:
    """The API server, as a kubeconfig of `identities` names it."""

    def __init__(self, kubeconfig: Path) -> None:
        conf = json.loads(kubeconfig.read_text())
        cluster = conf["clusters"][0]["cluster"]
        self._server: str = cluster["server"]
        self._token: str = conf["users"][0]["user"]["token"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the document that a call answers with.

        Raises
        ------
        OSError
            The server is away or refuses (`HTTPError`).
        """
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=self._context, timeout=10) as answer:
            return json.load(answer)


def volume(name: str, claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the volume of one claim."""
    meta, spec = claim["metadata"], claim["spec"]
    on_this_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": spec["resources"]["requests"],
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": str(folder)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_this_node]}]}},
        },
    }


def provision(api: Api, root: Path) -> None:
    """Give each waiting claim its volume, and take away the volumes whose claims are gone."""
    volumes = {found["metadata"]["name"]: found for found in api("GET", "/api/v1/persistentvolumes")["items"]}
    for claim in api("GET", "/api/v1/persistentvolumeclaims")["items"]:
        name = f"pvc-{claim['metadata']['uid']}"
        if name not in volumes and _waits_for_us(claim):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name).chmod(0o777)  # the provisioner does not know which user the pod will have
            api("POST", "/api/v1/persistentvolumes", volume(name, claim, root / name))
    for name, found in volumes.items():
        ours = found["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if ours and found["status"].get("phase") == "Released":
            shutil.rmtree(root / name, ignore_errors=True)
            api("DELETE", f"/api/v1/persistentvolumes/{name}")


def _waits_for_us(claim: dict[str, Any]) -> bool:
    noted = claim["metadata"].get("annotations", {})
    return (
        noted.get("volume.kubernetes.io/storage-provisioner") == PROVISIONER
        and noted.get("volume.kubernetes.io/selected-node") == NODE
        and "deletionTimestamp" not in claim["metadata"]
    )


def make_class(api: Api) -> None:
    """Make the default StorageClass unless it is there."""
    try:
        api("POST", "/apis/storage.k8s.io/v1/storageclasses", STORAGE_CLASS)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise


def main() -> None:
    """Provision until stopped; errors of the API server are printed and outlived."""
    api, root = Api(Path(sys.argv[1])), Path(sys.argv[2])
    made = False
    while True:
        try:
            if not made:
                make_class(api)
                made = True
            provision(api, root)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{error!r}\n")
            time.sleep(RETRY_SECONDS)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
