"""The entry's agent: which exits are open, who goes where. The only user of libnftables."""
