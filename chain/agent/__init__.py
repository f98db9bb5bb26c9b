"""The entry's agent: which exits are open, who goes where. The only user of pyroute2 and libnftables."""
