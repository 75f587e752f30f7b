"""Manifests of other delivery tools (Argo Rollouts, Flagger, Spinnaker, Kubernetes) to ``penstock.yaml``.

Called by ``penstock import``. Pure conversion of bytes: it opens no file and asks no cluster. Every field
of an object that points at a service is read, or told as not carried over; see `place.Place`.
"""
