"""The runtime in every container: lock, secrets, daemons, health, reports. Standard library only, to stay small."""
