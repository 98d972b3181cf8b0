"""Manifests as pure functions: the pod, its network policies, its volume, the keys that it trusts."""
