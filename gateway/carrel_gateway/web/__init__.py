"""What is about HTTP and not about one feature: guards, middleware, event streams, multipart bodies.

Nothing here imports FastAPI or a feature; it is plain ASGI and pure functions.
"""
