"""The aiohttp application: /v1 API, streams, auth, health. A handler decodes, calls, encodes.
"""
