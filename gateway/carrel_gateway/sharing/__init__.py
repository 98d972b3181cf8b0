"""What people let others see or change: teams, and whoever has a link."""
