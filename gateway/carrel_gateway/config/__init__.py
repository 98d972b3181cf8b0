"""What a session has chosen, and what its next run goes by."""
