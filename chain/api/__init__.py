"""What the commands do, without a terminal: each verb is one module."""
