"""A real single-node Kubernetes on a bare Linux host: no container engine, no systemd, no image registry.

Every component is the upstream program. etcd, the API server, the controller manager, the scheduler, the kubelet and
kube-proxy come from Go modules, built once into one binary (`hostcluster/`); containerd, runc and the CNI plug-ins
come from Debian. NetworkPolicies are enforced on real packets (`hostcluster/network_policies.go`). Cluster DNS is
CoreDNS in a pod (`addons`), claims of the default StorageClass get a folder (`volumes`).

Needs root, Go and apt. Everything it makes lies under `layout.STATE`, the bridge `hc0` and its own iptables chains,
and `down` removes all of it. Do not run it beside another Kubernetes on the same host: `down` removes every `KUBE-*`
chain. What differs from a cluster with a container engine is told in docs/how-to/cluster.md.
"""
