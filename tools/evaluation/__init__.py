"""What `make cluster` gives Carrel to stand on: Postgres, Redis and an S3 server as pods. Not for production."""
