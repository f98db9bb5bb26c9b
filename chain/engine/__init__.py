"""The only place that talks to Docker: the SDK observes, Compose and buildx act."""
