"""Where settings come from: the environment, files of secrets, `.env` files and a configuration file.

It knows how settings are called, and nothing of what they mean; they are in `settings`.
"""
