"""Which environment variable holds the key of which provider; pure, without loading any provider's library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_BY_NAME: Final = (
    (re.compile(r"(?:gpt-|o\d|chatgpt-|ft:gpt)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "gemini"),
    (re.compile(r"command"), "cohere"),
)
"""Providers of names without a prefix."""
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "azure": ("AZURE_API_KEY",),
    "cohere": ("COHERE_API_KEY",),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY"),
    "fireworks_ai": ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
    "nvidia_nim": ("NVIDIA_NIM_API_KEY",),
}
_WITHOUT_KEY: Final = frozenset(
    {
        "demo",
        "ollama",
        "ollama_chat",
        "hosted_vllm",
        "lm_studio",
        "llamafile",
        "xinference",
        "bedrock",
        "vertex_ai",
        "sagemaker",
    }
)
"""Local servers, and clouds whose credentials are the platform's own."""


def provider_of(model: str) -> str:
    """Return the provider of a model's name: its prefix, or what the name is known by, or `unknown`."""
    prefix, separator, _ = model.partition("/")
    if separator:
        return prefix
    return next((provider for pattern, provider in _BY_NAME if pattern.match(model)), "unknown")


def key_names(model: str) -> tuple[str, ...]:
    """Return the environment variables that may hold the provider's key; none where no key is needed."""
    provider = provider_of(model)
    if provider in _WITHOUT_KEY or provider == "unknown":
        return ()
    return _KEYS.get(provider, (f"{provider.upper()}_API_KEY",))


def has_key(model: str, environment: Mapping[str, str]) -> bool:
    """Return whether the environment holds a key of the model's provider, or none is needed."""
    names = key_names(model)
    return not names or any(environment.get(name) for name in names)
