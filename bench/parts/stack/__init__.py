"""The servers of docker/compose.yaml as processes of this machine, and clients of them."""
