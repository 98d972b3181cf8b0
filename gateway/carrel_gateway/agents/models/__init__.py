"""The models that sessions may choose: `registry` names them, `litellm_client` and `analyst` implement them."""
