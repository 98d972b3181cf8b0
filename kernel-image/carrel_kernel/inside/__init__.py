"""What runs in the kernel's own process, beside the user's code. Nothing here is trusted by the host."""
