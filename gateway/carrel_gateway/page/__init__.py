"""The gateway's own page and API documentation: static files without a build step and without remote parts."""
