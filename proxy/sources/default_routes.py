"""The prefixes served where no file names any: each provider's public API base, as its own documents give it."""

DEFAULT_ROUTES = {
    "/discord": "https://discord.com/api",
    "/telegram": "https://api.telegram.org",
    "/openai": "https://api.openai.com",
    "/claude": "https://api.anthropic.com",
    "/gemini": "https://generativelanguage.googleapis.com",
    "/gnothink": "https://generativelanguage.googleapis.com",
    "/meta": "https://api.llama.com",
    "/groq": "https://api.groq.com/openai",
    "/xai": "https://api.x.ai",
    "/cohere": "https://api.cohere.com",
    "/huggingface": "https://router.huggingface.co",
    "/together": "https://api.together.xyz",
    "/novita": "https://api.novita.ai",
    "/portkey": "https://api.portkey.ai",
    "/fireworks": "https://api.fireworks.ai",
    "/openrouter": "https://openrouter.ai/api",
    "/sophnet": "https://www.sophnet.com/api",
    "/cerebras": "https://api.cerebras.ai",
}
