"""The models that sessions may choose: names only, keys and addresses are the administrator's."""
