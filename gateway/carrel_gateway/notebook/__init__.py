"""The notebook as a view of the log: export, and taking edited cells back."""
