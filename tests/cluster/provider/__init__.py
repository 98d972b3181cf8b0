"""Which Kubernetes cluster tests and `make cluster` use, chosen at run time.

The order: a kubeconfig that is named for tests (`CARREL_TEST_KUBECONFIG`) → kind where a container engine runs → the
cluster of the bare host (root and Go) → none, with every reason. Only a cluster that its owner named for this purpose,
or that was made here, is ever touched: the user's current kube context is not looked at, and a context under a name
that this package does not know is refused.

* `base`    what every cluster can do: kubectl, loading an image archive
* `named`   somebody's cluster, given by kubeconfig
* `kind`    a container engine's
* `bare`    this host's
* `choice`  the order
"""
